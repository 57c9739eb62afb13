"""Prepare one data set: check its files, or download them, and write an immutable store of uint8 images and int64 labels."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from dnn_or_knn.runtime import command_line

EPILOG = """
Specification:
  dataset     name of the data set
  loader      "digits" (bundled with scikit-learn), "bundled" (in workflow/resources) or "torchvision"
  class       torchvision's class, such as "MNIST" or "CIFAR100" (loader "torchvision")
  file, sha256, class_names   of the loader "bundled"
  channels, size, classes     what the images have to be; anything else is refused
  test_fraction, split_seed   the split of the loader "digits" (default 0.2 and 0)

Example:
  python workflow/scripts/prepare.py --root data --no-download --output results/mnist/store/store.json \\
    --spec '{"dataset": "mnist", "loader": "torchvision", "class": "MNIST", "channels": 1, "size": 28, "classes": 10}'
"""


def main(args: argparse.Namespace) -> None:
    """Write {train,test}_{images,labels}.npy and the manifest."""
    from dnn_or_knn.data.loaders.common import load, write_store
    from dnn_or_knn.runtime import results

    data = load(args.spec, args.root, download=args.download)
    facts, arrays = write_store(args.output.parent, args.spec, data)
    results.finish(args, facts, arrays, inputs=[])
    command_line.log.info(
        "%s: %d training and %d test images", args.spec["dataset"], len(data.train_labels), len(data.test_labels)
    )


def options() -> argparse.ArgumentParser:
    """Return the command line."""
    parser = command_line.parser(f"{__doc__}\n{EPILOG}", output="the manifest to write, store.json; arrays beside it")
    parser.add_argument(
        "--root",
        type=Path,
        default=Path("data"),
        help="folder of torchvision's files: a copy that may be read-only, or where to download (default: data)",
    )
    parser.add_argument(
        "--download",
        action=argparse.BooleanOptionalAction,
        default=False,
        help="fetch what is missing or damaged under --root (default: no)",
    )
    return parser


if __name__ == "__main__":
    sys.exit(command_line.run(main, options()))
