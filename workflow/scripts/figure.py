"""Draw one figure of the paper from an experiment's measures: PDF, PNG, and the CSV of what each panel shows."""

from __future__ import annotations

import argparse
import importlib
import sys
from pathlib import Path
from typing import Any

from dnn_or_knn.runtime import command_line, files

EPILOG = """
Specification: {"figure": 1, "architectures": ["mlp640", "lenet", "wrn-28-10"], "datasets": ["mnist"], "architecture":
"wrn-28-10", "labels": {"true": "true-labels", "random": "random-labels", "overfit": "overfit"}, "probes": ["knn", "svm",
"lr"], "missing": []}; optional "style", "titles", "published". A figure whose runs are missing says so and is no error.
"""
FIGURES = range(1, 8)


def main(args: argparse.Namespace) -> None:
    """Write <output>.pdf, .png and .csv, and last the manifest <output>.json with caption and alternative text."""
    from dnn_or_knn.figures import panels, style
    from dnn_or_knn.measures import tables
    from dnn_or_knn.runtime import provenance

    number = args.spec.get("figure")
    spec, module = read_specification(args.spec), importlib.import_module(f"dnn_or_knn.figures.figure{number}")
    look = style.style(spec)
    layers = probe_points(args.training)
    measures, runs = tables.read(args.measures), tables.read_runs(args.measures)
    table = module.data(measures, runs, spec)
    with style.applied(look):
        made = module.draw(table, spec, layers)
        written = style.save(made, args.output, table, dpi=look["dpi"])
    manifest = args.output.with_name(f"{args.output.name}.json")
    added = panels.notes(table, spec)
    files.write_json(
        manifest,
        {
            "figure": number,
            "caption": f"{module.caption(spec)} {added}".strip(),
            "alt": module.alt(table, spec),
            "panels": int(table["panel"].nunique()),
            "missing": sorted(set(table.loc[table["series"] == "missing", "note"])),
            "files": files.listing(args.output.parent, [path.name for path in written]),
        },
    )
    provenance.write(
        args.output.with_name(f"{args.output.name}.provenance.json"),
        args,
        inputs=[path for path in (args.measures / tables.MANIFEST, *args.training) if path.is_file()],
        results=[manifest],
    )


def read_specification(spec: dict[str, Any]) -> dict[str, Any]:
    """Return the specification with its optional parts, after checking that nothing needed is left out."""
    from dnn_or_knn.runtime.errors import UserError

    if spec.get("figure") not in FIGURES:
        raise UserError(f"the specification's figure is {spec.get('figure')!r}; the paper's figures are 1 to 7")
    for key in ("architectures", "datasets", "architecture", "labels", "probes"):
        if key not in spec:
            raise UserError(f"the specification has no '{key}'; see --help for one that is whole")
    return {"missing": [], "published": [], **spec}


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
    parser = command_line.parser(f"{__doc__}\n{EPILOG}")
    parser.add_argument("--measures", type=Path, required=True, help="folder with measures.parquet and runs.csv")
    parser.add_argument(
        "--training", type=Path, nargs="*", default=[], help="training manifest of the network that figure 4 (g) draws"
    )
    parser.add_argument("--output", type=Path, required=True, help="prefix of the files, such as figures/figure1")
    return parser


if __name__ == "__main__":
    sys.exit(command_line.run(main, options()))
