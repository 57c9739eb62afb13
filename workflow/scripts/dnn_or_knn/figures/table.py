"""What a figure shows: its panels, and the tidy table of their numbers, which is its CSV and what is drawn.

A figure module `figure<n>.py` has one function, `layout(spec)`. Its specification holds ``figure``, ``datasets``,
``architectures`` (shallow to deep) and ``labels`` (label sets) of the runs that it shows, ``probes``, ``missing`` (runs
that are not configured) and ``style``; figure 4 takes ``input_layer`` and ``published`` too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from ..measures import tables
from ..measures.learned import of_learned
from ..ordering import merged
from .style import Look

#: The columns of a figure's CSV. `quantity` is the axis with its unit; `series` the legend's word for the curve,
#: or "memorization" (x is the step), "published" (the authors' values) or "missing" (`note` says what is); `count` is how
#: many images `y` is taken over.
COLUMNS = [
    *("panel", "dataset", "architecture", "labels", "seed", "quantity", "series", "model", "split"),
    *("layer", "x", "y", "count", "converged", "note"),
]
#: Column of the measures → what an axis shows is the measure times this.
SCALES = {"accuracy": 100.0, "p_same": 1.0, "d_kl": 100.0}
PUBLISHED = "authors' k-NN, test"
P_SAME, D_KL = r"$P_\mathrm{SAME}$", r"$D_\mathrm{KL}\times 100$ (nats)"
#: Quantity on an axis → how the CSV says it without mathematical markup.
PLAIN = {P_SAME: "P_SAME", r"$D_\mathrm{KL}\times 100$": "D_KL x 100"}


class Curve(NamedTuple):
    """One curve of a panel: which rows of the measures, and how it looks."""

    series: str
    architecture: str
    model: str
    split: str
    look: Look


class Panel(NamedTuple):
    """One panel: where it stands, which numbers it shows."""

    row: int
    column: int
    dataset: str
    labels: str
    measure: str  # column of the measures table, a key of `SCALES`
    quantity: str  # the axis, with its unit
    curves: tuple[Curve, ...]
    axis: str  # panels with the same word have one y-axis
    above: str = ""  # title
    beside: str = ""  # name of the row, at the right of its last panel
    letter: str = ""


class Layout(NamedTuple):
    """One figure: what it is in words, and its panels in reading order."""

    caption: str
    summary: str  # the first sentence of the alternative text
    panels: list[Panel]
    height: float = 1.42  # of a row of panels in inches
    layers: bool = False  # the x-axis holds layers at the last step, not training steps of the embedding
    apart: bool = False  # the input is not joined to the layers
    memorization: bool = False  # the memorization step is drawn
    begins: bool = False  # the alternative text says where curves begin, too
    together: bool = False  # a panel compares networks: the x-axis is the share of their steps where these differ much


def letter(number: int) -> str:
    """Return a panel's letter: a, b, … z, aa, ab, …"""
    return (letter(number // 26 - 1) if number >= 26 else "") + "abcdefghijklmnopqrstuvwxyz"[number % 26]


def lettered(panels: Sequence[Panel]) -> list[Panel]:
    """Return panels in reading order with their letters."""
    ordered = sorted(panels, key=lambda panel: (panel.row, panel.column))
    return [panel._replace(letter=letter(number)) for number, panel in enumerate(ordered)]


def plain(quantity: str) -> str:
    """Return an axis label without mathematical markup, for the CSV and for alternative texts."""
    for marked, said in PLAIN.items():
        quantity = quantity.replace(marked, said)
    return quantity


def is_drawn(table: pd.DataFrame) -> pd.Series:
    """Return which rows of a figure's table are points of curves."""
    return ~table["series"].isin(["missing", "memorization", "published", "Learning rate"])


def seeds(table: pd.DataFrame) -> list[int]:
    """Return the numbers of seeds that there are behind one curve, each once, smallest first."""
    counts = table[is_drawn(table)].groupby(["panel", "series"])["seed"].nunique()
    return sorted({int(count) for count in counts})


def assemble(measures: pd.DataFrame, runs: pd.DataFrame, layout: Layout, spec: Mapping[str, Any]) -> pd.DataFrame:
    """Return the table of everything that a figure shows, in the order of its panels.

    A panel without numbers, and a curve without numbers in a panel that has others, get a row "missing" whose note
    says which run or fit is not there. So does a seed that is left out, as its network did not learn and another's did.
    """
    measures, runs, failed = of_learned(measures, runs)
    parts: list[pd.DataFrame] = []
    for panel in layout.panels:
        about = {"panel": panel.letter, "dataset": panel.dataset, "labels": panel.labels}
        about["quantity"] = plain(panel.quantity)
        drawn: list[pd.DataFrame] = []
        absent: list[dict[str, Any]] = []
        for one in panel.curves:
            rows = (_at_layers if layout.layers else _at_steps)(_of_curve(measures, panel, one))
            rows = rows[rows[panel.measure].notna()].sort_values(["seed", "x"], kind="stable")
            if rows.empty:
                run = f"{panel.dataset}/{one.architecture}/{panel.labels}"
                note = {"series": "missing", "note": f"{one.series} of {run}"}
                absent.append({**about, "architecture": one.architecture, **note})
                continue
            y = (rows[panel.measure] * SCALES[panel.measure]).round(10)
            drawn.append(rows.assign(**about, series=one.series, y=y, note="").reindex(columns=COLUMNS))
        if not drawn:
            names = dict.fromkeys(f"{panel.dataset}/{one.architecture}/{panel.labels}" for one in panel.curves)
            notes = [f"not configured: {n}" if n in spec["missing"] else f"not in the measures: {n}" for n in names]
            absent = [{**about, "series": "missing", "note": note} for note in notes]
        absent += [{**about, "series": "missing", **lost} for lost in _failed(failed, panel)]
        parts += [*drawn, *([pd.DataFrame(absent, columns=COLUMNS)] if absent else [])]
        if layout.memorization and drawn:
            parts.append(_memorization(runs, panel, about))
    if not parts:
        notes = [f"not configured: {name}" for name in spec["missing"]] or ["no data set or network is configured"]
        parts = [pd.DataFrame([{"series": "missing", "note": note} for note in notes], columns=COLUMNS)]
    whole = pd.concat([part.astype(object) for part in parts], ignore_index=True).astype({"x": float, "y": float})
    whole = _in_one_order(whole) if layout.layers else whole
    extra = _published(whole, layout, spec.get("published", []))
    return pd.concat([whole, extra]) if len(extra) else whole


def _failed(failed: Sequence[Mapping[str, Any]], panel: Panel) -> list[dict[str, Any]]:
    """Return network, seed and note of the seeds that a panel leaves out."""
    shown = {(panel.dataset, one.architecture, panel.labels) for one in panel.curves}
    return [
        {
            "architecture": run["architecture"],
            "seed": run["seed"],
            "note": f"{tables.run_name(run)}, which did not learn",
        }
        for run in failed
        if (run["dataset"], run["architecture"], run["labels"]) in shown
    ]


def _of_curve(measures: pd.DataFrame, panel: Panel, one: Curve) -> pd.DataFrame:
    wanted = {"dataset": panel.dataset, "labels": panel.labels, "architecture": one.architecture}
    wanted |= {"model": one.model, "split": one.split}
    mask = np.logical_and.reduce([(measures[key] == value).to_numpy() for key, value in wanted.items()])
    return measures[mask]


def _at_steps(rows: pd.DataFrame) -> pd.DataFrame:
    """Return a curve over training steps: x is the step, of the embedding."""
    rows = rows[(rows["layer"] == "embedding") | (rows["model"] == "dnn")]
    return rows.assign(x=rows["step"].astype(float)).drop_duplicates(["seed", "x"])


def _at_layers(rows: pd.DataFrame) -> pd.DataFrame:
    """Return a curve over layers, at each run's last step with hidden layers: x is the layer's position."""
    last = rows[rows["layer"] != "embedding"].groupby("seed")["step"].max()
    rows = rows[rows["step"] == rows["seed"].map(last)]
    return rows.assign(x=rows["layer_index"].astype(float)).drop_duplicates(["seed", "layer"])


def _in_one_order(table: pd.DataFrame) -> pd.DataFrame:
    """Return a table over layers whose x is the place among the layers of all panels, in the network's order.

    Of one network, images of different sizes may go through different stages, and steps may be given with some layers alone.
    """
    runs = table[is_drawn(table)].groupby(["panel", "seed"], sort=False)
    rows = [list(run.sort_values("x", kind="stable")["layer"].unique()) for _, run in runs]
    place = {layer: float(number) for number, layer in enumerate(merged(rows))}
    return table.assign(x=table["layer"].map(place))


def _memorization(runs: pd.DataFrame, panel: Panel, about: Mapping[str, Any]) -> pd.DataFrame:
    """Return one row per seed with the step at which the run memorized its training set, or a note that it did not."""
    architecture = panel.curves[0].architecture
    of = runs[
        (runs["dataset"] == panel.dataset) & (runs["labels"] == panel.labels) & (runs["architecture"] == architecture)
    ]
    rows = [
        {
            **{**about, "architecture": architecture, "seed": seed, "series": "memorization", "split": "train"},
            "model": "dnn",
            "x": np.nan if pd.isna(step) else float(step),
            "note": "not memorized" if pd.isna(step) else "",
        }
        for seed, step in zip(of["seed"], of["memorization_step"], strict=True)
    ]
    return pd.DataFrame(rows, columns=COLUMNS)


def _published(table: pd.DataFrame, layout: Layout, values: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """Return the authors' published values, in the first column where data set, network and layer match."""
    places = table.dropna(subset=["layer"]).groupby(["panel", "layer"])["x"].first()
    rows = [
        {
            **{"panel": panel.letter, "dataset": panel.dataset, "architecture": value["architecture"]},
            **{"labels": panel.labels, "quantity": plain(panel.quantity), "series": "published", "split": "test"},
            **{"layer": value["layer"], "x": places[panel.letter, value["layer"]], "y": value["accuracy"]},
            "note": PUBLISHED,
        }
        for panel in layout.panels
        for value in values
        if (value["dataset"], value["architecture"], panel.column) == (panel.dataset, panel.curves[0].architecture, 0)
        and (panel.letter, value["layer"]) in places.index
    ]
    return pd.DataFrame(rows, columns=COLUMNS).astype({"x": float, "y": float})
