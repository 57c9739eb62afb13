"""What figures say in words: names as print shows them, captions, alternative texts."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Sequence

import pandas as pd

from .style import of_seeds
from .table import Layout, is_drawn, seeds

DATASETS = {
    "mnist": "MNIST",
    "cifar10": "CIFAR-10",
    "cifar100": "CIFAR-100",
    "digits": "Digits",
    "fashion14": "Fashion-14",
}
#: What the configuration calls data sets and networks; a figure's or page's program puts it here.
TITLES: dict[str, str] = {}
MODELS = {"dnn": "DNN", "knn": "k-NN", "svm": "SVM", "lr": "LR"}
LABELS = {"true-labels": "True labels", "random-labels": "Random labels", "overfit": "Enforced overfitting"}
#: What captions say of the zooms on the end of training, and of memorization.
INSETS = "Insets: the end of training, enlarged, where the curves lie on each other."
CUT = "a first evaluation that dwarfs the others leaves the axis."
PUBLISHED = "Grey crosses: the authors' first-version k-NN test accuracies."
MEMORIZATION = "Vertical line: memorization, the first evaluation at which the train accuracy rounds to 100.0 %."


def dataset_title(name: str) -> str:
    """Return the name of a data set as print shows it."""
    return TITLES.get(name) or DATASETS.get(name, name)


def architecture_title(name: str) -> str:
    """Return the name of an architecture as print shows it: WRN-28-10, LeNet, MLP-640."""
    if name in TITLES:
        return TITLES[name]
    known = {"lenet": "LeNet"}.get(name) or re.sub(r"^mlp-?(?=\d)", "MLP-", name)
    return known.upper() if known.startswith("wrn-") else known


def model_title(name: str) -> str:
    """Return the name of the network or a probe as print shows it; a variant keeps its suffix: k-NN (l1)."""
    family, _, variant = name.partition("-")
    return MODELS.get(name) or (f"{MODELS[family]} ({variant})" if family in MODELS else name)


def caption(layout: Layout, table: pd.DataFrame, gids: Collection[str]) -> str:
    """Return a figure's caption: what it is, what was drawn (the names of its artists), and what these data ask for."""
    said = {"memorization": MEMORIZATION, "inset": INSETS, "off scale": f"↑: {CUT}"}
    drawn = [sentence for gid, sentence in said.items() if gid in gids]
    published = (table["series"] == "published").any()
    return " ".join(filter(None, [layout.caption, *drawn, PUBLISHED if published else "", notes(table)]))


def notes(table: pd.DataFrame) -> str:
    """Return what a caption has to add about these data: seeds, fits that did not converge, what is missing."""
    found = []
    counts = seeds(table)
    if counts and counts[-1] > 1:
        found.append(f"Lines: mean over {of_seeds(counts)}; bands: from the smallest to the largest.")
    elif counts:
        found.append("One seed.")
    drawn = table[is_drawn(table)]
    failed = drawn[~drawn["converged"].astype(bool)]
    if len(failed):
        found.append(
            f"Hollow markers: the fit did not converge ({len(failed)} of {len(drawn)} points, "
            f"{', '.join(sorted(set(failed['series'])))})."
        )
    absent = list(dict.fromkeys(table.loc[table["series"] == "missing", "note"]))
    if absent:
        found.append(f"Missing: {'; '.join(note.removeprefix('not configured: ') for note in absent)}.")
    return " ".join(found)


def describe(layout: Layout, table: pd.DataFrame) -> str:
    """Return a figure in words: what its panels show, then where each panel's curves end (and begin)."""
    shown = table[is_drawn(table)]
    if shown.empty:
        return f"The figure is empty. {notes(table)}"
    several = [column for column in ("dataset", "architecture", "labels") if shown[column].nunique() > 1]
    common = _names(shown, ["dataset", "architecture", "labels"])
    sentences = [layout.summary, f"{common[0].upper()}{common[1:]}." if common else ""]
    for name, rows in shown.groupby("panel", sort=False):
        ends = []
        for series, of in rows.groupby("series", sort=False):
            by = of.groupby("x")["y"].mean()
            said = str(series).removesuffix(f", {of['split'].iloc[0]}" if rows["split"].nunique() == 1 else "")
            ends.append(f"{said} {f'{_number(by.iloc[0])} to ' if layout.begins else ''}{_number(by.iloc[-1])}")
        memorized = table[(table["panel"] == name) & (table["series"] == "memorization")]["x"].dropna()
        tail = f"; memorization at step {memorized.mean():.0f}" if len(memorized) else ""
        head = ", ".join(word for word in (_names(rows, several), rows["quantity"].iloc[0]) if word)
        when = "from first to last" if layout.begins else "at the end"
        sentences.append(f"({name}) {head} {when}: {', '.join(ends)}{tail}.")
    return " ".join(word for word in [*sentences, notes(table)] if word)


def _names(rows: pd.DataFrame, columns: Sequence[str]) -> str:
    """Return the printed names of what a panel's rows have in common."""
    say: dict[str, Callable[[str], str]] = {
        "dataset": dataset_title,
        "architecture": architecture_title,
        "labels": lambda name: LABELS.get(name, name).lower(),
    }
    return ", ".join(say[column](rows[column].iloc[0]) for column in columns if rows[column].nunique() == 1)


def _number(value: float) -> str:
    return f"{value:.3g}" if abs(value) >= 0.095 else f"{value:.2f}"
