"""Extract the features of all images at a range of evaluations of one run, and the network's outputs for the same images.

  python workflow/scripts/features.py --spec '{"run": "digits/mlp16/true-labels/seed0", "network": {"module": "mlp",
    "width": 16}, "precision": "auto", "batch_size": 1000, "compile": true, "layers": ["embedding"], "steps": [0, 100], "input_layer": "pixels"}' \\
    --store STORE/store.json --labels LABELS/labels.json --training RUN/training.json \\
    --output RUN/features/steps000000-000100.json

writes float32 arrays, .npy, into RUN/features/steps000000-000100 and RUN/logits/steps000000-000100.

Specification:
  run          the run's name, for messages
  network      {"module", and the module's options}
  precision    auto, float32, tf32, bf16 or float64
  batch_size   images per forward pass; compile: whether the network is compiled where that pays
  layers       ["embedding"], "hidden" (every other probe point), or names of probe points
  steps        evaluations, whose weights are beside --training
  input_layer  "pixels" or "mean": the features of the probe point `input`
  cpu_batch    images per forward pass on a CPU, for data sets that stay on disk (optional)
"""

from __future__ import annotations

import argparse
import sys

from dnn_or_knn.runtime import command_line


def main(args: argparse.Namespace) -> None:
    """Write features and logits, and last the manifest."""
    from dnn_or_knn.features import job

    job.run(args)


def options() -> argparse.ArgumentParser:
    """Return the command line."""
    parser = command_line.parser(
        __doc__,
        store="the data set's store.json",
        labels="the run's labels.json",
        training="the run's training.json; the weights lie beside it",
        output="the manifest to write, RUN/features/<shard>.json: what the folders hold",
    )
    parser.add_argument("--readers", nargs="*", default=[], help="probes that are to read the features before they go")
    command_line.add_device(parser)
    return parser


if __name__ == "__main__":
    sys.exit(command_line.run(main, options()))
