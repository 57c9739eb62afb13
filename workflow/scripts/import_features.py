"""Take in features that were computed elsewhere, in the place of a training: compare all files with the labels.

Writes, beside the manifest, a history without rows (`history.csv`), and last the manifest, which says which layers there are.
"""

from __future__ import annotations

import argparse
import sys

from dnn_or_knn.runtime import command_line

EPILOG = """
Specification:
  run       the run's name, for messages
  steps     the evaluations; layers: the layers' names in their order, the embedding last
  given     {step: {layer: file}}: .npz files, or folders of .npy files, with train_features and test_features; with the
            embedding may lie train_labels and test_labels, train_logits and test_logits. No pickle is read
  logits    whether the network's outputs are among them
  contents  {file: {array: what tells that it has changed}} (optional)
"""


def main(args: argparse.Namespace) -> None:
    """Write the history and, last, the manifest."""
    from dnn_or_knn.training import given

    given.run(args)


def options() -> argparse.ArgumentParser:
    """Return the command line."""
    return command_line.parser(
        f"{__doc__}\n{EPILOG}",
        store="the data set's store.json",
        labels="the run's labels.json",
        output="the manifest to write, RUN/training.json",
    )


if __name__ == "__main__":
    sys.exit(command_line.run(main, options()))
