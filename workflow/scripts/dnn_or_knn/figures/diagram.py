"""A network drawn from its own list of probe points: figure 4 (g)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.gridspec import SubplotSpec
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

from . import style

#: Fill and text of a layer by its kind; units and pools of successive stages darken.
KINDS = {"input": ("#ffffff", "#000000"), "embedding": ("#3d3d3d", "#ffffff")}
STAGES = ("#f1efe9", "#dfe3ea", "#c3cbd8", "#a3afc3", "#8d9ab2")
#: A box's width, as a fraction of the distance between boxes, and its height, the strip's height being 1.
WIDTH, LOW, HIGH = 0.62, 0.24, 0.84
#: Height of the strip in inches.
HEIGHT = 1.45


def draw(
    figure: Figure,
    place: SubplotSpec,
    layers: Sequence[Mapping[str, Any]],
    letter: str,
    title: str,
    *,
    means: bool = False,
) -> Axes:
    """Draw a network's layers as boxes in a row, each with its name and the number of features that are extracted.

    Parameters
    ----------
    layers: the probe points in order, each with ``name``, ``dimensions``, ``kind`` and ``stage``.
    letter, title: the panel's letter and the network's name.
    means: whether the input's features are the means of its channels.
    """
    ax = figure.add_subplot(place, gid="diagram")
    ax.set(xlim=(-0.75, len(layers) + 0.5), ylim=(0, 1.16))
    ax.axis("off")
    style.aside(ax, f"({letter})", (0, 1), (-4, 0), ha="right", va="top", **style.HEADING)
    for position, layer in enumerate(layers):
        fill, ink = KINDS.get(layer["kind"], (STAGES[min(int(layer["stage"]), len(STAGES) - 1)], "#000000"))
        _box(ax, position, fill)
        _upright(ax, position, str(layer["name"]), ink)
        # Data sets differ in their pixels, not in the layers' features.
        features = ("means" if means else "pixels") if layer["kind"] == "input" else f"{layer['dimensions']:,}"
        ax.text(position, LOW - 0.04, features, ha="center", va="top", fontsize=style.small())
        _arrow(ax, position)
    _box(ax, len(layers), "#ffffff", dashed=True)
    _upright(ax, len(layers), "FC, softmax", style.GREY)
    _blocks(ax, layers)
    ax.text(-0.75, 1.16, title, ha="left", va="top", fontweight="bold")
    ax.text(
        -0.75,
        0.0,
        f"Below each layer: its number of features (of the input: {'the mean of each channel' if means else 'its pixels'})",
        ha="left",
        va="bottom",
        fontsize=style.small(),
        color=style.GREY,
    )
    return ax


def _box(ax: Axes, position: int, fill: str, *, dashed: bool = False) -> None:
    ax.add_patch(
        FancyBboxPatch(
            (position - WIDTH / 2, LOW),
            WIDTH,
            HIGH - LOW,
            boxstyle="round,pad=0,rounding_size=0.06",
            facecolor=fill,
            edgecolor=style.GREY if dashed else "#333333",
            linewidth=0.7,
            linestyle=(0, (3, 2)) if dashed else "-",
            mutation_aspect=0.6,
            zorder=2,
        )
    )


def _upright(ax: Axes, position: int, text: str, ink: str) -> None:
    ax.text(
        position,
        (LOW + HIGH) / 2,
        text,
        rotation=90,
        ha="center",
        va="center",
        fontsize=style.small(),
        color=ink,
        zorder=3,
    )


def _arrow(ax: Axes, position: int) -> None:
    middle = (LOW + HIGH) / 2
    ends = ((position + WIDTH / 2, middle), (position + 1 - WIDTH / 2, middle))
    ax.add_patch(
        FancyArrowPatch(
            *ends,
            arrowstyle="-|>",
            mutation_scale=5,
            linewidth=0.7,
            color="#333333",
            shrinkA=0.5,
            shrinkB=0.5,
            zorder=1,
        )
    )


def _blocks(ax: Axes, layers: Sequence[Mapping[str, Any]]) -> None:
    """Bracket the layers of each block that has more than one."""
    for stage, members in groupby(enumerate(layers), key=lambda entry: int(entry[1]["stage"])):
        positions = [position for position, layer in members if layer["kind"] not in KINDS]
        if len(positions) < 2 or not stage:
            continue
        left, right, height = positions[0] - WIDTH / 2, positions[-1] + WIDTH / 2, HIGH + 0.06
        ax.plot(
            [left, left, right, right], [height - 0.03, height, height, height - 0.03], color=style.GREY, linewidth=0.7
        )
        ax.text(
            (left + right) / 2,
            height + 0.03,
            f"block {stage}",
            ha="center",
            va="bottom",
            fontsize=style.small(),
            color=style.GREY,
        )
