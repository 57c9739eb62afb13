"""Train one network; keep its weights at the evaluation steps.

Writes the weights (`step000000.pt` …, `{"model": state_dict, "step": n}`, to be loaded with `weights_only=True`), the history
of loss and accuracy, and last the manifest. A run that is killed continues from its state folder when it is
started again with the same specification; SIGTERM saves the state first.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dnn_or_knn.runtime import command_line, files, provenance, resume
from dnn_or_knn.runtime.errors import UserError

if TYPE_CHECKING:
    import torch
    from dnn_or_knn.training import run
    from dnn_or_knn.training.batches import Images
    from dnn_or_knn.training.step import Trainer

EPILOG = """
Specification:
  network      {"module", and the module's options}
  training     {"steps", "batch_size", "learning_rate", "momentum", "nesterov", "decay_at", "decay_factor", "weight_decay",
               "weight_decay_on", "pad", "flip", "shuffle", "shuffle_buffer", "precision"}; see docs/configuration.md
  seed         of the first weights, the sample order and the augmentation
  checkpoints  steps at which weights are kept; 0 is the network before training
  accuracy_at  steps at which the accuracy on train and test images goes to the history
"""


def main(args: argparse.Namespace) -> None:
    """Train as `args.spec` says, and write checkpoints, history, provenance and, last, the manifest."""
    started = time.monotonic()
    import torch
    from dnn_or_knn import numerics
    from dnn_or_knn.runtime import gpus
    from dnn_or_knn.training import run
    from dnn_or_knn.training.step import Trainer

    torch.set_num_threads(args.threads)
    spec = args.spec
    device = gpus.resolve(args.device)
    precision = numerics.set_precision(spec["training"]["precision"], device)
    inputs = [args.store / "store.json", args.labels / "labels.json"]
    try:
        train, test, network = load(args, device)
        trainer = Trainer(network, spec["training"], train, seed=spec["seed"], device=device, precision=precision)
        with resume.opened(args.state, state_key(spec, inputs)) as saved:
            outcome = run.run(
                trainer,
                train,
                test,
                saved,
                checkpoints=spec["checkpoints"],
                accuracy_at=spec["accuracy_at"],
                save_every=args.save_every,
            )
            resume.publish(saved.kept, outcome.checkpoints, args.checkpoints)
            write(args, outcome, trainer, precision, inputs, round(time.monotonic() - started, 3))
            saved.clear()
    except RuntimeError as error:
        if not numerics.is_out_of_memory(error):
            raise
        raise UserError(
            f"the {device.type}'s memory is too small for batches of {spec['training']['batch_size']} images; "
            "free memory there, or lower run.batch_size"
        ) from error


def load(args: argparse.Namespace, device: torch.device) -> tuple[Images, Images, torch.nn.Module]:
    """Return the training and test images with their labels, on the device, and the network as it starts."""
    import numpy as np
    import torch
    from dnn_or_knn.data.store import load_labels, load_store
    from dnn_or_knn.networks.build import create
    from dnn_or_knn.training.batches import Images

    store, labels = load_store(args.store), load_labels(args.labels)

    def resident(images: np.ndarray, answers: np.ndarray) -> Images:
        return Images(torch.from_numpy(np.array(images)).to(device), torch.from_numpy(np.array(answers)).to(device))

    network = create(
        args.spec["network"], channels=store.channels, size=store.size, classes=labels.classes, seed=args.spec["seed"]
    )
    train = resident(store.train_images[labels.indices], labels.labels)
    return train, resident(store.test_images, store.test_labels), network


def state_key(spec: dict[str, Any], inputs: list[Path]) -> str:
    """Return the digest of all that determines the run: specification (with its code) and inputs."""
    return files.digest({"spec": spec, "inputs": [files.sha256(path) for path in inputs]})


def write(
    args: argparse.Namespace,
    outcome: run.Outcome,
    trainer: Trainer,
    precision: str,
    inputs: list[Path],
    seconds: float,
) -> None:
    """Write history, provenance and manifest, once the checkpoints on disk are seen to be those that were trained."""
    listing = files.listing(args.checkpoints)
    if listing != outcome.digests:
        files.check(args.checkpoints, outcome.digests)  # says which file differs
    files.write_text(args.history, outcome.history)
    network: Any = trainer.network
    manifest = {
        "steps": args.spec["training"]["steps"],
        "checkpoints": sorted(args.spec["checkpoints"]),
        "parameters": sum(parameter.numel() for parameter in network.parameters()),
        "classes": network.classifier.out_features,
        "probe_points": [point._asdict() for point in network.probe_points],
        "final_loss": outcome.final_loss,
        "files": listing,
        "history": files.listing(args.history.parent, [args.history.name])[args.history.name],
    }
    files.write_json(args.manifest, manifest)
    provenance.write(
        args.manifest.with_name(f"{args.manifest.stem}.provenance.json"),
        args,
        inputs=inputs,
        results=[args.history, args.manifest],
        precision=precision,
        sessions=outcome.sessions,
        seconds=seconds,
    )


def options() -> argparse.ArgumentParser:
    """Return the command line."""
    parser = command_line.parser(f"{__doc__}\n{EPILOG}")
    parser.add_argument("--store", type=Path, required=True, help="folder of the data set's store")
    parser.add_argument("--labels", type=Path, required=True, help="folder of the run's label set")
    parser.add_argument("--checkpoints", type=Path, required=True, help="folder for the weights")
    parser.add_argument("--manifest", type=Path, required=True, help="training.json, written last")
    parser.add_argument("--history", type=Path, required=True, help="history.csv: loss and accuracy by step")
    parser.add_argument(
        "--state", type=Path, required=True, help="folder for the state that a killed run continues from"
    )
    parser.add_argument("--save-every", type=float, default=60.0, help="seconds between two states (default: 60)")
    parser.add_argument(
        "--device", default="auto", choices=["auto", "cpu", "cuda"], help="where to train (default: auto)"
    )
    return parser


if __name__ == "__main__":
    sys.exit(command_line.run(main, options()))
