"""How all figures look: style, colours, names, curves, insets, messages, and files that are the same bytes every time.

No state of pyplot is used: a figure is an object that is drawn on and saved. Seaborn is imported where it draws, for
the mean and band over several seeds, and not before, because it doubles the time that a figure's process takes.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import matplotlib
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, MaxNLocator
from PIL import Image

from ..runtime.files import atomic

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.legend import Legend

#: What `style` sets: full width in inches, text size in points, dots per inch of the PNG.
STYLE: dict[str, Any] = {"width": 7.0, "font_size": 8.0, "dpi": 200}

#: The paper's colours. All colours hold 3:1 on white; those of one panel stay apart for deuteranopes and in grey, where
#: each curve has its marker as well.
COLOURS = {"dnn": "#000000", "knn": "#d1141f", "svm": "#10309a", "lr": "#0a9b72"}
MARKERS = {"dnn": "D", "knn": "o", "svm": "s", "lr": "^"}
#: For models beyond the paper's, in order of appearance.
MORE_COLOURS = ("#8c5aa8", "#a86a00", "#2f8ea3", "#7d5a3c")
MORE_MARKERS = ("v", "P", "X", "*")
#: For architectures, which must not be taken for probes.
ARCHITECTURE_COLOURS = ("#5b2a9d", "#a85000", "#d060b8", "#2f8ea3", "#7d5a3c", "#6f6f6f")
ARCHITECTURE_MARKERS = ("o", "s", "^", "D", "v", "P")
GREY, LIGHT = "#5a5a5a", "#8c8c8c"
HEADING: dict[str, Any] = {"color": "#000000", "fontsize": None, "fontweight": "bold"}
#: Dash patterns in line widths: the test side of a curve, and the memorization line.
TEST_DASHES, MEMORIZATION_DASHES = (3.2, 1.6), (5.0, 2.5)
#: Width in points of a line that others may cover.
UNDER = 2.2
#: Markers per curve, however many points it has.
MARKERS_PER_CURVE = 7


class Look(NamedTuple):
    """How one curve is drawn."""

    colour: str
    marker: str
    width: float = 1.1
    dashed: bool = False
    every: bool = False  # a marker at every point, not at some


def style(spec: Mapping[str, Any]) -> dict[str, Any]:
    """Return the style of a figure's specification with defaults filled in."""
    return {**STYLE, **spec.get("style", {})}


@contextmanager
def applied(look: Mapping[str, Any]) -> Iterator[None]:
    """Hold matplotlib's settings at the figures' own, whatever the machine's are, while drawing and saving."""
    size = float(look["font_size"])
    least = max(7.0, size - 1)
    settings: dict[str, Any] = {
        "font.family": "sans-serif",
        "font.sans-serif": ["DejaVu Sans"],
        "mathtext.fontset": "dejavusans",
        "font.size": size,
        "axes.labelsize": size,
        "axes.titlesize": size,
        "legend.fontsize": size,
        "axes.titleweight": "bold",
        "xtick.labelsize": least,
        "ytick.labelsize": least,
        "axes.linewidth": 0.6,
        "axes.edgecolor": "#333333",
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.labelpad": 2.5,
        "xtick.major.width": 0.6,
        "ytick.major.width": 0.6,
        "xtick.major.size": 2.5,
        "ytick.major.size": 2.5,
        "xtick.major.pad": 2,
        "ytick.major.pad": 2,
        "axes.grid": True,
        "grid.color": "#e6e6e6",
        "grid.linewidth": 0.5,
        "axes.axisbelow": True,
        "lines.solid_capstyle": "round",
        "lines.dash_capstyle": "butt",
        "legend.frameon": False,
        "pdf.fonttype": 42,
        "pdf.compression": 6,
        "path.simplify": True,
        "savefig.facecolor": "white",
    }
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(settings)  # type: ignore[arg-type]
        yield


def small() -> float:
    """Return the size of the smallest text, that of tick labels, in points."""
    return float(matplotlib.rcParams["xtick.labelsize"])


def model_look(
    name: str, models: Sequence[str], *, dashed: bool = False, every: bool = False, under: bool = False
) -> Look:
    """Return how a model's curves are drawn; models other than the paper's get their own colours, in order.

    With `under` the network's line is broad and lies below the probes', so that it shows where they cover it.
    """
    width = 1.1 if name != "dnn" else UNDER if under else 1.3
    if name in COLOURS:
        return Look(COLOURS[name], MARKERS[name], width, dashed, every)
    others = [model for model in models if model not in COLOURS]
    number = others.index(name) if name in others else 0
    more = number % len(MORE_COLOURS)
    return Look(MORE_COLOURS[more], MORE_MARKERS[more], width, dashed, every)


