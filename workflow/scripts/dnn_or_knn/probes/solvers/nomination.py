"""Products that nominate neighbours and the differences that decide among them: how `neighbours` settles a block of queries.

Products of centred points give every distance up to an error that is bounded beforehand (`threshold`). The points that
look nearest are nominated first; the k-th of their true distances bounds the k-th of all from above, and every point
whose product does not prove it to be farther is nominated as well.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch

from ..preprocessing import fold

#: Rounding of a float64 sum in any order of fewer than 10^6 terms, and of the square root after it, with room to spare.
SLACK = 1e-9
#: What a square may lose below the range of float64.
LOST = 2.0**-1074
#: Terms of a sum from which on the sums of many pairs are worked out together.
TAIL = 24
#: Numbers that these sums may hold, by device: 64 MiB and 512 MiB, twice.
HELD = {"cpu": 2**23, "cuda": 2**26}
#: Numbers that are worked on at a time, by device: 2 MiB, for a CPU's caches, and 64 MiB in float64.
AT_A_TIME = {"cpu": 2**18, "cuda": 2**23}


class Points(NamedTuple):
    """Different points: coordinates (n, d) on the device, and which of them have no direction (cosine), or None."""

    rows: torch.Tensor
    zero: torch.Tensor | None

    def __len__(self) -> int:
        return len(self.rows)

    def take(self, which: torch.Tensor | slice) -> Points:
        """Return some of the points."""
        return Points(self.rows[which], None if self.zero is None else self.zero[which])


class Task(NamedTuple):
    """Training points, the metric, a power of two that brings all coordinates to 1, and the memory of a block in bytes."""

    y: Points
    metric: str
    scale: float
    chunk: int


@dataclass
class Group:
    """Training points around one centre (d,): all of them as they come, or `points`, their numbers, nearest first.

    Their factor of float32 products is made once, by `prepare`; that of float64 products a tile at a time.
    """

    task: Task
    centre: torch.Tensor
    points: torch.Tensor | None = None
    single: torch.Tensor | None = None

    def prepare(self, count: int) -> None:
        """Make the factor of float32 products of the first `count` points, if it is not there."""
        if self.single is None or len(self.single) < count:
            self.single = self._factor(slice(0, count), torch.float32)

    def tiles(self, count: int, dtype: torch.dtype) -> Iterator[tuple[int, torch.Tensor]]:
        """Yield the factor of the first `count` points as pieces, each with the number of its first point."""
        if dtype == torch.float32 and self.single is not None:
            yield 0, self.single[:count]
            return
        step = max(1, self.task.chunk // (32 * len(self.centre)))
        for start in range(0, count, step):
            yield start, self._factor(slice(start, min(start + step, count)), dtype)

    def _factor(self, part: slice, dtype: torch.dtype) -> torch.Tensor:
        some = self.task.y.take(part if self.points is None else self.points[part])
        return operand(some, self.centre, self.task, dtype, side=1)[0]


def operand(
    points: Points, centre: torch.Tensor, task: Task, dtype: torch.dtype, *, side: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return one side's factor of the products, and its points' norms.

    With r = (point − centre) · scale rounded to `dtype`: for L1 r itself; else for the points (side 1)
    (r, (1 − η)|r|²/2) and for the queries (side 0) (−r, 1), so that a product is V = (1 − η)|y|²/2 − ⟨x, y⟩, about
    (|x − y|² − |x|²) / 2; η is the error that `threshold` allows for.  Norms, float64 (n,), are |r|², for L1 |r|.  A zero
    vector of the cosine counts as a unit vector at right angles to all others, those of the other side too.
    """
    rows, dimensions = points.rows.shape
    products = task.metric != "l1"
    factor = torch.empty((rows, dimensions + products), dtype=dtype, device=points.rows.device)
    norms = torch.empty(rows, dtype=torch.float64, device=factor.device)
    step = rows_at_a_time(points.rows)
    for start in range(0, rows, step):
        part = slice(start, start + step)
        exact = points.rows[part].double() - centre  # a new tensor: float64 features are not to be written to
        exact *= task.scale
        factor[part, :dimensions] = exact if side or not products else -exact
        norms[part] = (exact.square_() if products else exact.abs_()).sum(dim=1)
    if points.zero is not None:
        norms += points.zero * task.scale**2
    if products:
        factor[:, -1] = norms * ((1 - error(dimensions, dtype)) / 2) if side else 1
    return factor, norms


