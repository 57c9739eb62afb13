"""Take over the features of one shard that were computed elsewhere, as float32, and the network's outputs if they are given.

Writes what `features.py` writes. float16 is taken over exactly, float64 is rounded.
"""

from __future__ import annotations

import argparse
import sys

from dnn_or_knn.runtime import command_line

EPILOG = """
Specification: as that of `import_features.py`, with the steps and layers of the shard.
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
