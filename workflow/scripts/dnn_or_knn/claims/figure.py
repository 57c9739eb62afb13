"""The figure of the claims: every effect with its interval, against its threshold."""

from __future__ import annotations

import re
from collections.abc import Mapping
from itertools import groupby
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.lines import Line2D
from matplotlib.textpath import TextPath

from ..figures.style import new_figure
from .words import INCONCLUSIVE, TOO_SMALL, VERDICTS

SUPPORTS = "#e7f1e9"
#: Heights in inches: of a row or a line of a remark, of a line of a title, of an axis' numbers and the space below them, of the legend.
ROW, LINE, TICKS, LEGEND = 0.135, 0.125, 0.27, 0.25
#: Where a column's axis begins and how wide it is, as a fraction of the column.
LEFT, WIDE = 0.41, 0.56
#: Size of all text in points.
SIZE = 7
Panel = list[dict[str, Any]]


class Part(NamedTuple):
    """One part of a claim: its number, its title in lines, its effects, one for each cell, with their remarks in lines."""

    claim: int
    title: list[str]
    effects: Panel
    remarks: list[list[str]]  #: why an effect could not be computed; no lines where it could

    @property
    def edges(self) -> np.ndarray:
        """Where the effects' rows begin and end on the axis: each is as high as its remark has lines, 1 at least."""
        return np.cumsum([-0.5, *(max(1, len(remark)) for remark in self.remarks)])

    @property
    def inner(self) -> float:
        """The height of the axis in inches."""
        return float(self.edges[-1] - self.edges[0]) * ROW

    @property
    def height(self) -> float:
        return len(self.title) * LINE + self.inner + TICKS


def draw(judged: list[dict[str, Any]], style: Mapping[str, Any]) -> Figure:
    """Return the figure: a panel for each part of each claim in two columns, a row for each cell.

    The shaded side of the dashed threshold supports the claim. An effect that could not be computed has its reason in
    place of a point, whole, on as many lines as it takes. Each point's gid is ``<claim>|<part>|<cell>``.
    """
    width = float(style["width"])
    columns = _columns(judged, width / 2)
    height = max(sum(part.height for part in column) for column in columns) + LEGEND
    figure = new_figure(width, height)
    figure.set_layout_engine("none")
    for column, parts in enumerate(columns):
        top = height - LEGEND
        for part in parts:
            below = top - len(part.title) * LINE
            box = ((column + LEFT) / 2, (below - part.inner) / height, WIDE / 2, part.inner / height)
            _panel(figure.add_axes(box), part)
            figure.text(
                (column + 0.01) / 2,
                (below + 0.04) / height,
                "\n".join(part.title),
                fontsize=SIZE,
                fontweight="bold",
                linespacing=1.15,
                va="bottom",
            )
            top -= part.height
    _legend(figure)
    return figure


def _columns(judged: list[dict[str, Any]], width: float) -> tuple[list[Part], list[Part]]:
    """Return the parts, in order, as two columns of about equal height; `width` is that of a column in inches."""
    parts = [
        Part(
            claim["claim"],
            wrapped(_title(claim, effects[0]), SIZE, 0.97 * width, "bold"),
            effects,
            [_remark(effect, 0.97 * WIDE * width) for effect in effects],
        )
        for claim in judged
        for _, group in groupby(_sorted(claim), lambda effect: effect["part"])
        if (effects := list(group))
    ]
    heights = np.cumsum([part.height for part in parts])
    cut = int(np.argmin(np.abs(heights - heights[-1] / 2))) + 1 if len(parts) > 1 else 1
    return parts[:cut], parts[cut:]


def _title(claim: dict[str, Any], effect: dict[str, Any]) -> str:
    """Return a part's title, with the unit of its axis where the part does not name it."""
    unit = effect["unit"]
    return f"{claim['claim']}  {effect['part']}" + (f" ({unit})" if unit and unit not in effect["part"] else "")


def _sorted(claim: dict[str, Any]) -> Panel:
    """Return a claim's effects with those of one part together, parts in order of appearance."""
    parts = list(dict.fromkeys(effect["part"] for effect in claim["effects"]))
    return sorted(claim["effects"], key=lambda effect: parts.index(effect["part"]))