def error(dimensions: int, dtype: torch.dtype) -> float:
    """Return the η with which products are off by at most η(|x|² + |y|²) / 2, for L1 the relative error of the sum.

    γ = 2nu / (1 − nu), n = d + 16, u the unit roundoff, is twice the error of a sum of n terms in any order: once for
    the product and once for the norms beside it. Infinite where the sum has no bound.
    """
    share = (dimensions + 16) * torch.finfo(dtype).eps / 2
    return 2 * share / (1 - share) if share < 0.1 else math.inf


def threshold(
    bound: torch.Tensor, size: torch.Tensor, dimensions: int, dtype: torch.dtype, metric: str
) -> torch.Tensor:
    """Return the value (n,) above which a computed product proves a distance larger than `bound` = D (L2: D²).

    L2, `size` = |x|²: what is computed for V (`operand`) is at most (|x − y|² − |x|² + η(|x|² + |y|²) − η|y|²) / 2, so that
    a point with 2V > D² − (1 − η)|x|² is not within D.

    L1, `size` = |x|: the sum has the relative error η and rounding the residuals adds at most
    u(|x| + |y|) ≤ η(2|x| + D), so that a point with (1 − η)V > (1 + η)D + 2η|x| is none of them.

    Rounding to `dtype` is monotone, so that the last rounding of a product needs no allowance.
    """
    share = error(dimensions, dtype)
    tiny = 64 * dimensions * torch.finfo(dtype).tiny  # lost below the range of normal numbers; the scale is 1
    bound = bound * (1 + SLACK)
    if metric == "l1":
        return (((1 + share) * bound + 2 * share * size + tiny) / (1 - share)).to(dtype)
    return ((bound - (1 - share) * size + tiny) / 2).to(dtype)


def settle(
    group: Group, x: Points, count: int, wanted: int, dtype: torch.dtype, *, limited: bool
) -> tuple[torch.Tensor, np.ndarray, np.ndarray]:
    """Find the `wanted` nearest of a group's first `count` points to each query of a block.

    Returns which queries are left over, bool (n,), as products of this arithmetic nominate too many points (if `limited`);
    and of the others, in their order, neighbours (m, wanted), ordered by (distance, index), and distances.
    """
    task = group.task
    exact = Points(x.rows.double(), x.zero)
    asked, size = operand(x, group.centre, task, dtype, side=0)
    dealt = _products(group, asked, count, wanted, dtype)
    minima = _minima(dealt)
    columns = _best(dealt, minima, wanted)
    found = distances(group, exact, torch.arange(len(x), device=columns.device), columns)
    square = task.scale if task.metric == "l1" else task.scale**2
    bound = (found.amax(dim=1) + x.rows.shape[1] * LOST) * square * (2 if task.metric == "cosine" else 1)
    high = threshold(bound, size, x.rows.shape[1], dtype, task.metric)[:, None]
    # Only groups of points whose minimum is not excluded are looked into.
    below = minima <= high
    limit = 3 * wanted + 32 if limited else dealt[0].numel()
    wide = below.sum(dim=1) > limit
    pair, near = (below & ~wide[:, None]).nonzero(as_tuple=True)
    inside, deep = (dealt[pair, :, near] <= high[pair]).nonzero(as_tuple=True)
    rows, more = pair[inside], deep * dealt.shape[2] + near[inside]
    wide |= torch.bincount(rows, minlength=len(x)) > limit
    kept = ~wide[rows]
    rows, more = rows[kept], more[kept]
    counts = torch.bincount(rows, minlength=len(x))
    # One row of nominated points for each query: the first, then the others, then nothing.
    place = wanted + torch.arange(len(rows), device=rows.device) - (counts.cumsum(0) - counts)[rows]
    shape = len(x), wanted + int(counts.max())
    values = torch.full(shape, math.inf, dtype=torch.float64, device=rows.device)
    index = torch.full(shape, len(task.y), device=rows.device)
    values[:, :wanted], index[:, :wanted] = found, columns
    values[rows, place], index[rows, place] = distances(group, exact, rows, more[:, None])[:, 0], more
    if group.points is not None:
        nominated = index < len(task.y)
        index[nominated] = group.points[index[nominated]]
    settled = (~wide).nonzero()[:, 0]
    true = values[settled].cpu().numpy()
    true = np.sqrt(true) if task.metric == "l2" else true
    return wide, *ordered(true, index[settled].cpu().numpy(), wanted)


