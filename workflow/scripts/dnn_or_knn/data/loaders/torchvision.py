"""torchvision's MNIST and CIFAR families."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ...runtime.errors import UserError, nearest
from .. import downloads
from .common import Data


def load(spec: Mapping[str, Any], root: Path, download: bool) -> Data:
    """Load one of torchvision's classes (``spec["class"]``, MNIST's or CIFAR's family) from files checked before they are read."""
    from torchvision import datasets

    name = str(spec.get("class"))
    dataset = getattr(datasets, name, None)
    if dataset is None:
        raise UserError(f"{spec['dataset']}: torchvision has no data set '{name}'{nearest(name, datasets.__all__)}")
    with tempfile.TemporaryDirectory(prefix="dnn-or-knn-") as temporary:
        checked = downloads.obtain(dataset, root.expanduser(), Path(temporary), download=download)
        train, test = (dataset(temporary, train=part, download=False) for part in (True, False))
    return Data(
        _nchw(np.asarray(train.data)),
        np.asarray(train.targets, dtype=np.int64),
        _nchw(np.asarray(test.data)),
        np.asarray(test.targets, dtype=np.int64),
        [str(label) for label in train.classes],
        {"loader": "torchvision", "class": name, **checked},
    )


def _nchw(images: np.ndarray) -> np.ndarray:
    """Return torchvision's images, (N, H, W) or (N, H, W, C), as a contiguous (N, C, H, W)."""
    images = images[..., None] if images.ndim == 3 else images
    return np.ascontiguousarray(images.transpose(0, 3, 1, 2))
