"""Draw the training curves of all runs of an experiment: PDF, PNG, and the CSV of what each panel shows."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from dnn_or_knn.runtime import command_line, files

EPILOG = """
Specification: {"runs": ["digits/lenet/true-labels/seed0", ...]}, each with <results>/<run>/history.csv; optional "style".
"""


def main(args: argparse.Namespace) -> None:
    """Write <output>.pdf, .png and .csv, and last the manifest <output>.json with caption and alternative text."""
    from dnn_or_knn.figures import style, training_curves, words
    from dnn_or_knn.runtime import provenance
    from dnn_or_knn.runtime.errors import UserError

    runs = args.spec.get("runs")
    if not runs:
        raise UserError("the specification names no runs; there is nothing to draw")
    look = style.style(args.spec)
    histories = {run: args.results / run / "history.csv" for run in runs}
    for path in histories.values():
        files.check(path.parent, {path.name: files.read_json(path.with_name("training.json"))["history"]})
    table = training_curves.data(histories)
    with style.applied(look):
        made = training_curves.draw(table, runs, args.spec)
        written = style.save(made, args.output, table, dpi=look["dpi"])
    manifest = args.output.with_name(f"{args.output.name}.json")
    files.write_json(
        manifest,
        {
            "caption": f"{training_curves.CAPTION} {words.notes(table)}".strip(),
            "alt": training_curves.alt(table),
            "panels": int(table["panel"].nunique()),
            "missing": [],
            "files": files.listing(args.output.parent, [path.name for path in written]),
        },
    )
    provenance.write(
        args.output.with_name(f"{args.output.name}.provenance.json"),
        args,
        inputs=list(histories.values()),
        results=[manifest],
    )


def options() -> argparse.ArgumentParser:
    """Return the command line."""
    parser = command_line.parser(f"{__doc__}\n{EPILOG}")
    parser.add_argument("--results", type=Path, required=True, help="folder of the experiment's results")
    parser.add_argument("--output", type=Path, required=True, help="prefix of the files, such as figures/training")
    return parser


if __name__ == "__main__":
    sys.exit(command_line.run(main, options()))
