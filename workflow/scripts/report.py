"""Write the experiment's page: verdicts, figures, training curves, numbers beside the paper, provenance.

The page holds everything in itself and opens from disk without a network.

Specification:
  config   the configuration that the page shows, complete
  page     digests of the page's template and style (optional)
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from dnn_or_knn.report import page
from dnn_or_knn.runtime import command_line, files, provenance


def main(args: argparse.Namespace) -> None:
    """Write report.html, and its manifest and provenance beside it."""
    results: Path = args.results
    overlays = "" if args.overlays == "config.yaml" else f" --configfile {args.overlays}"
    inputs = [results / "claims" / "claims.json", results / "claims" / "published.json"]
    inputs += [results / "measures" / "measures.json", *args.choices]
    inputs += [results / "figures" / f"{name}.json" for name in [*page.FIGURES, "training"]]
    for path in inputs:
        files.check(path.parent, files.read_json(path)["files"])
    html = page.render(results, args.spec["config"], next(iter(args.choices), None), overlays)
    files.write_text(args.output, html)
    manifest = args.output.with_suffix(".json")
    files.write_json(manifest, {"files": files.listing(args.output.parent, [args.output.name])})
    provenance.write(args.output.with_suffix(".provenance.json"), args, inputs=inputs, results=[manifest])


if __name__ == "__main__":
    parser = command_line.parser(__doc__)
    parser.add_argument("--results", type=Path, required=True, help="the experiment's folder")
    parser.add_argument("--output", type=Path, required=True, help="the page to write")
    parser.add_argument(
        "--choices", type=Path, nargs="*", default=[], help="choices.json, where the configuration has choices"
    )
    parser.add_argument(
        "--overlays", default="config.yaml", help="overlays for the commands on the page, separated by spaces"
    )
    sys.exit(command_line.run(main, parser))
