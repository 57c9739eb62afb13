"""Take over the features of one shard that were computed elsewhere, as float32, and the network's outputs if they are given.

Writes what `features.py` writes. float16 is taken over exactly, float64 is rounded.
"""

from __future__ import annotations

import argparse
import sys

from dnn_or_knn.runtime import command_line

EPILOG = """
Specification:
  run, steps, layers   the run's name, for messages; what the shard holds
  given, logits        the files, and whether the network's outputs are among them, as `import_features.py` is told
  contents             what tells that an array has changed, as there (optional)
"""


def main(args: argparse.Namespace) -> None:
    """Write features and logits, and last the manifest."""
    from dnn_or_knn.features import given

    given.run(args)


def options() -> argparse.ArgumentParser:
    """Return the command line."""
    return command_line.parser(
        f"{__doc__}\n{EPILOG}",
        store="the data set's store.json",
        labels="the run's labels.json",
        output="the manifest to write, RUN/features/<shard>.json: what the folders hold",
    )


if __name__ == "__main__":
    sys.exit(command_line.run(main, options()))
