"""A measures table with the shape of a real experiment, made from formulas: for tests of what reads such tables.

Nothing here imitates a result of the paper closely; the curves only have the right columns, ranges and manners
(they rise, coincide, part after memorization), so that a figure made from them is as full as a real one.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

#: data set → (classes, last step, evaluation interval, final test accuracy by architecture kind).
DATASETS: dict[str, tuple[int, int, int, dict[str, float]]] = {
    "mnist": (10, 1000, 20, {"wrn": 0.994, "lenet": 0.990, "mlp": 0.982}),
    "cifar10": (10, 50_000, 1000, {"wrn": 0.950, "lenet": 0.830, "mlp": 0.620}),
    "cifar100": (100, 50_000, 1000, {"wrn": 0.783, "lenet": 0.530, "mlp": 0.236}),
    "digits": (10, 300, 20, {"wrn": 0.985, "lenet": 0.975, "mlp": 0.970}),
}
#: data set → (last step, evaluation interval, memorization step, final test accuracy) of the overfitting experiment.
OVERFIT: dict[str, tuple[int, int, int, float]] = {
    "mnist": (2180, 20, 340, 0.85),
    "cifar10": (20_000, 200, 1000, 0.67),
    "cifar100": (14_600, 200, 3200, 0.30),
    "digits": (200, 10, 60, 0.90),
}
ARCHITECTURES = ("wrn-28-10", "lenet", "mlp640")
PROBES = ("knn", "svm", "lr")
UNITS = tuple(f"unit_{stage}_{unit}" for stage in (1, 2, 3) for unit in (1, 2, 3, 4))
LAYERS = ("input", "initial_conv", *UNITS, "embedding")
COLUMNS = [
    *("dataset", "architecture", "labels", "seed", "step", "layer", "layer_index", "split", "model"),
    *("count", "accuracy", "accuracy_decision", "accuracy_probability", "p_same", "d_kl", "d_kl_column", "floored"),
    *("generalization_gap", "converged", "gap"),
]


def probe_points() -> list[dict[str, Any]]:
    """Return the probe points of WRN-28-10 on a three-channel data set, as the training manifest lists them."""
    widths = {"1": 160, "2": 320, "3": 640}
    points: list[dict[str, Any]] = [
        {"name": "input", "dimensions": 3072, "kind": "input", "stage": 0},
        {"name": "initial_conv", "dimensions": 16, "kind": "convolution", "stage": 0},
    ]
    points += [{"name": n, "dimensions": widths[n[5]], "kind": "unit", "stage": int(n[5])} for n in UNITS]
    return [*points, {"name": "embedding", "dimensions": 640, "kind": "embedding", "stage": 4}]


def write(
    folder: Path,
    *,
    datasets: tuple[str, ...] = ("mnist", "cifar10", "cifar100"),
    seeds: int = 1,
    labels: tuple[str, ...] = ("true-labels", "random-labels", "overfit"),
    unconverged: bool = False,
) -> Path:
    """Write ``measures.parquet`` and ``runs.csv`` of a made-up experiment into `folder`, and return it."""
    measures, runs = tables(datasets=datasets, seeds=seeds, labels=labels, unconverged=unconverged)
    folder.mkdir(parents=True, exist_ok=True)
    measures.to_parquet(folder / "measures.parquet", index=False)
    runs.to_csv(folder / "runs.csv", index=False)
    return folder


def tables(
    *,
    datasets: tuple[str, ...] = ("mnist", "cifar10", "cifar100"),
    seeds: int = 1,
    labels: tuple[str, ...] = ("true-labels", "random-labels", "overfit"),
    unconverged: bool = False,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the measures table and the runs table of a made-up experiment.

    `unconverged` marks the SVM's fits at a third of the steps of the random-label runs as not converged.
    """
    rows: list[dict[str, Any]] = []
    runs: list[dict[str, Any]] = []
    for number, dataset in enumerate(datasets):
        for seed in range(seeds):
            rng = np.random.default_rng([number, seed])
            if "true-labels" in labels:
                for architecture in ARCHITECTURES:
                    _true_run(rows, runs, rng, dataset, architecture, seed)
            if "random-labels" in labels:
                _memorizing_run(rows, runs, rng, dataset, "random-labels", seed, unconverged)
            if "overfit" in labels:
                _memorizing_run(rows, runs, rng, dataset, "overfit", seed, False)
    return pd.DataFrame(rows)[COLUMNS], pd.DataFrame(runs).astype({"memorization_step": "Int64", "step_90": "Int64"})


