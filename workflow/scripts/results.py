"""Look at an experiment's results.

    python workflow/scripts/results.py verdicts results/demo
    python workflow/scripts/results.py why [--configfile config/demo.yaml] [snakemake's other options and targets]
    python workflow/scripts/results.py verify results/demo [--configfile config/demo.yaml]
    python workflow/scripts/results.py pack results/paper paper.tar.gz
    python workflow/scripts/results.py unpack paper.tar.gz
    python workflow/scripts/results.py redraw paper.tar.gz [another.tar.gz ...]
    python workflow/scripts/results.py disk [--configfile config/demo.yaml] [--release]
    python workflow/scripts/results.py compare results/a results/b
    python workflow/scripts/results.py tables results/demo

verdicts prints the claims' verdicts; why, what is stale and why; verify recomputes every digest; pack and unpack carry
results to another machine; redraw draws an archive's figures, claims and page with the code here; disk says what an
experiment needs; compare puts two side by side; tables prints the numbers beside the published ones. Each says more with --help.
"""

from __future__ import annotations

import importlib
import os
import signal
import sys

from dnn_or_knn.runtime.errors import UserError, nearest

TOOLS = {name: name for name in ("verdicts", "why", "verify", "redraw", "disk", "compare")} | {
    "pack": "archive",
    "unpack": "archive",
    "tables": "paper_tables",
}


def main() -> int:
    """Run a subcommand; where whoever reads its output has seen enough, such as `head`, end as if SIGPIPE had."""
    try:
        try:
            return run(*(sys.argv[1:] or ["--help"]))
        finally:
            sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python flushes once more
        return 128 + signal.SIGPIPE


def run(command: str, *words: str) -> int:
    if command in ("-h", "--help"):
        print(__doc__)
        return 0
    try:
        if command not in TOOLS:
            raise UserError(f"results.py has no subcommand '{command}'{nearest(command, TOOLS)}")
        return int(importlib.import_module(f"dnn_or_knn.tools.{TOOLS[command]}").main(command, list(words)))
    except UserError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    sys.exit(main())
