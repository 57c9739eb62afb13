"""Subjects of features alone in a configuration: which file has which layer at which step, and the data set of their labels."""

from __future__ import annotations

import os
import re
import zipfile
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

from ..data import arrays
from ..ordering import merged
from ..runtime.errors import UserError, nearest
from . import datasets
from .networks import NAME, distinct
from .registry import DATASETS

LAST = "embedding"
#: The network of a subject of features: there is none.
NETWORK = {"module": "features"}


def complete(config: dict[str, Any]) -> None:
    """Spell out each subject's features, and make a data set of the labels where its data set is not configured, in place.

    Types are left to the schema, which is looked at afterwards.
    """
    listed: Any = config.get("subjects")
    known: Any = config.get("datasets")
    of_dataset: dict[str, list[str]] = {}
    for name, subject in listed.items() if isinstance(listed, dict) else ():
        if not isinstance(subject, dict) or not isinstance(subject.get("features"), str | dict):
            continue
        where = f"config: subjects.{name}"
        if other := next((key for key in ("network", "checkpoints") if key in subject), None):
            raise UserError(f"{where} has features and {other}; give features alone, or a network and its checkpoints")
        subject["features"] = spelled_out(subject["features"], f"{where}.features")
        _one_order(subject["features"], f"{where}.features")
        _files(subject["features"], f"{where}.features")
        files = [layers[LAST] for layers in subject["features"].values()]
        of_dataset.setdefault(str(subject.setdefault("dataset", name)), []).extend(files)
    for dataset, files in of_dataset.items() if isinstance(known, dict) else ():
        if dataset not in known:
            known[dataset] = _labels(files, dataset, known)


def spelled_out(features: Any, where: str) -> dict[str, dict[str, str]]:
    """Return step → layer → file of what the configuration says: one file, a file for each layer, or either for each step."""
    if isinstance(features, str):
        features = {LAST: features}
    if not features:
        raise UserError(f"{where} is empty; name an .npz file, or a folder of .npy files")
    if not all(re.fullmatch(r"\d{1,9}", str(key)) for key in features):
        features = {"0": features}
    made = {}
    for step, layers in features.items():
        if not re.fullmatch(r"\d{1,9}", str(step)) or not isinstance(layers, str | dict) or not layers:
            raise UserError(f"{where} has {layers!r} at {step}; write a file, or a file for each layer")
        layers = {LAST: layers} if isinstance(layers, str) else layers
        for layer, file in layers.items():
            if not isinstance(file, str) or not file:
                mixed = "steps and layers in one mapping" if re.fullmatch(r"\d+", str(layer)) else repr(file)
                raise UserError(f"{where} has {mixed} at {layer}; write step: {{layer: file}}, or layer: file")
            if not NAME.fullmatch(str(layer)):
                raise UserError(f"{where} has a layer '{layer}'; use letters, digits, -, . and _")
        if LAST not in layers:
            raise UserError(f"{where} has no '{LAST}' at step {step}, the last layer{nearest(LAST, layers)}; add it")
        made[str(int(step))] = {str(layer): file for layer, file in layers.items()}
    distinct(features, where)
    return made


def hidden(features: Mapping[Any, Mapping[str, str]]) -> list[list[str]]:
    """Return each step's layers but the last one, in the order in which they are given, steps ascending."""
    return [[layer for layer in features[step] if layer != LAST] for step in sorted(features, key=int)]


def layers(features: Mapping[Any, Mapping[str, str]]) -> list[str]:
    """Return the layers of all steps in the network's order, which each step keeps; steps may have some of them alone."""
    return [*merged(hidden(features)), LAST]


def measured(features: Mapping[Any, Mapping[str, str]] | None) -> dict[str, list[str]]:
    """Return what the measures must be told of the layers' order: nothing where it is that of their first appearance, by step."""
    if features is None:
        return {}
    order, seen = layers(features), dict.fromkeys(layer for row in hidden(features) for layer in row)
    return {} if [*seen, LAST] == order else {"layers": order}


def _one_order(features: Mapping[str, Mapping[str, str]], where: str) -> None:
    """Refuse layers that are in one order at a step and in another one at another."""
    place = {layer: number for number, layer in enumerate(layers(features))}
    for row in hidden(features):
        for first, second in pairwise(row):
            if place[first] > place[second]:
                raise UserError(
                    f"{where} has {first} before {second} at one step, and after it at another; write the layers of each step in the "
                    "network's order"
                )


def _files(features: Mapping[str, Mapping[str, str]], where: str) -> None:
    """Refuse files that lack what they have to hold."""
    for step, layers in features.items():
        for layer, file in layers.items():
            try:
                for array in arrays.FEATURES:
                    arrays.find(Path(file), array)
                arrays.has(Path(file), arrays.LABELS)
                arrays.has(Path(file), arrays.LOGITS)
            except UserError as error:
                raise UserError(f"{where}.{step}.{layer}: {error}") from error
    lacking = [step for step in features if not arrays.has(Path(features[step][LAST]), arrays.LOGITS)]
    if 0 < len(lacking) < len(features):
        raise UserError(
            f"{where} has logits, but none in {features[lacking[0]][LAST]}; give them at all steps or at none"
        )


def has_logits(features: Mapping[str, Mapping[str, str]]) -> bool:
    """Return whether the network's outputs are given beside the embeddings."""
    return all(arrays.has(Path(layers[LAST]), arrays.LOGITS) for layers in features.values())


def _labels(files: list[str], dataset: str, known: Mapping[str, Any]) -> dict[str, Any]:
    """Return the data set of the labels in the first of some files that has any."""
    if dataset in DATASETS:
        raise UserError(
            f"config: subjects name the dataset '{dataset}', which is not under datasets; add it there, or write another name"
        )
    for file in files:
        if arrays.has(Path(file), arrays.LABELS):
            return {"loader": "features", "root": file}
    raise UserError(
        f"config: subjects: {files[0]} has no train_labels and test_labels, and '{dataset}' is not under "
        f"datasets{nearest(dataset, known)}; add the labels to the file, or name the `dataset`"
    )


def subjects(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the subjects of features alone."""
    return {name: subject for name, subject in config.get("subjects", {}).items() if "features" in subject}


def refuse(config: Mapping[str, Any], runs: Mapping[str, Any]) -> None:
    """Raise `UserError` if a network would see the images of a data set that has labels alone."""
    for run in runs.values():
        if run.given is None and config["datasets"][run.dataset].get("loader") == "features":
            raise UserError(
                f"config: {run.path} needs images, but datasets.{run.dataset} has the labels of features alone; name another data set"
            )


def fingerprint(path: str, names: list[str]) -> dict[str, str]:
    """Return what tells that an array of a file or a folder has changed, by name.

    Of an .npz file it is the checksum that the file keeps of each array; of a .npy file as `datasets.fingerprint` has it.
    """
    if os.path.isdir(path):
        return {name: datasets.fingerprint(os.path.join(path, f"{name}.npy")) for name in names}
    with zipfile.ZipFile(path) as archive:
        entries = [archive.getinfo(f"{name}.npy") for name in names]
    return {name: f"{entry.CRC:08x}-{entry.file_size}" for name, entry in zip(names, entries, strict=True)}


def labels_of(path: str) -> dict[str, str]:
    """Return `fingerprint` of the labels of a file."""
    return fingerprint(path, arrays.LABELS)


def fingerprints(path: str) -> dict[str, str]:
    """Return `fingerprint` of all arrays of a file that are read."""
    have = arrays.names(Path(path))
    return fingerprint(path, [n for n in (*arrays.FEATURES, *arrays.LABELS, *arrays.LOGITS) if n in have])
