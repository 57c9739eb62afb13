"""Data sets that lie in this repository, under `workflow/resources`."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ...runtime.errors import UserError
from .common import Data

RESOURCES = Path(__file__).resolve().parents[4] / "resources"


def load(spec: Mapping[str, Any], root: Path, download: bool) -> Data:
    """Load ``spec["file"]``, an .npz below `workflow/resources` whose SHA-256 is ``spec["sha256"]``.

    Its arrays: `train_images` and `test_images`, uint8 (N, size, size) or (N, channels, size, size); `train_labels` and
    `test_labels`, (N,). ``spec["class_names"]`` are in the order of the labels.

    Raises
    ------
    UserError: the file is missing or altered.
    """
    path = RESOURCES / spec["file"]
    found = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "no file"
    if found != spec["sha256"]:
        raise UserError(f"{path} should have SHA-256 {spec['sha256']}, found {found}; restore it with git")
    with np.load(path, allow_pickle=False) as arrays:
        train, test = (
            (_nchw(arrays[f"{part}_images"]), arrays[f"{part}_labels"].astype(np.int64)) for part in ("train", "test")
        )
    origin = {"loader": "bundled", "file": spec["file"], "sha256": found}
    return Data(*train, *test, list(spec["class_names"]), origin)


def _nchw(images: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(images[:, None] if images.ndim == 3 else images)
