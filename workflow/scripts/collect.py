"""Put the tables of an experiment's runs together: measures, replicates, and one line per run."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from dnn_or_knn.runtime import command_line, files

EPILOG = """
Specification: {"runs": ["digits/wrn-10-2/true-labels/seed0", ...]}, in the order of their manifests.
"""


def main(args: argparse.Namespace) -> None:
    """Write measures.parquet, measures.csv, replicates.parquet, runs.csv and the manifest measures.json."""
    import numpy as np
    import pandas as pd
    from dnn_or_knn.measures import tables
    from dnn_or_knn.runtime import results
    from dnn_or_knn.runtime.errors import UserError

    manifests = [read(path, run) for run, path in results.of_runs(args.spec["runs"], args.measures).items()]
    folders = [path.parent for path in args.measures]
    if len({str(manifest["bootstrap"]) for manifest in manifests}) > 1:
        raise UserError(
            f"the runs of {args.output} were bootstrapped with different replicates or seeds; delete their measures "
            "folders and run again"
        )
    measures = pd.concat([tables.read(folder) for folder in folders], ignore_index=True)
    parts = [tables.read_replicates(folder) for folder in folders]
    replicates = {name: np.concatenate([part[name] for part in parts]) for name in tables.REPLICATED}
    made = tables.write(args.output.parent, measures, replicates)
    runs = pd.DataFrame([manifest["run"] | manifest for manifest in manifests])[tables.RUN_COLUMNS]
    for step in ("memorization_step", "step_90"):
        runs[step] = runs[step].astype("Int64")
    path = args.output.with_name(tables.RUNS)
    with files.atomic(path) as temporary:
        runs.to_csv(temporary, index=False, lineterminator="\n")
    facts = {"runs": args.spec["runs"], "rows": len(measures), "bootstrap": manifests[0]["bootstrap"]}
    results.finish(args, facts, [*made, path], inputs=args.measures)


def read(manifest: Path, run: str) -> dict[str, Any]:
    """Return the manifest of one run's tables, after checking that it is that run's and that the tables are whole."""
    from dnn_or_knn.measures import tables
    from dnn_or_knn.runtime import results
    from dnn_or_knn.runtime.errors import UserError

    content = results.read(manifest)
    if tables.run_name(content["run"]) != run:
        raise UserError(f"{manifest} is of {tables.run_name(content['run'])}; delete {manifest.parent} and run again")
    return content


def options() -> argparse.ArgumentParser:
    """Return the command line."""
    parser = command_line.parser(
        f"{__doc__}\n{EPILOG}", output="the manifest to write, measures.json; tables beside it"
    )
    parser.add_argument("--measures", type=Path, nargs="*", default=[], help="the runs' measures.json")
    return parser


if __name__ == "__main__":
    sys.exit(command_line.run(main, options()))
