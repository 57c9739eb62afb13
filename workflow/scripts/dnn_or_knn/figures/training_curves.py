"""Training curves: loss and accuracy of every run on its training batches, and where the learning rate falls."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter, StrMethodFormatter

from ..runtime.errors import UserError
from . import style
from .panels import STEP
from .style import Look
from .table import COLUMNS, letter, seeds
from .words import architecture_title, dataset_title

#: A curve is averaged over windows of steps so that it has at most this many points.
POINTS = 100
#: Labels of a loss axis, at least.
LABELS = 3
#: Panels side by side where there is a single data set.
ACROSS = 3
LOSS, ACCURACY, DECAY = "Training loss", "Batch accuracy (%)", "Learning rate"
CAPTION = (
    "Training of every run: mean loss (left axis, logarithmic) and accuracy (right axis) on the training batches, "
    f"augmented where the run augments, averaged over windows of steps (at most {POINTS} points a curve). Dotted: steps "
    "where the learning rate falls."
)
LOOKS = {LOSS: Look("#000000", "", 1.1), ACCURACY: Look("#3f7fa6", "", 1.1, dashed=True)}


class Place(NamedTuple):
    """A panel: the runs that differ in nothing but the seed, and where they are drawn."""

    letter: str
    row: int
    column: int
    dataset: str
    architecture: str
    labels: str


def parts(run: str) -> tuple[str, str, str, int]:
    """Return data set, architecture, labels and seed of a run's path, ``digits/lenet/true-labels/seed0``."""
    words = run.split("/")
    if len(words) != 4 or not words[3].removeprefix("seed").isdigit():
        raise UserError(f"'{run}' names no run; the specification's runs are like digits/lenet/true-labels/seed0")
    return words[0], words[1], words[2], int(words[3].removeprefix("seed"))


def places(runs: Sequence[str]) -> list[Place]:
    """Return the panels: kinds of run × data sets; the kinds of a single data set lie side by side."""
    found = [parts(run)[:3] for run in runs]
    datasets = list(dict.fromkeys(dataset for dataset, _, _ in found))
    kinds = list(dict.fromkeys((architecture, labels) for _, architecture, labels in found))
    where = []
    for dataset, architecture, labels in dict.fromkeys(found):
        kind = kinds.index((architecture, labels))
        row, column = divmod(kind, ACROSS) if len(datasets) == 1 else (kind, datasets.index(dataset))
        where.append((row, column, dataset, architecture, labels))
    return [Place(letter(number), *place) for number, place in enumerate(sorted(where))]


def data(histories: Mapping[str, Path]) -> pd.DataFrame:
    """Return what the figure shows: each run's loss and batch accuracy averaged over windows, and its decay steps.

    Parameters
    ----------
    histories: run path → its history, a CSV with ``step``, ``loss``, ``batch_accuracy`` and ``learning_rate``.
    """
    pieces = []
    for place in places(list(histories)):
        for run, path in histories.items():
            if parts(run)[:3] != (place.dataset, place.architecture, place.labels):
                continue
            about = {"panel": place.letter, "dataset": place.dataset, "architecture": place.architecture}
            about |= {"labels": place.labels, "model": "dnn", "split": "train", "layer": "", "note": ""}
            pieces.append(_windows(_read(path)).assign(**about, seed=parts(run)[3], converged=True))
    return pd.concat(pieces, ignore_index=True).reindex(columns=COLUMNS)


def _read(path: Path) -> pd.DataFrame:
    """Read the columns of one history; a missing or damaged file raises `UserError`."""
    needed = ["step", "loss", "batch_accuracy", "learning_rate"]
    try:
        table = pd.read_csv(path, usecols=needed, dtype=float)
    except FileNotFoundError as error:
        raise UserError(f"{path} is missing; train the run first") from error
    except ValueError as error:
        raise UserError(f"{path} is damaged ({error}); delete it and train again") from error
    return table.dropna().sort_values("step", kind="stable")


