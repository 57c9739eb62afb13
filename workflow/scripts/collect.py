"""Put the tables of an experiment's runs together: measures, replicates, and one line per run."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from dnn_or_knn.runtime import command_line, files

EPILOG = """
Specification: {"runs": ["digits/wrn-10-2/true-labels/seed0", ...]}, each with its tables in <results>/<run>/measures.
"""


def main(args: argparse.Namespace) -> None:
    """Write measures.parquet, measures.csv, replicates.parquet, runs.csv and the manifest measures.json."""
    import numpy as np
    import pandas as pd
    from dnn_or_knn.measures import tables
    from dnn_or_knn.runtime import provenance
    from dnn_or_knn.runtime.errors import UserError

    folders = [args.results / run / "measures" for run in args.spec["runs"]]
    if not folders:
        raise UserError("the specification names no runs; there is nothing to put together")
    manifests = [read_manifest(folder, run) for folder, run in zip(folders, args.spec["runs"], strict=True)]
    if len({str(manifest["bootstrap"]) for manifest in manifests}) > 1:
        raise UserError(
            f"the runs under {args.results} were bootstrapped with different replicates or seeds; delete their measures "
            "folders and run again"
        )
    measures = pd.concat([tables.read(folder) for folder in folders], ignore_index=True)
    parts = [tables.read_replicates(folder) for folder in folders]
    replicates = {name: np.concatenate([part[name] for part in parts]) for name in tables.REPLICATED}
    written = tables.write(args.output, measures, replicates)
    runs = pd.DataFrame([manifest["run"] | manifest for manifest in manifests])[tables.RUN_COLUMNS]
    for step in ("memorization_step", "step_90"):
        runs[step] = runs[step].astype("Int64")
    with files.atomic(args.output / tables.RUNS) as temporary:
        runs.to_csv(temporary, index=False, lineterminator="\n")
    listing = files.listing(args.output, [*written, tables.RUNS])
    manifest = {
        "runs": args.spec["runs"],
        "rows": len(measures),
        "bootstrap": manifests[0]["bootstrap"],
        "files": listing,
    }
    files.write_json(args.output / tables.MANIFEST, manifest)
    provenance.write(
        args.output / "measures.provenance.json",
        args,
        inputs=[folder / tables.MANIFEST for folder in folders],
        results=[args.output / tables.MANIFEST],
    )


def read_manifest(folder: Path, run: str) -> dict[str, Any]:
    """Return the manifest of one run's tables, after checking that it is that run's and that the tables are whole."""
    from dnn_or_knn.measures import tables
    from dnn_or_knn.runtime.errors import UserError

    manifest = files.read_json(folder / tables.MANIFEST)
    if tables.run_name(manifest["run"]) != run:
        raise UserError(f"{folder} holds the measures of {tables.run_name(manifest['run'])}; delete it and run again")
    files.check(folder, manifest["files"])
    return manifest


def options() -> argparse.ArgumentParser:
    """Return the command line."""
    parser = command_line.parser(f"{__doc__}\n{EPILOG}")
    parser.add_argument("--results", type=Path, required=True, help="folder of the experiment's results")
    parser.add_argument("--output", type=Path, required=True, help="folder for the tables")
    return parser


if __name__ == "__main__":
    sys.exit(command_line.run(main, options()))
