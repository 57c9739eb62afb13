"""What the stages read: the store of a data set and a run's label set, both checked against their manifests.

Reading only. `loaders/` makes a store, `label_sets.py` draws a label set: a change there is no change of the code that
trains.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..runtime import files, results

#: The arrays that a manifest lists, each a file `<name>.npy` beside it.
STORE_ARRAYS = ("train_images", "train_labels", "test_images", "test_labels")
LABELS_ARRAYS = ("indices", "labels")


class Store(NamedTuple):
    """A data set as `prepare` stored it.

    Images are read-only memory maps, uint8, (N, channels, size, size); labels are int64, (N,), the true ones.
    """

    dataset: str
    train_images: np.ndarray
    train_labels: np.ndarray
    test_images: np.ndarray
    test_labels: np.ndarray
    channels: int
    size: int
    classes: int
    class_names: tuple[str, ...]


class LabelSet(NamedTuple):
    """The training images of a run and the labels that it trains on.

    `indices`, int64 (N,), are positions in the store's training images; `labels`, int64 (N,), belong to them in the
    same order. `facts` is the manifest without its file list.
    """

    indices: np.ndarray
    labels: np.ndarray
    classes: int
    facts: dict[str, Any]


def load_store(manifest: Path) -> Store:
    """Return a store, given its manifest; a missing, damaged or altered file raises `UserError`."""
    facts, arrays = _load(manifest, STORE_ARRAYS)
    return Store(
        dataset=facts["dataset"],
        channels=facts["channels"],
        size=facts["size"],
        classes=facts["classes"],
        class_names=tuple(facts["class_names"]),
        **arrays,
    )


def load_true_labels(manifest: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return a store's true train and test labels, int64 (N,) and (M,), without reading its images."""
    _, arrays = _load(manifest, ("train_labels", "test_labels"))
    return arrays["train_labels"], arrays["test_labels"]


def load_labels(manifest: Path) -> LabelSet:
    """Return a label set, given its manifest; a missing, damaged or altered file raises `UserError`."""
    facts, arrays = _load(manifest, LABELS_ARRAYS)
    del facts["files"]
    return LabelSet(arrays["indices"], arrays["labels"], facts["classes"], facts)


def _load(manifest: Path, arrays: tuple[str, ...]) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Return what a manifest says and its named arrays (images as memory maps), after checking the arrays' digests."""
    facts = results.read(manifest, [f"{name}.npy" for name in arrays])
    folder = manifest.parent
    return facts, {name: files.read_npy(folder / f"{name}.npy", mmap=name.endswith("images")) for name in arrays}
