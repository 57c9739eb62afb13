"""torchvision's files: checked before anything reads them, fetched when they may be, never half there.

torchvision alone would take an `MNIST/raw` file as it is (it checks the `.gz` while it downloads, and nothing later), would
load a `processed/*.pt` of its old versions unchecked, and leaves half a file at the final place when it is
stopped. So its classes here see only a folder that holds links to files whose MD5 was compared.
"""

from __future__ import annotations

import contextlib
import errno
import gzip
import hashlib
import http.client
import math
import os
import shutil
import socket
import tarfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, NamedTuple

from ..runtime import files
from ..runtime.errors import UserError

#: MD5 of MNIST's `.gz` files, which torchvision knows → MD5 of what they hold, so that unpacked files alone can be checked.
UNPACKED = {
    "f68b3c2dcbeaaa9fbdd348bbdeb94873": "6bbc9ace898e44ae57da46a324031adb",
    "d53e105ee54ea40749a09fcbcd1e9432": "a25bea736e30d166cdddb491f175f624",
    "9fb629c4189551a2d022fa330f9573f3": "2646ac647ad5339dbf082846283269ea",
    "ec29112dd5afa0611ce80d1b7f02629c": "27ae3e4e09519cfbb04c329615203637",
}
#: MD5 → bytes of the files of MNIST, CIFAR-10 and CIFAR-100: tells a truncated file from an altered one.
SIZES = {
    "f68b3c2dcbeaaa9fbdd348bbdeb94873": 9_912_422,
    "d53e105ee54ea40749a09fcbcd1e9432": 28_881,
    "9fb629c4189551a2d022fa330f9573f3": 1_648_877,
    "ec29112dd5afa0611ce80d1b7f02629c": 4_542,
    "6bbc9ace898e44ae57da46a324031adb": 47_040_016,
    "a25bea736e30d166cdddb491f175f624": 60_008,
    "2646ac647ad5339dbf082846283269ea": 7_840_016,
    "27ae3e4e09519cfbb04c329615203637": 10_008,
    "c58f30108f718f92721af3b95e74349a": 170_498_071,
    "c99cafc152244af753f735de768cd75f": 31_035_704,
    "d4bba439e000b95fd0a9bffe97cbabec": 31_035_320,
    "54ebc095f3ab1f0389bbae665268c751": 31_035_999,
    "634d18415352ddfa80567beed471001a": 31_035_696,
    "482c414d41f54cd18b22e5b47cb7c3cb": 31_035_623,
    "40351d587109b95175f43aff81a1287e": 31_035_526,
    "5ff9c542aee3614f3951f8cda6e48888": 158,
    "eb9058c3a382ffc7106e4002c42a8d85": 169_001_437,
    "16019d7e3df5f24257cddd939b257f8d": 155_249_918,
    "f0ef6b0ae62326f3e7ffdfab6717acfc": 31_049_707,
    "7973b15100ade9c7d40fb424638fde48": 1_473,
}
#: Seconds without a byte after which a download is given up.
TIMEOUT = 60.0
#: What torchvision's downloads raise when the network or the server fails.
DOWNLOAD_ERRORS = (OSError, RuntimeError, ValueError, EOFError, http.client.HTTPException, tarfile.TarError, zlib.error)


class Archive(NamedTuple):
    """One file that torchvision downloads, and the files that it unpacks to (path → MD5, None where not known)."""

    path: str
    md5: str
    members: dict[str, str | None]


def archives(dataset: Any) -> list[Archive]:
    """Return the archives of a torchvision class (MNIST, FashionMNIST, KMNIST, CIFAR10, CIFAR100); paths are relative to the root."""
    from torchvision import datasets

    if dataset in (datasets.CIFAR10, datasets.CIFAR100):
        listed = [*dataset.train_list, *dataset.test_list, [dataset.meta["filename"], dataset.meta["md5"]]]
        members: dict[str, str | None] = {f"{dataset.base_folder}/{name}": md5 for name, md5 in listed}
        return [Archive(dataset.filename, dataset.tgz_md5, members)]
    if dataset in (datasets.MNIST, datasets.FashionMNIST, datasets.KMNIST):
        raw = f"{dataset.__name__}/raw"
        return [
            Archive(f"{raw}/{name}", md5, {f"{raw}/{name.removesuffix('.gz')}": UNPACKED.get(md5)})
            for name, md5 in dataset.resources
        ]
    raise UserError(
        f"torchvision's {dataset.__name__} is laid out neither like MNIST nor like CIFAR10; write a loader for it"
    )


