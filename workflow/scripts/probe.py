"""Fit one probe on the features of one shard: every step and layer that it holds.

  python workflow/scripts/probe.py --spec '{"kind": "knn", "module": "knn", "options": {"metric": "l2", "k_max": 30},
    "steps": [0, 100], "layers": null, "seed": 0, "run": "digits/mlp16/true-labels/seed0"}' \\
    --store STORE/store.json --labels LABELS/labels.json --features RUN/features/steps000000-000100.json \\
    --output RUN/probes/knn/steps000000-000100.json

writes one .npz an evaluation into RUN/probes/knn/steps000000-000100.

Specification:
  kind, module  the probe; its code is dnn_or_knn/probes/<module>.py
  options       its options; "pca" is null or {"components", "skip_layers": [layers left as they are]}
  steps, layers what to fit; layers null: all layers that the features' manifest lists
  seed, run     what random choices start from; the name of the run, for messages

A k-NN search can be cut into pieces by its queries: module "query_shards" and the options "piece" (1, 2, …) and "pieces" make
one, and this program puts them together if their manifests follow that of the features.

Features that were released are extracted again from the weights, if --extraction says how, and compared with their manifest.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from dnn_or_knn.runtime import command_line


def main(args: argparse.Namespace) -> None:
    """Write every fit, and last the manifest with a report on each."""
    # Solvers make many small products: on busy cores, threads that wait by spinning took up to 20 times the processor time.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    args.features, *args.pieces = args.features
    if args.pieces:
        args.extraction = None  # the features themselves are not read
    from dnn_or_knn.probes import job

    job.run(args)


def options() -> argparse.ArgumentParser:
    """Return the command line."""
    parser = command_line.parser(
        __doc__,
        store="the data set's store.json",
        labels="the run's labels.json",
        output="the manifest to write, RUN/probes/<probe>/<shard>.json: a report on every fit",
    )
    parser.add_argument(
        "--features",
        type=Path,
        nargs="+",
        required=True,
        metavar="JSON",
        help="the manifest of the shard's features; after it those of the pieces of a k-NN search that jobs of their own made",
    )
    parser.add_argument(
        "--extraction", type=command_line.specification, help="specification of features.py for this shard"
    )
    parser.add_argument("--reader", help="the probe's name among those that are to read the features before they go")
    parser.add_argument(
        "--share-gpu", type=int, default=0, help="probes that a GPU takes beside a training; 0 (default): none"
    )
    command_line.add_device(parser)
    return parser


if __name__ == "__main__":
    sys.exit(command_line.run(main, options()))
