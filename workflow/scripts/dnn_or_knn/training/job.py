"""The training of one network as a job: what it reads, what it goes on from, what it leaves."""

from __future__ import annotations

import argparse
import importlib
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from .. import numerics
from ..data.store import load_labels, load_store
from ..networks.build import create
from ..runtime import files, gpus, results, resume
from .batches import Images
from .run import Outcome, run
from .step import Trainer

#: What reads large images from disk, by name: a job that uses it says so in its specification.
STREAMING = "dnn_or_knn.data.streaming"


def train(args: argparse.Namespace) -> None:
    """Write checkpoints, history and, last, the manifest; see `train.py` for the arguments."""
    started = time.monotonic()
    torch.set_num_threads(args.threads)
    spec = args.spec
    device = gpus.resolve(args.device)
    precision = numerics.set_precision(spec["training"]["precision"], device)
    inputs = [args.store, args.labels]
    key = files.digest({"spec": spec, "inputs": [files.sha256(path) for path in inputs]})
    with numerics.memory_told(
        f"the {device.type}'s memory is too small for batches of {spec['training']['batch_size']} images; "
        "free memory there, or lower run.batch_size"
    ):
        data, test, network = load(args, device)
        trainer = Trainer(network, spec["training"], data, seed=spec["seed"], device=device, precision=precision)
        with resume.opened(resume.beside(args.output), key) as saved:
            outcome = run(
                trainer,
                data,
                test,
                saved,
                checkpoints=spec["checkpoints"],
                accuracy_at=spec["accuracy_at"],
                save_every=args.save_every,
            )
            resume.publish(saved.kept, outcome.checkpoints, args.output.with_name("checkpoints"))
            made = write(args.output.parent, outcome)
            seconds = round(time.monotonic() - started, 3)
            told = {"precision": precision, "sessions": outcome.sessions, "seconds": seconds}
            results.finish(args, facts_of(spec, network, outcome), made, inputs=inputs, **told)
            saved.clear()


def load(args: argparse.Namespace, device: torch.device) -> tuple[Images, Images, torch.nn.Module]:
    """Return the training and test images with their labels, on the device, and the network as it starts."""
    store, labels = load_store(args.store), load_labels(args.labels)

    def resident(images: np.ndarray, chosen: np.ndarray | None, answers: np.ndarray) -> Images:
        labelled = torch.from_numpy(np.array(answers)).to(device)
        if args.spec.get("stream"):
            return Images(importlib.import_module(STREAMING).Streamed(images, chosen, device), labelled)
        return Images(torch.from_numpy(np.array(images if chosen is None else images[chosen])).to(device), labelled)

    network = create(
        args.spec["network"], channels=store.channels, size=store.size, classes=labels.classes, seed=args.spec["seed"]
    )
    train = resident(store.train_images, labels.indices, labels.labels)
    return train, resident(store.test_images, None, store.test_labels), network


def write(folder: Path, outcome: Outcome) -> dict[str, Any]:
    """Write the history; return the listing of all, once the checkpoints on disk are seen to be those that were trained."""
    digests = {f"checkpoints/{name}": entry for name, entry in outcome.digests.items()}
    files.check(folder, digests)
    files.write_text(folder / "history.csv", outcome.history)
    return digests | files.listing(folder, ["history.csv"])


def facts_of(spec: dict[str, Any], network: Any, outcome: Outcome) -> dict[str, Any]:
    """Return what the manifest says of the network and its training."""
    return {
        "steps": spec["training"]["steps"],
        "checkpoints": sorted(spec["checkpoints"]),
        "parameters": sum(parameter.numel() for parameter in network.parameters()),
        "classes": network.classifier.out_features,
        "probe_points": [point._asdict() for point in network.probe_points],
        "final_loss": outcome.final_loss,
    }
