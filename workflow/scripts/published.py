"""Put the experiment's numbers beside the published ones: a table "paper / authors' code / here" with differences.

Specification:
  published   the published numbers, as in workflow/resources/published.yaml
  labels      {"true", "random", "overfit"}: the label set of each kind of run
  knn         name of the k-NN probe, or null
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from dnn_or_knn.runtime import command_line, files


def main(args: argparse.Namespace) -> None:
    """Write published.csv and the manifest published.json, which holds the rows too."""
    import pandas as pd
    from dnn_or_knn.claims.published import COLUMNS, compare
    from dnn_or_knn.measures import tables
    from dnn_or_knn.runtime import provenance

    measures, runs = tables.read(args.measures), tables.read_runs(args.measures)
    rows = list(compare(args.spec["published"], args.spec["labels"], args.spec["knn"], measures, runs))
    args.output.mkdir(parents=True, exist_ok=True)
    with files.atomic(args.output / "published.csv") as temporary:
        pd.DataFrame(rows, columns=COLUMNS).to_csv(temporary, index=False)
    manifest = args.output / "published.json"
    files.write_json(manifest, {"rows": rows, "files": files.listing(args.output, ["published.csv"])})
    provenance.write(
        args.output / "published.provenance.json",
        args,
        inputs=[args.measures / tables.MANIFEST],
        results=[manifest],
    )


if __name__ == "__main__":
    parser = command_line.parser(__doc__)
    parser.add_argument("--measures", type=Path, required=True, help="the experiment's measures folder")
    parser.add_argument("--output", type=Path, required=True, help="folder for the table")
    sys.exit(command_line.run(main, parser))
