"""How all figures look: style, colours, names, curves, insets, messages, and files that are the same bytes every time.

No state of pyplot is used: a figure is an object that is drawn on and saved. Seaborn is imported where it draws, for
the mean and band over several seeds, and not before, because it doubles the time that a figure's process takes.
"""

from __future__ import annotations

import io
import re
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
from matplotlib.patches import Patch, Rectangle
from matplotlib.ticker import FuncFormatter, MaxNLocator

from ..runtime.errors import UserError, nearest
from ..runtime.files import atomic

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.legend import Legend

#: What `style` may set: full width in inches, text size in points, dots per inch of the PNG, what the band over
#: several seeds spans ("range": smallest to largest, "sd": one standard deviation), and whether to zoom in on
#: curves that lie on each other.
STYLE: dict[str, Any] = {"width": 7.0, "font_size": 8.0, "dpi": 200, "band": "range", "insets": True}
#: style's band → seaborn's error bar (the 100 % percentile interval is the range) and its name.
BANDS: dict[str, tuple[Any, str]] = {"range": (("pi", 100), "smallest to largest"), "sd": ("sd", "± 1 s.d.")}

#: The paper's colours. Their luminances differ too, and each model has its marker, so that grey print can be read.
COLOURS = {"dnn": "#000000", "knn": "#e02b20", "svm": "#123fa8", "lr": "#3bab4d"}
MARKERS = {"dnn": "D", "knn": "o", "svm": "s", "lr": "^"}
MODELS = {"dnn": "DNN", "knn": "k-NN", "svm": "SVM", "lr": "LR"}
#: For models beyond the paper's, in order of appearance.
MORE_COLOURS = ("#8c5aa8", "#c98a00", "#4aa3b8", "#7d5a3c")
MORE_MARKERS = ("v", "P", "X", "*")
#: For architectures, which must not be taken for probes.
ARCHITECTURE_COLOURS = ("#54278f", "#c2611f", "#dba400", "#5f9ea8", "#8a6d5a", "#9a8fc0")
ARCHITECTURE_MARKERS = ("o", "s", "^", "D", "v", "P")
DATASETS = {
    "mnist": "MNIST",
    "cifar10": "CIFAR-10",
    "cifar100": "CIFAR-100",
    "digits": "Digits",
    "fashion14": "Fashion-14",
}
LABELS = {"true-labels": "True labels", "random-labels": "Random labels", "overfit": "Enforced overfitting"}
GREY, LIGHT = "#5a5a5a", "#9a9a9a"
#: Dash patterns in line widths: the test side of a curve, and the memorization line.
TEST_DASHES, MEMORIZATION_DASHES = (3.2, 1.6), (5.0, 2.5)
#: Width in points of a line that others may cover.
UNDER = 2.2
#: Markers per curve, however many points it has.
MARKERS_PER_CURVE = 7
#: What a line in an inset takes over from the panel's.
COPIED = (
    *("color", "linewidth", "marker", "markersize", "markeredgewidth"),
    *("markerfacecolor", "markeredgecolor", "zorder"),
)
#: An inset opens when the end of all curves spans less than this fraction of the axis.
COINCIDENT = 0.07


class Look(NamedTuple):
    """How one curve is drawn."""

    colour: str
    marker: str
    width: float = 1.1
    dashed: bool = False
    every: bool = False  # a marker at every point, not at some


def style(spec: Mapping[str, Any]) -> dict[str, Any]:
    """Return the style of a figure's specification with defaults filled in; an unknown key raises `UserError`."""
    given = dict(spec.get("style") or {})
    for key, value in given.items():
        if key not in STYLE:
            raise UserError(f"style has no '{key}'{nearest(key, STYLE)}; correct the configuration's figures block")
        if key == "band" and value not in BANDS:
            raise UserError(f"style's band is '{value}'{nearest(str(value), BANDS)}; correct the configuration")
    return {**STYLE, **given}


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


