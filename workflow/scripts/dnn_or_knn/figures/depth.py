"""Histograms of the prediction depth: at which layer k-NN first gives the network's last answer for good."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from . import beside, style
from .table import letter

HEAD = "Prediction depth"
#: Fewer probed layers than this make no histogram.
FEWEST = 3
#: Groups of images, and how each is drawn.
GROUPS = {"train": "#b9c2cf", "test, right": "#0a7a5a", "test, wrong": "#c62f24"}
ACROSS = 3


def shown(table: pd.DataFrame, _spec: Mapping[str, Any], _stores: Mapping[str, Any]) -> pd.DataFrame:
    """Return the images of each group by depth: count, and share of the group; seeds are taken together."""
    images = table[table["layers"] >= FEWEST]
    group = np.where(images["right"], "test, right", "test, wrong")
    images = images.assign(group=np.where(images["split"] == "train", "train", group))
    keys = [*beside.KIND, "group"]
    found = images.groupby([*keys, "prediction_depth", "depth_layer", "layers"], sort=False).size().rename("images")
    counted = found.reset_index().assign(seed=table["seed"].nunique())
    counted["share"] = counted["images"] / counted.groupby(keys)["images"].transform("sum")
    order = [beside.of_kind(counted, kind).sort_values(["group", "prediction_depth"]) for kind in beside.kinds(counted)]
    return pd.concat([counted.iloc[:0], *order], ignore_index=True)


def draw(table: pd.DataFrame, spec: Mapping[str, Any], _stores: Mapping[str, Any]) -> Figure:
    """Draw a panel for each kind of run that is probed at three layers or more."""
    kinds = beside.kinds(table)
    if not kinds:
        return beside.empty(spec, HEAD, "No run is probed at three layers or more (`layers: all`).")
    across = min(ACROSS, len(kinds))
    rows = -(-len(kinds) // across)
    width = style.style(spec)["width"] * {1: 0.55, 2: 0.8}.get(across, 1.0)
    made = style.new_figure(width, 2.15 * rows + 0.45)
    spaces = made.add_gridspec(rows, across)
    first: Axes | None = None
    for number, kind in enumerate(kinds):
        place = divmod(number, across)
        ax = made.add_subplot(spaces[place], sharey=first)
        first = first or ax
        _panel(ax, beside.of_kind(table, kind), table[table["architecture"] == kind[1]])
        style.panel_letter(ax, letter(number))
        ax.set_title(beside.title(kind), pad=4)
        ax.set_ylabel("Share of images (%)" if place[1] == 0 else "")
    style.legend(made, _handles())
    style.settle(made)
    return made


def _panel(ax: Axes, rows: pd.DataFrame, of_network: pd.DataFrame) -> None:
    """Draw the groups of one kind of run; layers at which no run of the network has an image go without a name."""
    layers = int(rows["layers"].iloc[0])
    edges = np.arange(layers + 2) - 0.5
    for group, colour in GROUPS.items():
        of = rows[rows["group"] == group]
        heights = np.zeros(layers + 1)
        heights[of["prediction_depth"].to_numpy(int)] = 100 * of["share"]
        filled = group == "train"
        look: dict[str, Any] = {"fill": True, "linewidth": 0} if filled else {"linewidth": 1.3}
        ax.stairs(heights, edges, color=colour, gid=group, zorder=2 if filled else 3, **look)
        if len(of) and not filled:
            mean = float((of["prediction_depth"] * of["share"]).sum())
            ax.plot([mean], [1.0], "v", color=colour, markersize=4, clip_on=False, zorder=4,
                    transform=ax.get_xaxis_transform(), gid=f"{group}/mean")  # fmt: skip
    named = of_network.drop_duplicates("prediction_depth").set_index("prediction_depth")["depth_layer"]
    places = [int(place) for place in sorted(named.index)]
    ax.set_xticks(places, [named[place] for place in places], rotation=90)
    ax.set_xlim(-0.6, layers + 0.6)
    ax.grid(axis="x", visible=False)


def _handles() -> list[Any]:
    filled = [Patch(facecolor=GROUPS["train"], label="train")]
    lines = [style.entry(name, color=colour, linewidth=1.3) for name, colour in GROUPS.items() if name != "train"]
    mean = Line2D([], [], linestyle="none", marker="v", color=style.GREY, markersize=4, label="mean")
    return [*filled, *lines, mean]


def caption(table: pd.DataFrame) -> str:
    """Return what the figure is."""
    count = int(table["seed"].iloc[0]) if len(table) else 1
    return (
        "Prediction depth (arXiv 2106.09647): the first layer from which on k-NN gives the network's last answer at every "
        "layer; output: not even at the embedding. Shares of the train images and of the test images that the network gets "
        f"right and wrong; triangles: means of the latter two. {beside.seeds(count)}"
    )


def alt(table: pd.DataFrame) -> str:
    """Return the figure in words: the mean depth of each group, as a share of the layers."""
    said = []
    for kind in beside.kinds(table):
        rows = beside.of_kind(table, kind)
        means = [
            f"{group} {float((of['prediction_depth'] * of['share'] / of['layers']).sum()):.2f}"
            for group in GROUPS
            if len(of := rows[rows["group"] == group])
        ]
        said.append(f"{beside.title(kind)}: {', '.join(means)}.")
    return " ".join(["Histograms of the prediction depth; mean share of the layers:", *said]) if said else "Empty."
