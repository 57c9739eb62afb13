"""The figure of the claims: every effect with its interval, against its threshold."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import groupby
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from .effects import INCONCLUSIVE, NOT_SUPPORTED, SUPPORTED
from .plotting import new_figure

#: verdict → colour and marker; the markers differ in shape and filling, for grey print.
MARKS = {SUPPORTED: ("#1b6e3c", "o"), NOT_SUPPORTED: ("#b3261e", "X"), INCONCLUSIVE: ("#6b6b6b", "o")}
SUPPORTS = "#e7f1e9"
#: Heights in inches: of a row, and of a panel's title and axis together.
ROW, FRAME = 0.15, 0.54
Panel = list[dict[str, Any]]


def draw(judged: list[dict[str, Any]], style: Mapping[str, Any]) -> Figure:
    """Return the figure: a panel for each part of each claim in two columns, a row for each cell.

    The shaded side of the dashed threshold supports the claim. An effect that could not be computed has its reason in
    place of a point. Each point's gid is ``<claim>|<part>|<cell>``.
    """
    columns = _columns(judged)
    heights = [sum(len(panel) * ROW + FRAME for _, panel in column) for column in columns]
    width, height = float(style["width"]), max(heights) + 0.35
    figure = new_figure(width, height)
    figure.set_layout_engine("none")
    for column, panels in enumerate(columns):
        top = height - 0.35
        for claim, panel in panels:
            inner = len(panel) * ROW
            left, wide = (column + 0.46) / 2, 0.25
            box = (left, (top - 0.27 - inner) / height, wide, inner / height)
            _panel(figure.add_axes(box), claim, panel, (column + 0.01) / 2, height)
            top -= inner + FRAME
    _legend(figure)
    return figure


def _columns(
    judged: list[dict[str, Any]],
) -> tuple[list[tuple[dict[str, Any], Panel]], list[tuple[dict[str, Any], Panel]]]:
    """Return the panels, in order, as two columns of about equal height."""
    panels = [
        (claim, list(part)) for claim in judged for _, part in groupby(_sorted(claim), lambda effect: effect["part"])
    ]
    heights = np.cumsum([len(panel) * ROW + FRAME for _, panel in panels])
    cut = int(np.argmin(np.abs(heights - heights[-1] / 2))) + 1 if len(panels) > 1 else 1
    return panels[:cut], panels[cut:]


def _sorted(claim: dict[str, Any]) -> Panel:
    """Return a claim's effects with those of one part together, parts in order of appearance."""
    parts = list(dict.fromkeys(effect["part"] for effect in claim["effects"]))
    return sorted(claim["effects"], key=lambda effect: parts.index(effect["part"]))


def _panel(ax: Axes, claim: dict[str, Any], panel: Panel, edge: float, height: float) -> None:
    """Draw one part of a claim; `edge` is where its title starts, as a fraction of its width, `height` the figure height in inches."""
    first = panel[0]
    low, high = _limits(panel)
    ax.set_xlim(low, high)
    ax.set_ylim(len(panel) - 0.5, -0.5)
    supporting = {
        "above": (first["threshold"], high),
        "below": (low, first["threshold"]),
        "within": (-first["threshold"], first["threshold"]),
    }[first["relation"]]
    ax.axvspan(*supporting, color=SUPPORTS, zorder=0, linewidth=0)
    for limit in {-first["threshold"], first["threshold"]} if first["relation"] == "within" else {first["threshold"]}:
        ax.axvline(limit, color="#333333", linewidth=0.8, dashes=(3, 2), zorder=1)
    for place, effect in enumerate(panel):
        _effect(ax, place, effect)
    ax.set_yticks(range(len(panel)), [_label(effect) for effect in panel], fontsize=6)
    ax.tick_params(axis="x", labelsize=6, pad=1)
    ax.tick_params(axis="y", length=0)
    ax.locator_params(axis="x", nbins=4)
    ax.set_xlabel(first["unit"], fontsize=6, labelpad=0.5)
    title = f"{claim['claim']}  {first['part']}"
    ax.figure.text(edge, ax.get_position().y1 + 0.06 / height, title, fontsize=7, fontweight="bold")


def _effect(ax: Axes, place: int, effect: dict[str, Any]) -> None:
    colour, marker = MARKS[effect["verdict"]]
    gid = f"{effect['claim']}|{effect['part']}|{effect['cell']}"
    if effect["value"] is None:
        box = {"facecolor": "white", "edgecolor": "none", "pad": 0.6}
        where = ax.get_yaxis_transform()
        ax.text(
            0.01, place, _short(effect["note"]), transform=where, fontsize=5, va="center", color="#444444", bbox=box
        )
        return
    ax.plot(
        [effect["low"], effect["high"]], [place, place], color=colour, linewidth=1.2, zorder=2, gid=f"{gid}|interval"
    )
    filled = colour if effect["verdict"] != INCONCLUSIVE and effect["decides"] else "white"
    ax.plot(
        [effect["value"]],
        [place],
        marker=marker,
        color=colour,
        markerfacecolor=filled,
        markersize=4.2,
        markeredgewidth=0.9,
        linestyle="none",
        zorder=3,
        gid=gid,
    )


def _limits(panel: Panel) -> tuple[float, float]:
    """Return the ends of a panel's axis: all intervals and the threshold lie inside."""
    numbers = [effect[key] for effect in panel if effect["value"] is not None for key in ("low", "high")]
    limit = panel[0]["threshold"]
    numbers += [-limit, limit] if panel[0]["relation"] == "within" else [limit]
    low, high = min(numbers), max(numbers)
    margin = 0.08 * (high - low) or 0.1
    return low - margin, high + margin


def _label(effect: dict[str, Any]) -> str:
    return effect["cell"] if effect["decides"] else f"({effect['cell']})"


def _short(text: str) -> str:
    return text if len(text) <= 46 else f"{text[:45]}…"


def _legend(figure: Figure) -> None:
    handles = [
        Line2D(
            [],
            [],
            color=c,
            marker=m,
            markerfacecolor="white" if v == INCONCLUSIVE else c,
            linewidth=1.2,
            markersize=4.2,
            label=v,
        )
        for v, (c, m) in MARKS.items()
    ]
    handles.append(
        Line2D([], [], color="#333333", linewidth=0.8, dashes=(3, 2), label="threshold, its supporting side shaded")
    )
    figure.legend(handles=handles, loc="upper center", ncols=4, fontsize=7)
