"""Files that are either whole or not there: atomic writes, digests, manifests."""

from __future__ import annotations

import contextlib
import errno
import glob
import hashlib
import json
import os
import secrets
import shutil
import time
import zlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from .errors import UserError

if TYPE_CHECKING:
    import numpy as np

#: What a file system answers (CIFS, FUSE, VirtualBox's, some network mounts) that has no fsync of folders, or no locks.
UNSUPPORTED = {errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.ENOLCK, errno.ENOTTY, errno.EBADF}
#: Errors of the disk that say something about the machine, not about the program.
WRITE_ERRORS = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG}
BROKEN = {errno.EIO, errno.ESTALE, errno.ENOTCONN, errno.ENODEV}
DISK_ERRORS = WRITE_ERRORS | BROKEN | {errno.EACCES, errno.EPERM}


@contextlib.contextmanager
def atomic(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success flush it to disk and rename it over `path`.

    Works for files and for directories that the caller creates at the yielded path. On any error the temporary
    is removed and `path` is as it was. A full, read-only or broken disk raises `UserError`. What processes that were
    killed here have left half written is removed.
    """
    path = Path(path)
    temporary: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _sweep(path)
        temporary = path.parent / f".{path.name[:80]}.{_machine()}-{os.getpid()}-{secrets.token_hex(4)}.part"
        yield temporary
        for file in [temporary, *temporary.rglob("*")] if temporary.is_dir() else [temporary]:
            _flush(file)
        if path.is_dir():
            shutil.rmtree(path)
        os.replace(temporary, path)
        _flush(path.parent)
    except (OSError, RuntimeError) as error:
        number = _disk_error(error, path.parent)
        if number is None:
            raise
        raise UserError(refused(path, number)) from error
    finally:
        if temporary is not None:
            with contextlib.suppress(OSError):  # a disk that has become read-only: what it said first counts
                remove(temporary)


def _machine() -> str:
    """Return what tells this machine's processes from those of others that share the disk."""
    return f"{zlib.crc32(os.uname().nodename.encode()):08x}"


def _sweep(path: Path) -> None:
    """Remove the temporaries of `path` whose process on this machine is dead; of other machines' nothing is known."""
    for leftover in path.parent.glob(f".{glob.escape(path.name[:80])}.{_machine()}-*-*.part"):
        owner = leftover.name.split(".")[-2].split("-")[1]
        try:
            os.kill(int(owner), 0)
        except (ValueError, ProcessLookupError):
            remove(leftover)
        except PermissionError:  # alive, and somebody else's
            continue


def refused(path: str | Path | None, number: int | None, what: str = "written") -> str:
    """Return the sentence about a file that the disk refused to take, or to give, for this reason (errno)."""
    said = os.strerror(number or errno.EIO)
    mend = "see to that disk or its network" if number in BROKEN else "free space or permissions there"
    return f"{path or 'a file'} could not be {what}: {said}; {mend}, then run again"


def _disk_error(error: OSError | RuntimeError, folder: Path) -> int | None:
    """Return the errno of what is wrong with the disk, None if it is something else.

    NumPy and torch report a short write without one ("1438 requested and 496 written"): then the disk is full if it
    has no room left.
    """
    if isinstance(error, OSError) and error.errno in DISK_ERRORS:
        return error.errno
    with contextlib.suppress(OSError):
        if getattr(error, "errno", None) is None and shutil.disk_usage(folder).free < 2**16:
            return errno.ENOSPC
    return None


def _flush(path: Path) -> None:
    """fsync `path`, a file or a folder (a folder's entry is what a rename changes), where the file system can."""
    try:
        handle = os.open(path, os.O_RDONLY)
    except OSError as error:
        if path.is_dir() and error.errno in UNSUPPORTED | {errno.EACCES, errno.EISDIR}:
            return
        raise
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in UNSUPPORTED:
            raise
    finally:
        os.close(handle)


def place(source: str | Path, target: str | Path) -> None:
    """Put a finished file where it belongs: a second name for it, or a copy where the file system has no such."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def remove(path: str | Path) -> None:
    """Remove a file or folder if it is there."""
    path = Path(path)
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def bring_dates_back(folder: str | Path) -> int:
    """Date the files below `folder` that lie in the future just before now, in the same order; return how many.

    After a clock went back, Snakemake would take what is made now for older than what it is made from.
    """
    now = time.time_ns()
    later = {}
    for path in Path(folder).rglob("*"):
        with contextlib.suppress(FileNotFoundError):  # a job that outlived its Snakemake may be clearing up
            if (date := path.lstat().st_mtime_ns) > now:
                later[path] = date
    ranks = {date: rank for rank, date in enumerate(sorted(set(later.values()), reverse=True))}
    for path, date in later.items():
        new = now - 10_000 * ranks[date]
        with contextlib.suppress(FileNotFoundError):
            os.utime(path, ns=(new, new), follow_symlinks=False)
    return len(later)


def sha256(path: str | Path) -> str:
    """Return the hex SHA-256 of a file's bytes."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def canonical(value: Any) -> str:
    """Return `value` as the one JSON text that equal values share: sorted keys, no NaN."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def digest(value: Any) -> str:
    """Return the hex SHA-256 of a plain value's canonical JSON."""
    return hashlib.sha256(canonical(value).encode()).hexdigest()


def write_text(path: str | Path, text: str) -> None:
    """Write `text` to `path` atomically."""
    with atomic(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: str | Path, value: Any, *, sort_keys: bool = True) -> None:
    """Write a plain value as indented JSON, atomically; keys are sorted unless their order means something."""
    write_text(path, json.dumps(value, indent=1, sort_keys=sort_keys, allow_nan=False) + "\n")


def read_json(path: str | Path) -> Any:
    """Read JSON; a missing or damaged file raises `UserError`."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UserError(f"{path} is missing; run the stage that makes it first") from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not valid JSON ({error}); delete it and run again") from error


def write_npy(path: str | Path, array: np.ndarray) -> None:
    """Write one array as `.npy`, atomically and without pickling."""
    import numpy as np

    with atomic(path) as temporary, open(temporary, "wb") as file:
        np.save(file, array, allow_pickle=False)


def write_arrays(folder: Path, arrays: Mapping[str, np.ndarray]) -> list[Path]:
    """Write arrays as `<name>.npy` into a folder, and return their paths; on any error none of them stays."""
    paths = [folder / f"{name}.npy" for name in arrays]
    try:
        for path, array in zip(paths, arrays.values(), strict=True):
            write_npy(path, array)
    except BaseException:
        for path in paths:
            remove(path)
        raise
    return paths


def read_npy(path: str | Path, *, mmap: bool = False, private: bool = False) -> np.ndarray:
    """Read an array written by `write_npy` (never a pickle); a missing or damaged file raises `UserError`.

    With `mmap` its pages come from the file when they are read. With `private` as well, what is written to them stays here (torch
    takes no array that it must not write to); the system then refuses a file that is larger than its memory.
    """
    import numpy as np

    mode: Literal["r", "c"] = "c" if private else "r"
    try:
        return np.load(path, mmap_mode=mode if mmap else None, allow_pickle=False)
    except FileNotFoundError as error:
        raise UserError(f"{path} is missing; run the stage that makes it first") from error
    except (ValueError, EOFError, OSError) as error:
        if isinstance(error, OSError) and error.errno in DISK_ERRORS:  # nothing is known of the file
            raise UserError(refused(path, error.errno, "read")) from error
        raise UserError(f"{path} is damaged ({error}); delete it and run again") from error


def listing(folder: str | Path, names: Iterable[str] | None = None) -> dict[str, dict[str, Any]]:
    """Return ``{relative name: {"bytes": …, "sha256": …}}`` of the files of `folder` (hidden ones excepted)."""
    if names is None:
        found = sorted(p for p in Path(folder).rglob("*") if p.is_file() and not p.name.startswith("."))
        names = [path.relative_to(folder).as_posix() for path in found]
    paths = {name: within(folder, name) for name in names}
    return {name: {"bytes": path.stat().st_size, "sha256": sha256(path)} for name, path in paths.items()}


def within(folder: str | Path, name: str) -> Path:
    """Return the path of a file that a manifest in `folder` names, which may lie beside that folder (``../…``)."""
    return Path(os.path.normpath(os.path.join(folder, name)))


def check(folder: str | Path, files: Mapping[str, Mapping[str, Any]], names: Iterable[str] | None = None) -> None:
    """Compare files with the entries of a manifest made by `listing`; raise `UserError` at the first that differs."""
    for name in names if names is not None else files:
        path = within(folder, name)
        again = f"delete {path.parent} and run again"
        if name not in files:
            raise UserError(f"{path} is not in its manifest; {again}")
        if not path.is_file():
            raise UserError(f"{path} is missing though its manifest lists it; {again}")
        if path.stat().st_size != files[name]["bytes"]:
            raise UserError(
                f"{path} is damaged: {path.stat().st_size} bytes instead of {files[name]['bytes']}; {again}"
            )
        if sha256(path) != files[name]["sha256"]:
            raise UserError(f"{path} is damaged: its SHA-256 is not the one in its manifest; {again}")
