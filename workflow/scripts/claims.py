"""Judge the paper's nine claims on an experiment's measures."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dnn_or_knn.runtime import command_line, files

if TYPE_CHECKING:
    import pandas as pd

EPILOG = """
Specification:
  claims         {threshold: value}: the configuration's block, complete (docs/claims.md)
  architectures  from shallow to deep
  datasets       in the order of the figures
  labels         {"true", "random", "random_layers", "overfit"}: the label set of each kind of run
  architecture   the network of figures 4 to 7
  probes         names of the probes; "knn", "svm" and "lr" are judged
"""
COLUMNS = [
    *("claim", "part", "cell", "value", "low", "high", "relation", "threshold", "unit", "verdict", "decides", "seeds"),
    "note",
]


def main(args: argparse.Namespace) -> None:
    """Write claims.pdf, .png, .csv and .md, and last claims.json with every effect and verdict."""
    import pandas as pd
    from dnn_or_knn.claims import effects, paper_claims, verdicts
    from dnn_or_knn.claims.study import ROLES, Study
    from dnn_or_knn.measures import tables
    from dnn_or_knn.runtime import provenance

    spec = args.spec
    manifest = files.read_json(args.measures / tables.MANIFEST)
    files.check(args.measures, manifest["files"], [tables.MEASURES, tables.REPLICATES, tables.RUNS])
    study = Study(
        data=effects.read(args.measures),
        architectures=spec["architectures"],
        datasets=spec["datasets"],
        labels=spec["labels"],
        architecture=spec["architecture"],
        probes={name: name for name in ROLES if name in spec["probes"]},
        thresholds=spec["claims"],
    )
    judged = paper_claims.judge(study)
    table = pd.DataFrame([effect for claim in judged for effect in claim["effects"]], columns=COLUMNS)
    picture(judged, table, args.output / "claims")
    files.write_text(args.output / "claims.md", verdicts.markdown(judged))
    written = [f"claims.{kind}" for kind in ("csv", "md", "pdf", "png")]
    files.write_json(args.output / "claims.json", {"claims": judged, "files": files.listing(args.output, written)})
    for claim in judged:
        command_line.log.info(
            "claim %d: %s - %s: %s", claim["claim"], verdicts.verdict(claim), claim["title"], claim["decided"]
        )
    provenance.write(
        args.output / "claims.provenance.json",
        args,
        inputs=[args.measures / tables.MANIFEST],
        results=[args.output / "claims.json"],
    )


def picture(judged: list[dict[str, Any]], table: pd.DataFrame, prefix: Path) -> None:
    """Write the figure, and beside it the table of what it shows."""
    from dnn_or_knn.claims.figure import draw
    from dnn_or_knn.figures import style

    look = style.style({})
    with style.applied(look):
        style.save(draw(judged, look), prefix, table, dpi=look["dpi"])


def options() -> argparse.ArgumentParser:
    """Return the command line."""
    parser = command_line.parser(f"{__doc__}\n{EPILOG}")
    parser.add_argument("--measures", type=Path, required=True, help="folder of the experiment's tables")
    parser.add_argument("--output", type=Path, required=True, help="folder for the verdicts")
    return parser


if __name__ == "__main__":
    sys.exit(command_line.run(main, options()))
