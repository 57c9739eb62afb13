"""Exact nearest neighbours at the speed of matrix products: products nominate, direct differences decide.

Problem. With x and y in float64, t_j = (x_j − y_j)² (L2, and cosine on the unit vectors) or |x_j − y_j| (L1), and S
the sum of the t_j in the order of `preprocessing.fold`, the distance is √S (L2), S (L1) or S/2 (cosine: 1 − cos of the
angle; a zero vector has the distance 1 to everything).  Neighbours are ordered by (distance, index).  Every operation
is elementwise in IEEE double precision, so the distances do not depend on batching, threads or device.

Method. Float32 products nominate (`nomination`); a query for which they nominate too many points, collapsed to where
they cannot be told apart, goes on to float64 products, which may nominate all. Points that are equal are searched once.
If most of the training points can be excluded by the triangle inequality through the class means, queries are searched
class by class among the points that are left, centred on that mean, so that few digits suffice at any collapse.

Certificate. Whoever is not nominated is farther than the k-th of those who are, by a bound of the products' rounding
that is known beforehand; the nominated are decided by the definition itself. There is no tolerance.
"""

from __future__ import annotations

import contextlib
import functools
import math
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
import torch

from ...runtime.errors import UserError
from ..preprocessing import ROWS, normalize, unique_rows
from .nomination import SLACK, Group, Points, Task, error, ordered, rows_at_a_time, settle

METRICS = ("l2", "l1", "cosine")
#: Binary exponents between which squares neither overflow nor vanish; float32 features have −149 … 128.
EXPONENTS = (-500, 500)
#: Queries that are searched together, and how much more memory than `chunk_mib` they may take, by device.
BLOCK = {"cpu": 512, "cuda": 4096}
GENEROUS = {"cpu": 1, "cuda": 8}
#: Fewer training points than this are not worth dividing by class.
SMALL = 2000


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


def search(train: np.ndarray, queries: np.ndarray | None, k: int, **options: object) -> Found:
    """Return the k nearest training points of every query; see `searches`."""
    return searches(train, [queries], k, **options)[0]  # type: ignore[arg-type]


def searches(
    train: np.ndarray,
    asked: Sequence[np.ndarray | None],
    k: int,
    *,
    metric: str = "l2",
    labels: np.ndarray | None = None,
    device: str = "cpu",
    chunk_mib: int = 256,
) -> list[Found]:
    """Return the k nearest training points of every query of some sets, exactly as the module's text defines them.

    Parameters
    ----------
    train: (N, d) finite features, float32, or float64 with its largest between 1e-150 and 1e150 (or all zero).
    asked: for each set its queries (M, d), or None for the training points, each without its own index (equal points stay).
    k: neighbours; at most N, N − 1 for the training points themselves.
    metric: "l2", "l1" or "cosine".
    labels: (N,) integers; classes that lie apart make the search faster, and have no other influence.
    device: "cpu" or "cuda".
    chunk_mib: bound of the blocks of products, in MiB (on a GPU eight times as much); beside them the search holds one
        float32 copy of `train`.
    """
    for queries in asked:
        if not 1 <= k <= len(train) - (queries is None):
            raise ValueError(f"k = {k} neighbours among {len(train) - (queries is None)} points")
    distinct, first, member_of = _distinct(train, metric)
    y = _points(distinct, metric, device)
    sides: list[tuple[Points, np.ndarray]] = []
    for queries in asked:
        if queries is None:
            sides.append((y, member_of))
        else:
            rows, _, ask = _distinct(queries, metric)
            sides.append((_points(rows, metric, device), ask))
    task = Task(y, metric, _scale([y, *(x for x, _ in sides)]), GENEROUS[y.rows.device.type] * chunk_mib * 2**20)
    index = _Index(task, None if labels is None else labels[first])
    results = []
    with _full_precision():
        for queries, (x, ask) in zip(asked, sides, strict=True):
            own = queries is None
            near, distances, stage, covered = index.nearest(x, min(k + own, len(y)))
            neighbours, distances = _members(near, distances, ask, first, member_of, k, own=own)
            counts = np.bincount(stage[ask], minlength=len(index.stages)) / max(1, len(ask))
            names = [str(dtype).removeprefix("torch.") for dtype in index.stages]
            settled = dict(zip(names, counts.tolist(), strict=True))
            results.append(Found(neighbours.astype(np.int32), distances, settled, round(covered, 6)))
    return results