def architecture_look(name: str, architectures: Sequence[str]) -> Look:
    """Return how an architecture's curves are drawn where architectures are compared (figure 3)."""
    number = list(architectures).index(name) % len(ARCHITECTURE_COLOURS)
    return Look(ARCHITECTURE_COLOURS[number], ARCHITECTURE_MARKERS[number], 1.3)


def dashes(dashed: bool) -> Any:
    """Return the line style of a test side, if `dashed`, or of any other."""
    return (0, TEST_DASHES) if dashed else "-"


def curve(ax: Axes, rows: pd.DataFrame, look: Look, *, gid: str, phase: float = 0.0) -> None:
    """Draw one curve: a line for one seed, mean and band (by seaborn) for several; hollow where a fit did not converge.

    Parameters
    ----------
    rows: columns ``x``, ``y``, ``seed``, ``converged``; one row per point and seed.
    gid: the line's name among the figure's artists; the band's is this with ``/band`` behind it.
    phase: which part of the distance between two markers the first one is moved by, in [0, 1), so that the markers
        of curves that lie on each other do not.
    """
    rows = rows.sort_values(["x", "seed"], kind="stable")
    points = rows["x"].nunique()
    step = 1 if look.every else max(1, round(points / MARKERS_PER_CURVE))
    order = 3.0 if look.width < UNDER else 2.5
    appearance: dict[str, Any] = {"color": look.colour, "linewidth": look.width, "zorder": order}
    if rows["seed"].nunique() > 1:
        import seaborn

        seaborn.lineplot(rows, x="x", y="y", errorbar=("pi", 100), ax=ax, legend=False, **appearance)
        ax.set(xlabel="", ylabel="")
        shade = ax.collections[-1]
        shade.set(alpha=0.22, linewidth=0, gid=f"{gid}/band", zorder=order - 1)
        line = ax.lines[-1]
    else:
        (line,) = ax.plot(rows["x"].to_numpy(), rows["y"].to_numpy(), **appearance)
    line.set(
        gid=gid,
        marker=look.marker,
        markersize=2.6 if look.width < UNDER else 3.2,
        markeredgewidth=0,
        linestyle=dashes(look.dashed),
        markevery=(int(phase * step), step),
    )
    failed = rows.loc[~rows["converged"].astype(bool)]
    if len(failed):
        at = rows.loc[rows["x"].isin(failed["x"])].groupby("x")["y"].mean()
        ax.plot(
            at.index.to_numpy(),
            at.to_numpy(),
            look.marker,
            markerfacecolor="white",
            markeredgecolor=look.colour,
            markeredgewidth=0.7,
            markersize=3.4,
            zorder=order + 1,
            gid=f"{gid}/not converged",
        )


def points(ax: Axes, x: np.ndarray, y: np.ndarray, gid: str) -> None:
    """Draw published values as thin grey points behind the curves."""
    ax.plot(x, y, "x", color=LIGHT, markersize=4.2, markeredgewidth=0.8, zorder=1.8, gid=gid)


def memorization(axes: Sequence[Axes], steps: Sequence[float]) -> None:
    """Draw the dashed line at the memorization step through all `axes` of a column, with the step above the first.

    Parameters
    ----------
    steps: one per seed that memorized; several give the line at their mean and a pale band over their range.
    """
    middle, low, high = float(np.mean(steps)), min(steps), max(steps)
    for ax in axes:
        ax.axvline(middle, color=GREY, linewidth=0.9, dashes=MEMORIZATION_DASHES, zorder=2, gid="memorization")
        if high > low:
            ax.axvspan(low, high, color=GREY, alpha=0.13, linewidth=0, zorder=1, gid="memorization/band")
    text = f"step {middle:,.0f}" if high == low else f"steps {low:,.0f} to {high:,.0f}"
    left, right = axes[0].get_xlim()
    place = (middle - left) / (right - left)
    side = "left" if place < 0.2 else "right" if place > 0.8 else "center"
    at: dict[str, Any] = {"xycoords": ("data", "axes fraction"), "ha": side, "va": "bottom"}
    aside(axes[0], text, (middle, 1), (0, 1.5), gid="memorization/step", **at)


