"""Measure one run: accuracy, P_SAME and D_KL of every probe at every evaluation, with bootstrap replicates."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from dnn_or_knn.runtime import command_line, files

EPILOG = """
The folder given by --run holds what the stages before made: features/<shard>.json and logits/<shard>/ (the network's
output), probes/<probe>/<shard>.json and the files beside it. Every file is compared with the digest in its manifest.

Specification:
  run         {"dataset", "architecture", "labels", "seed"}: the first columns of the table
  shards      [{"name", "steps": [...], "layers": ["embedding"] or null for all that were extracted}, ...]
  probes      {name: {"kind", "k" and "k_sweep" (k-NN), "predict": "decision" or "probability" (linear probes)}}
  bootstrap   {"replicates", "seed"}
  memorized, nearly_memorized   train accuracies whose first steps are reported
"""


def main(args: argparse.Namespace) -> None:
    """Write measures.parquet, measures.csv, replicates.parquet and the manifest measures.json."""
    import numpy as np
    from dnn_or_knn.data import store
    from dnn_or_knn.measures import bootstrap, evaluation, tables
    from dnn_or_knn.runtime import provenance

    spec = args.spec
    draw = spec["bootstrap"]
    label_set = store.load_labels(args.labels)
    truth = {"train": label_set.labels, "test": store.load_true_labels(args.store)[1]}
    counts = {
        split: bootstrap.draw_counts(len(labels), draw["replicates"], seed=draw["seed"], split=split)
        for split, labels in truth.items()
    }
    rows: list[dict[str, Any]] = []
    replicates: dict[str, list[np.ndarray]] = {name: [] for name in tables.REPLICATED}
    unmeasured = np.full(draw["replicates"], np.nan)
    for row, values in evaluation.evaluations(args.run, spec, truth, counts):
        rows.append({**spec["run"], **row})
        for name in replicates:
            replicates[name].append(values[name][1:] if name in values else unmeasured)
    table = tables.frame(rows)
    written = tables.write(args.output, table, {name: np.array(values) for name, values in replicates.items()})
    manifest = {
        "run": spec["run"],
        "classes": label_set.classes,
        "train_count": len(truth["train"]),
        "test_count": len(truth["test"]),
        **evaluation.milestones(
            rows, evaluation.read_history(args.history), spec["memorized"], spec["nearly_memorized"]
        ),
        "rows": len(table),
        "bootstrap": draw,
        "files": files.listing(args.output, written),
    }
    files.write_json(args.output / tables.MANIFEST, manifest)
    names = [f"{shard['name']}.json" for shard in spec["shards"]]
    inputs = [args.store / store.STORE_MANIFEST, args.labels / store.LABELS_MANIFEST]
    inputs += [args.run / "features" / name for name in names]
    inputs += [args.run / "probes" / probe / name for probe in spec["probes"] for name in names]
    provenance.write(
        args.output / "measures.provenance.json",
        args,
        inputs=[*inputs, *([args.history] if args.history else [])],
        results=[args.output / tables.MANIFEST],
    )


def options() -> argparse.ArgumentParser:
    """Return the command line."""
    parser = command_line.parser(f"{__doc__}\n{EPILOG}")
    parser.add_argument("--store", type=Path, required=True, help="folder of the data set's store")
    parser.add_argument("--labels", type=Path, required=True, help="folder of the run's label set")
    parser.add_argument(
        "--run", type=Path, required=True, help="folder of the run: features, logits and probes below it"
    )
    parser.add_argument(
        "--history", type=Path, help="the training's history.csv: accuracies where no weights were kept"
    )
    parser.add_argument("--output", type=Path, required=True, help="folder for the tables")
    return parser


if __name__ == "__main__":
    sys.exit(command_line.run(main, options()))
