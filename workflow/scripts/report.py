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

from dnn_or_knn.figures import words
from dnn_or_knn.report import page
from dnn_or_knn.runtime import command_line, files, results


def main(args: argparse.Namespace) -> None:
    """Write report.html, and its manifest and provenance beside it."""
    folder: Path = args.output.parent
    overlays = "" if args.overlays == "config.yaml" else f" --configfile {args.overlays}"
    inputs = [folder / "claims" / "claims.json", folder / "claims" / "published.json"]
    inputs += [folder / "measures" / "measures.json", *args.choices, *args.later, *args.beside]
    inputs += [folder / "figures" / f"{name}.json" for name in [*page.FIGURES, "training"]]
    for path in inputs:
        results.read(path)
    blocks = [args.spec["config"].get(key, {}) for key in ("datasets", "architectures", "subjects")]
    words.TITLES.update({name: o["title"] for block in blocks for name, o in block.items() if o.get("title")})
    html = args.output.with_suffix(".html")
    choices, later = (next(iter(given), None) for given in (args.choices, args.later))
    shown = page.render(folder, args.spec["config"], choices, overlays, later=later, beside=args.beside)
    files.write_text(html, shown)
    results.finish(args, {}, [html], inputs=inputs)


def options() -> argparse.ArgumentParser:
    """Return the command line."""
    parser = command_line.parser(__doc__, output="the manifest to write, report.json in the experiment's folder")
    parser.add_argument(
        "--choices", type=Path, nargs="*", default=[], help="choices.json, where the configuration has choices"
    )
    parser.add_argument(
        "--later", type=Path, nargs="*", default=[], help="later.json, where measures of the later claims are on"
    )
    parser.add_argument(
        "--beside", type=Path, nargs="*", default=[], help="the figures' manifests of measures that are on"
    )
    parser.add_argument(
        "--overlays", default="config.yaml", help="overlays for the commands on the page, separated by spaces"
    )
    return parser


if __name__ == "__main__":
    sys.exit(command_line.run(main, options()))
