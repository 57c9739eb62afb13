"""What judged claims leave behind: their effects as a table and a figure, and the verdicts in words."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from ..figures import style
from ..runtime import files
from ..runtime.progress import log
from . import verdicts
from .figure import draw

COLUMNS = [
    *("claim", "part", "cell", "value", "low", "high", "relation", "threshold", "unit", "verdict", "decides", "seeds"),
    "note",
]


def write(manifest: Path, judged: list[dict[str, Any]], title: str) -> list[Path]:
    """Write PDF, PNG, CSV and Markdown beside a manifest that is yet to come, and return their paths.

    Parameters
    ----------
    judged: from `judge`, a claim each.
    title: of the Markdown.
    """
    table = pd.DataFrame([effect for claim in judged for effect in claim["effects"]], columns=COLUMNS)
    prefix = manifest.with_suffix("")
    look = style.style({})
    with style.applied(look):
        made = style.save(draw(judged, look), prefix, table, dpi=look["dpi"])
    text = prefix.with_suffix(".md")
    files.write_text(text, verdicts.markdown(judged, title))
    return [*made, text]


def tell(judged: list[dict[str, Any]], of: str = "") -> None:
    """Log a line for each claim; `of` says whose it is, if not the paper's."""
    for claim in judged:
        told = claim["claim"], of, verdicts.verdict(claim), claim["title"], claim["decided"]
        log.info("claim %d%s: %s - %s: %s", *told)
