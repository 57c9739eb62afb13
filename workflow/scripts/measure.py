"""Measure something beside the paper's numbers: one run, or one shard of its features, by one module of dnn_or_knn/atlas.

  python workflow/scripts/measure.py --spec '{"measure": "examples", "module": "examples", "knn": "knn", "run": {"dataset": "digits",
    "architecture": "mlp16", "labels": "true-labels", "seed": 0}, "shards": [{"name": "steps000000-000100", "steps": [0, 100]}],
    "probes": {"knn": {"kind": "knn", "k": 30, "predict": "decision"}}}' \\
    --store STORE/store.json --labels LABELS/labels.json --training RUN/training.json \\
    --output RUN/measures/examples/run.json

writes a table, RUN/measures/examples/run.parquet.

Specification:
  measure, module  its name; its code is dnn_or_knn/atlas/<module>.py
  run              {"dataset", "architecture", "labels", "seed"}: the first columns of the table
  shards           [{"name", "steps": [...]}, ...]: what is read, beside the training's manifest
  probes           {name: {"kind", "k" and "k_sweep" (k-NN), "predict": "decision" or "probability" (linear probes)}}
  knn              the k-NN probe that the measure reads, by name, or null
  and what else the measure asks for

Features that were released are extracted again from the weights, with the specification of --extraction, and compared with their
manifest.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from dnn_or_knn.runtime import command_line


def main(args: argparse.Namespace) -> None:
    """Write the table, and last its manifest."""
    from dnn_or_knn.atlas import job

    job.run(args)


def options() -> argparse.ArgumentParser:
    """Return the command line."""
    parser = command_line.parser(
        __doc__,
        store="the data set's store.json",
        labels="the run's labels.json",
        training="the run's training.json",
        output="the manifest to write, RUN/measures/<measure>/<part>.json; the table beside it",
    )
    parser.add_argument(
        "--inputs", type=Path, nargs="*", default=[], help="manifests of the features' and probes' shards that are read"
    )
    parser.add_argument(
        "--features", type=Path, nargs="*", default=[], help="those of the shards whose features are read, in order"
    )
    parser.add_argument(
        "--extraction",
        type=command_line.specification,
        nargs="*",
        default=[],
        help="specifications of features.py for these shards",
    )
    parser.add_argument(
        "--reader", help="the name of this job among those that are to read the features before they go"
    )
    command_line.add_device(parser)
    return parser


if __name__ == "__main__":
    sys.exit(command_line.run(main, options()))