def obtain(dataset: Any, root: Path, folder: Path, *, download: bool) -> dict[str, dict[str, str]]:
    """Fill `folder` with a torchvision class's files in its own layout: checked, linked or unpacked from `root`.

    `root` is written to only when `download` is set and a file there is missing or bad.

    Returns
    -------
    ``{"archives": {path: MD5}, "files": {path: MD5}}``, the same for every whole copy, packed or unpacked.

    Raises
    ------
    UserError: a file is missing, truncated or altered and may not or cannot be downloaded.
    """
    needed = archives(dataset)
    try:
        fault = _first_fault(root, needed)
        if fault and download:
            _fetch(dataset, root, needed)
            fault = _first_fault(root, needed)
        if not fault:
            members = {name: md5 for archive in needed for name, md5 in _provide(root, archive, folder).items()}
            return {"archives": {archive.path: archive.md5 for archive in needed}, "files": members}
    except OSError as error:
        raise UserError(
            f"{error.filename or root} could not be read or written: {os.strerror(error.errno or errno.EIO)}; mend its "
            f"permissions or disk, or set data.root to a whole copy of torchvision's {dataset.__name__}"
        ) from error
    todo = "delete it and run again" if download else "turn on data.download (--download) to fetch it"
    raise UserError(f"{fault}; {todo}, or set data.root to a whole copy of torchvision's {dataset.__name__}")


def _first_fault(root: Path, needed: list[Archive]) -> str | None:
    """Return what is wrong with the first bad or missing file, None when all that is needed is there and whole."""
    return next((fault for archive in needed if (fault := _fault(root, archive))), None)


def _fault(root: Path, archive: Archive) -> str | None:
    """Return what is wrong with an archive or with what it unpacks to; every file that is there has to be whole."""
    packed = root / archive.path
    if packed.exists() and (fault := _differs(packed, archive.md5)):
        return fault
    for name, known in archive.members.items():
        path = root / name
        if path.exists():
            md5 = known or (_md5_unpacked(packed) if packed.exists() else None)
            if fault := _differs(path, md5) if md5 else _not_idx(path):
                return fault
        elif not packed.exists():
            return f"{path} is missing (expected MD5 {known or archive.md5}, found neither it nor {packed})"
    return None


def _differs(path: Path, md5: str) -> str | None:
    """Return how a file differs from the one whose MD5 is given, None when it does not."""
    if not path.is_file():
        return f"{path} is not a file (expected MD5 {md5})"
    found, expected = path.stat().st_size, SIZES.get(md5)
    if expected is not None and found < expected:
        return f"{path} is truncated: expected {expected} bytes (MD5 {md5}), found {found} bytes"
    with open(path, "rb") as file:
        digest = _md5(file)
    return None if digest == md5 else f"{path} is corrupt: expected MD5 {md5}, found {digest} ({found} bytes)"


def _not_idx(path: Path) -> str | None:
    """Return how an unpacked file of MNIST's layout, whose MD5 torchvision does not know, differs from what its head says."""
    with open(path, "rb") as file:
        head = file.read(16)
    axes = head[3] if head[:3] == b"\0\0\x08" else 0
    if axes not in (1, 3) or len(head) < 4 + 4 * axes:
        return f"{path} is corrupt: it does not start as MNIST's files do"
    lengths = [int.from_bytes(head[4 + 4 * axis : 8 + 4 * axis], "big") for axis in range(axes)]
    expected, found = 4 + 4 * axes + math.prod(lengths), path.stat().st_size
    if found == expected:
        return None
    return f"{path} is {'truncated' if found < expected else 'corrupt'}: expected {expected} bytes by its head, found {found} bytes"


