"""What the figures of the measures beside the paper's share.

Each is one module beside this one: `shown(table, spec, stores)` takes the rows that it shows out of the measure's table, which
is its CSV; `draw(table, spec, stores)` draws them; `caption(table)` and `alt(table)` say them in words.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from . import style
from .words import LABELS, architecture_title, dataset_title

#: A run without its seed.
KIND = ["dataset", "architecture", "labels"]


def title(kind: Sequence[str]) -> str:
    """Return a kind of run as print shows it: Fashion-14, WRN-22-1, random labels."""
    dataset, architecture, labels = kind
    return f"{dataset_title(dataset)}, {network_title((architecture, labels))}"


def network_title(kind: Sequence[str]) -> str:
    """Return a network and what it was trained on as print shows it."""
    architecture, labels = kind
    return f"{architecture_title(architecture)}, {LABELS.get(labels, labels).lower()}"


def kinds(table: pd.DataFrame) -> list[tuple[str, ...]]:
    """Return the kinds of run of a table, in its order."""
    return list(dict.fromkeys(table[KIND].itertuples(index=False, name=None)))


def of_kind(table: pd.DataFrame, kind: Sequence[str]) -> pd.DataFrame:
    """Return the rows of one kind of run."""
    return table[(table[KIND] == list(kind)).all(axis=1)]


def empty(spec: Mapping[str, Any], head: str, sentence: str) -> Figure:
    """Return a figure that says why there is nothing to show."""
    return style.message_figure(style.style(spec), head, sentence, [])


def seeds(count: int) -> str:
    """Return what a caption says of so many seeds."""
    return "One seed." if count == 1 else f"{count} seeds, taken together."
