"""Draw the training curves of all runs of an experiment: PDF, PNG, and the CSV of what each panel shows."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from dnn_or_knn.runtime import command_line

EPILOG = """
Specification: {"runs": ["digits/lenet/true-labels/seed0", ...]}, in the order of their manifests; optional "style" and "titles".
"""


def main(args: argparse.Namespace) -> None:
    """Write PDF, PNG and CSV, and last the manifest with caption and alternative text."""
    from dnn_or_knn.figures import style, training_curves, words
    from dnn_or_knn.runtime import results

    runs = args.spec.get("runs", [])
    look = style.style(args.spec)
    words.TITLES.update(args.spec.get("titles", {}))
    manifests = results.of_runs(runs, args.training)
    for manifest in args.training:
        results.read(manifest, ["history.csv"])
    histories = {run: path.with_name("history.csv") for run, path in manifests.items()}
    table = training_curves.data(histories)
    with style.applied(look):
        drawn = training_curves.draw(table, runs, args.spec)
        made = style.save(drawn, args.output.with_suffix(""), table, dpi=look["dpi"])
    facts = {
        "caption": f"{training_curves.CAPTION} {words.notes(table)}".strip(),
        "alt": training_curves.alt(table),
        "panels": int(table["panel"].nunique()),
        "missing": [],
    }
    results.finish(args, facts, made, inputs=args.training)


def options() -> argparse.ArgumentParser:
    """Return the command line."""
    parser = command_line.parser(f"{__doc__}\n{EPILOG}", output="the manifest to write; the figure beside it")
    parser.add_argument("--training", type=Path, nargs="*", default=[], help="the runs' training.json")
    return parser


if __name__ == "__main__":
    sys.exit(command_line.run(main, options()))
