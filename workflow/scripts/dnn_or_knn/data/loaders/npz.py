"""A data set of one's own in one .npz file."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ...runtime import files
from ...runtime.errors import UserError
from .common import Data

#: The arrays' names here, and as Keras' files have them.
NAMES = {
    "train_images": "x_train",
    "train_labels": "y_train",
    "test_images": "x_test",
    "test_labels": "y_test",
}


def load(spec: Mapping[str, Any], root: Path, download: bool) -> Data:
    """Load ``spec["root"]``: images uint8 (N, size, size), (N, size, size, channels) or (N, channels, size, size), and labels (N,)
    or (N, 1); without `class_names` classes are named by their numbers.

    Raises
    ------
    UserError: the file is missing or damaged, or an array is missing or of another kind. No pickle is read.
    """
    path = Path(spec["root"])
    try:
        with np.load(path, allow_pickle=False) as arrays:
            found = {name: _array(arrays, path, name, keras) for name, keras in NAMES.items()}
            names = arrays["class_names"].tolist() if "class_names" in arrays else range(spec["classes"])
    except FileNotFoundError as error:
        raise UserError(f"{path} is missing; set datasets.{spec['dataset']}.root to the .npz file") from error
    except (OSError, ValueError, EOFError, TypeError, zipfile.BadZipFile, zlib.error) as error:
        raise UserError(f"{path} is no .npz file of plain arrays ({error}); save it with numpy.savez") from error
    images = {part: _nchw(found[f"{part}_images"], spec["channels"]) for part in ("train", "test")}
    labels = {part: _labels(found[f"{part}_labels"], path, part) for part in ("train", "test")}
    origin = {"loader": "npz", "file": path.name, "sha256": files.sha256(path)}
    return Data(images["train"], labels["train"], images["test"], labels["test"], [str(n) for n in names], origin)


def _array(arrays: Any, path: Path, name: str, keras: str) -> np.ndarray:
    for key in (name, keras):
        if key in arrays:
            return arrays[key]
    raise UserError(f"{path} has no array '{name}' (or '{keras}'), only {', '.join(sorted(arrays)[:8])}; add it")


def _nchw(images: np.ndarray, channels: int) -> np.ndarray:
    """Return images as (N, channels, height, width), whichever way round they were saved."""
    if images.ndim == 3:
        images = images[:, None]
    elif images.ndim == 4 and images.shape[3] == channels and images.shape[1] != channels:
        images = images.transpose(0, 3, 1, 2)
    return np.ascontiguousarray(images)


def _labels(labels: np.ndarray, path: Path, part: str) -> np.ndarray:
    labels = labels.reshape(-1) if labels.ndim == 2 and labels.shape[1] == 1 else labels
    if labels.ndim != 1 or not np.issubdtype(labels.dtype, np.integer):
        raise UserError(f"{path} has {part} labels {labels.dtype} {labels.shape}; they have to be whole numbers (N,)")
    return labels.astype(np.int64)