def dataset_title(name: str, titles: Mapping[str, str] | None = None) -> str:
    """Return the name of a data set as print shows it."""
    return (titles or {}).get(name) or DATASETS.get(name, name)


def architecture_title(name: str, titles: Mapping[str, str] | None = None) -> str:
    """Return the name of an architecture as print shows it: WRN-28-10, LeNet, MLP-640."""
    known = {"lenet": "LeNet"}.get(name) or re.sub(r"^mlp-?(?=\d)", "MLP-", name)
    return (titles or {}).get(name) or (known.upper() if known.startswith("wrn-") else known)


def model_title(name: str, titles: Mapping[str, str] | None = None) -> str:
    """Return the name of the network or a probe as print shows it; a variant keeps its suffix: k-NN (l1)."""
    family, _, variant = name.partition("-")
    known = MODELS.get(name) or (f"{MODELS[family]} ({variant})" if family in MODELS else name)
    return (titles or {}).get(name) or known


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


def curve(ax: Axes, rows: pd.DataFrame, look: Look, *, band: str, gid: str, phase: float = 0.0) -> None:
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

        seaborn.lineplot(rows, x="x", y="y", errorbar=BANDS[band][0], ax=ax, legend=False, **appearance)
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
        linestyle=(0, TEST_DASHES) if look.dashed else "-",
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
    axes[0].annotate(
        text,
        (middle, 1.0),
        xycoords=("data", "axes fraction"),
        xytext=(0, 1.5),
        textcoords="offset points",
        ha="left" if place < 0.2 else "right" if place > 0.8 else "center",
        va="bottom",
        color=GREY,
        fontsize=small(),
        gid="memorization/step",
    )


def message(ax: Axes, text: str) -> None:
    """Say in words, in the middle of an empty panel, why it is empty."""
    ax.grid(False)
    ax.tick_params(left=False, bottom=False, labelleft=False, labelbottom=False)
    for spine in ax.spines.values():
        spine.set(visible=True, color="#c8c8c8", linestyle=(0, (2, 2)))
    ax.text(
        0.5,
        0.5,
        text,
        transform=ax.transAxes,
        ha="center",
        va="center",
        color=GREY,
        linespacing=1.4,
        gid="message",
    )


def panel_letter(ax: Axes, name: str) -> None:
    """Write a panel's letter outside its upper left corner."""
    ax.annotate(
        f"({name})",
        (0, 1),
        xycoords="axes fraction",
        xytext=(-4, 3),
        textcoords="offset points",
        ha="right",
        va="bottom",
        fontweight="bold",
    )


def row_head(ax: Axes, text: str, distance: float = 5) -> None:
    """Name a row of panels at the right of its last one, `distance` points away."""
    ax.annotate(
        text,
        (1, 0.5),
        xycoords="axes fraction",
        xytext=(distance, 0),
        textcoords="offset points",
        rotation=270,
        ha="left",
        va="center",
        fontweight="bold",
    )


def step_axis(ax: Axes) -> None:
    """Format an axis of training steps: few ticks, thousands as k."""
    ax.xaxis.set_major_locator(MaxNLocator(nbins=5, integer=True, steps=[1, 2, 2.5, 5, 10]))
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
    return max(rest) * 1.1 if rest and 0 < max(rest) * 3 < whole else None


def say_what_is_cut(ax: Axes, curves: Sequence[tuple[np.ndarray, np.ndarray]], top: float) -> None:
    """Say in a panel how high the curves go that leave it at the top."""
    high, step = max((float(y.max()), float(x[y.argmax()])) for x, y in curves)
    if high > top:
        text = f"↑ {high:,.0f} at step {step:,.0f}"
        ax.annotate(
            text,
            (0, 1),
            xycoords="axes fraction",
            xytext=(2, 1.5),
            textcoords="offset points",
            ha="left",
            va="bottom",
            fontsize=small(),
            color=GREY,
            gid="off scale",
        )