def aside(ax: Axes, text: str, at: tuple[float, float], offset: tuple[float, float], **more: Any) -> None:
    """Write a small grey remark at a place of a panel (in fractions), `offset` points away from it."""
    look: dict[str, Any] = {"color": GREY, "fontsize": small(), "xycoords": "axes fraction"} | more
    ax.annotate(text, at, xytext=offset, textcoords="offset points", **look)


def message(ax: Axes, text: str) -> None:
    """Say in words, in the middle of an empty panel, why it is empty."""
    ax.grid(False)
    ax.tick_params(left=False, bottom=False, labelleft=False, labelbottom=False)
    for spine in ax.spines.values():
        spine.set(visible=True, color="#c8c8c8", linestyle=(0, (2, 2)))
    place: dict[str, Any] = {"transform": ax.transAxes, "ha": "center", "va": "center"}
    ax.text(0.5, 0.5, text, color=GREY, linespacing=1.4, gid="message", **place)


def panel_letter(ax: Axes, name: str) -> None:
    """Write a panel's letter outside its upper left corner."""
    aside(ax, f"({name})", (0, 1), (-4, 3), ha="right", va="bottom", **HEADING)


def row_head(ax: Axes, text: str, distance: float = 5) -> None:
    """Name a row of panels at the right of its last one, `distance` points away."""
    aside(ax, text, (1, 0.5), (distance, 0), rotation=270, ha="left", va="center", **HEADING)


def step_axis(ax: Axes, ticks: int = 5) -> None:
    """Format an axis of training steps: few ticks, thousands as k."""
    ax.xaxis.set_major_locator(MaxNLocator(nbins=ticks, integer=True, steps=[1, 2, 2.5, 5, 10]))
    ax.xaxis.set_major_formatter(
        FuncFormatter(lambda value, _: f"{value / 1000:g}k" if ax.get_xlim()[1] >= 10_000 and value else f"{value:g}")
    )


def top_of(curves: Sequence[tuple[np.ndarray, np.ndarray]]) -> float | None:
    """Return the top of an axis that leaves out the first evaluation, if that alone dwarfs all the others, else None.

    An untrained network in evaluation mode can be so far from its probes that every later difference would be
    squeezed into the lowest pixels. What is cut off is said in the panel (`say_what_is_cut`) and is in the CSV.
    """
    first = min(float(x.min()) for x, _ in curves)
    rest = [float(y[x > first].max()) for x, y in curves if (x > first).any()]
    whole = max(float(y.max()) for _, y in curves)
    return max(rest) * 1.1 if rest and 0 < max(rest) * 2 < whole else None


def say_what_is_cut(ax: Axes, curves: Sequence[tuple[np.ndarray, np.ndarray]], top: float) -> None:
    """Say in a panel how high the curves go that leave it at the top."""
    high, step = max((float(y.max()), float(x[y.argmax()])) for x, y in curves)
    if high > top:
        aside(ax, f"↑ {high:,.0f} at step {step:,.0f}", (0, 1), (2, 1.5), ha="left", va="bottom", gid="off scale")


