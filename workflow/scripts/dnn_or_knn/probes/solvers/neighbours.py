"""Exact nearest neighbours at the speed of matrix products: products nominate, direct differences decide.

The truth. With x and y in float64, t_j = (x_j − y_j)² (L2, and cosine on the unit vectors) or |x_j − y_j| (L1), and S
the sum of the t_j in the order of `reduction.fold`, the distance is √S (L2), S (L1) or S/2 (cosine: 1 − cos of the
angle; a zero vector has the distance 1 to everything).  Neighbours are ordered by (distance, index).  Every operation
is elementwise in IEEE double precision, so the distances do not depend on batching, threads or device.

The search. Products of centred features give every squared distance up to an error that is bounded beforehand
(`_threshold`).  The points that look nearest are nominated first; the k-th of their true distances bounds the k-th of all
from above, and every point whose product does not prove it to be farther is nominated as well.  So the true k are
among the nominated by construction.  Where that would nominate too many (features collapsed to points that the products
cannot tell apart) the query is widened: it goes on to products of the next arithmetic, bfloat16 (where the CPU has
it), float32, float64, the last without a limit.

Two things make this fast where a network has collapsed its classes.  Points that are equal are searched once.  And
if most of the training points can be excluded by the triangle inequality through the class means, queries are searched
class by class among the points that are left, centred on that mean, so that few digits suffice at any collapse.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple, TypeVar

import numpy as np
import torch

from ...runtime.errors import UserError
from ..preprocessing import ROWS, fold, normalize, unique_rows

T = TypeVar("T")
R = TypeVar("R")
METRICS = ("l2", "l1", "cosine")
#: Rounding of a float64 sum in any order of fewer than 10^6 terms, and of the square root after it, with room to spare.
SLACK = 1e-9
#: Binary exponents between which squares neither overflow nor vanish; float32 features have −149 … 128.
EXPONENTS = (-500, 500)
#: What a square may lose below the range of float64.
LOST = 2.0**-1074
#: Queries that are searched together, and how much more memory than `chunk_mib` they may take, by device.
BLOCK = {"cpu": 512, "cuda": 4096}
GENEROUS = {"cpu": 1, "cuda": 8}
#: Queries that are tried before the others of a group.
PILOT = 32
#: Fewer training points than this are not worth dividing by class.
SMALL = 2000
#: Terms of a sum from which on the sums of many pairs are worked out together.
TAIL = 24
#: Numbers that these sums may hold, by device: 64 MiB and 512 MiB, twice.
HELD = {"cpu": 2**23, "cuda": 2**26}
#: Numbers that are worked on at a time, by device, 2 MiB and 64 MiB in float64: on a CPU few enough for its caches, not
#: so few that threads wait longer for their turn to call than they compute.
AT_A_TIME = {"cpu": 2**18, "cuda": 2**23}


class Found(NamedTuple):
    """The result of a search.

    `neighbours`, int32 (n, k): training points ordered by (distance, index); `distances`, float64 (n, k); `settled`:
    the fraction of the queries that products of each arithmetic settled, the first tried first; `covered`: the
    fraction of all pairs that products were made of, the rest having been excluded by the triangle inequality.
    """

    neighbours: np.ndarray
    distances: np.ndarray
    settled: dict[str, float]
    covered: float

    @property
    def widened(self) -> float:
        """The fraction of the queries that the first arithmetic did not settle."""
        return sum(list(self.settled.values())[1:])


class _Side(NamedTuple):
    """Different points: coordinates (n, d) on the device, and which of them have no direction (cosine), or None."""

    rows: torch.Tensor
    zero: torch.Tensor | None

    def __len__(self) -> int:
        return len(self.rows)


class _Group(NamedTuple):
    """Queries that are searched around one centre.

    `points`: the training points in reach, nearest to the centre first (None: all, as they come); `blocks`: pairs of
    queries and the number of points of that order that they need.
    """

    centre: torch.Tensor
    points: torch.Tensor | None
    blocks: list[tuple[torch.Tensor, int]]


def search(
    train: np.ndarray,
    queries: np.ndarray | None,
    k: int,
    *,
    metric: str = "l2",
    labels: np.ndarray | None = None,
    device: str = "cpu",
    chunk_mib: int = 256,
) -> Found:
    """Return the k nearest training points of every query, exactly as the module's text defines them.

    Parameters
    ----------
    train: (N, d) finite features, float32, or float64 with its largest between 1e-150 and 1e150 (or all zero).
    queries: (M, d), or None for the training points themselves, each without its own index (equal points stay).
    k: neighbours; at most N, without queries N − 1.
    metric: "l2", "l1" or "cosine".
    labels: (N,) integers; classes that lie apart make the search faster, and have no other influence.
    device: "cpu" or "cuda".
    chunk_mib: bound of the blocks of products, in MiB (on a GPU eight times as much); beside them the search holds one
        float32 copy of `train`.
    """
    own = queries is None
    if not 1 <= k <= len(train) - own:
        raise ValueError(f"k = {k} neighbours among {len(train) - own} points")
    coordinates = _coordinates(train, metric)
    first, member_of = unique_rows(coordinates)
    distinct = coordinates if len(first) == len(train) else coordinates[first]
    if queries is None:
        asked, ask = distinct, member_of
    else:
        asked = _coordinates(queries, metric)
        once, ask = unique_rows(asked)
        asked = asked if len(once) == len(asked) else asked[once]
    y = _side(distinct, metric, device)
    x = y if own else _side(asked, metric, device)
    with _full_precision():
        near, distances, settled, stages, covered = _nearest(
            x, y, min(k + own, len(y)), metric, None if labels is None else labels[first], chunk_mib * 2**20
        )
    neighbours, distances = _members(near, distances, ask, first, member_of, k, own=own)
    counts = np.bincount(settled[ask], minlength=len(stages)) / max(1, len(ask))
    return Found(
        neighbours.astype(np.int32), distances, dict(zip(stages, counts.tolist(), strict=True)), round(covered, 6)
    )


def drop_own(neighbours: np.ndarray, distances: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return lists of the training points' k + 1 nearest (N, k + 1) without the point itself, or else without the last."""
    points, width = neighbours.shape
    rows = np.arange(points)
    is_own = neighbours == rows[:, None]
    drop = np.where(is_own.any(axis=1), is_own.argmax(axis=1), width - 1)
    keep = np.arange(width - 1) + (np.arange(width - 1) >= drop[:, None])
    return np.take_along_axis(neighbours, keep, 1), np.take_along_axis(distances, keep, 1)


