"""The labels of features that were computed elsewhere, as a data set whose images are one blank pixel each."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from .. import arrays
from .common import Data


def load(spec: Mapping[str, Any], root: Path, download: bool) -> Data:
    """Load ``train_labels`` and ``test_labels`` of ``spec["root"]``, an .npz file or a folder of .npy files; see `arrays.labels`.

    Classes are named by their numbers.
    """
    path = Path(spec["root"])
    labels = {split: arrays.labels(path, split) for split in arrays.SPLITS}
    shape = (spec["channels"], spec["size"], spec["size"])
    images = {split: np.zeros((len(labels[split]), *shape), np.uint8) for split in arrays.SPLITS}
    names = [str(number) for number in range(spec["classes"])]
    return Data(images["train"], labels["train"], images["test"], labels["test"], names, {"loader": "features"})