def inset(ax: Axes, curves: Sequence[tuple[np.ndarray, np.ndarray]], gap: tuple[float, float]) -> Axes | None:
    """Zoom in on the end of training where the curves lie on each other, in a free place of the panel.

    Parameters
    ----------
    curves: (x, y) of every line and band edge of the panel, in data coordinates.
    gap: room that the inset's tick labels need at its left and below it, as fractions of the panel.

    Returns
    -------
    The inset, or None where the curves lie apart or no place is free of data.
    """
    low, high = ax.get_xlim()
    last = max(float(x.max()) for x, _ in curves)
    window = (last - 0.22 * (last - min(float(x.min()) for x, _ in curves)), last)
    inside = [y[(x >= window[0]) & (x <= window[1])] for x, y in curves]
    inside = [y for y in inside if len(y) >= 2]
    bottom, top = ax.get_ylim()
    if len(inside) < 2:
        return None
    ends = (min(float(y.min()) for y in inside), max(float(y.max()) for y in inside))
    spread = ends[1] - ends[0]
    if not 1e-6 * (top - bottom) < spread < COINCIDENT * (top - bottom):
        return None
    pad = 0.15 * spread
    frame = (window[0], ends[0] - pad, window[1] + 0.01 * (high - low), ends[1] + pad)
    place = free_place([((x - low) / (high - low), (y - bottom) / (top - bottom)) for x, y in curves], gap)
    if place is None:
        return None
    child = ax.inset_axes(place, xlim=(frame[0], frame[2]), ylim=(frame[1], frame[3]), zorder=5, gid="inset")
    lines = [line for line in ax.lines if np.size(line.get_xdata(orig=False)) > 2]
    for number, line in enumerate(lines):
        _draw_again(child, line, window[0], number / len(lines))
    for shade in [shade for shade in ax.collections if str(shade.get_gid()).endswith("/band")]:
        for path in shade.get_paths():
            child.fill(*np.asarray(path.vertices).T, color=shade.get_facecolor()[0], linewidth=0)
    child.set(xlim=(frame[0], frame[2]), ylim=(frame[1], frame[3]))
    child.grid(False)
    child.tick_params(bottom=False, labelbottom=False, pad=1, size=2)
    child.yaxis.set_major_locator(MaxNLocator(nbins=3, steps=[1, 2, 2.5, 5, 10]))
    for spine in child.spines.values():
        spine.set(visible=True, linewidth=0.5, color=GREY)
    _indicate(ax, frame, place)
    return child


def _indicate(ax: Axes, frame: tuple[float, float, float, float], place: tuple[float, float, float, float]) -> None:
    """Frame what an inset shows, and lead from that frame to the inset where it lies above or below."""
    ax.add_patch(Rectangle(frame[:2], frame[2] - frame[0], frame[3] - frame[1], fill=False, ec=LIGHT, lw=0.5, zorder=4))
    inverse = ax.transAxes.inverted()  # the panel's limits are final by now
    (left, low), (right, high) = (inverse.transform(ax.transData.transform(frame[i : i + 2])) for i in (0, 2))
    top = place[1] + place[3]
    if low >= top:
        ends = (low, top)
    elif high <= place[1]:
        ends = (high, place[1])
    else:
        return
    for corner, end in ((left, place[0]), (right, place[0] + place[2])):
        lead = Line2D([corner, end], ends, color=LIGHT, linewidth=0.5, zorder=1.5, transform=ax.transAxes)
        ax.add_line(lead)


