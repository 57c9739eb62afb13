"""What the stages read: the store of a data set and a run's label set, both checked against their manifests.

Reading only. `loaders/` makes a store, `label_sets.py` draws a label set: a change there is no change of the code that
trains.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..runtime import files
from ..runtime.errors import UserError

#: The manifests, written after the arrays that they list.
STORE_MANIFEST = "store.json"
LABELS_MANIFEST = "labels.json"
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


def load_store(folder: str | Path) -> Store:
    """Return the store in `folder`; a missing, damaged or altered file raises `UserError`."""
    manifest, arrays = _load(folder, STORE_MANIFEST, STORE_ARRAYS)
    return Store(
        dataset=manifest["dataset"],
        channels=manifest["channels"],
        size=manifest["size"],
        classes=manifest["classes"],
        class_names=tuple(manifest["class_names"]),
        **arrays,
    )


def load_true_labels(folder: str | Path) -> tuple[np.ndarray, np.ndarray]:
    """Return the store's true train and test labels, int64 (N,) and (M,), without reading its images."""
    _, arrays = _load(folder, STORE_MANIFEST, ("train_labels", "test_labels"))
    return arrays["train_labels"], arrays["test_labels"]


def load_labels(folder: str | Path) -> LabelSet:
    """Return the label set in `folder`; a missing, damaged or altered file raises `UserError`."""
    manifest, arrays = _load(folder, LABELS_MANIFEST, LABELS_ARRAYS)
    facts = {key: value for key, value in manifest.items() if key != "files"}
    return LabelSet(arrays["indices"], arrays["labels"], manifest["classes"], facts)


def _load(
    folder: str | Path, manifest_name: str, arrays: tuple[str, ...]
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Return a folder's manifest and its named arrays (images as memory maps), after checking the arrays' digests."""
    folder = Path(folder)
    manifest = files.read_json(folder / manifest_name)
    if not isinstance(manifest, dict) or not isinstance(manifest.get("files"), dict):
        raise UserError(f"{folder / manifest_name} is no manifest of this project; delete {folder} and run again")
    files.check(folder, manifest["files"], [f"{name}.npy" for name in arrays])
    return manifest, {name: files.read_npy(folder / f"{name}.npy", mmap=name.endswith("images")) for name in arrays}
