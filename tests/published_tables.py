"""Measures that behave as the paper's published curves do, to judge the rules of the claims by, and what changes them.

From the paper and its authors' code (workflow/resources/published.yaml): data sets, schedules, final accuracies, k-NN by layer,
memorization in figure 7, the ends of D_KL in figures 5 and 6. What was never published in numbers has the manner that the
paper's words give it, and nothing more: the rise of P_SAME, D_KL on the way, SVM and LR by layer, memorization in figure 6.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import yaml
from conftest import ROOT
from dnn_or_knn.claims import effects
from dnn_or_knn.claims.study import Study
from dnn_or_knn.measures import tables
from dnn_or_knn.plan import schema as plan_schema
from dnn_or_knn.runtime import results

PUBLISHED = yaml.safe_load((ROOT / "workflow/resources/published.yaml").read_text(encoding="utf-8"))
ARCHITECTURES, DEEP = ["mlp640", "lenet", "wrn-28-10"], "wrn-28-10"
LABELS = {"true": "true-labels", "random": "random-labels", "overfit": "overfit"}
#: The same as a job is told them.
SHOWN = LABELS | {"random_layers": LABELS["random"]}
PROBES = ("knn", "svm", "lr")
REPLICATES = 40


class Cell(NamedTuple):
    """A data set: its schedule, and for each network the last test accuracy, k-NN's less it, and k-NN's last P_SAME."""

    classes: int
    last: int
    every: int
    decays: tuple[float, ...]  #: as shares of the training
    networks: dict[str, tuple[float, float, float]]
    d_kl: tuple[float, float]  #: k-NN's at the end of training on true labels: train, test
    random: tuple[int, int]  #: last step, memorization
    overfit: tuple[int, int, int, int, float]  #: last step, interval, 90 %, memorization, test accuracy there


CELLS = {
    "mnist": Cell(
        10, 1000, 10, (0.15, 0.3, 0.4),
        {"mlp640": (0.985, -0.005, 0.982), "lenet": (0.9884, 0.0022, 0.99), DEEP: (0.9931, 0.0013, 0.996)},
        (0.115, 0.116), (60_000, 24_000), (2180, 20, 280, 340, 0.8425),
    ),
    "cifar10": Cell(
        10, 50_000, 1000, (0.3, 0.6, 0.8),
        {"mlp640": (0.625, -0.015, 0.8), "lenet": (0.8475, -0.0126, 0.88), DEEP: (0.952, 0.0, 0.985)},
        (0.034, 0.045), (50_000, 16_000), (20_000, 200, 800, 1000, 0.6734),
    ),
    "cifar100": Cell(
        100, 50_000, 1000, (0.3, 0.6, 0.8),
        {"mlp640": (0.236, -0.015, 0.66), "lenet": (0.5335, -0.0115, 0.74), DEEP: (0.7885, 0.0003, 0.93)},
        (0.1, 0.15), (50_000, 20_000), (14_600, 200, 2600, 3200, 0.2985),
    ),
}  # fmt: skip


@dataclass
class World:
    """Made-up measures of one seed."""

    #: (data set, architecture, kind of labels, layer, split, model) → "step" and measures, arrays along the steps.
    curves: dict[tuple[str, ...], dict[str, np.ndarray]] = field(default_factory=dict)
    #: (data set, architecture, kind of labels) → what `runs.csv` says.
    runs: dict[tuple[str, str, str], dict[str, Any]] = field(default_factory=dict)
    #: Probe points from shallow to deep.
    layers: list[str] = field(default_factory=lambda: list(by_layer("mnist")))

    def change(self, measure: str, function: Callable[..., np.ndarray], **where: str) -> World:
        """Change a measure wherever the named keys match: `function` takes its values and its steps."""
        names = ("dataset", "architecture", "labels", "layer", "split", "model")
        for key, curves in self.curves.items():
            if measure in curves and where.items() <= dict(zip(names, key, strict=True)).items():
                curves[measure] = function(curves[measure], curves["step"])
        return self


def by_layer(dataset: str) -> dict[str, float]:
    """Return k-NN's published test accuracy at each layer of the wide ResNet."""
    rows = PUBLISHED["layer_test_accuracy"]
    found = next(row for row in rows if (row["dataset"], row["architecture"]) == (dataset, DEEP))
    return dict(zip(found["layers"], np.array(found["code"]) / 100, strict=True))


def published(seed: int = 0, datasets: Sequence[str] = tuple(CELLS)) -> World:
    """Return what the paper published, as one training with this seed could have brought it about."""
    world = World()
    for dataset in datasets:
        cell, rng = CELLS[dataset], np.random.default_rng([len(dataset), seed])
        for architecture in ARCHITECTURES:
            _true_labels(world, dataset, cell, architecture, rng)
        _true_layers(world, dataset)
        _random_labels(world, dataset, cell, rng)
        _overfitting(world, dataset, cell, rng)
    return world