def legend(figure: Figure, handles: Sequence[Line2D | Patch]) -> Legend:
    """Put one legend over all panels, in as few rows as fit the figure's width."""
    columns = len(handles)
    while True:
        made = figure.legend(
            handles=list(handles),
            loc="outside upper center",
            ncols=columns,
            handlelength=2.3,
            columnspacing=1.3,
            handletextpad=0.5,
            borderaxespad=0.1,
            borderpad=0.2,
            labelspacing=0.35,
        )
        if columns == 1 or made.get_window_extent().width <= figure.bbox.width:
            return made
        made.remove()
        rows = -(-len(handles) // columns) + 1
        columns = min(columns - 1, -(-len(handles) // rows))


def entry(label: str, **look: Any) -> Line2D:
    """Return a legend entry: a line without points."""
    return Line2D([], [], label=label, **look)


def handle(label: str, look: Look) -> Line2D:
    """Return a legend entry of one curve."""
    line: dict[str, Any] = {"color": look.colour, "linewidth": look.width, "linestyle": dashes(look.dashed)}
    return entry(label, marker=look.marker, markersize=3.4, markeredgewidth=0, **line)


def split_handles() -> list[Line2D]:
    """Return the legend entries that tell train (solid) from test (dashed)."""
    sides = (("train", False), ("test", True))
    return [entry(name, color=GREY, linewidth=1.1, linestyle=dashes(dashed)) for name, dashed in sides]


def memorization_handle() -> Line2D:
    """Return the legend entry of the memorization line."""
    return entry("memorization", color=GREY, linewidth=0.9, dashes=MEMORIZATION_DASHES)


def unconverged_handle() -> Line2D:
    """Return the legend entry of fits that did not converge."""
    marker: dict[str, Any] = {"marker": "o", "markersize": 3.6, "markerfacecolor": "white", "markeredgewidth": 0.7}
    return entry("fit not converged", linestyle="none", markeredgecolor=GREY, **marker)


def published_handle(label: str) -> Line2D:
    """Return the legend entry of published values."""
    return entry(label, linestyle="none", marker="x", color=LIGHT, markersize=4.2, markeredgewidth=0.8)


def of_seeds(counts: Sequence[int]) -> str:
    """Return numbers of seeds in words: ``3 seeds``, ``1 to 3 seeds``."""
    return f"{counts[0]} to {counts[-1]} seeds" if len(counts) > 1 else f"{counts[0]} seeds"


def band_handles(counts: Sequence[int]) -> list[Patch]:
    """Return the legend entry of the bands over several seeds, if there are any; `counts` are the curves' numbers of seeds."""
    if not (several := [count for count in counts if count > 1]):
        return []
    return [Patch(facecolor=GREY, alpha=0.25, linewidth=0, label=f"smallest to largest, {of_seeds(several)}")]


def settle(figure: Figure) -> None:
    """Lay the panels out once and keep the layout, so that PDF and PNG agree and what is added later moves nothing."""
    engine = figure.get_layout_engine()
    if engine is not None:
        engine.execute(figure)
    figure.set_layout_engine("none")
    for ax in figure.axes:
        ax.autoscale(False)


def new_figure(width: float, height: float) -> Figure:
    """Return an empty figure of that size in inches."""
    spacing = ConstrainedLayoutEngine(w_pad=0.03, h_pad=0.03, wspace=0.02, hspace=0.03)
    figure = Figure(figsize=(width, height), layout=spacing)
    FigureCanvasAgg(figure)
    return figure


def message_figure(look: Mapping[str, Any], title: str, sentence: str, lines: Sequence[str]) -> Figure:
    """Return a figure that says in words what it would show and what is missing for it."""
    shown = [*lines[:12], *([f"and {len(lines) - 12} more"] if len(lines) > 12 else [])]
    text = "\n".join([sentence, "", *shown])
    figure = new_figure(float(look["width"]), 1.0 + 0.17 * len(shown))
    ax = figure.add_subplot()
    ax.set_title(title, pad=6)
    message(ax, text)
    return figure


def save(figure: Figure, prefix: str | Path, table: pd.DataFrame, *, dpi: float) -> list[Path]:
    """Write ``<prefix>.pdf``, ``.png`` and ``.csv``, each whole or not at all; equal input gives equal bytes.

    No date, version or path goes into the files. The PDF's fonts are embedded as TrueType.
    """
    prefix = Path(prefix)
    paths = [prefix.with_name(f"{prefix.name}.{kind}") for kind in ("pdf", "png", "csv")]
    nothing = dict.fromkeys(("Creator", "Producer", "CreationDate"))
    # In memory first: on a full disk the PDF backend reports its own confusion instead of the disk's error.
    pdf, png = io.BytesIO(), io.BytesIO()
    figure.savefig(pdf, format="pdf", metadata=nothing)
    figure.savefig(png, format="png", dpi=dpi, metadata={"Software": None})
    # Curves have few colours, photographs have not.
    drawn = png.getvalue() if any(ax.images for ax in figure.axes) else _with_palette(png, dpi)
    for path, data in zip(paths, (pdf.getvalue(), drawn), strict=False):
        with atomic(path) as temporary:
            temporary.write_bytes(data)
    with atomic(paths[2]) as temporary:
        table.to_csv(temporary, index=False, lineterminator="\n", encoding="utf-8")
    return paths


def _with_palette(png: io.BytesIO, dpi: float) -> bytes:
    """Return a drawn PNG in 256 colours of its own, a third of its bytes: the page and archives carry it."""
    with Image.open(png) as drawn:
        small = drawn.convert("RGB").quantize(256, dither=Image.Dither.NONE)
    made = io.BytesIO()
    small.save(made, "PNG", dpi=(dpi, dpi))
    return made.getvalue()