def _coordinates(features: np.ndarray, metric: str) -> np.ndarray:
    """Return the points whose differences are taken: the features, or for the cosine their unit vectors."""
    if metric == "cosine":
        return normalize(features)
    return features if features.dtype in (np.float32, np.float64) else features.astype(np.float64)


def _side(rows: np.ndarray, metric: str, device: str) -> _Side:
    """Return points on the device."""
    tensor = torch.from_numpy(np.require(rows, requirements=["C", "W"])).to(device)
    zero = ~tensor.any(dim=1) if metric == "cosine" else None
    return _Side(tensor, zero if zero is not None and bool(zero.any()) else None)


class _Task(NamedTuple):
    """One search: queries and points, what is asked, a power of two that brings the coordinates to 1, and the results."""

    x: _Side
    y: _Side
    wanted: int
    metric: str
    scale: float
    near: np.ndarray
    distances: np.ndarray


#: Given a number of points, yields (first, their factor of the products, its worst relative rounding) tile by tile.
Tiles = Callable[[int], Iterator[tuple[int, torch.Tensor, float]]]


@contextlib.contextmanager
def _full_precision() -> Iterator[None]:
    """Keep float32 products at float32 precision: the error bounds hold neither for TF32 nor for bfloat16."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def _nearest(
    x: _Side, y: _Side, wanted: int, metric: str, labels: np.ndarray | None, chunk: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[str], float]:
    """Return the `wanted` nearest of `y` to each of `x`, (n, wanted), their distances, and how they were found.

    That is: the number of the stage that settled each query, the names of the stages, and the fraction of pairs covered.

    Both sides hold different points only; on the train side's own search the point itself is one of its neighbours.
    """
    largest = max(_largest(x), _largest(y)) or 1.0
    exponent = math.frexp(largest)[1]
    if not EXPONENTS[0] < exponent < EXPONENTS[1]:
        raise UserError(
            f"the largest feature is {largest:.1e}, whose square is beyond the range of float64; rescale the features"
        )
    task = _Task(
        x,
        y,
        wanted,
        metric,
        2.0**-exponent,
        np.empty((len(x), wanted), np.int64),
        np.empty((len(x), wanted)),
    )
    stages = _stages(x.rows, metric)
    settled = np.zeros(len(x), np.int64)
    chunk *= GENEROUS[x.rows.device.type]
    block = max(32, min(BLOCK[x.rows.device.type], chunk // (8 * len(y))))
    groups = _plan(x, y, wanted, metric, labels, block)
    with _one_thread_each(x.rows.device) as threads:
        reach = max((count for group in groups for _, count in group.blocks), default=1)
        fit = max(1, chunk // (4 * reach * x.rows.shape[1]))
        workers, inner = (min(threads, len(groups), fit), 1) if len(groups) > 1 else (1, threads)

        def search_group(group: _Group) -> None:
            blocks = group.blocks
            for number, stage in enumerate(stages):
                last = number == len(stages) - 1
                blocks, done = _stage(task, group, blocks, stage, chunk // workers, inner, unlimited=last)
                for queries in done:
                    settled[queries.cpu().numpy()] = number
                if not blocks:
                    return

        _in_threads(search_group, groups, workers)
    covered = sum(len(queries) * count for group in groups for queries, count in group.blocks)
    names = [str(stage).removeprefix("torch.") for stage in stages]
    return task.near, task.distances, settled, names, covered / max(1, len(x) * len(y))


def _largest(side: _Side) -> float:
    """Return the largest magnitude of a coordinate."""
    if not len(side):
        return 0.0
    low, high = torch.aminmax(side.rows)
    return max(abs(float(low)), abs(float(high)))


def _stages(rows: torch.Tensor, metric: str) -> list[torch.dtype]:
    """Return the arithmetics of the products, fastest first: those whose error has a bound at so many dimensions.

    bfloat16 only where the CPU multiplies it (AVX-512 BF16, AMX): twice the speed of float32 and more.
    """
    stages = [torch.float32, torch.float64]
    if rows.device.type == "cpu" and metric != "l1" and rows.shape[1] >= 64 and has_bfloat16():
        stages.insert(0, torch.bfloat16)
    return [dtype for dtype in stages if math.isfinite(_error(rows.shape[1], dtype, 0.0))]


def has_bfloat16() -> bool:
    """Say whether this CPU has instructions for products of bfloat16 numbers."""
    found: dict[str, bool] = getattr(torch.cpu, "get_capabilities", dict)()
    return bool(found.get("avx512_bf16") or found.get("amx_bf16"))


def _stage(
    task: _Task,
    group: _Group,
    blocks: list[tuple[torch.Tensor, int]],
    dtype: torch.dtype,
    chunk: int,
    threads: int,
    *,
    unlimited: bool,
) -> tuple[list[tuple[torch.Tensor, int]], list[torch.Tensor]]:
    """Search some blocks of queries by products of one arithmetic; return the blocks left over, and who is settled.

    If more than half of the first few queries are left over, the others are left over untried.
    """
    width = max(count for _, count in blocks)
    rows = max(len(queries) for queries, _ in blocks)
    if unlimited:  # as many pairs as there are may be nominated
        rows = min(rows, max(8, chunk // (64 * width)))
        blocks = [(part, count) for queries, count in blocks for part in queries.split(rows)]
    if unlimited and 16 * width * (task.y.rows.shape[1] + 1) > chunk:
        tiles = _passing_tiles(task, group, dtype, chunk)
    else:
        tiles = _cached_tiles(task, group, width, dtype, threads)
    (queries, count), rest = blocks[0], blocks[1:]
    if not unlimited:
        rest = [(queries[PILOT:], count), *rest] if len(queries) > PILOT else rest
        queries = queries[:PILOT]

    def search_block(block: tuple[torch.Tensor, int]) -> torch.Tensor:
        return _block(task, group, *block, tiles, dtype, unlimited=unlimited)

    tried, wide = [(queries, count)], [search_block((queries, count))]
    untried = rest if 2 * int(wide[0].sum()) > len(queries) else []
    if not untried:
        fit = chunk // (rows * width * torch.finfo(dtype).bits // 8)
        tried += rest
        wide += _in_threads(search_block, rest, min(threads, max(1, fit)))
    left = [(queries[over], count) for (queries, count), over in zip(tried, wide, strict=True) if bool(over.any())]
    done = [queries[~over] for (queries, _), over in zip(tried, wide, strict=True)]
    return _merged(left + untried, max(len(queries) for queries, _ in blocks)), done


def _merged(blocks: list[tuple[torch.Tensor, int]], size: int) -> list[tuple[torch.Tensor, int]]:
    """Return blocks of about `size` queries made of smaller ones."""
    merged: list[tuple[list[torch.Tensor], int]] = []
    for queries, count in blocks:
        if merged and sum(map(len, merged[-1][0])) + len(queries) <= size:
            merged[-1] = ([*merged[-1][0], queries], max(merged[-1][1], count))
        else:
            merged.append(([queries], count))
    return [(torch.cat(parts), count) for parts, count in merged]


@contextlib.contextmanager
def _one_thread_each(device: torch.device) -> Iterator[int]:
    """Yield how many threads may work; on the CPU each of them then computes alone and waits for no other's share."""
    threads = torch.get_num_threads()
    if device.type != "cpu" or threads == 1:
        yield 1
        return
    torch.set_num_threads(1)
    try:
        yield threads
    finally:
        torch.set_num_threads(threads)


