"""Draw one figure of a measure beside the paper's: PDF, PNG, and the CSV of what it shows."""

from __future__ import annotations

import argparse
import importlib
import sys
from pathlib import Path

from dnn_or_knn.runtime import command_line

EPILOG = """
Specification: {"figure": "depth", "measure": "examples", "datasets": ["mnist"]}: the module of dnn_or_knn/figures that draws it, the
measure whose table it shows, and the data sets of --store in their order; optional "style" and "titles".
"""


def main(args: argparse.Namespace) -> None:
    """Write PDF, PNG and CSV, and last the manifest with caption and alternative text."""
    from dnn_or_knn.atlas import tables
    from dnn_or_knn.data import store
    from dnn_or_knn.figures import style, words
    from dnn_or_knn.runtime import results

    spec = args.spec
    words.TITLES.update(spec.get("titles", {}))
    module = importlib.import_module(f"dnn_or_knn.figures.{spec['figure']}")
    results.read(args.measure)
    stores = {name: store.load_store(path) for name, path in zip(spec["datasets"], args.store, strict=True)}
    table = module.shown(tables.read(args.measure.with_suffix(".parquet")), spec, stores)
    look = style.style(spec)
    with style.applied(look):
        made = style.save(module.draw(table, spec, stores), args.output.with_suffix(""), table, dpi=look["dpi"])
    facts = {"figure": spec["figure"], "caption": module.caption(table), "alt": module.alt(table)}
    results.finish(args, facts, made, inputs=[args.measure, *args.store])


def options() -> argparse.ArgumentParser:
    """Return the command line."""
    parser = command_line.parser(
        f"{__doc__}\n{EPILOG}",
        measure="the manifest of the measure's table, measures/<measure>.json",
        output="the manifest to write; the figure beside it",
    )
    parser.add_argument("--store", type=Path, nargs="*", default=[], help="store.json of each data set")
    return parser


if __name__ == "__main__":
    sys.exit(command_line.run(main, options()))
