"""Put together the tables of one measure beside the paper's numbers: all runs of an experiment.

Specification: {"measure": "examples", "parts": ["digits/mlp16/true-labels/seed0/measures/examples/run", ...]}, in the order of
their manifests.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from dnn_or_knn.runtime import command_line


def main(args: argparse.Namespace) -> None:
    """Write <measure>.parquet, and last its manifest."""
    from dnn_or_knn.atlas import tables
    from dnn_or_knn.runtime import results

    parts = results.of_runs(args.spec["parts"], args.parts)
    for path in parts.values():
        results.read(path)
    made = args.output.with_suffix(".parquet")
    count = tables.join(made, [path.with_suffix(".parquet") for path in parts.values()])
    results.finish(args, {"measure": args.spec["measure"], "rows": count}, [made], inputs=args.parts)


def options() -> argparse.ArgumentParser:
    """Return the command line."""
    parser = command_line.parser(__doc__, output="the manifest to write, <measure>.json; the table beside it")
    parser.add_argument("--parts", type=Path, nargs="*", default=[], help="manifests of the tables, one a run or shard")
    return parser


if __name__ == "__main__":
    sys.exit(command_line.run(main, options()))