def _in_threads(function: Callable[[T], R], items: list[T], workers: int) -> list[R]:
    """Return `function` of each item, computed in some threads."""
    if workers == 1:
        return [function(item) for item in items]
    with ThreadPoolExecutor(workers) as pool:
        return list(pool.map(function, items))


def _take(side: _Side, which: torch.Tensor | slice) -> _Side:
    """Return some of the points."""
    return _Side(side.rows[which], None if side.zero is None else side.zero[which])


def _cached_tiles(task: _Task, group: _Group, width: int, dtype: torch.dtype, threads: int) -> Tiles:
    """Return a function that gives the first points of a group as one tile, kept from block to block."""
    points = task.y if group.points is None else _take(task.y, group.points[:width])
    operand, _, worst = _operand(points, group.centre, task, dtype, side=1, threads=threads)

    def tiles(count: int) -> Iterator[tuple[int, torch.Tensor, float]]:
        yield 0, operand[:count], worst

    return tiles


def _passing_tiles(task: _Task, group: _Group, dtype: torch.dtype, chunk: int) -> Tiles:
    """Return a function that gives the first points of a group a tile at a time, made when they are needed."""
    step = max(1, chunk // (32 * task.y.rows.shape[1]))

    def tiles(count: int) -> Iterator[tuple[int, torch.Tensor, float]]:
        for start in range(0, count, step):
            part = slice(start, min(start + step, count))
            points = _take(task.y, part if group.points is None else group.points[part])
            operand, _, worst = _operand(points, group.centre, task, dtype, side=1)
            yield start, operand, worst

    return tiles


# ---------------------------------------------------------------------------------------------- which pairs matter


def _plan(x: _Side, y: _Side, wanted: int, metric: str, labels: np.ndarray | None, block: int) -> list[_Group]:
    """Divide the search by class if that excludes at least half of all pairs; else one group around the mean.

    For a query x with centre c the `wanted` points nearest to c, within ρ of it, lie within |x − c| + ρ of x.  So do
    its true neighbours, which therefore lie within 2|x − c| + ρ of c.
    """
    device = x.rows.device
    everything = torch.arange(len(x), device=device)
    whole = [_Group(_mean(y.rows), None, [(part, len(y)) for part in everything.split(block)])] if len(x) else []
    if labels is None or len(y) < SMALL:
        return whole
    classes = np.unique(labels)
    if not 1 < len(classes) <= 256 or _is_pointless(x, y, labels, metric):
        return whole
    members = [torch.from_numpy(np.flatnonzero(labels == label)).to(device) for label in classes]
    centres = torch.stack([_mean(y.rows[those]) for those in members])
    lower, upper = _to_centres(y, centres, metric)
    far = upper if x is y else _to_centres(x, centres, metric)[1]
    assigned = far.argmin(dim=1)
    groups: list[_Group] = []
    work = 0
    for number in range(len(classes)):
        mine = (assigned == number).nonzero()[:, 0]
        if not len(mine):
            continue
        radius, order = far[mine, number].sort(stable=True)
        mine = mine[order]
        kth = upper[:, number].kthvalue(wanted).values
        ordered, points = lower[:, number].sort(stable=True)
        blocks = []
        for part, radii in zip(mine.split(block), radius.split(block), strict=True):
            count = int(torch.searchsorted(ordered, (2 * radii[-1] + kth) * (1 + SLACK), right=True))
            work += len(part) * count
            blocks.append((part, count))
        if 2 * work > len(x) * len(y):
            return whole
        groups.append(_Group(centres[number], points[: blocks[-1][1]].clone(), blocks))
    return groups


def _is_pointless(x: _Side, y: _Side, labels: np.ndarray, metric: str) -> bool:
    """Say, from a sample, whether most points are within reach of most queries, so that nothing could be excluded."""
    every = max(1, len(y) // 4096)
    sample, labels = _take(y, slice(None, None, every)), labels[::every]
    members = [torch.from_numpy(np.flatnonzero(labels == label)).to(y.rows.device) for label in np.unique(labels)]
    centres = torch.stack([_mean(sample.rows[those[:64]]) for those in members])
    some_x, some_y = (_take(side, slice(None, None, len(side) // 256 + 1)) for side in (x, sample))
    radius, centre = _to_centres(some_x, centres, metric)[0].min(dim=1)
    far = _to_centres(some_y, centres, metric)[1]
    reach = 2 * radius + far.amin(dim=0)[centre]
    return float((far.T[centre] <= reach[:, None]).double().mean()) > 0.6


def _mean(rows: torch.Tensor) -> torch.Tensor:
    """Return the mean (d,) of some points, float64; it only centres, so its rounding does not matter."""
    total = torch.zeros(rows.shape[1], dtype=torch.float64, device=rows.device)
    for part in rows.split(ROWS):
        total += part.sum(dim=0, dtype=torch.float64)
    return total / len(rows)


def _to_centres(side: _Side, centres: torch.Tensor, metric: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Return bounds from below and above (n, C) of the distances between points and centres, float64."""
    lower = torch.empty((len(side), len(centres)), dtype=torch.float64, device=centres.device)
    upper = torch.empty_like(lower)
    error = _error(centres.shape[1], torch.float64, 0.0)
    middle = centres.mean(dim=0)
    c = centres - middle
    step = _rows_at_a_time(centres)
    for start in range(0, len(side), step):
        here = slice(start, start + step)
        part = _take(side, here)
        rows = part.rows.double() - middle
        if metric == "l1":
            found = torch.cdist(rows, c, p=1.0)
            size = rows.abs().sum(dim=1, keepdim=True) + c.abs().sum(dim=1)
            slack = error * (found + size)
            lower[here], upper[here] = (found - slack).clamp_min(0), found + slack
        else:
            products = rows @ (2 * c).T
            size = rows.square_().sum(dim=1, keepdim=True) + c.square().sum(dim=1)
            square = size - products
            if part.zero is not None:
                square += part.zero[:, None].double()
                size += part.zero[:, None].double()
            slack = 2 * error * size + centres.shape[1] * torch.finfo(torch.float64).tiny
            lower[here] = (square - slack).clamp_min(0).sqrt()
            upper[here] = (square + slack).clamp_min(0).sqrt()
    return lower, upper


def _rows_at_a_time(like: torch.Tensor) -> int:
    """Return how many rows (…, d) are worked on at a time."""
    return max(1, AT_A_TIME[like.device.type] // like.shape[1])


# ------------------------------------------------------------------------------------------------------ nomination


def _operand(
    points: _Side, centre: torch.Tensor, task: _Task, dtype: torch.dtype, *, side: int, threads: int = 1
) -> tuple[torch.Tensor, torch.Tensor, float]:
    """Return one side's factor of the products, its points' norms, and the worst relative rounding |x − x̃| / |x|.

    With r = (point − centre) · scale rounded to `dtype`: for L1 r itself; else for the points (side 1)
    (r, (1 − η)|r|²/2) and for the queries (side 0) (−r, 1), so that a product is V = (1 − η)|y|²/2 − ⟨x, y⟩, about
    (|x − y|² − |x|²) / 2; η is the error that `_threshold` allows for.  In bfloat16 the norm is split into three
    summands.  Norms, float64 (n,), are |r|², for L1 |r|.  A zero vector of the cosine counts as a unit vector at right
    angles to all others, those of the other side too.
    """
    rows, dimensions = points.rows.shape
    parts = 0 if task.metric == "l1" else 3 if dtype == torch.bfloat16 else 1
    operand = torch.empty((rows, dimensions + parts), dtype=dtype, device=points.rows.device)
    norms = torch.empty(rows, dtype=torch.float64, device=operand.device)
    lost = torch.zeros_like(norms)
    step = _rows_at_a_time(points.rows)

    def fill(start: int) -> None:
        part = slice(start, start + step)
        exact = _scaled(_take(points, part), centre, task.scale)
        rounded = exact.to(dtype)
        operand[part, :dimensions] = rounded if side or not parts else -rounded
        if dtype == torch.bfloat16:
            lost[part] = (rounded - exact).square_().sum(dim=1)
        norms[part] = (exact.square_() if parts else exact.abs_()).sum(dim=1)

    _in_threads(fill, list(range(0, rows, step)), threads)
    worst = float((lost / norms).nan_to_num_(0.0).max().sqrt())
    if points.zero is not None:
        norms += points.zero * task.scale**2
    if parts and side:
        half = norms * ((1 - _error(dimensions, dtype, 2 * worst)) / 2)
        for column in range(dimensions, dimensions + parts):
            operand[:, column] = half
            half -= operand[:, column]
    elif parts:
        operand[:, dimensions:] = 1
    return operand, norms, worst


def _scaled(points: _Side, centre: torch.Tensor, scale: float) -> torch.Tensor:
    """Return (points − centre) · scale, float64; scale is a power of two."""
    rows = points.rows.double() - centre  # a new tensor: float64 features are not to be written to
    rows *= scale
    return rows


def _error(dimensions: int, dtype: torch.dtype, rounding: float) -> float:
    """Return the η with which products are off by at most η(|x|² + |y|²) / 2, for L1 the relative error of the sum.

    γ = 2nu / (1 − nu), n = d + 16, u the unit roundoff, is twice the error of a sum of n terms in any order: once for
    the product and once for the norms beside it.  bfloat16 products are summed in float32; there `rounding`, the sum of
    both sides' relative rounding, comes on top: 2|⟨x, y⟩ − ⟨x̃, ỹ⟩| ≤ 2|x − x̃||y| + 2|x̃||y − ỹ| ≤ 1.1 rounding (|x|² + |y|²).
    """
    eps = torch.finfo(torch.float32 if dtype == torch.bfloat16 else dtype).eps
    share = (dimensions + 16) * eps / 2
    return 2 * share / (1 - share) + 1.1 * rounding if share < 0.1 else math.inf


def _threshold(
    bound: torch.Tensor,
    size: torch.Tensor,
    dimensions: int,
    dtype: torch.dtype,
    metric: str,
    rounding: tuple[float, float],
) -> torch.Tensor:
    """Return the value (n,) above which a computed product proves a distance larger than `bound` = D (L2: D²).

    L2, `size` = |x|²: what is computed for V (`_operand`) is at most (|x − y|² − |x|² + e(|x|² + |y|²) − η|y|²) / 2, with
    the error e of both sides' rounding.  As |y|² ≤ 2|x|² + 2D² for points within D, one with
    2V > D² − (1 − e)|x|² + max(0, e − η)(2|x|² + 2D²) is none of them.

    L1, `size` = |x|: the sum has the relative error η and rounding the residuals adds at most
    u(|x| + |y|) ≤ η(2|x| + D), so that a point with (1 − η)V > (1 + η)D + 2η|x| is none of them.

    Rounding to `dtype` is monotone, so that the last rounding of a product needs no allowance.
    """
    error, allowed = _error(dimensions, dtype, sum(rounding)), _error(dimensions, dtype, 2 * rounding[1])
    tiny = 64 * dimensions * torch.finfo(dtype).tiny  # lost below the range of normal numbers; the scale is 1
    bound = bound * (1 + SLACK)
    if metric == "l1":
        return (((1 + error) * bound + 2 * error * size + tiny) / (1 - error)).to(dtype)
    excess = max(0.0, error - allowed)
    return ((bound - (1 - error) * size + excess * (2 * size + 2 * bound) + tiny) / 2).to(dtype)


def _block(
    task: _Task,
    group: _Group,
    queries: torch.Tensor,
    count: int,
    tiles: Tiles,
    dtype: torch.dtype,
    *,
    unlimited: bool,
) -> torch.Tensor:
    """Settle a block of queries among the first `count` points of a group; return who was left over, bool (n,).

    The points are dealt out in turn to groups, several times as many as neighbours are wanted.  The best points of the
    `wanted` best groups are nominated first; the largest of their distances bounds the `wanted`-th of all from above, and
    every other point that this bound does not exclude is nominated too.  Only groups with such a point are looked into.
    """
    x = _take(task.x, queries)
    exact = _Side(x.rows.double(), x.zero)
    dimensions = x.rows.shape[1]
    operand, size, rounding = _operand(x, group.centre, task, dtype, side=0)
    depth = 2 ** min(5, max(1, count // (12 * task.wanted)).bit_length() - 1)
    groups = -(-count // depth)
    values = torch.empty((len(queries), groups * depth), dtype=dtype, device=operand.device)
    values[:, count:] = math.inf
    other = 0.0
    for start, points, worst in tiles(count):
        other = max(other, worst)
        target = values[:, start : start + len(points)]
        if task.metric == "l1":
            target.copy_(torch.cdist(operand, points, p=1.0))
        else:
            torch.mm(operand, points.T, out=target)
    dealt = values.view(len(queries), depth, groups)
    minima = _minima(dealt)
    best = minima.topk(task.wanted, dim=1, largest=False, sorted=False).indices
    members = best[:, :, None] + groups * torch.arange(depth, device=values.device)
    inside = values.gather(1, members.flatten(1)).view(members.shape)
    columns = inside.argmin(dim=2) * groups + best
    everyone = torch.arange(len(queries), device=values.device)
    places = columns + everyone[:, None] * values.shape[1]
    values.view(-1).index_fill_(0, places.flatten(), math.inf)  # not to be nominated again
    found = _distances(task, group, exact, everyone, columns)
    square = task.scale if task.metric == "l1" else task.scale**2
    bound = (found.amax(dim=1) + dimensions * LOST) * square * (2 if task.metric == "cosine" else 1)
    threshold = _threshold(bound, size, dimensions, dtype, task.metric, (rounding, other))[:, None]
    below = minima <= threshold
    wide = torch.zeros(len(queries), dtype=torch.bool, device=values.device)
    limit = 3 * task.wanted + 32
    if not unlimited:
        wide = below.sum(dim=1) > limit
        below &= ~wide[:, None]
    rows, more = _below(dealt, below, threshold)
    counts = torch.bincount(rows, minlength=len(queries))
    if not unlimited:
        wide |= counts > limit
        kept = ~wide[rows]
        rows, more, counts = rows[kept], more[kept], counts * ~wide
    # One row of nominated points for each query: the first, then the others, then nothing.
    place = task.wanted + torch.arange(len(rows), device=rows.device) - (counts.cumsum(0) - counts)[rows]
    width = task.wanted + int(counts.max())
    distances = torch.full((len(queries), width), math.inf, dtype=torch.float64, device=rows.device)
    index = torch.full((len(queries), width), len(task.y), device=rows.device)
    distances[:, : task.wanted], index[:, : task.wanted] = found, columns
    distances[rows, place], index[rows, place] = _distances(task, group, exact, rows, more[:, None])[:, 0], more
    if group.points is not None:
        nominated = index < len(task.y)
        index[nominated] = group.points[index[nominated]]
    kept = (~wide).nonzero()[:, 0]
    settled = queries[kept].cpu().numpy()
    true = distances[kept].cpu().numpy()
    true = np.sqrt(true) if task.metric == "l2" else true
    task.distances[settled], task.near[settled] = _ordered(true, index[kept].cpu().numpy(), task.wanted)
    return wide


def _minima(dealt: torch.Tensor) -> torch.Tensor:
    """Return the minima (n, groups) of (n, depth, groups), depth a power of two: much faster by halves than `amin`."""
    while dealt.shape[1] > 1:
        half = dealt.shape[1] // 2
        dealt = torch.minimum(dealt[:, :half], dealt[:, half:])
    return dealt[:, 0]


def _below(dealt: torch.Tensor, below: torch.Tensor, high: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the pairs (query, point), ordered by query, with a value ≤ `high` (n, 1), from the groups `below`."""
    rows, group = below.nonzero(as_tuple=True)
    pair, deep = (dealt[rows, :, group] <= high[rows]).nonzero(as_tuple=True)
    return rows[pair], deep * dealt.shape[2] + group[pair]


# -------------------------------------------------------------------------------------------------------- decision


def _distances(task: _Task, group: _Group, x: _Side, rows: torch.Tensor, columns: torch.Tensor) -> torch.Tensor:
    """Return the distances (n, w) of nominated pairs as the module's text defines them, for L2 their squares, float64.

    rows: (n,) numbers of queries among `x`; columns: (n, w) of points among the group's.
    """
    columns = columns if group.points is None else group.points[columns]
    found = direct(x.rows, task.y.rows, rows, columns, task.metric)
    if task.metric == "cosine":
        found /= 2
        if x.zero is not None:
            found[x.zero[rows]] = 1.0
        if task.y.zero is not None:
            found[task.y.zero[columns]] = 1.0
    return found


def _ordered(values: np.ndarray, index: np.ndarray, wanted: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the first `wanted` values of each row, by (value, index), and their indices."""
    order = np.lexsort((index, values), axis=1)[:, :wanted]
    return np.take_along_axis(values, order, 1), np.take_along_axis(index, order, 1)


def direct(x: torch.Tensor, y: torch.Tensor, rows: torch.Tensor, columns: torch.Tensor, metric: str) -> torch.Tensor:
    """Return S of the module's text, float64 (n, w): squared L2, or L1, of x[rows[i]] − y[columns[i, j]]; x is float64.

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
    step = max(1, _rows_at_a_time(x) // width)
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


def _members(
    near: np.ndarray,
    distances: np.ndarray,
    ask: np.ndarray,
    first: np.ndarray,
    member_of: np.ndarray,
    k: int,
    *,
    own: bool,
    rows: int = 1024,
) -> tuple[np.ndarray, np.ndarray]:
    """Return neighbours (n, k) among all points from those among the different points, by (distance, index).

    near, distances: for each different query the nearest different points. ask: which of them each query is.
    first: the first point of each kind, ascending. member_of: the kind of each point. own: leave out the query itself.
    """
    points = len(member_of)
    if len(first) == points:
        neighbours, distances = near[ask], distances[ask]
        return drop_own(neighbours, distances) if own else (neighbours, distances)
    members = np.argsort(member_of, kind="stable")
    counts = np.bincount(member_of)
    starts = np.cumsum(counts) - counts
    counts = np.minimum(counts, k + own)  # more of one kind are never needed
    out = np.empty((len(ask), k), np.int64), np.empty((len(ask), k))
    for begin in range(0, len(ask), rows):
        part = ask[begin : begin + rows]
        kinds, far = near[part], distances[part]
        enough = np.cumsum(counts[kinds], axis=1) >= k + own
        last = np.take_along_axis(far, np.where(enough.any(1), enough.argmax(1), far.shape[1] - 1)[:, None], 1)
        many = np.where(far <= last, counts[kinds], 0)
        flat = many.ravel()
        offset = np.arange(flat.sum()) - np.repeat(np.cumsum(flat) - flat, flat)
        index = members[np.repeat(starts[kinds].ravel(), flat) + offset]
        value = np.repeat(far.ravel(), flat)
        if own:
            asker = np.repeat(np.arange(begin, begin + len(part)), many.sum(axis=1))
            value[index == asker] = np.inf
        counted = many.sum(axis=1)
        inside = np.arange(counted.max()) < counted[:, None]
        table = np.full(inside.shape, np.inf), np.full(inside.shape, points)
        table[0][inside], table[1][inside] = value, index
        value, index = _ordered(*table, k)
        out[0][begin : begin + rows], out[1][begin : begin + rows] = index, value
    return out
