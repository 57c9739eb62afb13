"""Extract the features of all images at a range of evaluations of one run.

  python workflow/scripts/features.py --spec '{"run": "digits/mlp16/true-labels/seed0", "network": {"module": "mlp",
    "width": 16}, "precision": "auto", "batch_size": 1000, "compile": true, "layers": ["embedding"], "steps": [0, 100], "input_layer": "pixels"}' \\
    --store STORE --labels LABELS --training RUN/training.json --checkpoints RUN/checkpoints \\
    --features RUN/features/steps000000-000100 --logits RUN/logits/steps000000-000100 \\
    --manifest RUN/features/steps000000-000100.json --state RUN/.state/features

Specification:
  run          the run's name, for messages
  network      {"module", and the module's options}
  precision    auto, float32, tf32, bf16 or float64
  batch_size   images per forward pass; compile: whether the network is compiled where that pays
  layers       ["embedding"], "hidden" (every other probe point), or names of probe points
  steps        evaluations, whose weights are in --checkpoints
  input_layer  "pixels" or "mean": the features of the probe point `input`
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from dnn_or_knn.features import marks
from dnn_or_knn.runtime import command_line, files


def main(args: argparse.Namespace) -> None:
    import numpy as np
    from dnn_or_knn import numerics
    from dnn_or_knn.features import extraction
    from dnn_or_knn.networks.build import create
    from dnn_or_knn.runtime import gpus, provenance, resume
    from dnn_or_knn.runtime.errors import UserError

    spec = args.spec
    device = gpus.resolve(args.device)
    precision = numerics.set_precision(spec["precision"], device)
    store, labels = files.read_json(args.store / "store.json"), files.read_json(args.labels / "labels.json")
    files.check(args.store, store["files"], ["train_images.npy", "test_images.npy"])
    files.check(args.labels, labels["files"], ["indices.npy"])
    train = files.read_npy(args.store / "train_images.npy", mmap=True)
    indices = files.read_npy(args.labels / "indices.npy")
    if len(indices) and not 0 <= indices.min() <= indices.max() < len(train):
        raise UserError(f"{args.labels} names images that {args.store} does not have; make the labels again")
    network = create(spec["network"], channels=store["channels"], size=store["size"], classes=store["classes"])
    inputs = [args.store / "store.json", args.labels / "labels.json", args.training]
    splits = {"train": train[indices], "test": np.array(files.read_npy(args.store / "test_images.npy", mmap=True))}
    listing = files.read_json(args.training)["files"]
    how = extraction.arithmetic(network, splits, spec, kept=len(listing), device=device, precision=precision)
    digests = [files.sha256(path) for path in inputs]
    refuse_to_mix(args, digests, how)
    key = files.digest({"spec": spec, "logits": args.logits is not None, "inputs": digests, "how": how})
    job = extraction.Job(
        run=spec.get("run", str(args.checkpoints)),
        network=network,
        points=extraction.select(network, spec["layers"], input_layer=spec["input_layer"], channels=store["channels"]),
        logits=args.logits is not None,
        input_layer=spec["input_layer"],
        steps=spec["steps"],
        splits=splits,
        how=how,
        checkpoints=args.checkpoints,
        listing=listing,
        state=extraction.open_state(args.state, key[:16]),
    )
    try:
        made = extraction.extract(job, device=device)
    except (RuntimeError, MemoryError) as error:
        if not numerics.is_out_of_memory(error):
            raise
        raise UserError(
            f"the {device.type}'s memory cannot hold the images, one evaluation and batches of {how['batch_size']}; free memory "
            "there, or lower jobs.evaluation_batch, which makes all features anew"
        ) from error
    if args.unprobed:
        marks.leave(args.unprobed, args.probes)
    resume.publish(job.state / "features", list(made["features"]), args.features)
    if args.logits is not None:
        resume.publish(job.state / "logits", list(made["logits"]), args.logits)
    manifest = {
        "steps": list(job.steps),
        "layers": [{"name": point.name, "dimensions": point.dimensions} for point in job.points],
        "train": len(job.splits["train"]),
        "test": len(job.splits["test"]),
        "files": made["features"],
        "logits": made["logits"],
    }
    files.write_json(args.manifest, manifest)
    provenance.write(
        args.manifest.with_suffix(".provenance.json"),
        args,
        inputs=inputs,
        results=[args.manifest],
        precision=precision,
        evaluations=made["evaluations"],
        evaluations_resumed=made["resumed"],
    )
    refuse_to_mix(args, digests, how)  # of two shards that ended together the second one sees the first
    files.remove(args.state)


def refuse_to_mix(args: argparse.Namespace, digests: list[str], how: dict[str, Any]) -> None:
    """Raise `UserError` if another shard of the run, of the same specification and inputs, was computed otherwise."""
    from dnn_or_knn.runtime.errors import UserError

    def shared(spec: dict[str, Any]) -> dict[str, Any]:
        return {key: value for key, value in spec.items() if key not in ("steps", "layers")}

    for path in sorted(args.manifest.parent.glob("*.provenance.json")):
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


def arguments() -> argparse.ArgumentParser:
    parser = command_line.parser(__doc__)
    parser.add_argument("--store", required=True, type=Path, help="folder of the data set's store")
    parser.add_argument("--labels", required=True, type=Path, help="folder of the run's label set")
    parser.add_argument("--training", required=True, type=Path, help="the training's manifest")
    parser.add_argument("--checkpoints", required=True, type=Path, help="folder of the kept weights")
    parser.add_argument("--features", required=True, type=Path, help="folder to make: float32 features, .npy")
    parser.add_argument("--logits", type=Path, help="folder to make: float32 logits, .npy (default: none)")
    parser.add_argument("--manifest", required=True, type=Path, help="JSON to make: what the folders hold")
    parser.add_argument("--state", required=True, type=Path, help="folder of finished evaluations, removed at the end")
    parser.add_argument("--unprobed", type=Path, help="folder of marks: who has not read the features yet")
    parser.add_argument("--probes", nargs="*", default=[], help="who is to read the features before they are let go")
    parser.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto", help="default: auto")
    return parser


if __name__ == "__main__":
    sys.exit(command_line.run(main, arguments()))
