"""Features, labels and logits that were computed elsewhere, as arrays of an .npz file or of a folder of .npy files.

The names are the same in both: ``train_features``, ``test_features``, and, where they are given, ``train_labels``,
``test_labels``, ``train_logits``, ``test_logits``. What holds Python objects is a pickle and is never read. Nothing is in memory as
a whole but labels, and arrays that lie there column by column.
"""

from __future__ import annotations

import contextlib
import tokenize
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, TYPE_CHECKING, NamedTuple

from ..runtime.errors import UserError, nearest

if TYPE_CHECKING:
    import numpy as np

SPLITS = ("train", "test")
FEATURES, LABELS, LOGITS = ([f"{split}_{what}" for split in SPLITS] for what in ("features", "labels", "logits"))
#: Rows that are read and converted at a time, fewer where so many have more bytes than this.
ROWS, BYTES = 8192, 2**27
#: Classes that the probes' results can name.
MOST_CLASSES = 2**15
#: What reading a damaged file raises, or an encrypted one (a `RuntimeError`); the head of a .npy file is read as Python's syntax.
DAMAGED = (
    OSError,
    ValueError,
    EOFError,
    zipfile.BadZipFile,
    zlib.error,
    RuntimeError,
    SyntaxError,
    tokenize.TokenError,
)


class Array(NamedTuple):
    """An array on disk, of which the head alone was read."""

    path: Path  #: the .npz file, or the folder
    name: str
    shape: tuple[int, ...]
    dtype: np.dtype
    by_columns: bool

    def __str__(self) -> str:
        return f"{self.path}: '{self.name}'"

    def blocks(self) -> Iterator[np.ndarray]:
        """Yield the rows in order, some at a time; a damaged file raises `UserError`."""
        import numpy as np

        with _open(self.path, self.name) as stream:
            _head(stream)
            if self.by_columns:
                stream.seek(0)
                whole = np.lib.format.read_array(stream, allow_pickle=False)
                yield from (whole[start : start + ROWS] for start in range(0, len(whole), ROWS))
                return
            width = int(np.prod(self.shape[1:])) * self.dtype.itemsize
            rows = max(1, min(ROWS, BYTES // max(1, width)))
            for start in range(0, self.shape[0], rows):
                shape = (min(rows, self.shape[0] - start), *self.shape[1:])
                size = int(np.prod(shape)) * self.dtype.itemsize
                data = stream.read(size)
                if len(data) != size:
                    raise EOFError("it ends early")
                yield np.frombuffer(data, self.dtype).reshape(shape)


def names(path: Path) -> list[str]:
    """Return the names of the arrays in a file or a folder; `UserError` if it is neither an .npz file nor a folder."""
    try:
        if path.is_dir():
            return sorted(file.stem for file in path.iterdir() if file.suffix == ".npy")
        with zipfile.ZipFile(path) as archive:
            return sorted(name.removesuffix(".npy") for name in archive.namelist() if name.endswith(".npy"))
    except FileNotFoundError as error:
        raise UserError(f"{path} is not there; correct the path") from error
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}); make it readable or correct the path") from error
    except DAMAGED as error:
        of = "a single array" if path.suffix == ".npy" else "no .npz file"
        raise UserError(
            f"{path} is {of}; give an .npz file (numpy.savez), or a folder with {FEATURES[0]}.npy, {FEATURES[1]}.npy, …"
        ) from error


def find(path: Path, name: str) -> Array:
    """Return an array of a file or a folder, its head read; `UserError` if it is not there, is damaged or holds objects."""
    if name not in (known := names(path)):
        raise UserError(f"{path} has no array '{name}'{nearest(name, known)}; add it")
    with _open(path, name) as stream:
        shape, by_columns, dtype = _head(stream)
    if dtype.hasobject:
        raise UserError(f"{path}: '{name}' holds Python objects, a pickle, and was not read; save plain numbers")
    return Array(path, name, shape, dtype, by_columns and len(shape) > 1)


def table(path: Path, name: str, count: int) -> Array:
    """Return an array that has to be a table of floating-point numbers with `count` rows."""
    import numpy as np

    found = find(path, name)
    if not np.issubdtype(found.dtype, np.floating) or found.dtype.itemsize > 8:
        raise UserError(f"{found} is {found.dtype}; convert it to float16, float32 or float64")
    if len(found.shape) != 2 or not found.shape[1]:
        raise UserError(f"{found} has the shape {found.shape}; make it a table, a row an image and a column a feature")
    if found.shape[0] != count:
        raise UserError(
            f"{found} has {found.shape[0]} rows, but there are {count} {name.split('_')[0]} labels; give one row for each"
        )
    return found


