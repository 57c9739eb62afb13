"""Print an experiment's verdicts, and where its page is.

python workflow/scripts/verdicts.py results/demo
"""

from __future__ import annotations

import sys
from pathlib import Path

from dnn_or_knn.claims.words import VERDICTS
from dnn_or_knn.runtime.errors import UserError
from dnn_or_knn.runtime.files import read_json


def main() -> None:
    if len(sys.argv) != 2 or sys.argv[1].startswith("-"):
        sys.exit(__doc__)
    results = Path(sys.argv[1])
    colour = sys.stdout.isatty()
    for claim in read_json(results / "claims" / "claims.json")["claims"]:
        verdict = f"{claim['verdict']:13}"
        shown = f"\033[{VERDICTS[claim['verdict']].terminal}m{verdict}\033[0m" if colour else verdict
        one = "  (one run)" if claim["one_run"] else ""
        count = f"{claim['supported']} of {claim['deciding']} effects"
        print(f"{claim['claim']}  {shown}  {claim['title']}{one}\n{'':18}{count}; {claim['decided']}")
    print(f"\nEverything on one page: {(results / 'report.html').resolve().as_uri()}")


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        sys.exit(f"error: {error}")