def _true_labels(world: World, dataset: str, cell: Cell, architecture: str, rng: np.random.Generator) -> None:
    """Figures 1, 2, 3 and 5: accuracies that coincide but for dips while the learning rate is high."""
    steps = np.arange(0, cell.last + 1, cell.every)
    time, chance = steps / cell.last, 1 / cell.classes
    final, shift, alike = cell.networks[architecture]
    level = np.array([0.9, 0.96, 0.99, 1.0])[np.searchsorted(cell.decays, time, side="right")]
    risen = 1 - np.exp(-time / 0.05)
    test = chance + (final - chance) * risen * level + rng.normal(0, 0.003, len(steps)) * (level < 1)
    dip = np.isin(np.arange(len(steps)), (4, 8, 12)) * (architecture == DEEP)
    top = {DEEP: 1.0}.get(architecture, min(1.0, final + 0.1))
    noise = np.exp(rng.normal(0, 0.05, len(steps)))
    for split in ("train", "test"):
        accuracy = test if split == "test" else test + (top - final) * np.minimum(time / 0.8, 1)
        _add(world, (dataset, architecture, "true", "embedding", split, "dnn"), steps, accuracy=accuracy - 0.08 * dip)
        for probe, share, scale in zip(PROBES, (1.0, 0.5, 0.4), (1.0, 1.4, 0.8), strict=True):
            end = cell.d_kl[split == "test"]
            _add(
                world,
                (dataset, architecture, "true", "embedding", split, probe),
                steps,
                accuracy=accuracy + share * shift * (split == "test") - 0.04 * dip,
                p_same=1 - share * (1 - alike) - 0.25 * np.exp(-time / 0.06) - 0.03 * (1 - alike) * (1 - time) - 0.1 * dip,
                d_kl=scale * (end * (2 - level) + 1.5 * np.exp(-time / 0.08)) * noise * (1 + 0.5 * dip)
                * np.exp(rng.normal(0, 0.02, len(steps))),
            )  # fmt: skip
    _run(world, (dataset, architecture, "true"), cell, steps, final_test=final)


def _true_layers(world: World, dataset: str) -> None:
    """Figure 4, left: test as published for k-NN; train reaches 100 % at the embedding."""
    known = by_layer(dataset)
    last = world.runs[dataset, DEEP, "true"]["last_step"]
    for place, (layer, value) in enumerate(list(known.items())[:-1]):
        for probe, more in zip(PROBES, (0.0, 0.15, 0.12), strict=True):
            test = value + more * (known["embedding"] - value)
            train = test + (1 - test) * (place / len(known)) ** 3
            for split, accuracy in (("train", train), ("test", test)):
                _add(world, (dataset, DEEP, "true", layer, split, probe), [last], accuracy=[accuracy])


def _random_labels(world: World, dataset: str, cell: Cell, rng: np.random.Generator) -> None:
    """Figures 6 and 4, right: one curve until memorization, then train to 0.0115 nats and test up to a constant."""
    last, memorized = cell.random
    steps, chance = np.arange(0, last + 1, 1000), 1 / cell.classes
    common = 0.35 + 0.3 * np.minimum(steps / memorized, 1) + rng.normal(0, 0.01, len(steps))
    train = chance + (1 - chance) * np.minimum(steps / memorized, 1) ** 2
    network = {"train": train, "test": np.full(len(steps), chance)}
    parted = _parted(steps, memorized, 1000, common, 0.0115, 0.8)
    _memorizing(world, (dataset, DEEP, "random"), steps, network, parted, {"knn": 0.4, "svm": 0.85, "lr": 0.86})
    for place, layer in enumerate(world.layers[:-1]):
        for probe in PROBES:
            late = chance + (0.99 - chance) / (1 + np.exp(-1.5 * (place - 12)))
            for split, accuracy in (("train", late), ("test", chance)):
                _add(world, (dataset, DEEP, "random", layer, split, probe), [last], accuracy=[accuracy])
    _run(world, (dataset, DEEP, "random"), cell, steps, memorized, int(steps[(train >= 0.9).argmax()]), chance)


def _overfitting(world: World, dataset: str, cell: Cell, rng: np.random.Generator) -> None:
    """Figure 7: one curve until memorization (CIFAR-100: 90 %), then train goes down and test slightly up."""
    last, every, step_90, memorized, accuracy = cell.overfit
    steps, chance = np.arange(0, last + 1, every), 1 / cell.classes
    common = 0.3 + 0.2 * np.exp(-2 * steps / memorized) + rng.normal(0, 0.005, len(steps))
    part = step_90 if dataset == "cifar100" else memorized
    grown = np.minimum(steps / memorized, 1)
    network = {"train": chance + (1 - chance) * grown, "test": chance + (accuracy - chance) * grown}
    parted = _parted(steps, part, every, common, 0.02, 0.1)
    _memorizing(world, (dataset, DEEP, "overfit"), steps, network, parted, {"knn": 0.8, "svm": 0.93, "lr": 0.94})
    _run(world, (dataset, DEEP, "overfit"), cell, steps, memorized, step_90, accuracy)


