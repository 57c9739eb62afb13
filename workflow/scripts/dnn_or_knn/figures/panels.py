"""How the panels of a figure are drawn from its table, and the grids of panels that figures share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from . import diagram, insets, style
from .table import PUBLISHED, SCALES, Curve, Layout, Panel, is_drawn, letter, lettered, seeds
from .words import architecture_title, dataset_title, model_title

ACCURACY, STEP, SHARE = "Accuracy (%)", "Training step", "Share of the training steps (%)"
#: The lines and band edges of a panel, as (x, y).
Edges = list[tuple[np.ndarray, np.ndarray]]


# The grids.


def curves(
    spec: Mapping[str, Any],
    architecture: str,
    models: Sequence[str],
    *splits: str,
    dashes: bool = False,
    every: bool = False,
) -> tuple[Curve, ...]:
    """Return a panel's curves, one for each model and split; with `dashes` the test side is dashed."""
    found = []
    for name in models:
        for split in splits:
            dashed, under = dashes and split == "test", len(models) > 1
            look = style.model_look(name, spec["probes"], dashed=dashed, every=every, under=under)
            found.append(Curve(f"{model_title(name)}, {split}", architecture, name, split, look))
    return tuple(found)


def nearest_neighbours(spec: Mapping[str, Any]) -> str:
    """Return the name of the k-NN probe: `knn`, else the first whose name begins so."""
    return next((name for name in ["knn", *spec["probes"]] if name in spec["probes"] and name.startswith("knn")), "knn")


def networks_by_datasets(
    spec: Mapping[str, Any], measure: str, quantity: str, models: Sequence[str], *, one_axis: bool
) -> list[Panel]:
    """Return the panels of figures 1 and 2, deepest network first; without `one_axis` each data set has its own.

    Rows are networks and columns are data sets; a single data set lies across the page instead.
    """
    found = []
    across = len(spec["datasets"]) == 1
    for i, network in enumerate(reversed(spec["architectures"])):
        for j, dataset in enumerate(spec["datasets"]):
            row, column = (0, i) if across else (i, j)
            shown = curves(spec, network, models, "test")
            name, title = architecture_title(network), dataset_title(dataset)
            above, beside = (f"{title}, {name}", "") if across else (title, name)
            about = (row, column, dataset, spec["labels"][0], measure, quantity)
            found.append(Panel(*about, shown, "all" if one_axis else dataset, above, beside))
    return lettered(found)


def rows_by_datasets(spec: Mapping[str, Any], *rows: tuple[str, str, tuple[Curve, ...]]) -> list[Panel]:
    """Return panels in columns of data sets from each row's measure, axis and curves.

    A data set has one axis of divergences; all data sets have one axis of any other measure.
    """
    return lettered(
        [
            Panel(
                *(i, j, dataset, spec["labels"][0], measure, quantity, shown),
                axis=dataset if measure == "d_kl" else measure,
                above=dataset_title(dataset),
            )
            for i, (measure, quantity, shown) in enumerate(rows)
            for j, dataset in enumerate(spec["datasets"])
        ]
    )


# The drawing.


