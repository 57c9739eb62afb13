"""A run of 200 images on disk: features, logits, weights and probe outputs that measures beside the paper's read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from dnn_or_knn.atlas.common import Part
from dnn_or_knn.runtime import files
from dnn_or_knn.runtime.results import write as listed

TRAIN, TEST, CLASSES, K = 200, 120, 4, 5
STEPS, LAYERS = [0, 10, 20, 100], ["input", "conv", "embedding"]
EMBEDDING, HIDDEN = "steps000000-000100", "layers000100"
RUN = {"dataset": "toy", "architecture": "mlp4", "labels": "random-labels", "seed": 0}
PROBES = {"knn": {"kind": "knn", "k": K, "predict": "decision"}, "svm": {"kind": "svm", "predict": "decision"}}


class Toy:
    """The arrays of a run, and where they lie.

    `features`: (step, layer, split) → (N, d); `logits`: (step, split) → (N, C); `weights`: step → (C, d); `labels`: split → (N,).
    """

    def __init__(
        self, folder: Path, *, seed: int = 0, copies: int = 20, hidden: bool = True, classes: int = CLASSES
    ) -> None:
        rng = np.random.default_rng(seed)
        self.folder, self.classes, self.hidden = folder, classes, hidden
        self.true = {"train": rng.integers(0, CLASSES, 300), "test": rng.integers(0, CLASSES, TEST)}
        self.indices = np.sort(rng.permutation(300)[:TRAIN])
        # A third of the images is trained with another label than its own.
        drawn = np.where(rng.random(300) < 1 / 3, rng.integers(0, CLASSES, 300), self.true["train"])
        self.labels = {"train": drawn[self.indices], "test": self.true["test"]}
        self.features: dict[tuple[int, str, str], np.ndarray] = {}
        self.logits: dict[tuple[int, str], np.ndarray] = {}
        self.weights: dict[int, np.ndarray] = {}
        for step in STEPS:
            self.weights[step] = rng.normal(size=(classes, 6)).astype(np.float32)
            for split, labels in self.labels.items():
                noise = {0: 5.0, 10: 2.0, 20: 1.5, 100: 1.0}[step]
                self.logits[step, split] = (
                    np.eye(classes)[labels] * 2 + noise * rng.normal(size=(len(labels), classes))
                ).astype(np.float32)
                for place, layer in enumerate(LAYERS if step == 100 and hidden else LAYERS[-1:]):
                    centres = np.random.default_rng(place).normal(size=(CLASSES, 6))
                    made = (centres[labels] * (place + 1) / 2 + rng.normal(size=(len(labels), 6))).astype(np.float32)
                    made[50 : 50 + copies] = made[50]  # copies: the image itself is then not the nearest by position
                    self.features[step, layer, split] = made

    def layers(self) -> list[str]:
        """Return the layers that are probed at the last step, in the network's order."""
        return LAYERS if self.hidden else LAYERS[-1:]

    def neighbours(self, step: int, layer: str, split: str, k: int = K) -> tuple[np.ndarray, np.ndarray]:
        """Return the nearest train images of a split's images, by (distance, index), the image itself left out, and distances."""
        train, points = self.features[step, layer, "train"], self.features[step, layer, split]
        distances = np.sqrt(((points[:, None].astype(float) - train[None]) ** 2).sum(axis=2))
        if split == "train":
            np.fill_diagonal(distances, np.inf)
        order = np.argsort(distances, axis=1, kind="stable")[:, :k]
        return order, np.take_along_axis(distances, order, 1)

    def write(self) -> Toy:
        """Write everything as the stages do, and return this."""
        store = files.write_arrays(
            self.folder / "store", {f"{name}_labels": value for name, value in self.true.items()}
        )
        listed(self.folder / "store/store.json", {"dataset": "toy", "classes": self.classes}, store)
        label_set = {"indices": self.indices, "labels": self.labels["train"]}
        listed(
            self.folder / "labels/labels.json",
            {"classes": self.classes},
            files.write_arrays(self.folder / "labels", label_set),
        )
        checkpoints = []
        for step, weights in self.weights.items():
            path = self.folder / f"run/checkpoints/step{step:06d}.pt"
            path.parent.mkdir(parents=True, exist_ok=True)
            kept = {"conv.weight": torch.zeros(3, 1, 2, 2), "classifier.weight": torch.from_numpy(weights)}
            torch.save({"model": kept, "step": step}, path)
            checkpoints.append(path)
        listed(self.folder / "run/training.json", {}, checkpoints)
        self._shard(EMBEDDING, STEPS, ["embedding"])
        if self.hidden:
            self._shard(HIDDEN, [100], LAYERS[:-1])
        return self

    def _shard(self, shard: str, steps: list[int], layers: list[str]) -> None:
        run = self.folder / "run"
        splits = [(step, split) for step in steps for split in self.labels]
        made = files.write_arrays(
            run / "logits" / shard, {f"step{s:06d}_{split}": self.logits[s, split] for s, split in splits}
        )
        kept = {f"step{s:06d}_{n}_{split}": self.features[s, n, split] for s, split in splits for n in layers}
        made += files.write_arrays(run / "features" / shard, kept)
        listed(run / "features" / f"{shard}.json", {"layers": [{"name": name} for name in layers]}, made)
        for probe in PROBES:
            folder = run / "probes" / probe / shard
            folder.mkdir(parents=True)
            names = [(step, layer) for step in steps for layer in layers]
            for step, layer in names:
                np.savez(
                    folder / f"step{step:06d}_{layer}.npz", allow_pickle=False, **self._outputs(probe, step, layer)
                )
            fits = {f"step{step:06d}_{layer}": {"converged": True, "gap": 0.0} for step, layer in names}
            listed(run / "probes" / probe / f"{shard}.json", {"fits": fits}, sorted(folder.iterdir()))

    def _outputs(self, probe: str, step: int, layer: str) -> dict[str, np.ndarray]:
        arrays: dict[str, np.ndarray] = {}
        for split, labels in self.labels.items():
            if probe == "knn":
                found, distances = self.neighbours(step, layer, split)
                arrays |= {f"{split}_neighbours": found.astype(np.int32), f"{split}_distances": distances}
            else:
                rng = np.random.default_rng(step + len(layer))
                arrays[f"{split}_probabilities"] = rng.dirichlet(np.ones(self.classes), len(labels)).astype(np.float32)
                arrays[f"{split}_decision"] = rng.integers(0, self.classes, len(labels)).astype(np.int16)
        return arrays

    def shards(self, *names: str) -> list[dict[str, Any]]:
        """Return shards as a specification names them, all by default."""
        steps = {EMBEDDING: STEPS, HIDDEN: [100]}
        return [{"name": name, "steps": steps[name]} for name in names or list(steps)[: 1 + self.hidden]]

    def part(self, *shards: str, **changes: Any) -> Part:
        """Return what a job measures: all shards, or some of them with their features."""
        spec = {"run": RUN, "shards": self.shards(*shards), "probes": PROBES, "knn": "knn", **changes}
        manifests = (self.folder / name for name in ("store/store.json", "labels/labels.json", "run/training.json"))
        return Part(spec, *manifests, {name: self.folder / "run/features" / name for name in shards})
