"""The extraction of one shard as a job: what it reads, what it refuses, what it leaves."""

from __future__ import annotations

import argparse
import importlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from .. import numerics
from ..networks.build import create
from ..runtime import files, gpus, results, resume
from ..runtime.errors import UserError
from . import dumps, extraction


def run(args: argparse.Namespace) -> None:
    """Write a shard's features and logits, and last their manifest; see `features.py` for the arguments."""
    spec = args.spec
    device = gpus.resolve(args.device)
    precision = numerics.set_precision(spec["precision"], device)
    store, splits = images(args.store, args.labels, stream=spec.get("stream", False))
    network = create(spec["network"], channels=store["channels"], size=store["size"], classes=store["classes"])
    kept = weights_of(args.training)
    how = extraction.arithmetic(network, splits, spec, kept=len(kept), device=device, precision=precision)
    inputs = [args.store, args.labels, args.training]
    digests = [files.sha256(path) for path in inputs]
    refuse_to_mix(args, digests, how)
    key = files.digest({"spec": spec, "inputs": digests, "how": how})
    points = extraction.select(network, spec["layers"], input_layer=spec["input_layer"], channels=store["channels"])
    with resume.opened(resume.beside(args.output), key) as state:
        job = extraction.Job(
            run=spec.get("run", str(args.training.parent)),
            network=network,
            points=points,
            input_layer=spec["input_layer"],
            steps=spec["steps"],
            splits=splits,
            how=how,
            checkpoints=args.training.with_name("checkpoints"),
            listing=kept,
            state=state,
        )
        with numerics.memory_told(
            f"the {device.type}'s memory cannot hold the images, one evaluation and batches of {how['batch_size']}; free "
            "memory there, or lower jobs.evaluation_batch, which makes all features anew"
        ):
            made = extraction.extract(job, device=device)
        dumps.await_readers(args.output, args.readers)
        facts = {
            "steps": list(job.steps),
            "layers": [{"name": point.name, "dimensions": point.dimensions} for point in points],
            "train": len(splits["train"]),
            "test": len(splits["test"]),
        }
        done = {"precision": precision, "evaluations": made["evaluations"], "evaluations_resumed": made["resumed"]}
        results.finish(args, facts, publish(job, made["files"], args.output), inputs=inputs, **done)
        refuse_to_mix(args, digests, how)  # of two shards that ended together the second one sees the first
        state.clear()


#: What reads large images from disk, by name: a job that uses it says so in its specification.
STREAMING = "dnn_or_knn.data.streaming"


def images(store: Path, labels: Path, *, stream: bool = False) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Return the store's facts and the run's images: "train" and "test", uint8 (N, channels, size, size); `stream`: on disk."""
    facts = results.read(store, ["train_images.npy", "test_images.npy"])
    results.read(labels, ["indices.npy"])
    train = files.read_npy(store.with_name("train_images.npy"), mmap=True)
    indices = files.read_npy(labels.with_name("indices.npy"))
    if len(indices) and not 0 <= indices.min() <= indices.max() < len(train):
        raise UserError(f"{labels} names images that {store} does not have; make the labels again")
    if stream:
        streamed, whole = importlib.import_module(STREAMING).Streamed, store.with_name("test_images.npy")
        return facts, {"train": streamed(train, indices), "test": streamed(files.read_npy(whole, mmap=True))}
    test = np.array(files.read_npy(store.with_name("test_images.npy"), mmap=True))
    return facts, {"train": train[indices], "test": test}


def weights_of(training: Path) -> dict[str, Any]:
    """Return the listing of the weights that a training kept, relative to their folder."""
    listed = files.read_json(training)["files"].items()
    return {Path(name).name: entry for name, entry in listed if name.startswith("checkpoints/")}


def publish(job: extraction.Job, made: Mapping[str, Any], manifest: Path) -> dict[str, Any]:
    """Put what was extracted where it belongs, and return its listing relative to the manifest's folder."""
    folders = {"features": dumps.folder_of(manifest), "logits": manifest.parents[1] / "logits" / manifest.stem}
    listing: dict[str, Any] = {}
    for kind, folder in folders.items():
        names = [Path(name).name for name in made if name.startswith(f"{kind}/")]
        resume.publish(job.state.kept / kind, names, folder)
        where = os.path.relpath(folder, manifest.parent)
        listing |= {f"{where}/{name}": made[f"{kind}/{name}"] for name in names}
    return listing


def refuse_to_mix(args: argparse.Namespace, digests: list[str], how: dict[str, Any]) -> None:
    """Raise `UserError` if another shard of the run, of the same specification and inputs, was computed otherwise."""

    def shared(spec: dict[str, Any]) -> dict[str, Any]:
        return {key: value for key, value in spec.items() if key not in ("steps", "layers")}

    for path in sorted(args.output.parent.glob(f"*{results.PROVENANCE}")):
        try:
            record = files.read_json(path)
        except UserError:  # it is being made anew
            continue
        if shared(record["spec"]) != shared(args.spec) or sorted(record["inputs"].values()) != sorted(digests):
            continue
        for step, other in record.get("evaluations", {}).items():
            if other != how:
                raise UserError(
                    f"{path} has features of step {step} by {words(other)}, and this job would add others by {words(how)}; let "
                    f"it run as those did, or delete {path.parent} and run again"
                )


def words(how: dict[str, Any]) -> str:
    """Return how an evaluation was computed, in words."""
    return ", ".join(f"{key} {str(value).lower()}" for key, value in sorted(how.items()))