def draw(layout: Layout, table: pd.DataFrame, spec: Mapping[str, Any], points: Sequence[Mapping[str, Any]]) -> Figure:
    """Draw a figure from its table; where its x-axis holds layers, the network below, from its probe points if any."""
    look, panels = style.style(spec), layout.panels
    if not is_drawn(table).any():
        return _missing_figure(table, spec, look)
    rows, columns = max(p.row for p in panels) + 1, max(p.column for p in panels) + 1
    heights = [layout.height * (1.25 if rows == 1 else 1.0)] * rows
    heights += [diagram.HEIGHT] if layout.layers and points else []
    wide = 1.0 if len(heights) > rows else {1: 0.55, 2: 0.78}.get(columns, 1.0)
    made = style.new_figure(look["width"] * wide, sum(heights) + 0.75)
    grid = made.add_gridspec(len(heights), columns, height_ratios=heights)
    shares = layout.together and _differ_much(table)
    table = _in_shares(table) if shares else table
    shared = _shared_steps(table, panels)
    axes: dict[str, Axes] = {}
    for panel in panels:
        above = next((axes[p.letter] for p in panels if p.column == panel.column and p.letter in axes), None)
        same = next((axes[p.letter] for p in panels if p.axis == panel.axis and p.letter in axes), None)
        sharex = above if shared[panel.column] else None
        axes[panel.letter] = made.add_subplot(grid[panel.row, panel.column], sharex=sharex, sharey=same)
    edges = {panel.letter: _panel(axes[panel.letter], panel, table, layout.apart) for panel in panels}
    for panel in panels:
        ax = axes[panel.letter]
        style.panel_letter(ax, panel.letter)
        if edges[panel.letter]:
            _layer_axis(ax, table) if layout.layers else style.step_axis(ax)
            steps = "" if layout.layers else SHARE if shares else STEP
            _label(ax, panel, [p for p in panels if edges[p.letter]], steps, shared[panel.column])
            _limit(ax, panel, edges[panel.letter], [e for p in panels if p.axis == panel.axis for e in edges[p.letter]])
        if panel.row == 0 and panel.above:
            ax.set_title(panel.above, pad=12 if (table["series"] == "memorization").any() else 4)
        if panel.column == columns - 1 and panel.beside:
            style.row_head(ax, panel.beside)
    for column in range(columns):
        _memorization_lines([p for p in panels if p.column == column], axes, table)
    if len(heights) > rows:
        title, means = architecture_title(panels[0].curves[0].architecture), spec["input_layer"] == "mean"
        diagram.draw(made, grid[rows, :], points, letter(len(panels)), title, means=means)
    style.legend(made, _entries(layout, table))
    style.settle(made)
    for panel in [] if layout.layers else panels:
        _inset(axes[panel.letter], panel, table, edges[panel.letter])
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
        found[column] = _alike(ends)
    return found


def _alike(ends: Sequence[float]) -> bool:
    """Return whether curves that end at these steps have room on one x-axis: none has more than twice the steps of another."""
    return not ends or max(ends) <= 2 * min(ends)


def _lasts(table: pd.DataFrame) -> pd.DataFrame:
    """Return each curve's last step, by panel and series."""
    return table[is_drawn(table)].groupby(["panel", "series"])["x"].max().reset_index()


def _differ_much(table: pd.DataFrame) -> bool:
    """Return whether in some panel the curves' steps are too many and too few for one x-axis."""
    return any(not _alike(list(ends)) for _, ends in _lasts(table).groupby("panel")["x"])


def _in_shares(table: pd.DataFrame) -> pd.DataFrame:
    """Return a figure's table with the steps of its curves in percent of each curve's last one."""
    last = table.merge(_lasts(table), how="left", on=["panel", "series"], suffixes=("", "_last"))["x_last"].to_numpy()
    return table.assign(x=np.where(last > 0, 100 * table["x"].to_numpy() / last, table["x"].to_numpy()))


def _panel(ax: Axes, panel: Panel, table: pd.DataFrame, apart: bool) -> Edges:
    """Draw a panel's curves, or what is missing; return the lines and band edges. `apart`: the input joins no layer."""
    own = table[table["panel"] == panel.letter]
    here = own[is_drawn(own)]
    if here.empty:
        head, _, run = str(own.loc[own["series"] == "missing", "note"].iloc[0]).partition(": ")
        place, _, labels = run.rpartition("/")
        style.message(ax, f"{head}:\n{place.replace('/', ' / ')} /\n{labels}")
        return []
    published = own[own["series"] == "published"]
    if len(published):
        style.points(ax, published["x"].to_numpy(), published["y"].to_numpy(), f"{panel.letter}/published")
    edges: Edges = []
    for number, one in enumerate(panel.curves):
        rows = here[here["series"] == one.series]
        if rows.empty:
            continue
        gid, raw = f"{panel.letter}/{one.series}", apart & (rows["layer"] == "input")
        for name, part in ((gid, rows[~raw]), (f"{gid}/input", rows[raw])):
            if len(part):
                style.curve(ax, part, one.look, gid=name, phase=number / len(panel.curves))
        if raw.any():  # a dash tells train from test where no line does
            where, level = float(rows.loc[raw, "x"].iloc[0]), float(rows.loc[raw, "y"].mean())
            ends, dashes = ([where - 0.3, where + 0.3], [level, level]), style.dashes(one.look.dashed)
            ax.plot(*ends, color=one.look.colour, linewidth=one.look.width, linestyle=dashes)
        by = rows.groupby("x")["y"]
        sides = [by.mean()] if rows["seed"].nunique() == 1 else [by.mean(), by.min(), by.max()]
        edges += [(side.index.to_numpy(dtype=float), side.to_numpy(dtype=float)) for side in sides]
    return edges