def _true_run(rows: list, runs: list, rng: np.random.Generator, dataset: str, architecture: str, seed: int) -> None:
    classes, last, every, finals = DATASETS[dataset]
    final = finals[next(kind for kind in finals if architecture.startswith(kind))] + rng.normal(0, 0.002)
    steps = np.arange(0, last + 1, every)
    chance, time = 1 / classes, steps / last
    test = chance + (final - chance) * (1 - np.exp(-time * 14)) * (0.93 + 0.07 * time**0.5)
    test[1:] += rng.normal(0, 0.012, len(steps) - 1) * np.exp(-3 * time[1:])
    train = np.minimum(1.0, test + (1 - final) * 0.8 * time**0.7)
    run = {"dataset": dataset, "architecture": architecture, "labels": "true-labels", "seed": seed}
    for i, step in enumerate(steps):
        _rows(rows, run, int(step), "embedding", "dnn", train[i], test[i])
        for p, probe in enumerate(PROBES):
            early = (0.6 - 0.1 * p) * (final - chance) * np.exp(-time[i] * 60)
            noise = rng.normal(0, 0.0025)
            same = 1 - (1 - final) * (0.35 + 0.1 * p) - 0.6 * np.exp(-time[i] * 25) + noise
            kl = 0.10 + 0.05 * p + 0.9 * np.exp(-time[i] * 9) * (1 - 0.2 * p) + abs(rng.normal(0, 0.01))
            _rows(
                rows,
                run,
                int(step),
                "embedding",
                probe,
                train[i] + early * 0.9 + noise,
                test[i] + early + noise,
                same,
                kl * (1 - 0.15 * time[i]),
                kl,
            )
    if architecture.startswith("wrn"):
        depth = np.linspace(0, 1, len(LAYERS))
        for p, probe in enumerate(PROBES):
            curve = chance + (final - chance) * depth ** (0.8 - 0.15 * p)
            for i, layer in enumerate(LAYERS[:-1]):
                high = min(1.0, curve[i] + 0.03 + 0.01 * p)
                _rows(rows, run, last, layer, probe, high, curve[i], 0.5 * curve[i], 2.0, 2.0)
    runs.append(_milestones(run, classes, None, last, train[-1], test[-1]))


def _memorizing_run(
    rows: list, runs: list, rng: np.random.Generator, dataset: str, labels: str, seed: int, unconverged: bool
) -> None:
    classes, last, every, _ = DATASETS[dataset]
    chance = 1 / classes
    if labels == "overfit":
        last, every, memorized, final = OVERFIT[dataset]
    else:
        last = 300 if dataset == "digits" else 50_000
        every, memorized, final = last // 50, last // 5 * 2, chance
    memorized += every * seed
    steps = np.arange(0, last + 1, every)
    time = np.minimum(1.0, steps / memorized)
    train = np.where(steps >= memorized, 1.0, chance + (0.998 - chance) * time**2)
    test = np.full(len(steps), chance) + (final - chance) * (1 - np.exp(-4 * time)) + rng.normal(0, 0.004, len(steps))
    run = {"dataset": dataset, "architecture": "wrn-28-10", "labels": labels, "seed": seed}
    after = np.maximum(0.0, (steps - memorized) / (last - memorized))
    for i, step in enumerate(steps):
        _rows(rows, run, int(step), "embedding", "dnn", train[i], test[i])
        for p, probe in enumerate(PROBES):
            common = 0.25 + 0.1 * p + 0.6 * time[i] * (1 - time[i]) + abs(rng.normal(0, 0.01))
            kl_train = common * np.exp(-8 * after[i])
            kl_test = common + (0.8 - 0.2 * p) * (1 - np.exp(-6 * after[i]))
            good = not (unconverged and probe == "svm" and i % 3 == 0 and i > 5)
            _rows(
                rows,
                run,
                int(step),
                "embedding",
                probe,
                train[i] * 0.99,
                test[i],
                0.4 + 0.5 * time[i],
                kl_train,
                kl_test,
                good,
            )
    if labels == "random-labels":
        for p, probe in enumerate(PROBES):
            for i, layer in enumerate(LAYERS[:-1]):
                rise = 1 / (1 + np.exp(-(i - 10 + p) * 1.2))
                _rows(rows, run, last, layer, probe, chance + (0.97 - chance) * rise, chance, 0.3, 2.0, 2.5)
    runs.append(_milestones(run, classes, memorized, last, 1.0, test[-1]))


def _milestones(
    run: dict[str, Any], classes: int, memorized: int | None, last: int, train: float, test: float
) -> dict[str, Any]:
    return {
        **run,
        "classes": classes,
        "train_count": 10_000,
        "test_count": 10_000,
        "memorization_step": memorized,
        "step_90": memorized,
        "last_step": last,
        "final_train_accuracy": float(train),
        "final_test_accuracy": float(test),
    }


def _rows(
    rows: list,
    run: dict[str, Any],
    step: int,
    layer: str,
    model: str,
    train: float,
    test: float,
    same: float = float("nan"),
    kl_train: float = float("nan"),
    kl_test: float = float("nan"),
    converged: bool = True,
) -> None:
    for split, accuracy, kl in (("train", train, kl_train), ("test", test, kl_test)):
        accuracy = float(np.clip(accuracy, 0, 1))
        rows.append(
            {
                **run,
                "step": step,
                "layer": layer,
                "layer_index": LAYERS.index(layer),
                "split": split,
                "model": model,
                "count": 10_000,
                "accuracy": accuracy,
                "accuracy_decision": accuracy,
                "accuracy_probability": accuracy,
                "p_same": float(np.clip(same, 0, 1)),
                "d_kl": kl,
                "d_kl_column": kl,
                "floored": 0,
                "generalization_gap": float(train - test),
                "converged": converged,
                "gap": 0.0,
            }
        )
