"""Check that this machine's GPU does what the pipeline needs, in about two minutes.

Prints a table and returns 0 where nothing failed, 1 where something did, and 2, after one line, where there is no GPU to
check. Tracebacks go to a log file.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from dnn_or_knn.tools import gpu_check


def main() -> int:
    """Parse the command line and check."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--log", type=Path, default=Path("gpu-check.log"), help="default: gpu-check.log")
    parser.add_argument(
        "checks", nargs="*", metavar="check", help="which checks (default: all), by the names' beginnings"
    )
    args = parser.parse_args()
    wanted = tuple(args.checks) or ("",)
    from dnn_or_knn.tools.card_checks import CHECKS

    names = [name for name in CHECKS if name.startswith(wanted)]
    if not names:
        parser.error(f"no such check; there are: {', '.join(CHECKS)}")
    return gpu_check.main(names, args.log)


if __name__ == "__main__":
    sys.exit(main())
