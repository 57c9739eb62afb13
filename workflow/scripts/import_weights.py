"""Take in weights that were trained elsewhere, in the place of a training.

Writes, beside the manifest, what `train.py` writes: the weights as `checkpoints/step000000.pt` …, a history without rows
(`history.csv`), and last the manifest, which says of which files they are.
"""

from __future__ import annotations

import argparse
import sys

from dnn_or_knn.runtime import command_line

EPILOG = """
Specification:
  network   {"module", and the module's options}
  weights   {step: file}, state dicts by torch.save or in safetensors; nothing in them is executed
  sizes     digests of the files' sizes (optional)
"""


def main(args: argparse.Namespace) -> None:
    """Write checkpoints, history and, last, the manifest."""
    from dnn_or_knn.training import imported

    imported.run(args)


def options() -> argparse.ArgumentParser:
    """Return the command line."""
    return command_line.parser(
        f"{__doc__}\n{EPILOG}",
        store="the data set's store.json",
        labels="the labels.json of the labels that the network was trained on",
        output="the manifest to write, RUN/training.json",
    )


if __name__ == "__main__":
    sys.exit(command_line.run(main, options()))