def drop_own(neighbours: np.ndarray, distances: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return lists of the training points' k + 1 nearest (N, k + 1) without the point itself, or else without the last."""
    points, width = neighbours.shape
    rows = np.arange(points)
    is_own = neighbours == rows[:, None]
    drop = np.where(is_own.any(axis=1), is_own.argmax(axis=1), width - 1)
    keep = np.arange(width - 1) + (np.arange(width - 1) >= drop[:, None])
    return np.take_along_axis(neighbours, keep, 1), np.take_along_axis(distances, keep, 1)


def _distinct(features: np.ndarray, metric: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the different points whose differences are taken, the first row that each is, and which each row is.

    The points are the features, or for the cosine their unit vectors.
    """
    if metric == "cosine":
        features = normalize(features)
    elif features.dtype not in (np.float32, np.float64):
        features = features.astype(np.float64)
    first, member_of = unique_rows(features)
    return features if len(first) == len(features) else features[first], first, member_of


def _points(rows: np.ndarray, metric: str, device: str) -> Points:
    """Return points on the device."""
    tensor = torch.from_numpy(np.require(rows, requirements=["C", "W"])).to(device)
    zero = ~tensor.any(dim=1) if metric == "cosine" else None
    return Points(tensor, zero if zero is not None and bool(zero.any()) else None)


def _scale(sides: list[Points]) -> float:
    """Return the power of two that brings the largest coordinate to 1; one whose square is out of range raises `UserError`."""
    ends = [torch.stack(torch.aminmax(side.rows)).abs().max().item() for side in sides if len(side)]
    largest = max(ends, default=0.0) or 1.0
    exponent = math.frexp(largest)[1]
    if not EXPONENTS[0] < exponent < EXPONENTS[1]:
        raise UserError(
            f"the largest feature is {largest:.1e}, whose square is beyond the range of float64; rescale the features"
        )
    return 2.0**-exponent


@contextlib.contextmanager
def _full_precision() -> Iterator[None]:
    """Keep float32 products at float32 precision: the error bounds hold neither for TF32 nor for bfloat16."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


@contextlib.contextmanager
def _one_thread_each(device: torch.device) -> Iterator[int]:
    """Yield how many threads may work: on the CPU as many as torch has, each of which then computes alone.

    Threads that share each small operation wait for each other's share of it: on a busy machine ten times as long as they
    compute.
    """
    threads = torch.get_num_threads()
    workers = threads if device.type == "cpu" else 1
    torch.set_num_threads(1 if device.type == "cpu" else threads)
    try:
        yield workers
    finally:
        torch.set_num_threads(threads)


#: Queries of a block, and how many points of their group's order they need.
Block = tuple[torch.Tensor, int]


class _Index:
    """Different training points as all searches among them need them; `stages` are the arithmetics whose error has a bound."""

    def __init__(self, task: Task, labels: np.ndarray | None) -> None:
        self.task, self.labels = task, labels
        self.whole = Group(task, _mean(task.y.rows))
        dimensions = task.y.rows.shape[1]
        self.stages = [t for t in (torch.float32, torch.float64) if math.isfinite(error(dimensions, t))]
        self.bounds: tuple[torch.Tensor, torch.Tensor, torch.Tensor] | None = None

    def nearest(self, x: Points, wanted: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, float]:
        """Return the `wanted` nearest points of each of `x`, (n, wanted), their distances, and how they were found.

        That is: the number of the stage that settled each query, and the fraction of pairs covered. On the training points'
        own search the point itself is one of its neighbours.
        """
        y = self.task.y
        near, far = np.empty((len(x), wanted), np.int64), np.empty((len(x), wanted))
        stage = np.zeros(len(x), np.int64)

        def search_block(group: Group, block: Block) -> None:
            left, count = block
            for number, dtype in enumerate(self.stages):
                if not len(left):
                    break
                last = number == len(self.stages) - 1
                # As many pairs as there are may be nominated at last.
                size = max(8, self.task.chunk // (64 * count)) if last else len(left)
                wide = []
                for part in left.split(size):
                    over, index, values = settle(group, x.take(part), count, wanted, dtype, limited=not last)
                    done = part[~over].cpu().numpy()
                    near[done], far[done], stage[done] = index, values, number
                    wide.append(part[over])
                left = torch.cat(wide)

        covered = 0
        with _one_thread_each(y.rows.device) as workers, ThreadPoolExecutor(workers) as pool:
            fit = self.task.chunk // (4 * len(y) * workers)
            for group, blocks in self._plan(x, wanted, max(32, min(BLOCK[y.rows.device.type], fit))):
                covered += sum(len(queries) * count for queries, count in blocks)
                if torch.float32 in self.stages:
                    group.prepare(max(count for _, count in blocks))
                each = pool.map if workers > 1 else map
                list(each(functools.partial(search_block, group), blocks))
        return near, far, stage, covered / max(1, len(x) * len(y))

    def _plan(self, x: Points, wanted: int, size: int) -> list[tuple[Group, list[Block]]]:
        """Divide a search by class if that excludes at least half of all pairs; else one group around the mean.

        For a query x with centre c the `wanted` points nearest to c, within ρ of it, lie within |x − c| + ρ of x.  So do
        its true neighbours, which therefore lie within 2|x − c| + ρ of c.
        """
        y, metric = self.task.y, self.task.metric
        everything = torch.arange(len(x), device=x.rows.device)
        whole = [(self.whole, [(part, len(y)) for part in everything.split(size)])] if len(x) else []
        if self.labels is None or len(y) < SMALL or not len(x):
            return whole
        if not 1 < len(np.unique(self.labels)) <= 256 or _is_pointless(x, y, self.labels, metric):
            return whole
        if self.bounds is None:
            centres = _centres(y.rows, self.labels)
            self.bounds = centres, *_to_centres(y, centres, metric)
        centres, lower, upper = self.bounds
        far = upper if x is y else _to_centres(x, centres, metric)[1]
        assigned = far.argmin(dim=1)
        groups, work = [], 0
        for number, centre in enumerate(centres):
            mine = (assigned == number).nonzero()[:, 0]
            if not len(mine):
                continue
            radius, order = far[mine, number].sort(stable=True)
            kth = upper[:, number].kthvalue(wanted).values
            closest, points = lower[:, number].sort(stable=True)
            blocks = []
            for part, radii in zip(mine[order].split(size), radius.split(size), strict=True):
                count = int(torch.searchsorted(closest, (2 * radii[-1] + kth) * (1 + SLACK), right=True))
                work += len(part) * count
                blocks.append((part, count))
            if 2 * work > len(x) * len(y):
                return whole
            groups.append((Group(self.task, centre, points[: blocks[-1][1]].clone()), blocks))
        return groups


def _is_pointless(x: Points, y: Points, labels: np.ndarray, metric: str) -> bool:
    """Say, from a sample, whether most points are within reach of most queries, so that nothing could be excluded."""
    every = max(1, len(y) // 4096)
    sample = y.take(slice(None, None, every))
    centres = _centres(sample.rows, labels[::every], 64)
    some_x, some_y = (side.take(slice(None, None, len(side) // 256 + 1)) for side in (x, sample))
    radius, centre = _to_centres(some_x, centres, metric)[0].min(dim=1)
    far = _to_centres(some_y, centres, metric)[1]
    reach = 2 * radius + far.amin(dim=0)[centre]
    return float((far.T[centre] <= reach[:, None]).double().mean()) > 0.6


def _centres(rows: torch.Tensor, labels: np.ndarray, most: int | None = None) -> torch.Tensor:
    """Return the mean (C, d) of each class's points, or of the first few of them."""
    members = (np.flatnonzero(labels == label)[:most] for label in np.unique(labels))
    return torch.stack([_mean(rows[torch.from_numpy(those).to(rows.device)]) for those in members])


def _mean(rows: torch.Tensor) -> torch.Tensor:
    """Return the mean (d,) of some points, float64; it only centres, so its rounding does not matter."""
    total = torch.zeros(rows.shape[1], dtype=torch.float64, device=rows.device)
    for part in rows.split(ROWS):
        total += part.sum(dim=0, dtype=torch.float64)
    return total / len(rows)


def _to_centres(side: Points, centres: torch.Tensor, metric: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Return bounds from below and above (n, C) of the distances between points and centres, float64."""
    lower = torch.empty((len(side), len(centres)), dtype=torch.float64, device=centres.device)
    upper = torch.empty_like(lower)
    share = error(centres.shape[1], torch.float64)
    middle = centres.mean(dim=0)
    c = centres - middle
    step = rows_at_a_time(centres)
    for start in range(0, len(side), step):
        here = slice(start, start + step)
        part = side.take(here)
        rows = part.rows.double() - middle
        if metric == "l1":
            found = torch.cdist(rows, c, p=1.0)
            slack = share * (found + rows.abs().sum(dim=1, keepdim=True) + c.abs().sum(dim=1))
            lower[here], upper[here] = (found - slack).clamp_min(0), found + slack
            continue
        products = rows @ (2 * c).T
        size = rows.square_().sum(dim=1, keepdim=True) + c.square().sum(dim=1)
        if part.zero is not None:
            size += part.zero[:, None].double()
        slack = 2 * share * size + centres.shape[1] * torch.finfo(torch.float64).tiny
        lower[here] = (size - products - slack).clamp_min(0).sqrt()
        upper[here] = (size - products + slack).clamp_min(0).sqrt()
    return lower, upper


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
        out[0][begin : begin + rows], out[1][begin : begin + rows] = ordered(*table, k)
    return out
