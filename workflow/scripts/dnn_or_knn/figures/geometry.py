"""The shape of the embedding during training: intrinsic dimension and neural collapse."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

from . import beside, style
from .style import Look
from .table import letter
from .words import dataset_title

#: Column → its name on the axis; NC1 spans decades.
QUANTITIES = {
    "intrinsic_dimension": "Dimension",
    "nc1": "NC1",
    "nc2_simplex": "NC2",
    "nc3": "NC3",
    "nc4": "NC4 (%)",
}
LOGARITHMIC = {"nc1"}
SHARE = "Share of the training"


def shown(table: pd.DataFrame, _spec: Mapping[str, Any], _stores: Mapping[str, Any]) -> pd.DataFrame:
    """Return the embedding's rows, with the step as a share of the training, after step 0."""
    rows = table[table["layer"] == "embedding"]
    last = rows.groupby([*beside.KIND, "seed"])["step"].transform("max")
    rows = rows.assign(share=rows["step"] / last)
    return rows.loc[rows["step"] > 0, [*beside.KIND, "seed", "step", "share", *QUANTITIES]].reset_index(drop=True)


def draw(table: pd.DataFrame, spec: Mapping[str, Any], _stores: Mapping[str, Any]) -> Figure:
    """Draw data sets × quantities, a curve for each network and label set."""
    if table.empty:
        return beside.empty(spec, "Geometry of the embedding", "No run was evaluated after step 0.")
    datasets = list(dict.fromkeys(table["dataset"]))
    names = list(dict.fromkeys(table[beside.KIND[1:]].itertuples(index=False, name=None)))
    made = style.new_figure(style.style(spec)["width"], 1.55 * len(datasets) + 0.75)
    spaces = made.add_gridspec(len(datasets), len(QUANTITIES))
    looks = {name: _look(number, name) for number, name in enumerate(names)}
    for row, dataset in enumerate(datasets):
        for column, (quantity, title) in enumerate(QUANTITIES.items()):
            ax = made.add_subplot(spaces[row, column])
            here = table[table["dataset"] == dataset]
            _panel(ax, here, quantity, looks)
            style.panel_letter(ax, letter(row * len(QUANTITIES) + column))
            if row == 0:
                ax.set_title(title, pad=4)
            if row == len(datasets) - 1:
                ax.set_xlabel(SHARE)
            if column == len(QUANTITIES) - 1 and len(datasets) > 1:
                style.row_head(ax, dataset_title(dataset))
    style.legend(made, [style.handle(beside.network_title(name), look) for name, look in looks.items()])
    style.settle(made)
    return made


def _look(number: int, name: tuple[str, ...]) -> Look:
    colours, markers = style.ARCHITECTURE_COLOURS, style.ARCHITECTURE_MARKERS
    return Look(colours[number % len(colours)], markers[number % len(markers)], dashed=name[1] != "true-labels")


def _panel(ax: Axes, here: pd.DataFrame, quantity: str, looks: Mapping[tuple[str, ...], Look]) -> None:
    """Draw one quantity on one data set; a run in which it is never defined has no curve."""
    scale = 100.0 if quantity == "nc4" else 1.0
    for name, look in looks.items():
        rows = here[(here[beside.KIND[1:]] == list(name)).all(axis=1)].dropna(subset=[quantity])
        if len(rows):
            points = pd.DataFrame({"x": rows["share"], "y": rows[quantity] * scale, "seed": rows["seed"]})
            style.curve(ax, points.assign(converged=True), look, gid=f"{'/'.join(name)}/{quantity}")
    if quantity in LOGARITHMIC and (here[quantity].dropna() > 0).all():
        ax.set_yscale("log")
        ax.yaxis.set_major_locator(LogLocator(subs=(1.0, 3.0), numticks=6))
        ax.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        ax.yaxis.set_minor_formatter(NullFormatter())
    else:
        ax.set_ylim(bottom=0 if quantity != "intrinsic_dimension" else None)
    ax.set_xlim(0, 1.02)
    ax.set_xticks([0, 0.5, 1], ["0", "½", "1"])


def caption(table: pd.DataFrame) -> str:
    """Return what the figure is."""
    return (
        "The embedding of the train images during training. Intrinsic dimension by TwoNN (arXiv 1905.12784); neural collapse "
        "(arXiv 2008.08186), 0 at collapse: NC1, spread within the classes against between them; NC2, distance of the class "
        "means from the corners of a simplex; NC3, their distance from the last layer's weights; NC4, share of the images that "
        f"the network gives another class than the nearest class mean's. Step 0 is left out. {beside.seeds(table['seed'].nunique())}"
    )


def alt(table: pd.DataFrame) -> str:
    """Return the figure in words: where each curve begins and ends."""
    said = []
    for kind in beside.kinds(table):
        rows = beside.of_kind(table, kind).groupby("share")[list(QUANTITIES)].mean()
        ends = [f"{name} {rows[name].iloc[0]:.3g} to {rows[name].iloc[-1]:.3g}" for name in QUANTITIES
                if np.isfinite(rows[name].iloc[[0, -1]]).all()]  # fmt: skip
        said.append(f"{beside.title(kind)}: {', '.join(ends)}.")
    return " ".join(
        ["Intrinsic dimension and neural collapse of the embedding, from the first step to the last.", *said]
    )
