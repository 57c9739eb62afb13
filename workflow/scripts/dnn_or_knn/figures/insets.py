"""Insets: the end of training enlarged, where the curves lie on each other and a place is free."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

from .style import GREY, LIGHT, TEST_DASHES, step_axis

#: What a line in an inset takes over from the panel's.
COPIED = (
    *("color", "linewidth", "marker", "markersize", "markeredgewidth"),
    *("markerfacecolor", "markeredgecolor", "zorder"),
)
#: An inset opens when the end of all curves spans less than this fraction of the axis.
COINCIDENT = 0.07


def inset(
    ax: Axes, curves: Sequence[tuple[np.ndarray, np.ndarray]], gap: tuple[float, float], least: float = 0.0
) -> Axes | None:
    """Zoom in on the end of training where the curves lie on each other, in a free place of the panel.

    Parameters
    ----------
    curves: (x, y) of every line and band edge of the panel, in data coordinates.
    gap: room that the inset's tick labels need at its left and below it, as fractions of the panel.
    least: the smallest difference that means anything; curves that nowhere differ by more are not enlarged.

    Returns
    -------
    The inset, or None where the curves lie apart or are equal, one of them ends earlier, or no place is free of data.
    """
    low, high = ax.get_xlim()
    last = max(float(x.max()) for x, _ in curves)
    window = (last - 0.22 * (last - min(float(x.min()) for x, _ in curves)), last)
    inside = [y[x >= window[0]] for x, y in curves]
    bottom, top = ax.get_ylim()
    if len(curves) < 2 or min(map(len, inside)) < 2 or _apart(curves, window[0]) <= least:
        return None
    ends = (min(float(y.min()) for y in inside), max(float(y.max()) for y in inside))
    spread = ends[1] - ends[0]
    if not 1e-6 * (top - bottom) < spread < COINCIDENT * (top - bottom):
        return None
    pad = 0.15 * spread
    frame = (window[0], ends[0] - pad, window[1] + 0.01 * (high - low), ends[1] + pad)
    steps = [float(np.asarray(line.get_xdata(orig=False))[0]) for line in ax.lines if line.get_gid() == "memorization"]
    shares = [((x - low) / (high - low), (y - bottom) / (top - bottom)) for x, y in curves]
    place = free_place(shares, gap, [(step - low) / (high - low) for step in steps])
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
    child.tick_params(pad=1, size=2)
    step_axis(child, 2)
    child.yaxis.set_major_locator(MaxNLocator(nbins=3, steps=[1, 2, 2.5, 5, 10]))
    for spine in child.spines.values():
        spine.set(visible=True, linewidth=0.5, color=GREY)
    _indicate(ax, frame, place)
    return child


def _apart(curves: Sequence[tuple[np.ndarray, np.ndarray]], start: float) -> float:
    """Return by how much the curves differ at most at one x from `start` on."""
    at = np.unique(np.concatenate([x[x >= start] for x, _ in curves]))
    return float(np.ptp([np.interp(at, x, y) for x, y in curves], axis=0).max())


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
    curves: Sequence[tuple[np.ndarray, np.ndarray]], gap: tuple[float, float], upright: Sequence[float] = ()
) -> tuple[float, float, float, float] | None:
    """Return (left, bottom, width, height) of the largest rectangle tried that no curve and no upright line enters, or None.

    All in fractions of the panel. `gap` is the room that is kept free at the rectangle's left and below it as well.
    """
    at = np.linspace(0, 1, 400)
    dense = [np.stack([at, np.interp(at, x, y, left=np.nan, right=np.nan)]) for x, y in curves if len(x) > 1]
    if not dense:
        return None
    points = np.concatenate(dense, axis=1)
    points = points[:, np.isfinite(points[1])]
    lines = np.array([[x, y] for x in upright for y in np.linspace(0, 1, 50)]).reshape(-1, 2).T
    points = np.concatenate([points, lines], axis=1)
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
