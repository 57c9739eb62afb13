"""The data sets of a configuration: those of the registry, and one's own, whose entries stand in the configuration."""

from __future__ import annotations

import functools
import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..data import arrays
from ..runtime.errors import UserError, nearest
from ..runtime.files import sha256
from .networks import NAME
from .registry import ANY_DATASET, DATASETS, LOADERS, TORCHVISION
from .schema import check, fill

#: Options that say how networks see the images or what figures call them: no store depends on them.
NOT_STORED = tuple(ANY_DATASET)

#: Images with more pixels a side stay on disk while networks are trained and asked; others lie in memory.
RESIDENT = 64
#: Images of that size whose pixels a CPU evaluates at a time, as many as it takes of smaller ones: what its layers make of a batch
#: lies in memory.
CPU_IMAGES = 100

#: A file of more bytes is told by its size and date: its content would be read at every start.
READ = 10**9


def own(options: Mapping[str, Any]) -> bool:
    """Say whether a data set is one's own."""
    return "loader" in options


def entry(config: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Return what the registry, or the configuration, says of a data set: ``loader``, ``channels``, ``size``, ``classes`` …

    Parameters
    ----------
    config: complete, from `resolve`.
    """
    options = config["datasets"][name]
    if not own(options):
        return DATASETS[name]
    known = (
        TORCHVISION[options["class"]]
        if options["loader"] == "torchvision"
        else LOADERS[options["loader"]].get("geometry", {})
    )
    if options["loader"] == "features":
        known = known | {"images": [arrays.count(Path(options["root"]), split) for split in arrays.SPLITS]}
    return {**known, **{key: value for key, value in options.items() if key not in NOT_STORED}, "options": {}}


def streamed(entry: Mapping[str, Any]) -> bool:
    """Say whether a data set's images are read from disk as they are needed."""
    return bool(entry["size"] > RESIDENT)


def cpu_batch(entry: Mapping[str, Any]) -> int:
    """Return how many streamed images a CPU evaluates at a time: no more pixels than `CPU_IMAGES` of the largest others have."""
    return max(1, CPU_IMAGES * RESIDENT**2 // int(entry["size"]) ** 2)


def complete(name: str, options: dict[str, Any]) -> None:
    """Check one data set's options and fill in their defaults, in place; raises `UserError`."""
    where = f"config: datasets.{name}"
    if not NAME.fullmatch(name):  # a folder of the results has it
        raise UserError(f"config: datasets has the name '{name}'; use letters, digits, -, . and _")
    if own(options):
        if name in DATASETS:
            raise UserError(f"{where} has a loader, but the registry has a data set of that name; give it another name")
        loader = options["loader"]
        if loader not in LOADERS:
            raise UserError(
                f"{where}.loader is '{loader}'{nearest(str(loader), LOADERS)}; allowed: {', '.join(LOADERS)}"
            )
        properties = {"loader": {"type": "string"}} | LOADERS[loader]["options"]
        required = LOADERS[loader]["required"]
    elif name in DATASETS:
        properties, required = DATASETS[name]["options"], []
    else:
        raise UserError(
            f"config: datasets names '{name}', which is not in the registry{nearest(name, DATASETS)}; a data set of your own "
            f"has a loader: {', '.join(LOADERS)}"
        )
    properties = properties | ANY_DATASET
    schema = {"type": "object", "additionalProperties": False, "properties": properties, "required": required}
    check(options, schema, where)
    fill(options, schema)
    for key in [key for key in (*NOT_STORED, "resize") if options.get(key, "") is None]:
        del options[key]  # a specification without it means the same
    if "root" in options:
        options["root"] = _place(options["root"], where)
    if options.get("resize", options.get("size", 0)) < options.get("size", 0):
        raise UserError(
            f"{where}.resize is {options['resize']}, less than its size, {options['size']}: pictures would get black borders; raise it"
        )
    if options.get("loader") == "folder" and options["classes"] is None:
        options["classes"] = _count(options["root"], where)
    if options.get("loader") == "features":
        try:
            found = arrays.classes(Path(options["root"]))
        except UserError as error:
            raise UserError(f"{where}.root: {error}") from error
        options["classes"] = options["classes"] or found
        if options["classes"] < found:
            raise UserError(f"{where}.classes is {options['classes']}, but a label is {found - 1}; raise it to {found}")
    _normalization({"channels": 3} | (DATASETS.get(name) or entry({"datasets": {name: options}}, name)), options, where)


def _place(root: str, where: str) -> str:
    place = os.path.expanduser(os.path.expandvars(root))
    if "$" in place or place.startswith("~"):
        raise UserError(f"{where}.root is '{root}', but a part of it stands for nothing here; set it or write the path")
    return place


def _count(root: str, where: str) -> int:
    """Return how many classes an ImageFolder tree has."""
    train = os.path.join(root, "train")
    folder = train if os.path.isdir(train) else root
    try:
        with os.scandir(folder) as found:
            classes = sum(1 for place in found if place.is_dir() and not place.name.startswith("."))
    except OSError as error:
        raise UserError(
            f"{where}.root is '{root}', which cannot be read ({error.strerror}); name the folder of the pictures"
        ) from error
    if not classes:
        raise UserError(f"{where}.root is '{root}', which has no folder of a class in it; make one folder a class")
    return classes


def _normalization(geometry: Mapping[str, Any], options: Mapping[str, Any], where: str) -> None:
    """Refuse a mean without a standard deviation, and numbers that are not one a channel."""
    if ("mean" in options) != ("std" in options):
        raise UserError(f"{where} has one of mean and std; give both, or neither to standardize images one by one")
    for key in ("mean", "std"):
        if key in options and len(options[key]) != geometry["channels"]:
            raise UserError(
                f"{where}.{key} has {len(options[key])} numbers, but the images {geometry['channels']} channels; give one each"
            )
    if any(deviation <= 0 for deviation in options.get("std", [])):
        raise UserError(f"{where}.std holds a number that is not above 0; give each channel's standard deviation")


@functools.cache
def fingerprint(root: str) -> str:
    """Return a digest of the names and sizes of all files below a folder, or of one file's content: what tells that it was changed.

    Linked folders count as what they link to. A file above `READ` bytes is told by its size and its date.
    """
    if os.path.isfile(root):
        facts = os.stat(root)
        try:
            return sha256(root) if facts.st_size <= READ else digest(f"{facts.st_size} {facts.st_mtime_ns}")
        except OSError as error:
            raise UserError(
                f"{root} cannot be read ({error.strerror}); make it readable or correct the path"
            ) from error
    lines = []
    above = {root: {os.path.realpath(root)}}  # what a link must not lead back to
    for folder, folders, names in os.walk(root, followlinks=True):
        places = above.pop(folder)
        real = {name: os.path.realpath(os.path.join(folder, name)) for name in folders if not name.startswith(".")}
        folders[:] = sorted(name for name in real if real[name] not in places)
        above |= {os.path.join(folder, name): places | {real[name]} for name in folders}
        for name in sorted(names):
            path = os.path.join(folder, name)
            size = os.path.getsize(path) if os.path.exists(path) else "a broken link"  # the loader says so of a picture
            lines.append(f"{os.path.relpath(path, root)} {size}")
    return digest("\n".join(lines))


def size(file: str) -> str:
    """Return a digest of a file's size; its content is an input of the job."""
    return digest(f"{os.path.getsize(file)}")


def digest(text: str) -> str:
    """Return the SHA-256 of a text."""
    return hashlib.sha256(text.encode()).hexdigest()
