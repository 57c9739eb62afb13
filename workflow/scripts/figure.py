"""Draw one figure of the paper from an experiment's measures: PDF, PNG, and the CSV of what each panel shows."""

from __future__ import annotations

import argparse
import importlib
import sys
from pathlib import Path
from typing import Any

from dnn_or_knn.runtime import command_line, files

EPILOG = """
Specification: {"figure": 1, "architectures": ["mlp640", "lenet", "wrn-28-10"], "datasets": ["mnist"], "labels":
["true-labels"], "probes": ["knn", "svm", "lr"], "missing": []}: the runs that it shows (one architecture from figure 4
on; figure 4 takes two label sets, "input_layer" and "published" too); optional "style" and "titles" (name → what figures
call it). A figure whose runs are missing
says so and is no error.
"""
FIGURES = range(1, 8)


def main(args: argparse.Namespace) -> None:
    """Write PDF, PNG and CSV, and last the manifest with caption and alternative text."""
    from dnn_or_knn.figures import panels, style, table, words
    from dnn_or_knn.measures import tables
    from dnn_or_knn.runtime import results

    spec = args.spec
    check(spec)
    words.TITLES.update(spec.get("titles", {}))
    layout = importlib.import_module(f"dnn_or_knn.figures.figure{spec['figure']}").layout(spec)
    look = style.style(spec)
    points = probe_points(args.training)
    folder = args.measures.parent
    shown = table.assemble(tables.read(folder), tables.read_runs(folder), layout, spec)
    with style.applied(look):
        drawn = panels.draw(layout, shown, spec, points)
        made = style.save(drawn, args.output.with_suffix(""), shown, dpi=look["dpi"])
    facts = {
        "figure": spec["figure"],
        "caption": words.caption(layout, shown, {str(artist.get_gid()) for artist in drawn.findobj()}),
        "alt": words.describe(layout, shown),
        "panels": int(shown["panel"].nunique()),
        "missing": sorted(set(shown.loc[shown["series"] == "missing", "note"])),
    }
    results.finish(args, facts, made, inputs=[path for path in (args.measures, *args.training) if path.is_file()])


def check(spec: dict[str, Any]) -> None:
    """Raise `UserError` unless the specification has all that it needs."""
    from dnn_or_knn.runtime.errors import UserError

    if spec.get("figure") not in FIGURES:
        raise UserError(f"the specification's figure is {spec.get('figure')!r}; the paper's figures are 1 to 7")
    needed = ["architectures", "datasets", "labels", "probes", "missing"]
    for key in [*needed, *(["input_layer", "published"] if spec["figure"] == 4 else [])]:
        if key not in spec:
            raise UserError(f"the specification has no '{key}'; see --help for one that is whole")


def probe_points(paths: list[Path]) -> list[dict[str, Any]]:
    """Return the network's probe points from the first training manifest given, none without one."""
    from dnn_or_knn.runtime.errors import UserError

    if not paths:
        return []
    points = files.read_json(paths[0]).get("probe_points")
    if not isinstance(points, list) or any({"name", "dimensions", "kind", "stage"} - set(point) for point in points):
        raise UserError(f"{paths[0]} has no list of probe points; delete it and train again")
    return points


def options() -> argparse.ArgumentParser:
    """Return the command line."""
    parser = command_line.parser(
        f"{__doc__}\n{EPILOG}",
        measures="the experiment's measures.json; measures.parquet and runs.csv lie beside it",
        output="the manifest to write, such as figures/figure1.json; the figure beside it",
    )
    told = "training.json of the network that figure 4 (g) draws"
    parser.add_argument("--training", type=Path, nargs="*", default=[], help=told)
    return parser


if __name__ == "__main__":
    sys.exit(command_line.run(main, options()))
