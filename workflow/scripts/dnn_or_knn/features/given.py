"""The features of one shard as they were given: compared, taken over as float32, listed as an extraction's are."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

from ..data import arrays, store
from ..runtime import files, results
from . import dumps


def run(args: argparse.Namespace) -> None:
    """Write a shard's features and logits, and last their manifest; see `given_features.py` for the arguments."""
    spec, labels = args.spec, store.load_labels(args.labels)
    truth = {"train": labels.labels, "test": store.load_true_labels(args.store)[1]}
    widths: dict[str, int] = {}
    with_logits = spec["logits"] and "embedding" in spec["layers"]
    folders = {"features": dumps.folder_of(args.output), "logits": args.output.parents[1] / "logits" / args.output.stem}
    with files.atomic(folders["features"]) as features, files.atomic(folders["logits"]) as logits:
        for folder in (features, logits):
            folder.mkdir()
        for step in spec["steps"]:
            for layer in spec["layers"]:
                path = Path(spec["given"][str(step)][layer])
                widths[layer] = arrays.check(path, truth, labels.classes if with_logits else None)
                for split, known in truth.items():
                    table = arrays.table(path, f"{split}_features", len(known))
                    arrays.write(table, features / f"step{step:06d}_{layer}_{split}.npy")
                    if with_logits:
                        table = arrays.table(path, f"{split}_logits", len(known))
                        arrays.write(table, logits / f"step{step:06d}_{split}.npy")
    facts = {
        "steps": spec["steps"],
        "layers": [{"name": layer, "dimensions": widths[layer]} for layer in spec["layers"]],
        "train": len(truth["train"]),
        "test": len(truth["test"]),
    }
    made: dict[str, Any] = {}
    for folder in folders.values():
        where = os.path.relpath(folder, args.output.parent)
        made |= {f"{where}/{name}": entry for name, entry in files.listing(folder).items()}
    dumps.await_readers(args.output, [])  # they stay: nothing could make them again
    results.finish(args, facts, made, inputs=[args.store, args.labels])