def _windows(history: pd.DataFrame) -> pd.DataFrame:
    """Return x, y, series and quantity: means over windows of equally many steps, and steps where the rate falls."""
    width = -(-len(history) // POINTS)
    by = history.groupby((history["step"] - 1) // max(width, 1))
    steps = by["step"].max().astype(float)
    pieces = [
        pd.DataFrame({"quantity": name, "series": name, "x": steps, "y": (by[column].mean() * scale).round(10)})
        for name, column, scale in ((LOSS, "loss", 1.0), (ACCURACY, "batch_accuracy", 100.0))
    ]
    falls = history[history["learning_rate"] < history["learning_rate"].shift() * 0.999]
    rates = {"x": falls["step"].astype(float), "y": falls["learning_rate"].round(10)}
    return pd.concat([*pieces, pd.DataFrame({"quantity": DECAY, "series": DECAY, **rates})])


def draw(table: pd.DataFrame, runs: Sequence[str], spec: Mapping[str, Any]) -> Figure:
    """Draw the figure from its table."""
    look = style.style(spec)
    where = places(runs)
    rows, columns = max(p.row for p in where) + 1, max(p.column for p in where) + 1
    single = len({place.dataset for place in where}) == 1
    made = style.new_figure(look["width"] * {1: 0.6, 2: 0.8}.get(columns, 1.0), 1.5 * rows + 0.7)
    grid = made.add_gridspec(rows, columns)
    for place in where:
        ax = made.add_subplot(grid[place.row, place.column])
        here = table[table["panel"] == place.letter]
        right = _panel(ax, here, place.letter)
        kind = f"{architecture_title(place.architecture)}\n{_labels(place.labels)}"
        column = [p.row for p in where if p.column == place.column]
        if single or place.row == min(column):
            head = kind.replace("\n", ", ") if single else dataset_title(place.dataset)
            ax.set_title(head, pad=4)
        style.panel_letter(ax, place.letter)
        row = [p.column for p in where if p.row == place.row]
        first, last = place.column == min(row), place.column == max(row)
        ax.set_ylabel(LOSS if first else "")
        right.set_ylabel(ACCURACY if last else "")
        right.tick_params(labelright=last)
        if place.row == max(column):
            ax.set_xlabel(STEP)
        if last and not single:
            style.row_head(ax, kind, 30)
        if last and place.column < columns - 1:  # what stands beside it has the empty place there: columns make no room
            for beside in (right.yaxis, *ax.texts):
                beside.set_in_layout(False)
    style.legend(made, _handles(table))
    style.settle(made)
    return made


def _labels(name: str) -> str:
    return name.replace("-", " ")


def _logarithmic(ax: Axes) -> None:
    """Make the y-axis logarithmic, with `LABELS` labels at least, however few decades are shown."""
    ax.set_yscale("log")
    low, high = ax.get_ylim()
    sparse = [LogLocator(subs=subs, numticks=7) for subs in ((1.0,), (1.0, 3.0), (1.0, 2.0, 5.0))]
    for locator in (*sparse, MaxNLocator(5)):
        ax.yaxis.set_major_locator(locator)
        if sum(low <= tick <= high for tick in ax.get_yticks()) >= LABELS:
            break
    ax.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    ax.yaxis.set_minor_formatter(NullFormatter())


def _panel(ax: Axes, here: pd.DataFrame, name: str) -> Axes:
    """Draw one panel; return its right axis, of the accuracy."""
    right = ax.twinx()
    if here.empty:
        ax.text(
            0.5,
            0.5,
            "trained elsewhere: no history",
            ha="center",
            va="center",
            color=style.GREY,
            transform=ax.transAxes,
        )
    for axis, quantity in ((ax, LOSS), (right, ACCURACY)):
        rows = here[here["quantity"] == quantity]
        style.curve(axis, rows, LOOKS[quantity], gid=f"{name}/{quantity}")
    for step in here.loc[here["quantity"] == DECAY, "x"].unique():
        ax.axvline(step, color=style.LIGHT, linewidth=0.7, linestyle=(0, (1, 1.5)), zorder=1, gid="decay")
    if (here.loc[here["quantity"] == LOSS, "y"] > 0).all():
        _logarithmic(ax)
    right.set_ylim(-3, 105)
    right.grid(False)
    right.spines["right"].set_visible(True)
    ax.set_zorder(right.get_zorder() + 1)
    ax.patch.set_visible(False)
    style.step_axis(ax)
    return right


def _handles(table: pd.DataFrame) -> list[Any]:
    """Return the legend's entries."""
    decay = Line2D([], [], label="learning rate falls", color=style.LIGHT, linewidth=0.7, linestyle=(0, (1, 1.5)))
    return [
        style.handle("training loss (left axis)", LOOKS[LOSS]),
        style.handle("batch accuracy (right axis)", LOOKS[ACCURACY]),
        *([decay] if (table["quantity"] == DECAY).any() else []),
        *style.band_handles(seeds(table)),
    ]


def alt(table: pd.DataFrame) -> str:
    """Return what the figure shows, in words."""
    sentences = ["Training loss and batch accuracy against training step."]
    for name, rows in table.groupby("panel", sort=False):
        ends = {q: of[of["x"] == of["x"].max()]["y"].mean() for q, of in rows.groupby("quantity") if q != DECAY}
        head = rows.iloc[0]
        sentences.append(
            f"({name}) {dataset_title(head['dataset'])}, {architecture_title(head['architecture'])}, "
            f"{_labels(head['labels'])}: loss {ends[LOSS]:.3g}, accuracy {ends[ACCURACY]:.3g} % at the end."
        )
    return " ".join(sentences)