def _products(group: Group, asked: torch.Tensor, count: int, wanted: int, dtype: torch.dtype) -> torch.Tensor:
    """Return the products (n, depth, groups) of queries with points, which are dealt out in turn to groups.

    There are several times as many groups as neighbours are wanted; their depth is a power of two.
    """
    depth = 2 ** min(5, max(1, count // (12 * wanted)).bit_length() - 1)
    groups = -(-count // depth)
    values = torch.empty((len(asked), groups * depth), dtype=dtype, device=asked.device)
    values[:, count:] = math.inf
    for start, points in group.tiles(count, dtype):
        target = values[:, start : start + len(points)]
        if group.task.metric == "l1":
            target.copy_(torch.cdist(asked, points, p=1.0))
        else:
            torch.mm(asked, points.T, out=target)
    return values.view(len(asked), depth, groups)


def _minima(dealt: torch.Tensor) -> torch.Tensor:
    """Return the minima (n, groups) of (n, depth, groups), depth a power of two: much faster by halves than `amin`."""
    while dealt.shape[1] > 1:
        half = dealt.shape[1] // 2
        dealt = torch.minimum(dealt[:, :half], dealt[:, half:])
    return dealt[:, 0]


def _best(dealt: torch.Tensor, minima: torch.Tensor, wanted: int) -> torch.Tensor:
    """Return the best points (n, wanted) of the `wanted` best groups, and take them out of the products."""
    best = minima.topk(wanted, dim=1, largest=False, sorted=False).indices
    inside = dealt.gather(2, best[:, None].expand(-1, dealt.shape[1], -1))
    columns = inside.argmin(dim=1) * dealt.shape[2] + best
    everyone = torch.arange(len(dealt), device=dealt.device)[:, None]
    dealt.view(-1).index_fill_(0, (columns + everyone * dealt[0].numel()).flatten(), math.inf)
    return columns


def distances(group: Group, x: Points, rows: torch.Tensor, columns: torch.Tensor) -> torch.Tensor:
    """Return the distances (n, w) of nominated pairs as `neighbours` defines them, for L2 their squares, float64.

    rows: (n,) numbers of queries among `x`, float64; columns: (n, w) of points among the group's.
    """
    task = group.task
    columns = columns if group.points is None else group.points[columns]
    found = direct(x.rows, task.y.rows, rows, columns, task.metric)
    if task.metric == "cosine":
        found /= 2
        if x.zero is not None:
            found[x.zero[rows]] = 1.0
        if task.y.zero is not None:
            found[task.y.zero[columns]] = 1.0
    return found


def direct(x: torch.Tensor, y: torch.Tensor, rows: torch.Tensor, columns: torch.Tensor, metric: str) -> torch.Tensor:
    """Return S of `neighbours`, float64 (n, w): squared L2, or L1, of x[rows[i]] − y[columns[i, j]]; x is float64.

    The last few steps of the fold, on columns too short to be fast, are taken for all pairs together.
    """
    dimensions = x.shape[1]
    left = dimensions
    while left > TAIL:
        left = (left + 1) // 2
    width = columns.shape[1]
    most = max(1, HELD[x.device.type] // (left * width))
    if len(rows) > most:
        parts = zip(rows.split(most), columns.split(most), strict=True)
        return torch.cat([direct(x, y, *part, metric) for part in parts])
    tail = torch.empty((columns.numel(), left), dtype=torch.float64, device=x.device)
    step = max(1, rows_at_a_time(x) // width)
    for start in range(0, len(rows), step):
        part = columns[start : start + step]
        terms = y.index_select(0, part.reshape(-1)).double()
        terms.view(len(part), width, dimensions).sub_(x.index_select(0, rows[start : start + step])[:, None, :])
        if metric == "l1":
            terms.abs_()
        else:
            terms *= terms
        tail[start * width : (start + len(part)) * width] = fold(terms, left)
    return fold(tail.T.contiguous().T).view(len(rows), width)


def ordered(values: np.ndarray, index: np.ndarray, wanted: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the first `wanted` indices of each row by (value, index), and their values."""
    order = np.lexsort((index, values), axis=1)[:, :wanted]
    return np.take_along_axis(index, order, 1), np.take_along_axis(values, order, 1)


def rows_at_a_time(like: torch.Tensor) -> int:
    """Return how many rows (…, d) are worked on at a time."""
    return max(1, AT_A_TIME[like.device.type] // like.shape[1])