def labels(path: Path, split: str) -> np.ndarray:
    """Return the labels of a split, int64 (N,), from an array (N,) or (N, 1) of whole numbers from 0 on."""
    import numpy as np

    found = find(path, f"{split}_labels")
    if not np.issubdtype(found.dtype, np.integer) or found.shape not in (found.shape[:1], (*found.shape[:1], 1)):
        raise UserError(f"{found} is {found.dtype} {found.shape}; labels are whole numbers, one for each row")
    if not found.shape or not found.shape[0]:
        raise UserError(f"{found} is empty; give a label for each row")
    values = np.concatenate([block.reshape(-1) for block in found.blocks()])
    for row in (int(values.argmin()), int(values.argmax())):
        if not 0 <= values[row] < MOST_CLASSES:
            raise UserError(f"{found} has {values[row]} in row {row}; number the classes from 0 on")
    return values.astype(np.int64)


def count(path: Path, split: str) -> int:
    """Return how many labels a split has."""
    return find(path, f"{split}_labels").shape[0]


def classes(path: Path) -> int:
    """Return how many classes the labels of both splits speak of: one more than the largest."""
    return 1 + max(int(labels(path, split).max()) for split in SPLITS)


def has(path: Path, wanted: list[str]) -> bool:
    """Return whether a pair of arrays is there; one of the two alone raises `UserError`."""
    known = names(path)
    there = [name for name in wanted if name in known]
    if len(there) == 1:
        raise UserError(f"{path} has {there[0]} alone; give {wanted[0]} and {wanted[1]}, or neither")
    return bool(there)


def check(path: Path, truth: Mapping[str, np.ndarray], classes: int | None) -> int:
    """Return how many features the arrays have, after comparing shapes, and labels that are there, with what they are of.

    Parameters
    ----------
    truth: the labels by split, (N,).
    classes: columns that the logits must have; None: no logits are looked for.
    """
    import numpy as np

    tables = {split: table(path, f"{split}_features", len(truth[split])) for split in SPLITS}
    widths = {found.shape[1] for found in tables.values()}
    if len(widths) > 1:
        raise UserError(
            f"{path} has {tables['train'].shape[1]} train features and {tables['test'].shape[1]} test features an image; compute both alike"
        )
    for split in SPLITS if has(path, LABELS) else ():
        given = labels(path, split)
        if given.shape != truth[split].shape:
            raise UserError(
                f"{path}: '{split}_labels' has {len(given)} rows, not {len(truth[split])}; give one for each"
            )
        for row in np.flatnonzero(given != truth[split])[:1]:
            raise UserError(
                f"{path}: '{split}_labels' has {given[row]} in row {row}, where the data set has {truth[split][row]}; bring the rows "
                "into the data set's order, or name another `dataset`"
            )
    for name in LOGITS if classes is not None else ():
        found = table(path, name, len(truth[name.split("_")[0]]))
        if found.shape[1] != classes:
            raise UserError(f"{found} has {found.shape[1]} columns, but there are {classes} classes; give one for each")
    return widths.pop()


def write(array: Array, file: Path) -> None:
    """Write a table as float32 .npy, some rows at a time: float16 exactly, float64 rounded.

    Raises
    ------
    UserError: a value that is not finite, or too large for float32; a damaged file.
    """
    import numpy as np

    head = {"descr": "<f4", "fortran_order": False, "shape": array.shape}
    with open(file, "wb") as stream:
        np.lib.format.write_array_header_1_0(stream, head)
        start = 0
        for block in array.blocks():
            with np.errstate(over="ignore"):
                narrow = block.astype("<f4")
            for row, column in np.argwhere(~np.isfinite(narrow))[:1]:
                wrong = "not finite" if not np.isfinite(block[row, column]) else "too large for float32"
                raise UserError(
                    f"{array} has {block[row, column]} in row {start + row}, column {column}, which is {wrong}; mend it, or leave "
                    "this evaluation out"
                )
            stream.write(narrow.tobytes())
            start += len(block)


@contextlib.contextmanager
def _open(path: Path, name: str) -> Iterator[IO[bytes]]:
    """Open an array's bytes; what is wrong with them while they are read is one sentence."""
    try:
        if path.is_dir():
            with open(path / f"{name}.npy", "rb") as stream:
                yield stream
        else:
            with zipfile.ZipFile(path) as archive, archive.open(f"{name}.npy") as stream:
                yield stream
    except DAMAGED as error:
        raise UserError(f"{path}: '{name}' cannot be read ({error}); save it again with numpy") from error


def _head(stream: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype]:
    """Return shape, whether columns come first, and type, and leave the stream where the numbers begin."""
    import numpy as np

    version = np.lib.format.read_magic(stream)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    return read(stream)