def _layer_axis(ax: Axes, table: pd.DataFrame) -> None:
    """Name the layers below a panel."""
    names = table.dropna(subset=["layer", "x"]).groupby("x")["layer"].first()
    ax.set_xticks(names.index.to_numpy(), list(names), rotation=90)
    ax.set_xlim(names.index.min() - 0.5, names.index.max() + 0.5)


def _label(ax: Axes, panel: Panel, drawn: Sequence[Panel], below_it: str, shared: bool) -> None:
    """Label one panel's axes; where a neighbour that is drawn has the same axis, its numbers are not repeated."""
    left = next((p for p in drawn if p.row == panel.row and p.column == panel.column - 1), None)
    below = any(p.row > panel.row and p.column == panel.column for p in drawn)
    if left is None or left.quantity != panel.quantity:
        ax.set_ylabel(panel.quantity)
    if left is not None and left.axis == panel.axis:
        ax.tick_params(labelleft=False)
    if not below:
        ax.set_xlabel(below_it)
    elif shared:
        ax.tick_params(labelbottom=False)


def _limit(ax: Axes, panel: Panel, own: Edges, together: Edges) -> None:
    """Limit a panel's y-axis by the curves of all that share it.

    Divergences start at 0, and may leave out a first point that dwarfs the rest.
    """
    ax.yaxis.set_major_locator(style.MaxNLocator(nbins=5, steps=[1, 2, 2.5, 5, 10]))
    low, high = min(float(y.min()) for _, y in together), max(float(y.max()) for _, y in together)
    if panel.measure == "d_kl":
        top = style.top_of(together) or high
        style.say_what_is_cut(ax, own, top)
        ax.set_ylim(-0.03 * top, top * 1.08)
    else:
        pad = 0.05 * (high - low or 1.0)
        ax.set_ylim(low - pad, high + pad)


def _memorization_lines(panels: Sequence[Panel], axes: Mapping[str, Axes], table: pd.DataFrame) -> None:
    """Draw the memorization line through all drawn panels of a column."""
    rows = table[table["series"] == "memorization"]
    those = [p for p in panels if (rows["panel"] == p.letter).any()]
    if not those:
        return
    own = rows[rows["panel"] == those[0].letter]
    steps = own["x"].dropna().tolist()
    if steps:
        style.memorization([axes[p.letter] for p in those], steps)
    if len(steps) < len(own):
        text = "not memorized" if not steps else f"not memorized: {len(own) - len(steps)} of {len(own)} seeds"
        style.aside(axes[those[0].letter], text, (1, 1), (0, 1.5), ha="right", va="bottom", gid="not memorized")


def _entries(layout: Layout, table: pd.DataFrame) -> list[Line2D | Patch]:
    """Return the legend's entries: one for each look of a curve, and those that depend on what was drawn.

    Where several models have a solid and a dashed side, train and test have entries of their own.
    """
    looks: dict[tuple[Any, ...], Curve] = {}
    for one in (one for panel in layout.panels for one in panel.curves):
        looks.setdefault((one.look.colour, one.look.marker, one.look.dashed), one)
    dashed = {one.model for one in looks.values() if one.look.dashed}
    apart = len({one.model for one in looks.values() if not one.look.dashed} & dashed) > 1
    found: list[Line2D | Patch] = [
        style.handle(
            one.series if one.model in dashed and not apart else one.series.removesuffix(f", {one.split}"), one.look
        )
        for one in looks.values()
        if not (apart and one.look.dashed)
    ]
    found += style.split_handles() if apart else []
    found += [style.published_handle(PUBLISHED)] if (table["series"] == "published").any() else []
    if table.loc[table["series"] == "memorization", "x"].notna().any():
        found.append(style.memorization_handle())
    found += style.band_handles(seeds(table))
    if not table.loc[is_drawn(table), "converged"].astype(bool).all():
        found.append(style.unconverged_handle())
    return found


def _inset(ax: Axes, panel: Panel, table: pd.DataFrame, edges: Edges) -> None:
    """Add the zoom on the end of training where it helps; sizes of its tick labels are taken in points.

    Fractions of images that differ by one image at most are not enlarged.
    """
    if not edges:
        return
    box = ax.get_window_extent()
    points = 72 / ax.figure.dpi
    image = (
        0.0
        if panel.measure == "d_kl"
        else SCALES[panel.measure] / table.loc[table["panel"] == panel.letter, "count"].min()
    )
    insets.inset(ax, edges, (24 / (box.width * points), 12 / (box.height * points)), image * 1.001)
