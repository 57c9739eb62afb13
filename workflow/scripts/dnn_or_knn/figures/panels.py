"""What the figures of the paper have in common: panels, the table of what each shows, the drawing of that table.

A figure module `figure<n>.py` has

- `data(measures, runs, spec)`: the tidy table of everything the figure shows, which is written as its CSV;
- `draw(table, spec, layers)`: the figure, drawn from that table (`layers`: the network's probe points, for 4 g);
- `caption(spec)`: what the figure is, and `alt(table, spec)`: what it shows, in words.

Specification: ``figure``, ``architectures`` (shallow to deep), ``datasets``, ``architecture`` (of figures 4 to 7),
``labels`` (``true``, ``random``, ``random_layers``, ``overfit``), ``probes``, ``missing`` (runs that are not
configured), ``style``; optional ``titles`` (name → name in print) and ``published`` (values drawn into figure 4).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.gridspec import SubplotSpec
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from . import style
from .style import Look

#: The columns of a figure's CSV. `quantity` is the axis with its unit; `series` the legend's word for the curve,
#: or "memorization" (x is the step), "published" (the authors' values) or "missing" (`note` says what is).
COLUMNS = [
    *("panel", "dataset", "architecture", "labels", "seed", "quantity", "series", "model", "split"),
    *("layer", "x", "y", "converged", "note"),
]
ACCURACY, P_SAME, STEP = "Accuracy (%)", r"$P_\mathrm{SAME}$", "Training step"
#: What captions say of the zooms on the end of training.
INSETS = "Insets: the end of training, enlarged, where the curves lie on each other."
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

    letter: str
    row: int
    column: int
    dataset: str
    labels: str
    measure: str  # column of the measures table
    quantity: str  # the axis, with its unit
    scale: float  # the measure times this is what the axis shows
    curves: tuple[Curve, ...]
    axis: str = ""  # panels with the same word have one y-axis


def divergence(split: str) -> str:
    """Return the axis of D_KL: in nats, times 100 as in the paper."""
    return rf"{split.capitalize()} $D_\mathrm{{KL}}\times 100$ (nats)"


def plain(quantity: str) -> str:
    """Return an axis label without mathematical markup, for the CSV and for alternative texts."""
    for marked, said in PLAIN.items():
        quantity = quantity.replace(marked, said)
    return quantity


def letter(number: int) -> str:
    """Return a panel's letter: a, b, … z, aa, ab, …"""
    return (letter(number // 26 - 1) if number >= 26 else "") + "abcdefghijklmnopqrstuvwxyz"[number % 26]


def models(spec: Mapping[str, Any], *, network: bool) -> list[str]:
    """Return the network (if asked for) and the probes, in drawing order."""
    return [*(["dnn"] if network else []), *spec["probes"]]


def nearest_neighbours(spec: Mapping[str, Any]) -> str:
    """Return the name of the k-NN probe: `knn`, else the first whose name begins so."""
    return next((name for name in ["knn", *spec["probes"]] if name in spec["probes"] and name.startswith("knn")), "knn")


def model_curves(
    spec: Mapping[str, Any],
    architecture: str,
    names: Sequence[str],
    splits: Sequence[str],
    *,
    dashes: bool = False,
    every: bool = False,
) -> tuple[Curve, ...]:
    """Return a panel's curves, one for each model and split; with `dashes` the test side is dashed."""
    found = []
    for name in names:
        for split in splits:
            dashed = dashes and split == "test"
            look = style.model_look(name, spec["probes"], dashed=dashed, every=every, under=len(names) > 1)
            title = style.model_title(name, spec.get("titles"))
            found.append(Curve(f"{title}, {split}", architecture, name, split, look))
    return tuple(found)


def architecture_grid(spec: Mapping[str, Any]) -> list[tuple[int, int, str, str]]:
    """Return (row, column, architecture, data set) of the panels of figures 1 and 2, deepest architecture first.

    Rows are architectures and columns are data sets; a single data set lies across the page instead.
    """
    rows, columns = list(reversed(spec["architectures"])), list(spec["datasets"])
    across = len(columns) == 1
    return [
        (0, i, name, dataset) if across else (i, j, name, dataset)
        for i, name in enumerate(rows)
        for j, dataset in enumerate(columns)
    ]


# The table.


def at_steps(measures: pd.DataFrame, panel: Panel, one: Curve) -> pd.DataFrame:
    """Return the rows of a curve over training steps: x is the step, of the embedding."""
    rows = _of_curve(measures, panel, one)
    rows = rows[(rows["layer"] == "embedding") | (rows["model"] == "dnn")]
    return rows.assign(x=rows["step"].astype(float)).drop_duplicates(["seed", "x"])


def at_layers(measures: pd.DataFrame, panel: Panel, one: Curve) -> pd.DataFrame:
    """Return the rows of a curve over layers, at each run's last step with hidden layers: x is the layer's position."""
    rows = _of_curve(measures, panel, one)
    hidden = rows[rows["layer"] != "embedding"]
    last = hidden.groupby("seed")["step"].max()
    rows = rows[rows["step"] == rows["seed"].map(last)]
    return rows.assign(x=rows["layer_index"].astype(float)).drop_duplicates(["seed", "layer"])


def _of_curve(measures: pd.DataFrame, panel: Panel, one: Curve) -> pd.DataFrame:
    wanted = {
        "dataset": panel.dataset,
        "labels": panel.labels,
        "architecture": one.architecture,
        "model": one.model,
        "split": one.split,
    }
    mask = np.logical_and.reduce([(measures[key] == value).to_numpy() for key, value in wanted.items()])
    return measures[mask]


def assemble(
    measures: pd.DataFrame,
    runs: pd.DataFrame,
    panels: Sequence[Panel],
    spec: Mapping[str, Any],
    *,
    rows_of: Callable[[pd.DataFrame, Panel, Curve], pd.DataFrame] = at_steps,
    memorization: bool = False,
) -> pd.DataFrame:
    """Return the table of everything that the panels show, in the order of the panels.

    A panel without numbers, and a curve without numbers in a panel that has others, get a row "missing" whose note
    says which run or fit is not there.
    """
    parts: list[pd.DataFrame] = []
    for panel in panels:
        about = {"panel": panel.letter, "dataset": panel.dataset, "labels": panel.labels}
        about["quantity"] = plain(panel.quantity)
        drawn: list[pd.DataFrame] = []
        absent: list[dict[str, Any]] = []
        for one in panel.curves:
            rows = rows_of(measures, panel, one)
            rows = rows[rows[panel.measure].notna()].sort_values(["seed", "x"], kind="stable")
            if rows.empty:
                run = f"{panel.dataset}/{one.architecture}/{panel.labels}"
                absent.append(
                    {**about, "architecture": one.architecture, "series": "missing", "note": f"{one.series} of {run}"}
                )
                continue
            y = (rows[panel.measure] * panel.scale).round(10)
            drawn.append(rows.assign(**about, series=one.series, y=y, note="").reindex(columns=COLUMNS))
        if not drawn:
            names = dict.fromkeys(f"{panel.dataset}/{one.architecture}/{panel.labels}" for one in panel.curves)
            notes = [f"not configured: {n}" if n in spec["missing"] else f"not in the measures: {n}" for n in names]
            absent = [{**about, "series": "missing", "note": note} for note in notes]
        parts += [*drawn, *([pd.DataFrame(absent, columns=COLUMNS)] if absent else [])]
        if memorization and drawn:
            parts.append(_memorization(runs, panel, about))
    if not parts:
        notes = [f"not configured: {name}" for name in spec["missing"]] or ["no data set or network is configured"]
        parts = [pd.DataFrame([{"series": "missing", "note": note} for note in notes], columns=COLUMNS)]
    whole = pd.concat([part.astype(object) for part in parts], ignore_index=True)
    return whole.astype({"x": "float64", "y": "float64"})


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


def is_drawn(table: pd.DataFrame) -> pd.Series:
    """Return which rows of a figure's table are points of curves."""
    return ~table["series"].isin(["missing", "memorization", "published", "Learning rate"])


def seeds(table: pd.DataFrame) -> int:
    """Return the largest number of seeds behind one curve."""
    counts = table[is_drawn(table)].groupby(["panel", "series"])["seed"].nunique()
    return int(counts.max()) if len(counts) else 0


# The drawing.


def figure(
    table: pd.DataFrame,
    panels: Sequence[Panel],
    spec: Mapping[str, Any],
    *,
    row_heads: Sequence[str],
    column_heads: Sequence[str],
    handles: Sequence[Line2D | Patch],
    height: float = 1.42,
    zoom: bool = True,
    divergences: bool = False,
    prepare: Callable[[Axes], None] = style.step_axis,
    xlabel: str = STEP,
    strip: tuple[float, Callable[[Figure, SubplotSpec], None]] | None = None,
) -> Figure:
    """Draw the panels of a figure from its table.

    Parameters
    ----------
    row_heads, column_heads: names of the grid's rows (at the right; empty for none) and columns (above).
    handles: the legend's entries; those for the band over seeds and unconverged fits are added where needed.
    height: of one row of panels, in inches.
    zoom: whether insets show the end of training where curves lie on each other.
    divergences: whether axes of D_KL start at 0, and may cut off a first point that dwarfs the rest.
    prepare: formats a panel's x-axis.
    strip: height in inches and drawing function of something below all panels.
    """
    look = style.style(spec)
    if not is_drawn(table).any():
        return _missing_figure(table, spec, look)
    rows, columns = max(p.row for p in panels) + 1, max(p.column for p in panels) + 1
    heights = [height * (1.25 if rows == 1 else 1.0)] * rows + ([strip[0]] if strip else [])
    made = style.new_figure(
        look["width"] * {1: 0.55, 2: 0.78 if not strip else 1.0}.get(columns, 1.0), sum(heights) + 0.75
    )
    grid = made.add_gridspec(len(heights), columns, height_ratios=heights)
    axes: dict[str, Axes] = {}
    shared = _shared_steps(table, panels)
    for panel in panels:
        above = next((axes[p.letter] for p in panels if p.column == panel.column and p.letter in axes), None)
        same = next((axes[p.letter] for p in panels if p.axis == panel.axis and p.letter in axes), None)
        axes[panel.letter] = made.add_subplot(
            grid[panel.row, panel.column], sharex=above if shared[panel.column] else None, sharey=same
        )
    boundaries = {panel.letter: _panel(axes[panel.letter], panel, table, look) for panel in panels}
    for panel in panels:
        _decorate(axes, panel, panels, table, divergences, boundaries, shared[panel.column], prepare, xlabel)
    for column in range(columns):
        _memorization_lines([p for p in panels if p.column == column], axes, table)
    _heads(panels, axes, row_heads, column_heads, table)
    if strip:
        strip[1](made, grid[rows, :])
    style.legend(made, [*handles, *_extra_handles(table, look)])
    style.settle(made)
    if zoom and look["insets"]:
        for panel in panels:
            _inset(axes[panel.letter], boundaries[panel.letter])
    return made


def _missing_figure(table: pd.DataFrame, spec: Mapping[str, Any], look: Mapping[str, Any]) -> Figure:
    """Return a figure that says which runs it would need."""
    notes = dict.fromkeys(table.loc[table["series"] == "missing", "note"])
    names = list(dict.fromkeys(note.partition(": ")[2] or note for note in notes))
    configured = not any(note.startswith("not configured") for note in notes)
    are = ("run is" if len(names) == 1 else "runs are") + (" not in the measures" if configured else " not configured")
    sentence = f"Nothing to draw: {len(names)} {are}." + ("" if configured else " Add to the configuration's runs:")
    return style.message_figure(look, f"Figure {spec['figure']}", sentence, names)


def _shared_steps(table: pd.DataFrame, panels: Sequence[Panel]) -> dict[int, bool]:
    """Return for every column of panels whether their steps are alike enough for one x-axis."""
    last = table[is_drawn(table)].groupby("panel")["x"].max()
    found = {}
    for column in {panel.column for panel in panels}:
        ends = [last[p.letter] for p in panels if p.column == column and p.letter in last.index]
        found[column] = not ends or max(ends) <= 2 * min(ends)
    return found


def _panel(ax: Axes, panel: Panel, table: pd.DataFrame, look: Mapping[str, Any]) -> list[tuple[np.ndarray, np.ndarray]]:
    """Draw a panel's curves; return the lines and band edges as (x, y) arrays."""
    here = table[(table["panel"] == panel.letter) & is_drawn(table)]
    if here.empty:
        notes = table.loc[(table["panel"] == panel.letter) & (table["series"] == "missing"), "note"]
        head, _, run = str(notes.iloc[0]).partition(": ")
        style.message(
            ax, f"{head}:\n" + "".join(run.rpartition("/")[0].replace("/", " / ")) + " /\n" + run.rpartition("/")[2]
        )
        return []
    published = table[(table["panel"] == panel.letter) & (table["series"] == "published")]
    if len(published):
        style.points(ax, published["x"].to_numpy(), published["y"].to_numpy(), f"{panel.letter}/published")
    edges: list[tuple[np.ndarray, np.ndarray]] = []
    for number, one in enumerate(panel.curves):
        rows = here[here["series"] == one.series]
        if rows.empty:
            continue
        style.curve(
            ax, rows, one.look, band=look["band"], gid=f"{panel.letter}/{one.series}", phase=number / len(panel.curves)
        )
        by = rows.groupby("x")["y"]
        sides = [by.mean()] if rows["seed"].nunique() == 1 else [by.mean(), by.min(), by.max()]
        edges += [(side.index.to_numpy(dtype=float), side.to_numpy(dtype=float)) for side in sides]
    return edges


def _decorate(
    axes: Mapping[str, Axes],
    panel: Panel,
    panels: Sequence[Panel],
    table: pd.DataFrame,
    divergences: bool,
    boundaries: Mapping[str, list[tuple[np.ndarray, np.ndarray]]],
    shared: bool,
    prepare: Callable[[Axes], None],
    xlabel: str,
) -> None:
    """Label and limit one panel's axes; where a neighbour has the same axis, its numbers are not repeated."""
    ax = axes[panel.letter]
    edges = boundaries[panel.letter]
    style.panel_letter(ax, panel.letter)
    if not edges:
        return
    prepare(ax)
    drawn = [p for p in panels if boundaries[p.letter]]
    left = next((p for p in drawn if p.row == panel.row and p.column == panel.column - 1), None)
    below = any(p.row > panel.row and p.column == panel.column for p in drawn)
    if left is None or left.quantity != panel.quantity:
        ax.set_ylabel(panel.quantity)
    if left is not None and left.axis == panel.axis:
        ax.tick_params(labelleft=False)
    if not below:
        ax.set_xlabel(xlabel)
    elif shared:
        ax.tick_params(labelbottom=False)
    ax.yaxis.set_major_locator(style.MaxNLocator(nbins=5, steps=[1, 2, 2.5, 5, 10]))
    together = [edge for p in panels if p.axis == panel.axis for edge in boundaries[p.letter]]
    low, high = min(float(y.min()) for _, y in together), max(float(y.max()) for _, y in together)
    if divergences and panel.measure.startswith("d_kl"):
        top = style.top_of(together) or high
        style.say_what_is_cut(ax, edges, top)
        ax.set_ylim(-0.03 * top, top * 1.08)
    else:
        pad = 0.05 * (high - low or 1.0)
        ax.set_ylim(low - pad, high + pad)


def _memorization_lines(panels: Sequence[Panel], axes: Mapping[str, Axes], table: pd.DataFrame) -> None:
    """Draw the memorization line through all drawn panels of a column."""
    rows = table[table["series"] == "memorization"]
    for labels in dict.fromkeys(panel.labels for panel in panels):
        those = [p for p in panels if p.labels == labels and (rows["panel"] == p.letter).any()]
        if not those:
            continue
        own = rows[rows["panel"] == those[0].letter]
        steps = own["x"].dropna().tolist()
        if steps:
            style.memorization([axes[p.letter] for p in those], steps)
        if len(steps) < len(own):
            text = "not memorized" if not steps else f"not memorized: {len(own) - len(steps)} of {len(own)} seeds"
            axes[those[0].letter].annotate(
                text,
                (1, 1),
                xycoords="axes fraction",
                xytext=(0, 1.5),
                textcoords="offset points",
                ha="right",
                va="bottom",
                color=style.GREY,
                fontsize=style.small(),
                gid="not memorized",
            )


def _heads(
    panels: Sequence[Panel],
    axes: Mapping[str, Axes],
    row_heads: Sequence[str],
    column_heads: Sequence[str],
    table: pd.DataFrame,
) -> None:
    """Name the grid's columns above it and its rows at its right."""
    above = 12 if (table["series"] == "memorization").any() else 4
    right = max(panel.column for panel in panels)
    for panel in panels:
        if panel.row == 0 and column_heads:
            axes[panel.letter].set_title(column_heads[panel.column], pad=above)
        if panel.column == right and row_heads:
            style.row_head(axes[panel.letter], row_heads[panel.row])


def _extra_handles(table: pd.DataFrame, look: Mapping[str, Any]) -> list[Line2D | Patch]:
    """Return the legend's entries that depend on what was drawn."""
    found: list[Line2D | Patch] = []
    if table.loc[table["series"] == "memorization", "x"].notna().any():
        found.append(style.memorization_handle())
    if seeds(table) > 1:
        found.append(style.band_handle(look["band"], seeds(table)))
    if not table.loc[is_drawn(table), "converged"].astype(bool).all():
        found.append(style.unconverged_handle())
    return found


def _inset(ax: Axes, edges: list[tuple[np.ndarray, np.ndarray]]) -> None:
    """Add the zoom on the end of training where it helps; sizes of its tick labels are taken in points."""
    if not edges:
        return
    box = ax.get_window_extent()
    points = 72 / ax.figure.dpi
    style.inset(ax, edges, (24 / (box.width * points), 4 / (box.height * points)))


# Words.


def notes(table: pd.DataFrame, spec: Mapping[str, Any]) -> str:
    """Return what a caption has to add about these data: seeds, fits that did not converge, what is missing."""
    look = style.style(spec)
    found = []
    count = seeds(table)
    if count > 1:
        span = {"range": "from the smallest to the largest", "sd": "plus and minus one standard deviation"}
        found.append(f"Lines: mean over {count} seeds; bands: {span[look['band']]}.")
    elif count == 1:
        found.append("One seed.")
    drawn = table[is_drawn(table)]
    failed = drawn[~drawn["converged"].astype(bool)]
    if len(failed):
        found.append(
            f"Hollow markers: the fit did not converge ({len(failed)} of {len(drawn)} points, "
            f"{', '.join(sorted(set(failed['series'])))})."
        )
    absent = list(dict.fromkeys(table.loc[table["series"] == "missing", "note"]))
    if absent:
        found.append(f"Missing: {'; '.join(note.removeprefix('not configured: ') for note in absent)}.")
    return " ".join(found)


def describe(table: pd.DataFrame, spec: Mapping[str, Any], what: str, *, first: bool = False) -> str:
    """Return a figure in words: what its panels show, then where each panel's curves end (and begin, with `first`)."""
    shown = table[is_drawn(table)]
    if shown.empty:
        return f"Figure {spec['figure']} is empty. {notes(table, spec)}"
    several = [column for column in ("dataset", "architecture", "labels") if shown[column].nunique() > 1]
    common = _names(shown, ["dataset", "architecture", "labels"], spec)
    sentences = [what, f"{common[0].upper()}{common[1:]}." if common else ""]
    for name, rows in shown.groupby("panel", sort=False):
        quantity = rows["quantity"].iloc[0]
        ends = []
        for series, of in rows.groupby("series", sort=False):
            by = of.groupby("x")["y"].mean()
            name_of = str(series)
            said = name_of.removesuffix(f", {of['split'].iloc[0]}") if rows["split"].nunique() == 1 else name_of
            ends.append(f"{said} {f'{_number(by.iloc[0])} to ' if first else ''}{_number(by.iloc[-1])}")
        memorized = table[(table["panel"] == name) & (table["series"] == "memorization")]["x"].dropna()
        tail = f"; memorization at step {memorized.mean():.0f}" if len(memorized) else ""
        head = ", ".join(word for word in (_names(rows, several, spec), quantity) if word)
        when = "from first to last" if first else "at the end"
        sentences.append(f"({name}) {head} {when}: {', '.join(ends)}{tail}.")
    return " ".join(word for word in [*sentences, notes(table, spec)] if word)


def _names(rows: pd.DataFrame, columns: Sequence[str], spec: Mapping[str, Any]) -> str:
    """Return the printed names of what a panel's rows have in common."""
    titles = spec.get("titles")
    say: dict[str, Callable[[str], str]] = {
        "dataset": lambda name: style.dataset_title(name, titles),
        "architecture": lambda name: style.architecture_title(name, titles),
        "labels": lambda name: style.LABELS.get(name, name).lower(),
    }
    return ", ".join(say[column](rows[column].iloc[0]) for column in columns if rows[column].nunique() == 1)


def _number(value: float) -> str:
    return f"{value:.3g}" if abs(value) >= 0.095 else f"{value:.2f}"
