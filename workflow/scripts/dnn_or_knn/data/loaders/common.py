"""From a data set's source to its store: uint8 images (N, channels, size, size) and int64 labels (N,).

Every way of loading is one module beside this one, with one function ``load(spec, root, download) -> Data``.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ...runtime import files
from ...runtime.errors import UserError, nearest
from ..store import STORE_ARRAYS


class Data(NamedTuple):
    """A data set in memory: images uint8 (N, channels, size, size), labels int64 (N,), where it came from."""

    train_images: np.ndarray
    train_labels: np.ndarray
    test_images: np.ndarray
    test_labels: np.ndarray
    class_names: list[str]
    origin: dict[str, Any]


def load(spec: Mapping[str, Any], root: Path, *, download: bool) -> Data:
    """Load and check the data set of a `prepare` specification.

    Parameters
    ----------
    spec: ``dataset``, ``loader`` (a module of this package), ``channels``, ``size``, ``classes``, and the loader's own keys.
    root: folder of torchvision's files; ``~`` is the home folder. Never written to unless `download` is set and something is
        missing or bad.

    Raises
    ------
    UserError: files missing, truncated or altered, or data of another geometry than the specification's.
    """
    for key in ("dataset", "loader", "channels", "size", "classes"):
        if key not in spec:
            raise UserError(f"--spec has no '{key}'; see --help for the keys of this stage")
    name = f"{__package__}.{spec['loader']}"
    try:
        loader = importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name != name:
            raise
        names = (module.name for module in pkgutil.iter_modules([str(Path(__file__).parent)]))
        known = [name for name in names if name != "common"]
        raise UserError(
            f"{spec['dataset']}: there is no loader '{spec['loader']}'{nearest(spec['loader'], known)}"
        ) from error
    data: Data = loader.load(spec, root, download)
    _check_geometry(spec, data)
    return data


def _check_geometry(spec: Mapping[str, Any], data: Data) -> None:
    """Refuse data that are not what the registry says of them."""
    expected = (spec["channels"], spec["size"], spec["size"])
    for part, images, labels in (
        ("training", data.train_images, data.train_labels),
        ("test", data.test_images, data.test_labels),
    ):
        if images.dtype != np.uint8 or images.shape[1:] != expected or len(images) != len(labels) or not len(images):
            raise UserError(
                f"{spec['dataset']}: its {part} images are {images.dtype} {images.shape} with {len(labels)} labels, its "
                f"registry entry says uint8 (N, {', '.join(map(str, expected))}); correct the entry"
            )
        if labels.min() < 0 or labels.max() >= spec["classes"] or len(data.class_names) != spec["classes"]:
            raise UserError(
                f"{spec['dataset']}: its {part} labels go from {labels.min()} to {labels.max()} and it names "
                f"{len(data.class_names)} classes, its registry entry says {spec['classes']}; correct the entry"
            )


def write_store(folder: Path, spec: Mapping[str, Any], data: Data) -> tuple[dict[str, Any], list[Path]]:
    """Write the store's arrays; return what its manifest says, and their paths. On any error none of them stays."""
    arrays = {name: getattr(data, name) for name in STORE_ARRAYS}
    late = {name: array for name, array in arrays.items() if hasattr(array, "save")}
    paths = [folder / f"{name}.npy" for name in STORE_ARRAYS]
    try:
        for name, array in late.items():  # decoded while it is written
            array.save(folder / f"{name}.npy")
        files.write_arrays(folder, {name: array for name, array in arrays.items() if name not in late})
    except BaseException:
        for path in paths:
            files.remove(path)
        raise
    facts = {key: spec[key] for key in ("dataset", "channels", "size", "classes")}
    facts |= {"train": len(data.train_labels), "test": len(data.test_labels)}
    return facts | {"class_names": data.class_names, "origin": data.origin}, paths
