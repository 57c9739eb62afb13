"""Put the experiment's numbers beside the published ones: a table "paper / authors' code / here" with differences.

Specification:
  published   the published numbers, as in workflow/resources/published.yaml
  labels      {"true", "random", "overfit"}: the label set of each kind of run
  knn         name of the k-NN probe, or null
"""

from __future__ import annotations

import argparse
import sys

from dnn_or_knn.runtime import command_line, files


def main(args: argparse.Namespace) -> None:
    """Write the table, and the manifest, which holds the rows too."""
    import pandas as pd
    from dnn_or_knn.claims.published import COLUMNS, compare
    from dnn_or_knn.measures import tables
    from dnn_or_knn.runtime import results

    folder = args.measures.parent
    measures, runs = tables.read(folder), tables.read_runs(folder)
    rows = list(compare(args.spec["published"], args.spec["labels"], args.spec["knn"], measures, runs))
    table = args.output.with_suffix(".csv")
    with files.atomic(table) as temporary:
        pd.DataFrame(rows, columns=COLUMNS).to_csv(temporary, index=False)
    results.finish(args, {"rows": rows}, [table], inputs=[args.measures])


def options() -> argparse.ArgumentParser:
    """Return the command line."""
    return command_line.parser(
        __doc__,
        measures="the experiment's measures.json; its tables lie beside it",
        output="the manifest to write, published.json; the table beside it",
    )


if __name__ == "__main__":
    sys.exit(command_line.run(main, options()))
