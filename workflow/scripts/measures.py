"""Measure one run: accuracy, P_SAME and D_KL of every probe at every evaluation, with bootstrap replicates."""

from __future__ import annotations

import argparse
import importlib
import sys
from typing import Any

from dnn_or_knn.runtime import command_line

EPILOG = """
Beside the training's manifest lies what the stages after it made: features/<shard>.json and logits/<shard>/ (the network's
output), probes/<probe>/<shard>.json and the files beside it. Every file is compared with the digest in its manifest.

Specification:
  run         {"dataset", "architecture", "labels", "seed"}: the first columns of the table
  shards      [{"name", "steps": [...], "layers": ["embedding"] or null for all that were extracted}, ...]
  probes      {name: {"kind", "k" and "k_sweep" (k-NN), "predict": "decision" or "probability" (linear probes)}}
  bootstrap   {"replicates", "seed"}
  memorized, nearly_memorized   train accuracies whose first steps are reported
  alone       true: there are no outputs of the network (optional)
  layers      with alone: the network's order of layers, as far as it is known (optional)
"""

#: What measures runs without outputs of a network, by name: such a run's specification says so.
ALONE = "dnn_or_knn.measures.alone"


def main(args: argparse.Namespace) -> None:
    """Write measures.parquet, measures.csv, replicates.parquet and the manifest measures.json."""
    import numpy as np
    from dnn_or_knn.data import store
    from dnn_or_knn.measures import bootstrap, evaluation, tables
    from dnn_or_knn.runtime import results

    spec, run = args.spec, args.training.parent
    how = importlib.import_module(ALONE) if spec.get("alone") else evaluation
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
    for row, values in how.evaluations(run, spec, truth, counts):
        rows.append({**spec["run"], **row})
        for name in replicates:
            replicates[name].append(values[name][1:] if name in values else unmeasured)
    history = evaluation.read_history(args.training)
    milestones = how.milestones(rows, history, spec["memorized"], spec["nearly_memorized"])
    table = tables.frame(rows)
    made = tables.write(args.output.parent, table, {name: np.array(values) for name, values in replicates.items()})
    facts = {
        "run": spec["run"],
        "classes": label_set.classes,
        "train_count": len(truth["train"]),
        "test_count": len(truth["test"]),
        **milestones,
        "rows": len(table),
        "bootstrap": draw,
    }
    folders = [run / "features", *(run / "probes" / probe for probe in spec["probes"])]
    read = [folder / f"{shard['name']}.json" for folder in folders for shard in spec["shards"]]
    results.finish(args, facts, made, inputs=[args.store, args.labels, args.training, *read])


def options() -> argparse.ArgumentParser:
    """Return the command line."""
    return command_line.parser(
        f"{__doc__}\n{EPILOG}",
        store="the data set's store.json",
        labels="the run's labels.json",
        training="the run's training.json",
        output="the manifest to write, measures.json; tables beside it",
    )


if __name__ == "__main__":
    sys.exit(command_line.run(main, options()))