def _parted(
    steps: np.ndarray, step: int, every: int, common: np.ndarray, low: float, rise: float
) -> dict[str, np.ndarray]:
    """Return train and test D_KL that part at a step, within an evaluation or two."""
    left = np.exp(-np.maximum(steps - step + every, 0) / every)
    return {"train": low + (common - low) * left, "test": common + rise * (1 - left)}


def _memorizing(
    world: World,
    run: tuple[str, str, str],
    steps: np.ndarray,
    network: dict[str, np.ndarray],
    parted: dict[str, np.ndarray],
    alike: dict[str, float],
) -> None:
    """Add the curves of a run that memorizes: k-NN and LR part, the SVM does not; `alike` is P_SAME on test."""
    for split in ("train", "test"):
        _add(world, (*run, "embedding", split, "dnn"), steps, accuracy=network[split])
        for probe in PROBES:
            d_kl = {"knn": parted[split], "svm": parted["train"] + 0.1, "lr": 0.7 * parted[split]}[probe]
            same = np.full(len(steps), 0.97 if split == "train" else alike[probe])
            _add(
                world, (*run, "embedding", split, probe), steps, accuracy=0.99 * network[split], p_same=same, d_kl=d_kl
            )


def _add(world: World, key: tuple[str, ...], steps: Any, **measures: Any) -> None:
    world.curves[key] = {"step": np.asarray(steps)} | {
        name: np.asarray(value, float) if name == "d_kl" else np.clip(value, 0, 1) for name, value in measures.items()
    }


def _run(
    world: World,
    run: tuple[str, str, str],
    cell: Cell,
    steps: np.ndarray,
    memorized: int | None = None,
    step_90: int | None = None,
    final_test: float = 0.0,
) -> None:
    world.runs[run] = {
        "classes": cell.classes,
        "train_count": 10_000,
        "test_count": 10_000,
        "memorization_step": memorized,
        "step_90": step_90,
        "last_step": int(steps[-1]),
        "final_train_accuracy": 1.0,
        "final_test_accuracy": final_test,
    }


def as_tables(worlds: list[World], *, noise: float = 1e-3) -> tuple[pd.DataFrame, dict[str, np.ndarray], pd.DataFrame]:
    """Return the measures, replicates and runs of some seeds; replicates are the values with `noise`, relative for D_KL."""
    rng = np.random.default_rng(0)
    rows, runs = [], []
    for seed, world in enumerate(worlds):
        for (dataset, architecture, labels, layer, split, model), curves in world.curves.items():
            run = {"dataset": dataset, "architecture": architecture, "labels": LABELS[labels], "seed": seed}
            key = {"layer": layer, "layer_index": world.layers.index(layer), "split": split, "model": model}
            fixed = run | key | {"count": 10_000, "floored": 0, "converged": True}
            rows += [fixed | dict(zip(curves, row, strict=True)) for row in zip(*curves.values(), strict=True)]
        for (dataset, architecture, labels), facts in world.runs.items():
            run = {"dataset": dataset, "architecture": architecture, "labels": LABELS[labels], "seed": seed}
            runs.append(run | facts)
    table = tables.frame(rows)
    replicates = {}
    for name in tables.REPLICATED:
        values = table[name].to_numpy()[:, None]
        drawn = noise * rng.normal(size=(len(table), REPLICATES))
        replicates[name] = values * np.exp(drawn) if name.startswith("d_kl") else np.maximum(values + drawn, 0)
    steps = dict.fromkeys(("memorization_step", "step_90"), "Int64")
    return table, replicates, pd.DataFrame(runs)[tables.RUN_COLUMNS].astype(steps)


def write(folder: Path, measures: pd.DataFrame, replicates: dict[str, np.ndarray], runs: pd.DataFrame) -> Path:
    """Write tables as the experiment's stage does, and return the folder."""
    written = tables.write(folder, measures, replicates)
    runs.to_csv(folder / tables.RUNS, index=False)
    results.write(folder / "measures.json", {}, [*written, folder / tables.RUNS])
    return folder


def thresholds(**changed: Any) -> dict[str, Any]:
    """Return the configuration's thresholds with some changed."""
    block: dict[str, Any] = {}
    plan_schema.fill(block, plan_schema.load_schema()["properties"]["claims"])
    return block | changed


def study(worlds: list[World], *, noise: float = 1e-3, **values: Any) -> Study:
    """Return the tables of some seeds as a study of the paper's experiment."""
    facts: dict[str, Any] = {
        "architectures": ARCHITECTURES,
        "datasets": list(dict.fromkeys(run[0] for run in worlds[0].runs)),
        "labels": SHOWN,
    }
    facts |= {"architecture": DEEP, "probes": {name: name for name in PROBES}, "thresholds": thresholds(), **values}
    measures, replicates, runs = as_tables(worlds, noise=noise)
    return Study(data=effects.prepare(measures, replicates, runs.to_dict("records")), **facts)
