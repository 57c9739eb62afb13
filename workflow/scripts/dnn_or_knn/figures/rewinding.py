"""Heat maps of layer × step: the accuracy that is left when a layer's weights are set back to an earlier step."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from . import beside, style
from .table import letter

#: Column of the measure → what a panel is called.
QUANTITIES = {"own": "Train, own label", "relabelled": "Train, another label", "test": "Test"}
#: Rows of the measure that are groups of layers; they stand below the layers.
GROUPS = ("last stage", "before it", "all")
ROW, COLOURS = 0.135, "cividis"


def shown(table: pd.DataFrame, _spec: Mapping[str, Any], _stores: Mapping[str, Any]) -> pd.DataFrame:
    """Return the accuracies of each kind of run, layer and step, in percent, the means over seeds."""
    keys = [*beside.KIND, "layer", "step"]
    found = table.groupby(keys, sort=False)[list(QUANTITIES)].mean() * 100
    return found.reset_index().assign(seeds=table["seed"].nunique())


def draw(table: pd.DataFrame, spec: Mapping[str, Any], _stores: Mapping[str, Any]) -> Figure:
    """Draw a row for each kind of run and a column for each kind of images; those of which a run has none stay empty."""
    kinds = beside.kinds(table)
    heights = [1.0 + ROW * beside.of_kind(table, kind)["layer"].nunique() for kind in kinds]
    made = style.new_figure(style.style(spec)["width"], sum(heights) + 0.5)
    spaces = made.add_gridspec(len(kinds), len(QUANTITIES), height_ratios=heights)
    drawn: Any = None
    for row, kind in enumerate(kinds):
        rows = beside.of_kind(table, kind)
        for column, (quantity, name) in enumerate(QUANTITIES.items()):
            ax = made.add_subplot(spaces[row, column])
            drawn = _panel(ax, rows, quantity) or drawn
            style.panel_letter(ax, letter(row * len(QUANTITIES) + column))
            ax.set_title(name, pad=4)
            if column:
                ax.tick_params(labelleft=False)
            else:
                # It may reach over the panel beside: the layout keeps its height free, not its width.
                for words in (" ", beside.title(kind)):
                    style.aside(ax, words, (0, 1), (0, 16), ha="left", va="bottom", **style.HEADING)
                ax.texts[-1].set_in_layout(False)
            if row == len(kinds) - 1:
                ax.set_xlabel("Set back to step")
    if drawn is not None:
        bar = made.colorbar(drawn, ax=made.axes, location="top", aspect=60, shrink=0.6, pad=0.02)
        bar.set_label("Accuracy (%)")
    style.settle(made)
    return made


def _panel(ax: Axes, rows: pd.DataFrame, quantity: str) -> Any:
    """Draw one heat map, the input's side at the top; return it, None where there are no such images."""
    if rows[quantity].isna().all():
        style.message(ax, "no such images")
        return None
    layers, steps = list(dict.fromkeys(rows["layer"])), sorted(rows["step"].unique())
    grid = rows.pivot(index="layer", columns="step", values=quantity).reindex(index=layers, columns=steps).to_numpy()
    drawn = ax.pcolormesh(
        np.arange(len(steps) + 1), np.arange(len(layers) + 1), grid, cmap=COLOURS, vmin=0, vmax=100, gid=quantity
    )
    ax.set_ylim(len(layers), 0)
    ax.set_yticks(np.arange(len(layers)) + 0.5, layers)
    some = np.unique(np.linspace(0, len(steps) - 1, 4).round().astype(int))
    ax.set_xticks(some + 0.5, [f"{steps[place]:,}" for place in some])
    first = next((place for place, layer in enumerate(layers) if layer in GROUPS), len(layers))
    ax.axhline(first, color="white", linewidth=1.5)
    ax.grid(False)
    return drawn


def caption(table: pd.DataFrame) -> str:
    """Return what the figure is."""
    count = int(table["seeds"].iloc[0])
    return (
        "The network of the last step with one layer's weights set back to those of an earlier step (arXiv 2307.09542): accuracy on "
        "the train images that are trained with their own label and with another one, and on test images. Last stage: the last block "
        "of equal resolution and all that follows; before it: all other layers; all: the network as it was. "
        f"{'One seed.' if count == 1 else f'Means over {count} seeds.'}"
    )


def alt(table: pd.DataFrame) -> str:
    """Return the figure in words: for each run the layer that matters most for the images of each kind."""
    said = []
    for kind in beside.kinds(table):
        rows = beside.of_kind(table, kind)
        single = rows[~rows["layer"].isin(GROUPS)]
        found = []
        for quantity, name in QUANTITIES.items():
            means = single.groupby("layer", sort=False)[quantity].mean().dropna()
            if len(means):
                found.append(f"{name.lower()} least with {means.idxmin()} ({means.min():.0f} %)")
        said.append(f"{beside.title(kind)}: {', '.join(found)}.")
    return " ".join(["Accuracy with one layer set back, mean over the steps.", *said])
