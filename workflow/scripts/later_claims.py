"""Judge the later claims, 10 to 12, which are not the paper's, on the measures beside the paper's."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from dnn_or_knn.runtime import command_line

EPILOG = """
Specification:
  claims         {threshold: value}: the configuration's blocks claims and later_claims, complete (docs/claims.md)
  bootstrap      {"replicates", "seed"}: the draws of the measures
  architectures  from shallow to deep
  datasets       in the order of the figures
  labels         {"true", "random", "random_layers", "overfit"}: the label set of each kind of run
  architecture   the network of figures 4 to 7
"""


def main(args: argparse.Namespace) -> None:
    """Write later.pdf, .png, .csv and .md, and last later.json with every effect and verdict."""
    from dnn_or_knn.atlas import tables as atlas
    from dnn_or_knn.claims import effects, later_claims, written
    from dnn_or_knn.claims.later_study import LaterStudy
    from dnn_or_knn.measures import tables
    from dnn_or_knn.runtime import results

    spec = args.spec
    results.read(args.measures, [tables.MEASURES, tables.REPLICATES, tables.RUNS])
    beside: dict[str, Path] = {path.stem: path for path in args.beside}
    for path in beside.values():
        results.read(path)
    more: dict[str, Any] = {name: atlas.read(path.with_suffix(".parquet")) for name, path in beside.items()}
    study = LaterStudy(
        data=effects.read(args.measures.parent),
        architectures=spec["architectures"],
        datasets=spec["datasets"],
        labels=spec["labels"],
        architecture=spec["architecture"],
        probes={},
        thresholds=spec["claims"],
        bootstrap=spec["bootstrap"],
        **more,
    )
    judged = later_claims.judge(study)
    made = written.write(args.output, judged, "Later claims, which are not the paper's")
    results.finish(args, {"claims": judged}, made, inputs=[args.measures, *args.beside])
    written.tell(judged, " (later work)")


def options() -> argparse.ArgumentParser:
    """Return the command line."""
    parser = command_line.parser(
        f"{__doc__}\n{EPILOG}",
        measures="the experiment's measures.json; its tables lie beside it",
        output="the manifest to write, later.json; table and figure beside it",
    )
    parser.add_argument(
        "--beside", type=Path, nargs="*", default=[], help="examples.json and rewind.json, where they are measured"
    )
    return parser


if __name__ == "__main__":
    sys.exit(command_line.run(main, options()))
