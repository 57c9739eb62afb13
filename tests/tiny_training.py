"""A tiny training: seeded images that can be learned, a specification, and the stage's command on them."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from conftest import SCRIPTS
from dnn_or_knn.runtime import files
from dnn_or_knn.training.batches import Images

WRN = {"module": "wrn", "depth": 10, "width": 1}
MLP = {"module": "mlp", "width": 32}
LENET = {"module": "lenet", "embedding": 32}
CLASSES, SIZE, COUNT = 5, 8, 130


def settings_of(**changes: Any) -> dict[str, Any]:
    """Return a specification's `training`, small."""
    return {
        "steps": 12,
        "batch_size": 20,
        "learning_rate": 0.05,
        "momentum": 0.9,
        "nesterov": True,
        "decay_at": [5, 9],
        "decay_factor": 0.2,
        "weight_decay": 0.01,
        "weight_decay_on": "weights",
        "pad": 2,
        "flip": True,
        "shuffle": "full",
        "shuffle_buffer": 40,
        "precision": "float32",
    } | changes


def pictures(count: int = COUNT, seed: int = 0) -> Images:
    """Return seeded uint8 images whose labels can be learned."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(CLASSES, size=count)
    shapes = np.random.default_rng(99).integers(0, 200, size=(CLASSES, 3, SIZE, SIZE))
    pixels = shapes[labels] + rng.integers(0, 56, size=(count, 3, SIZE, SIZE))
    return Images(torch.from_numpy(pixels.astype(np.uint8)), torch.from_numpy(labels))


def stage(tmp_path: Path, spec: dict[str, Any], out: str = "run") -> list[str]:
    """Write a tiny store and label set once, and return the command that trains on them."""
    store, labels = tmp_path / "store", tmp_path / "labels"
    if not store.exists():
        train, test = pictures(), pictures(50, 1)
        for folder, arrays in (
            (
                store,
                {
                    "train_images": train.images,
                    "train_labels": train.labels,
                    "test_images": test.images,
                    "test_labels": test.labels,
                },
            ),
            (labels, {"indices": torch.arange(10, 110), "labels": train.labels[10:110]}),
        ):
            for name, array in arrays.items():
                files.write_npy(folder / f"{name}.npy", array.numpy())
        names = [str(number) for number in range(CLASSES)]
        facts = {"dataset": "made", "channels": 3, "size": SIZE, "classes": CLASSES, "class_names": names}
        files.write_json(store / "store.json", facts | {"train": COUNT, "test": 50, "files": files.listing(store)})
        files.write_json(
            labels / "labels.json", {"labels": "true", "classes": CLASSES, "count": 100, "files": files.listing(labels)}
        )
    run = tmp_path / out
    places = {
        "--store": store / "store.json",
        "--labels": labels / "labels.json",
        "--output": run / "training.json",
    }
    command = [sys.executable, str(SCRIPTS / "train.py"), "--spec", json.dumps(spec), "--device", "cpu"]
    return command + [str(word) for pair in places.items() for word in pair]


def specification(**changes: Any) -> dict[str, Any]:
    return {
        "network": WRN,
        "training": settings_of(**changes),
        "seed": 3,
        "checkpoints": [0, 6, 12],
        "accuracy_at": [3],
    }


def results(folder: Path) -> dict[str, str]:
    """Return the digest of every result file, provenance excepted."""
    found = sorted(path for path in folder.rglob("*") if path.is_file() and "provenance" not in path.name)
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in found}


def started(command: list[str], *more: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*command, *more], stderr=subprocess.PIPE, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"}
    )
