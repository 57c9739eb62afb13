"""Features from nowhere in particular: drawn, written as a user would, planned, and taken through the stages without Snakemake."""

from __future__ import annotations

import argparse
import importlib
import json
from pathlib import Path
from typing import Any

import numpy as np
from dnn_or_knn.plan.configuration import load_overlays
from dnn_or_knn.plan.runs import create
from dnn_or_knn.plan.specifications import Jobs, Task
from snakemake.utils import update_config

TRAIN, TEST, CLASSES, WIDTH = 60, 30, 3, 5


def drawn(seed: int = 0, width: int = WIDTH, *, logits: bool = True, labels: bool = True) -> dict[str, np.ndarray]:
    """Return arrays of features that tell the classes apart, float32; labels do not depend on the seed."""
    random, fixed, made = np.random.default_rng(seed), np.random.default_rng(7), {}
    means = random.normal(size=(CLASSES, width))
    for split, count in (("train", TRAIN), ("test", TEST)):
        known = fixed.permutation(np.arange(count) % CLASSES)
        features = means[known] + random.normal(size=(count, width))
        made[f"{split}_features"] = features.astype(np.float32)
        if labels:
            made[f"{split}_labels"] = known
        if logits:
            made[f"{split}_logits"] = (features @ means.T).astype(np.float32)
    return made


def npz(path: Path, **arrays: Any) -> str:
    """Write arrays as one file and return its path."""
    np.savez(path, **arrays)
    return str(path)


def npy(folder: Path, **arrays: Any) -> str:
    """Write arrays as a folder of .npy files and return its path."""
    folder.mkdir(exist_ok=True)
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", array)
    return str(folder)


def plan(subjects: dict[str, Any], **changes: Any) -> Jobs:
    """Return the jobs of some subjects alone."""
    config = load_overlays()
    block = {
        "experiment": "given",
        "datasets": dict.fromkeys(config["datasets"]),
        "architectures": dict.fromkeys(config["architectures"]),
        "runs": [],
        "probes": {"knn": {"k": 5, "k_max": 5, "k_sweep": []}},
        "measures": {"replicates": 20},
        "subjects": subjects,
    }
    for change in (block, changes):
        update_config(config, change)
    return Jobs(create(config))


def make(jobs: Jobs, *rules: str) -> None:
    """Run the jobs of some rules in their order, as Snakemake would call them, in the working folder."""
    for task in jobs.tasks:
        if task.rule in rules:
            script = {"probe": "probe", "measures": "measures"}.get(task.rule, task.rule)
            importlib.import_module(script).main(arguments(jobs, task))


def arguments(jobs: Jobs, task: Task) -> argparse.Namespace:
    """Return the parsed command line of a job."""
    results, names = Path(jobs.results), task.wildcards
    run = (
        results
        / "{dataset}/{architecture}/{labels}/seed{seed}".format(
            **{"architecture": "", "labels": "", "seed": 0, **names}
        )
        if "dataset" in names
        else results
    )
    found = {
        "store": results / names.get("dataset", "") / "store/store.json",
        "labels": results
        / names.get("dataset", "")
        / f"labels/{names.get('labels')}/seed{names.get('seed')}/labels.json",
        "training": run / "training.json",
        "features": [run / f"features/{names.get('shard')}.json"],
        "measures": [results / path / "measures/measures.json" for path in jobs.experiment.runs]
        if task.rule == "collect"
        else results / "measures/measures.json",
    }
    given = {
        "root": Path("data"),
        "download": False,
        "device": "cpu",
        "share_gpu": 0,
        "extraction": None,
        "reader": None,
    }
    return argparse.Namespace(
        spec=json.loads(task.spec), output=results / f"{task.manifest}.json", threads=1, log=None, **found, **given
    )
