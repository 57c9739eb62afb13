"""One array of a checkpoint, read without torch, whose import takes longer than the jobs that want it.

A checkpoint is what `torch.save` writes since 2019: a zip with a pickle of the tensors' places and one file a storage. Of the
pickle nothing is executed: it may name the few functions below, which note where a tensor lies, and nothing else.
"""

from __future__ import annotations

import math
import pickle
import zipfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..runtime.errors import UserError

BAD = (zipfile.BadZipFile, pickle.UnpicklingError)
TYPES = {"FloatStorage": "<f4", "DoubleStorage": "<f8"}


class _Tensor(NamedTuple):
    """Where a tensor lies: its storage (type, file), and its first element and shape there, rows one after the other."""

    storage: tuple[str, str]
    start: int
    shape: tuple[int, ...]


def _placed(storage: tuple[str, str], start: int, shape: tuple[int, ...], strides: tuple[int, ...], *_: Any) -> _Tensor:
    lying = (math.prod(shape[place + 1 :]) for place in range(len(shape)))
    if any(length > 1 and step != wanted for length, step, wanted in zip(shape, strides, lying, strict=True)):
        raise pickle.UnpicklingError("a tensor does not lie row by row")
    return _Tensor(storage, start, shape)


class _Places(pickle.Unpickler):
    """Reads a checkpoint's pickle as the places of its tensors."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _placed
        if (module, name) == ("collections", "OrderedDict"):
            return dict
        if module == "torch" and name.endswith("Storage"):
            return name
        raise pickle.UnpicklingError(f"it names {module}.{name}")

    def persistent_load(self, pid: Any) -> tuple[str, str]:
        _, kind, key, *_ = pid
        return kind, key


def read_array(path: Path, name: str) -> np.ndarray | None:
    """Return the array of one entry of a checkpoint's ``model``, None if there is none; a damaged file raises `UserError`."""
    try:
        with zipfile.ZipFile(path) as archive:
            (listed,) = (entry for entry in archive.namelist() if entry.endswith("/data.pkl"))
            with archive.open(listed) as file:
                tensor = _Places(file).load()["model"].get(name)
            if tensor is None:
                return None
            kind, key = tensor.storage
            values = np.frombuffer(archive.read(listed.replace("data.pkl", f"data/{key}")), TYPES[kind])
        return values[tensor.start : tensor.start + math.prod(tensor.shape)].reshape(tensor.shape)
    except (OSError, ValueError, LookupError, TypeError, AttributeError, EOFError, *BAD) as error:
        raise UserError(
            f"{path} holds something else than weights ({error}); delete {path.parent} and train again"
        ) from error
