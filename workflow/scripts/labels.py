"""Draw one label set: which training images a run uses, and the true or random labels that it trains on."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

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
    """Write indices.npy, labels.npy and the manifest labels.json."""
    from dnn_or_knn.data import label_sets, store
    from dnn_or_knn.runtime import files, provenance

    true_labels, _ = store.load_true_labels(args.store)
    source = args.store / store.STORE_MANIFEST
    facts = files.read_json(source)
    manifest = label_sets.write_labels(args.output, args.spec, true_labels, facts["classes"], facts["dataset"])
    provenance.write(manifest.with_suffix(".provenance.json"), args, inputs=[source], results=[manifest])
    kept = files.read_json(manifest)
    command_line.log.info(
        "%s: %d images, %.2f %% with their true label",
        args.spec["labels"],
        kept["count"],
        100 * kept["kept_true_fraction"],
    )


def options() -> argparse.ArgumentParser:
    """Return the command line."""
    parser = command_line.parser(f"{__doc__}\n{EPILOG}")
    parser.add_argument("--store", type=Path, required=True, help="folder of the data set's store")
    parser.add_argument("--output", type=Path, required=True, help="folder for the label set")
    return parser


if __name__ == "__main__":
    sys.exit(command_line.run(main, options()))