def _md5(file: IO[bytes] | gzip.GzipFile) -> str:
    digest = hashlib.md5(usedforsecurity=False)
    while chunk := file.read(1 << 20):
        digest.update(chunk)
    return digest.hexdigest()


def _md5_unpacked(packed: Path) -> str:
    """Return the MD5 of what a `.gz` (itself already checked) holds."""
    with gzip.open(packed) as file:
        return _md5(file)


def _provide(root: Path, archive: Archive, folder: Path) -> dict[str, str]:
    """Link (or unpack) the members of a checked archive into `folder`; return their MD5s."""
    packed, found = root / archive.path, {}
    for name, known in archive.members.items():
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if (root / name).exists():
            target.symlink_to((root / name).resolve())
        else:
            with _member(packed, name) as source, open(target, "wb") as file:
                shutil.copyfileobj(source, file)
        if known is None:
            with open(target, "rb") as file:
                known = _md5(file)
        elif not target.is_symlink() and (fault := _differs(target, known)):
            raise UserError(f"{packed} holds another {name} than torchvision's: {fault}")
        found[name] = known
    return found


@contextlib.contextmanager
def _member(packed: Path, name: str) -> Iterator[IO[bytes] | gzip.GzipFile]:
    """Open one file inside a checked `.tar.gz` or `.gz`."""
    if not packed.name.endswith(".tar.gz"):
        with gzip.open(packed) as file:
            yield file
        return
    with tarfile.open(packed) as tar:
        member = tar.extractfile(name) if name in tar.getnames() else None
        if member is None:
            raise UserError(f"{packed} does not hold {name}; delete it and run again")
        yield member


def _fetch(dataset: Any, root: Path, needed: list[Archive]) -> None:
    """Let torchvision download and unpack beside the final place, then move whole files there.

    A download that was killed leaves its folder, `.<class>.download`; the next one takes the whole archives from it (torchvision
    compares their MD5) and fetches the others again. Archives that are whole in `root` are not fetched again.
    """
    staging = root / f".{dataset.__name__}.download"
    try:
        _prepare_staging(staging, root, needed)
        with _timeout(TIMEOUT):
            dataset(str(staging), train=True, download=True)
        for file in sorted(path for path in staging.rglob("*") if path.is_file() and not path.is_symlink()):
            target = root / file.relative_to(staging)
            target.parent.mkdir(parents=True, exist_ok=True)
            os.replace(file, target)
        files.remove(staging)
    except DOWNLOAD_ERRORS as error:
        if isinstance(error, OSError) and error.errno in files.DISK_ERRORS:
            raise UserError(
                f"{root} cannot take the download of torchvision's {dataset.__name__}: {os.strerror(error.errno)}; free space or "
                "permissions there, or set data.root to a whole copy"
            ) from error
        said = " ".join(str(error).split()) or type(error).__name__
        raise UserError(
            f"torchvision's {dataset.__name__} could not be downloaded into {root} ({said}); check the network and run "
            "again, or set data.root to a whole copy"
        ) from error


def _prepare_staging(staging: Path, root: Path, needed: list[Archive]) -> None:
    """Leave in the folder only archives of an earlier try, and links to those that `root` has whole."""
    for file in [path for path in staging.rglob("*") if path.is_symlink() or path.is_file()]:
        if file.is_symlink() or file.relative_to(staging).as_posix() not in {archive.path for archive in needed}:
            file.unlink()
    staging.mkdir(parents=True, exist_ok=True)
    for archive in needed:
        packed, link = root / archive.path, staging / archive.path
        if packed.exists() and not _differs(packed, archive.md5):
            link.parent.mkdir(parents=True, exist_ok=True)
            link.unlink(missing_ok=True)
            link.symlink_to(packed.resolve())


@contextlib.contextmanager
def _timeout(seconds: float) -> Iterator[None]:
    """Give up on a silent server: torchvision's own requests have no limit."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)