def _remark(effect: dict[str, Any], width: float) -> list[str]:
    """Return why an effect could not be computed, in lines no wider than `width` inches; none where it could."""
    return wrapped(reason(effect["note"]), SIZE, width) if effect["value"] is None else []


def _panel(ax: Axes, part: Part) -> None:
    """Draw one part of a claim."""
    panel, edges = part.effects, part.edges
    first = panel[0]
    low, high = _limits(panel)
    ax.set_xlim(low, high)
    ax.set_ylim(edges[-1], edges[0])
    supporting = {
        "above": (first["threshold"], high),
        "below": (low, first["threshold"]),
        "within": (-first["threshold"], first["threshold"]),
    }[first["relation"]]
    ax.axvspan(*supporting, color=SUPPORTS, zorder=0, linewidth=0)
    for limit in {-first["threshold"], first["threshold"]} if first["relation"] == "within" else {first["threshold"]}:
        ax.axvline(limit, color="#333333", linewidth=0.8, dashes=(3, 2), zorder=1)
    places = (edges[:-1] + edges[1:]) / 2
    for place, effect, remark in zip(places, panel, part.remarks, strict=True):
        _effect(ax, place, effect, remark)
    ax.set_yticks(places, [_label(effect) for effect in panel], fontsize=SIZE)
    ax.tick_params(axis="x", labelsize=SIZE, pad=1)
    ax.tick_params(axis="y", length=0, pad=2)
    ax.locator_params(axis="x", nbins=4)
    ax.xaxis.set_major_formatter("{x:g}")


def _effect(ax: Axes, place: float, effect: dict[str, Any], remark: list[str]) -> None:
    colour, marker = VERDICTS[effect["verdict"]][:2]
    gid = f"{effect['claim']}|{effect['part']}|{effect['cell']}"
    if effect["value"] is None:
        ax.text(
            0.5,
            place,
            "\n".join(remark),
            transform=ax.get_yaxis_transform(),
            fontsize=SIZE,
            linespacing=1.15,
            ha="center",
            # Of several lines, "center_baseline" would have the first in the middle.
            va="center" if len(remark) > 1 else "center_baseline",
            color=VERDICTS[effect["verdict"]].colour,
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.3, "alpha": 0.8},
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


def reason(note: str) -> str:
    """Return why nothing could be computed in a few words; the table has all of them."""
    absent = re.search(r" has (no \S+) at ", note)
    short = absent[1] if absent else re.split("[:;]", note)[0].split(" in ")[0]
    return "undecided" if "/" in short or not short else short


def clipped(text: str, length: int) -> str:
    return text if len(text) <= length else f"{text[: length - 1]}…"


def text_width(text: str, size: float, weight: str = "normal") -> float:
    """Return the width of a line of text in inches, with room for letters that are set on whole pixels."""
    outline = TextPath((0, 0), text, size=size, prop=FontProperties(weight=weight))
    return float(outline.get_extents().width) / 72 * 1.04


def wrapped(text: str, size: float, width: float, weight: str = "normal") -> list[str]:
    """Return a text as lines that are no wider than `width` inches."""
    lines: list[str] = []
    for word in text.split(" "):
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and text_width(longer, size, weight) <= width:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines


def handles(linewidth: float, markersize: float) -> list[Line2D]:
    """Return the entries of a legend for the verdicts; what is too small has no number, so no mark."""
    shown = {verdict: look for verdict, look in VERDICTS.items() if verdict != TOO_SMALL}
    size: dict[str, Any] = {"linewidth": linewidth, "markersize": markersize}
    return [
        Line2D([], [], color=c, marker=m, markerfacecolor="white" if v == INCONCLUSIVE else c, label=v, **size)
        for v, (c, m, _) in shown.items()
    ]


def _legend(figure: Figure) -> None:
    limit = Line2D([], [], color="#333333", linewidth=0.8, dashes=(3, 2), label="threshold, its supporting side shaded")
    figure.legend(handles=[*handles(1.2, 4.2), limit], loc="upper center", ncols=4, fontsize=SIZE, borderaxespad=0.2)
