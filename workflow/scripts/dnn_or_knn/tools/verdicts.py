"""Print an experiment's verdicts, and where its page is.

python workflow/scripts/results.py verdicts results/demo
"""

from __future__ import annotations

import sys
from pathlib import Path

from ..claims.words import VERDICTS
from ..runtime.files import read_json


def main(command: str, words: list[str]) -> int:
    """Print the verdicts of the experiment in words[0]."""
    if len(words) != 1 or words[0].startswith("-"):
        sys.exit(__doc__)
    results = Path(words[0])
    colour = sys.stdout.isatty()
    for claim in read_json(results / "claims" / "claims.json")["claims"]:
        verdict = f"{claim['verdict']:13}"
        shown = f"\033[{VERDICTS[claim['verdict']].terminal}m{verdict}\033[0m" if colour else verdict
        one = "  (one run)" if claim["one_run"] else ""
        count = f"{claim['supported']} of {claim['deciding']} effects"
        print(f"{claim['claim']}  {shown}  {claim['title']}{one}\n{'':18}{count}; {claim['decided']}")
    print(f"\nEverything on one page: {(results / 'report.html').resolve().as_uri()}")
    return 0