def _draw_again(ax: Axes, line: Line2D, start: float, phase: float) -> None:
    """Draw a line of a panel in its inset as well, with markers of its own from `start` on."""
    x, y = line.get_data(orig=False)
    (again,) = ax.plot(x, y, gid=f"inset/{line.get_gid()}", linestyle=line.get_linestyle())
    for name in COPIED:
        getattr(again, f"set_{name}")(getattr(line, f"get_{name}")())
    if line.is_dashed():
        again.set_linestyle((0, TEST_DASHES))
    if line.get_linestyle() != "None":
        inside = int((np.asarray(x) >= start).sum())
        step = max(1, inside // 3)
        again.set_markevery((np.size(x) - inside + int(phase * step), step))


def free_place(
    curves: Sequence[tuple[np.ndarray, np.ndarray]], gap: tuple[float, float]
) -> tuple[float, float, float, float] | None:
    """Return (left, bottom, width, height) of the largest rectangle tried that no curve enters, or None.

    All in fractions of the panel. `gap` is the room that is kept free at the rectangle's left and below it as well.
    """
    at = np.linspace(0, 1, 400)
    dense = [np.stack([at, np.interp(at, x, y, left=np.nan, right=np.nan)]) for x, y in curves if len(x) > 1]
    if not dense:
        return None
    points = np.concatenate(dense, axis=1)
    points = points[:, np.isfinite(points[1])]
    near = 0.035
    for width, height in ((0.62, 0.50), (0.56, 0.44), (0.50, 0.38), (0.44, 0.34), (0.38, 0.30)):
        free = []
        for left in np.linspace(gap[0] + 0.02, 0.98 - width, 9):
            for low in np.linspace(gap[1] + 0.03, 0.97 - height, 9):
                box = (left - gap[0] - near, left + width + near, low - gap[1] - near, low + height + near)
                x, y = points
                if not ((x > box[0]) & (x < box[1]) & (y > box[2]) & (y < box[3])).any():
                    free.append((float(left), float(low), width, height))
        if free:
            # The lowest at the right, where rising curves leave most room.
            return max(free, key=lambda place: (place[0] - place[1], place[0]))
    return None


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


def handle(label: str, look: Look) -> Line2D:
    """Return a legend entry of one curve."""
    return Line2D(
        [],
        [],
        label=label,
        color=look.colour,
        marker=look.marker,
        linewidth=look.width,
        markersize=3.4,
        markeredgewidth=0,
        linestyle=(0, TEST_DASHES) if look.dashed else "-",
    )


def split_handles() -> list[Line2D]:
    """Return the legend entries that tell train (solid) from test (dashed)."""
    plain: dict[str, Any] = {"color": GREY, "linewidth": 1.1}
    return [Line2D([], [], label="train", **plain), Line2D([], [], label="test", linestyle=(0, TEST_DASHES), **plain)]


def memorization_handle() -> Line2D:
    """Return the legend entry of the memorization line."""
    return Line2D([], [], label="memorization", color=GREY, linewidth=0.9, dashes=MEMORIZATION_DASHES)


def unconverged_handle() -> Line2D:
    """Return the legend entry of fits that did not converge."""
    return Line2D(
        [],
        [],
        label="fit not converged",
        linestyle="none",
        marker="o",
        markersize=3.6,
        markerfacecolor="white",
        markeredgecolor=GREY,
        markeredgewidth=0.7,
    )


def published_handle(label: str) -> Line2D:
    """Return the legend entry of published values."""
    return Line2D([], [], label=label, linestyle="none", marker="x", color=LIGHT, markersize=4.2, markeredgewidth=0.8)


def band_handle(band: str, seeds: int) -> Patch:
    """Return the legend entry of the band over several seeds."""
    return Patch(facecolor=GREY, alpha=0.25, linewidth=0, label=f"{BANDS[band][1]}, {seeds} seeds")


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
    for path, buffer in zip(paths, (pdf, png), strict=False):
        with atomic(path) as temporary:
            temporary.write_bytes(buffer.getvalue())
    with atomic(paths[2]) as temporary:
        table.to_csv(temporary, index=False, lineterminator="\n", encoding="utf-8")
    return paths
