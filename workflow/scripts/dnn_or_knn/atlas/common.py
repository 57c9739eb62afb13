"""What the measures beside the paper's share.

Each is one module beside this one, with one function::

    measure(part) -> {column: array}

`part` is what one job measures (`Part`): a run, or a shard of a run's features. All columns have one length, a row each;
the job adds the run's name before them and writes them. The result depends on `part` alone.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from ..data import store
from ..measures import evaluation
from ..measures.formulas import Model
from ..runtime import files, results
from ..runtime.errors import UserError

SPLITS = evaluation.SPLITS
#: The columns that name a run, the first of every table.
RUN = ("dataset", "architecture", "labels", "seed")
Columns = dict[str, np.ndarray]
Measure = Callable[["Part"], Columns]


class Part:
    """What one job measures, and everything that lies on disk of its run.

    Parameters
    ----------
    spec: the job's specification. store, labels, training: the manifests of the data set, the label set and the run.
    features: the folders with the features of the shards that are read, by shard; empty where no features are.
    device: where torch computes: "auto", "cpu" or "cuda".
    """

    def __init__(
        self,
        spec: Mapping[str, Any],
        store: Path,
        labels: Path,
        training: Path,
        features: Mapping[str, Path],
        device: str = "cpu",
    ) -> None:
        self.spec, self.store, self.training, self.features, self.device = spec, store, training, features, device
        self.run, self.labels = training.parent, labels

    def __str__(self) -> str:
        return str(self.run)

    @cached_property
    def label_set(self) -> store.LabelSet:
        """The images that the run is trained on, and the labels that it is trained with."""
        return store.load_labels(self.labels)

    @cached_property
    def true(self) -> dict[str, np.ndarray]:
        """The true labels of the run's images, int64 (N,), by split."""
        train, test = store.load_true_labels(self.store)
        return {"train": train[self.label_set.indices], "test": test}

    @cached_property
    def given(self) -> dict[str, np.ndarray]:
        """The labels that count as right, int64 (N,): on train those that the run is trained with, on test the true ones."""
        return {"train": self.label_set.labels, "test": self.true["test"]}

    @property
    def classes(self) -> int:
        return self.label_set.classes

    @cached_property
    def extracted(self) -> dict[str, dict[str, Any]]:
        """The manifests of the features of the specification's shards, by shard."""
        return {s["name"]: files.read_json(self.run / "features" / f"{s['name']}.json") for s in self.spec["shards"]}

    def logits(self, step: int, split: str) -> np.ndarray:
        """Return the network's logits (N, C) at a step."""
        return evaluation.read_logits(self.run, self.extracted, step, split, len(self.given[split]))

    def layers(self, shard: str) -> list[str]:
        """Return the probe points of a shard, in the network's order."""
        return evaluation.layer_names(self.extracted[shard])

    def models(
        self, shard: str, step: int, layer: str, probes: Sequence[str] | None = None
    ) -> dict[str, dict[str, Model]]:
        """Return the specification's probes, or some of them, at one evaluation, by split and by name."""
        name = f"{shard}/step{step:06d}_{layer}"
        wanted = {probe: self.spec["probes"][probe] for probe in probes or self.spec["probes"]}
        return evaluation.read_probes(self.run, wanted, name, self.given, self.classes)[0]

    def probe_array(self, probe: str, shard: str, step: int, layer: str, array: str) -> np.ndarray:
        """Return one array of what a probe keeps of an evaluation, checked against its manifest."""
        name = f"{shard}/step{step:06d}_{layer}.npz"
        folder = self.run / "probes" / probe
        files.check(folder, files.read_json(folder / f"{shard}.json")["files"], [name])
        with np.load(folder / name, allow_pickle=False) as arrays:
            return arrays[array]

    def feature(self, shard: str, step: int, layer: str, split: str = "train") -> np.ndarray:
        """Return a layer's features of a split's images at a step, float32 (N, d), checked against their manifest."""
        name, folder = f"{shard}/step{step:06d}_{layer}_{split}.npy", self.features[shard]
        files.check(folder.parent, self.extracted[shard]["files"], [name])
        return files.read_npy(folder.parent / name)

    def checkpoint(self, step: int) -> Path:
        """Return the file with the weights of a step, checked against the training's manifest."""
        name = f"checkpoints/step{step:06d}.pt"
        results.read(self.training, [name])
        return self.run / name


def load(module: str) -> Measure:
    """Return the `measure` function of the module `module` of this package; an unknown one raises `UserError`."""
    name = f"{__package__}.{module}"
    try:
        return importlib.import_module(name).measure
    except ModuleNotFoundError as error:
        if error.name != name:
            raise
        raise UserError(f"there is no measure '{module}'; add atlas/{module}.py or correct the name") from error


def named(run: Mapping[str, Any], columns: Columns) -> Columns:
    """Return the columns of a table behind those that name its run; columns of other lengths are a fault of the measure."""
    lengths = {len(column) for column in columns.values()}
    if len(lengths) != 1:
        raise ValueError(f"the columns have {sorted(lengths)} rows; each must have one value a row")
    return {name: np.full(lengths.copy().pop(), run[name]) for name in RUN} | columns


def by_rows(rows: Iterable[Mapping[str, Any]]) -> Columns:
    """Return rows, each a value for every column, as columns."""
    listed = list(rows)
    return {name: np.array([row[name] for row in listed]) for name in listed[0]}
