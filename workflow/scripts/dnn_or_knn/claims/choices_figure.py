"""The figure of the choices: how each claim's effect moves, a panel for each claim, a row for each choice."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from ..figures.style import GREY, LIGHT, new_figure
from .choices import REFERENCE, Cell, Panel, Row, parts
from .figure import SUPPORTS, clipped, handles, reason, text_width, wrapped
from .words import INCONCLUSIVE, NOT_SUPPORTED, VERDICTS

#: What marks a verdict that the effect beside it does not explain.
ELSEWHERE = "†"
COLUMNS = 3
#: Heights in inches: of a choice's row, of a line of text, of an axis' tick labels, between panels, of the legend.
ROW, LINE, TICKS, BETWEEN, LEGEND = 0.138, 0.118, 0.17, 0.13, 0.4
#: Widths in inches: beside the names, between the axis and the verdict, between panels.
GAP, SPACE = 0.05, 0.1
#: Of a choice's name, and of what is said in place of a mark.
LETTERS = 24
#: How pale a row is that the choice leaves as it was.
PALE = 0.42
#: A choice runs off the axis where leaving it out makes the axis this many times finer; at most `OFF` choices do.
FINER, OFF = 3.0, 2


def draw(shown: Sequence[Panel], style: Mapping[str, Any]) -> Figure:
    """Return the figure: a panel for each claim, in it a row for each choice, in natural units.

    The mark is the weakest cell of the part that is shown, with its interval; thin ticks are the part's other cells.
    The dashed threshold has its supporting side shaded; the dotted line is the reference. The gid of a mark is
    ``<claim>|<choice>``, of its interval that and ``|interval``, of the verdict in words that and ``|verdict``.
    """
    size, small = _sizes(style)
    width = float(style["width"])
    figure = new_figure(width, 1.0)
    figure.set_layout_engine("none")
    columns = min(COLUMNS, len(shown))
    names = [clipped(row.choice, LETTERS) for row in shown[0].rows]
    edge = max(text_width(name, small, "bold") for name in names) + 2 * GAP
    words = text_width(f"{NOT_SUPPORTED}{ELSEWHERE}", small, "bold") + GAP
    across = (width - edge + SPACE) / columns
    wide = across - words - SPACE
    titles = [wrapped(f"{p.number}  {p.title}", size, across - SPACE, "bold") for p in shown]
    labels = [wrapped(_axis_label(p), small, across - SPACE) for p in shown]
    bands = [range(first, min(first + columns, len(shown))) for first in range(0, len(shown), columns)]
    inner = len(names) * ROW
    heights = [(max(len(titles[i]) for i in band), max(len(labels[i]) for i in band)) for band in bands]
    height = LEGEND + sum(inner + (above + below) * LINE + TICKS + BETWEEN for above, below in heights)
    figure.set_size_inches(width, height)
    top = height - LEGEND
    for band, (above, below) in zip(bands, heights, strict=True):
        top -= above * LINE + 0.04
        for column, number in enumerate(band):
            left = edge + column * across
            box = (left / width, (top - inner) / height, wide / width, inner / height)
            ax = figure.add_axes(box)
            _panel(ax, shown[number], (words - GAP, wide), small)
            ax.set_yticks(range(len(names)), names if column == 0 else [""] * len(names), fontsize=small)
            ax.get_yticklabels()[0].set_fontweight("bold")
            place: dict[str, Any] = {"linespacing": 1.15, "ha": "left"}
            title, label = "\n".join(titles[number]), "\n".join(labels[number])
            at = left / width
            figure.text(at, (top + 0.05) / height, title, fontsize=size, fontweight="bold", va="bottom", **place)
            under = (top - inner - TICKS) / height
            figure.text(at, under, label, fontsize=small, va="top", color=GREY, **place)
        top -= inner + below * LINE + TICKS + BETWEEN - 0.04
    _legend(figure, small, any(not row.explained for panel in shown for row in panel.rows))
    return figure


def _sizes(style: Mapping[str, Any]) -> tuple[float, float]:
    """Return the sizes of titles and of all else in points."""
    return float(style["font_size"]), max(7.0, float(style["font_size"]) - 1)


def _panel(ax: Axes, panel: Panel, widths: tuple[float, float], size: float) -> None:
    """Draw one claim; `widths` are those of the verdicts and of the axis in inches."""
    count = len(panel.rows)
    ax.set_ylim(count - 0.5, -0.5)
    ax.tick_params(axis="y", length=0, pad=3)
    ax.tick_params(axis="x", labelsize=size, pad=1.5)
    ax.grid(False)
    effects = [row.effect for row in panel.rows if row.effect]
    if effects:
        _scale(ax, panel.rows, effects[0])
    else:
        ax.set_xlim(0, 1)
        ax.set_xticks([])
    if count > 1:
        ax.axhline(0.5, color=LIGHT, linewidth=0.5, zorder=1)
    for place, row in enumerate(panel.rows):
        _mark(ax, place, panel.number, row, size)
        ax.text(
            1 + GAP / widths[1],
            place,
            row.claim["verdict"] + ("" if row.explained else ELSEWHERE),
            transform=ax.get_yaxis_transform(),
            va="center_baseline",
            fontsize=size,
            color=VERDICTS[row.claim["verdict"]].colour,
            fontweight="bold" if row.was else "normal",
            alpha=1 if row.touched or place == 0 else PALE + 0.3,
            gid=f"{panel.number}|{row.choice}|verdict",
        )


def _scale(ax: Axes, rows: Sequence[Row], rule: Cell) -> None:
    """Set the axis: its limits, the threshold with its supporting side, the reference."""
    low, high = limits(rows)
    ax.set_xlim(low, high)
    limit = rule["threshold"]
    supporting = {"above": (limit, high), "below": (low, limit), "within": (-limit, limit)}[rule["relation"]]
    ax.axvspan(*supporting, color=SUPPORTS, zorder=0, linewidth=0)
    for line in sorted({-limit, limit}) if rule["relation"] == "within" else [limit]:
        ax.axvline(line, color="#333333", linewidth=0.8, dashes=(3, 2), zorder=1)
    if rows[0].effect:
        ax.axvline(rows[0].effect["value"], color=GREY, linewidth=0.7, dashes=(1, 1.6), zorder=1)
    ax.locator_params(axis="x", nbins=4, steps=[1, 2, 2.5, 5, 10])
    ax.xaxis.set_major_formatter("{x:g}")


def _mark(ax: Axes, place: int, claim: int, row: Row, size: float) -> None:
    """Draw the weakest cell with its interval, and ticks for all cells; say in words what has no place on the axis."""
    gid = f"{claim}|{row.choice}"
    if row.effect is None:
        _say(ax, place, clipped(reason(row.note), LETTERS), "center", size, INCONCLUSIVE, gid)
        return
    colour, marker, _ = VERDICTS[row.effect["verdict"]]
    alpha = 1 if row.touched or row.choice == REFERENCE else PALE
    low, high = ax.get_xlim()
    value = row.effect["value"]
    if not low <= value <= high:
        left = value < low
        text = f"← {value:.3g}" if left else f"{value:.3g} →"
        _say(ax, place, text, "left" if left else "right", size, row.effect["verdict"], gid)
        return
    if len(row.values) > 1:
        ax.plot(
            row.values,
            [place] * len(row.values),
            linestyle="none",
            marker="|",
            color=LIGHT,
            alpha=alpha,
            markersize=4.5,
            markeredgewidth=0.6,
            zorder=2,
        )
    ends = [row.effect["low"], row.effect["high"]]
    ax.plot(
        ends, [place, place], color=colour, alpha=alpha, linewidth=1.3, zorder=3, gid=f"{gid}|interval", clip_on=True
    )
    ax.plot(
        [value],
        [place],
        color=colour,
        marker=marker,
        markersize=4.6,
        markeredgewidth=0.9,
        markerfacecolor="white" if row.effect["verdict"] == INCONCLUSIVE else colour,
        alpha=alpha,
        linestyle="none",
        zorder=4,
        gid=gid,
    )


def _say(ax: Axes, place: int, text: str, side: str, size: float, verdict: str, gid: str) -> None:
    """Write in a row what cannot be drawn there."""
    ax.text(
        {"left": 0.02, "center": 0.5, "right": 0.98}[side],
        place,
        text,
        transform=ax.get_yaxis_transform(),
        ha=side,
        va="center_baseline",
        fontsize=size,
        color=VERDICTS[verdict].colour,
        gid=gid,
        zorder=4,
        bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.3, "alpha": 0.8},
    )


def limits(rows: Sequence[Row]) -> tuple[float, float]:
    """Return the ends of a claim's axis.

    Threshold, cells and intervals lie inside, but for those of up to `OFF` choices that alone would squeeze all others
    into a `FINER`-th of the axis.
    """
    drawn = [(row.effect, row.values) for row in rows if row.effect]
    rule = drawn[0][0]
    always = [-rule["threshold"], rule["threshold"]] if rule["relation"] == "within" else [rule["threshold"]]

    def span(some: Sequence[tuple[Cell, list[float]]]) -> tuple[float, float]:
        numbers = [*always, *(x for effect, cells in some for x in (effect["low"], effect["high"], *cells))]
        return min(numbers), max(numbers)

    low, high = span(drawn)
    middle = float(np.median([effect["value"] for effect, _ in drawn]))
    near = sorted(drawn, key=lambda pair: abs(pair[0]["value"] - middle))
    for off in range(1, min(OFF, len(near) - 3) + 1):
        if rows[0].effect in [effect for effect, _ in near[-off:]]:
            break
        inner = span(near[:-off])
        if high - low > FINER * (inner[1] - inner[0]):
            low, high = inner
            break
    room = 0.07 * (high - low) or 0.1
    return low - room, high + room


def _axis_label(panel: Panel) -> str:
    if panel.part is None:
        return "no deciding effect"
    unit = next(effect["unit"] for row in panel.rows for effect in parts(row.claim)[panel.part])
    return panel.part if not unit or unit in panel.part else f"{panel.part} ({unit})"


def _legend(figure: Figure, size: float, daggers: bool) -> None:
    entries: list[Line2D | Patch] = [
        *handles(1.3, 4.6),
        Line2D([], [], color="#333333", linewidth=0.8, dashes=(3, 2), label="threshold"),
        Patch(facecolor=SUPPORTS, label="supports the claim"),
        Line2D([], [], color=GREY, linewidth=0.7, dashes=(1, 1.6), label=REFERENCE),
        Line2D([], [], color=LIGHT, marker="|", linestyle="none", markersize=4.5, label="other cells"),
        Line2D(
            [], [], color=GREY, marker="o", alpha=PALE, linewidth=1.3, markersize=4.6, label="not touched by the choice"
        ),
    ]
    if daggers:
        entries.append(
            Line2D(
                [], [], linestyle="none", marker=f"${ELSEWHERE}$", color="#333333", label="decided by another effect"
            )
        )
    figure.legend(
        handles=entries,
        loc="upper center",
        ncols=5,
        fontsize=size,
        handlelength=1.8,
        columnspacing=1.2,
        handletextpad=0.5,
        labelspacing=0.3,
        borderaxespad=0.4,
        borderpad=0.1,
    )
