"""Draw one label set: which training images a run uses, and the true or random labels that it trains on."""

from __future__ import annotations

import argparse
import sys

from dnn_or_knn.runtime import command_line

EPILOG = """
Specification:
  labels      name of the label set
  randomize   true: labels i.i.d. uniform over the classes, drawn once from the seed; false: the true ones
  subset      null, or {"draw": "first" or "balanced", "count": N}
  seed        integer from 0 on

Test labels are not touched: they are the store's.
"""


def main(args: argparse.Namespace) -> None:
    """Write indices.npy, labels.npy and the manifest."""
    from dnn_or_knn.data.label_sets import write_labels
    from dnn_or_knn.data.store import load_true_labels
    from dnn_or_knn.runtime import files, results

    true_labels, _ = load_true_labels(args.store)
    store = files.read_json(args.store)
    folder = args.output.parent
    facts, arrays = write_labels(folder, args.spec, true_labels, store["classes"], store["dataset"])
    results.finish(args, facts, arrays, inputs=[args.store])
    told = facts["labels"], facts["count"], 100 * facts["kept_true_fraction"]
    command_line.log.info("%s: %d images, %.2f %% with their true label", *told)


def options() -> argparse.ArgumentParser:
    """Return the command line."""
    return command_line.parser(
        f"{__doc__}\n{EPILOG}",
        store="the data set's store.json",
        output="the manifest to write, labels.json; arrays beside it",
    )


if __name__ == "__main__":
    sys.exit(command_line.run(main, options()))
