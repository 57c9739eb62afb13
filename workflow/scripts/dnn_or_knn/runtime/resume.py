"""What lets a job be killed at any moment and continue: a folder of its latest states, or of its finished parts.

A state folder belongs to one key, the digest of everything that determines the job (its specification, which names its code,
and its inputs). It holds

    key             the key, in hex
    lock            held while a process works here
    state-<n>       the latest states, two at most: one line of JSON (key, SHA-256), padded, then the payload
    diverged        why a training with this key ended, if it diverged
    kept/           finished parts of the result
    <part>.json     says that a part is finished: its files in `kept`, with their digests

Every file is written whole (temporary, fsync, rename), so that a kill or a full disk leaves the states before it as they were.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import logging
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import IO, Any

from . import files
from .errors import UserError

log = logging.getLogger("dnn_or_knn")
#: How many states are kept: the newest, and the one before in case the newest is found damaged.
GENERATIONS = 2
_PREFIX = "state-"
_HEADER = 256


class State:
    """An open state folder, locked by this process; made by `opened`."""

    def __init__(self, folder: Path, key: str) -> None:
        self.folder, self.key, self.kept = folder, key, folder / "kept"

    def load(self) -> bytes | None:
        """Return the payload of the newest whole state, None without one; damaged ones are removed, with a warning."""
        for path in reversed(self._states()):
            try:
                return self._read(path)
            except (OSError, ValueError, KeyError) as error:
                log.warning("state %s is damaged (%s); taking the one before it", path, error)
                files.remove(path)
        return None

    def save(self, payload: bytes | Callable[[IO[bytes]], object]) -> None:
        """Write a state, whole, and forget all but the latest `GENERATIONS`; a full disk raises `UserError`.

        Parameters
        ----------
        payload: the bytes, or a function that writes them to a file from its begin to its end.
        """
        states = self._states()
        number = int(states[-1].name.removeprefix(_PREFIX)) + 1 if states else 0
        path = self.folder / f"{_PREFIX}{number:08d}"
        with files.atomic(path) as temporary, open(temporary, "wb") as file:
            file.write(b" " * _HEADER)
            hashed = _Hashed(file)
            if callable(payload):
                payload(hashed)  # type: ignore[arg-type]
            else:
                hashed.write(payload)
            if hashed.error is not None:
                raise hashed.error
            header = {"key": self.key, "sha256": hashed.digest.hexdigest()}
            file.seek(0)
            file.write((json.dumps(header) + "\n").encode().rjust(_HEADER))
        for old in [*states, path][:-GENERATIONS]:
            files.remove(old)

    def finish(self, part: str, made: Iterable[str], *, key: str = "", **facts: Any) -> dict[str, Any]:
        """Write down that a part of the result is finished, and return that record.

        Parameters
        ----------
        made: its files, relative to `kept`.
        key: digest of what this part alone depends on.
        facts: what else is to be known of it.
        """
        record = {"key": key, "files": files.listing(self.kept, made), **facts}
        files.write_json(self.folder / f"{part}.json", record)
        return record

    def finished(self, part: str, key: str = "") -> dict[str, Any] | None:
        """Return the record of a part that was finished before, with this key, and is whole; else None."""
        path = self.folder / f"{part}.json"
        if not path.is_file():
            return None
        try:
            record = files.read_json(path)
            files.check(self.kept, record["files"])
            return record if record["key"] == key else None
        except (UserError, KeyError, TypeError, AttributeError) as error:
            log.warning("the finished part %s is damaged (%s) and is made again", part, error)
            return None

    def restart(self) -> None:
        """Forget all states and kept files: the job starts from its beginning."""
        for path in [*self._states(), self.kept]:
            files.remove(path)

    def clear(self) -> None:
        """Remove the folder, and its parent if that is empty now: the job is done."""
        files.remove(self.folder)
        with contextlib.suppress(OSError):
            self.folder.parent.rmdir()

    def _states(self) -> list[Path]:
        return sorted(self.folder.glob(f"{_PREFIX}*"))

    def _read(self, path: Path) -> bytes:
        with open(path, "rb") as file:
            header, payload = json.loads(file.readline()), file.read()
        if header["key"] != self.key:
            raise ValueError("it belongs to another job")
        if hashlib.sha256(payload).hexdigest() != header["sha256"]:
            raise ValueError("its SHA-256 is not the recorded one")
        return payload


class _Hashed:
    """A file that digests what is written to it, and keeps the first error for its owner.

    It pretends to go on after an error: serializers written in C++ (torch.save) abort the process, or hide the cause, when
    a write fails.
    """

    def __init__(self, file: IO[bytes]) -> None:
        self.file, self.digest = file, hashlib.sha256()
        self.error: OSError | None = None

    def write(self, content: bytes) -> int:
        if self.error is None:
            try:
                self.file.write(content)
            except OSError as error:
                self.error = error
            self.digest.update(content)
        return len(content)

    def flush(self) -> None:
        """What is written is flushed by its owner."""


def beside(manifest: Path) -> Path:
    """Return the state folder of the job that makes a manifest."""
    return manifest.parent / ".state" / manifest.stem


@contextlib.contextmanager
def opened(folder: str | Path, key: str) -> Iterator[State]:
    """Open a state folder for the job with this key, made if it is not there, and lock it until the end.

    States and kept files of another key are removed: they are never resumed. So are temporary files of killed processes.

    Raises
    ------
    UserError: another process works in the folder, or it cannot be written.
    """
    folder = Path(folder)
    try:
        handle = _lock(folder)
    except OSError as error:
        if error.errno not in files.DISK_ERRORS:
            raise
        raise UserError(files.refused(folder, error.errno)) from error
    try:
        _claim(folder, key)
        yield State(folder, key)
    finally:
        os.close(handle)


def _lock(folder: Path) -> int:
    """Return the handle of the folder's lock file, locked; the lock ends with the handle, or with the process."""
    path = folder / "lock"
    while True:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except FileNotFoundError:  # another process that is done has just cleared the folder
            continue
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if path.exists() and os.path.samestat(os.fstat(handle), path.stat()):
                os.ftruncate(handle, 0)
                os.write(handle, f"{os.getpid()}\n".encode())
                return handle
        except BlockingIOError as error:
            owner = path.read_text(encoding="utf-8").strip() if path.exists() else ""
            os.close(handle)
            raise UserError(
                f"{folder} is in use by another process{f' ({owner})' if owner else ''}; wait for it to end or stop it, then run again"
            ) from error
        except OSError as error:
            if error.errno not in files.UNSUPPORTED:
                os.close(handle)
                raise
            log.warning(
                "%s is on a file system without locks; make sure that no other process runs the same job", folder
            )
            return handle
        os.close(handle)


def _claim(folder: Path, key: str) -> None:
    """Make the folder this key's: whatever another key left is removed first."""
    path = folder / "key"
    if path.is_file() and path.read_text(encoding="utf-8").strip() == key:
        for stale in folder.rglob(".*.part"):
            files.remove(stale)
        return
    stale_files = [entry for entry in folder.iterdir() if entry.name not in ("lock", "key")]
    for stale in stale_files:
        files.remove(stale)
    if any(entry.name.startswith(_PREFIX) for entry in stale_files):
        log.info("the state in %s belongs to another specification, code or input; starting from the beginning", folder)
    files.write_text(path, key + "\n")


def publish(kept: Path, names: list[str], target: Path) -> None:
    """Put kept files into the folder `target`, atomically, without giving them up: hard links, or copies elsewhere."""
    for stale in target.parent.glob(f".{target.name}.*.part"):  # of a process that was killed here; the lock is ours
        files.remove(stale)
    with files.atomic(target) as temporary:
        temporary.mkdir()
        for name in names:
            files.place(kept / name, temporary / name)
