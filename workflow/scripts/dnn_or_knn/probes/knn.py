"""The k-NN probe: the nearest training points of every train and test point, from which any vote is read off.

On the train side the point itself is left out, by its index: points equal to it stay. What is kept are neighbours and
distances for the largest k that is configured; `votes.py` turns them into probabilities and labels.

Options: ``metric`` "l2", "l1" or "cosine"; ``k_max`` (``k`` and ``k_sweep`` raise it if they are larger); ``chunk_mib``,
the memory of the search beside its inputs; ``pca`` and ``normalize`` (`preprocessing.reduce`); ``backend``: "exact"
(`neighbours.searches`), "reference" (scikit-learn's brute force in float64) or "faiss" (a flat index, float32).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from ..runtime.errors import UserError
from .common import ProbeResult, check_input
from .preprocessing import Reduced, normalize, reduce
from .solvers.neighbours import METRICS, Found, drop_own, searches

Lists = tuple[np.ndarray, np.ndarray]
Backend = Callable[..., tuple[dict[str, Lists], dict[str, Any]]]


def run(
    train: np.ndarray,
    labels: np.ndarray,
    test: np.ndarray,
    *,
    classes: int,
    options: dict[str, Any],
    seed: int,
    device: str,
) -> ProbeResult:
    """Return the neighbours of all train and test points among the train points.

    Parameters
    ----------
    train, test: (N, d) and (M, d) features. labels: (N,), which only make the search faster. seed: not used.

    Returns
    -------
    ``{train,test}_neighbours`` int32 (n, k_max), ordered by (distance, index), and ``{train,test}_distances`` float64;
    with a PCA also ``pca_mean`` and ``pca_basis``. The report's ``settled`` are the fractions of points by the arithmetic
    whose products settled them, ``widened`` those that needed more than the first, ``covered`` the fractions of pairs that
    products were made of at all; ``gap`` is 0 where the neighbours are exact and None where nothing certifies them.

    Raises
    ------
    UserError: bad features or labels (`check_input`), or fewer points than neighbours.
    """
    started = time.perf_counter()
    k, metric, features = prepared(train, labels, test, classes, options)
    backend = options.get("backend", "exact")
    backends: dict[str, Backend] = {"exact": _exact, "reference": _scikit_learn, "faiss": _faiss}
    if backend not in backends:
        raise UserError(f"backend is '{backend}' but must be exact, reference or faiss; correct the k-NN probe")
    chunk = options.get("chunk_mib", 256)
    lists, report = backends[backend](features.train, features.test, k, metric, labels, device, chunk)
    return result(lists, report, started, features)


def prepared(
    train: np.ndarray, labels: np.ndarray, test: np.ndarray, classes: int, options: dict[str, Any]
) -> tuple[int, str, Reduced]:
    """Return how many neighbours are kept, the metric, and the features that are searched; parameters as in `run`."""
    check_input(train, labels, test, classes)
    k = max(options.get("k_max", 1), options.get("k", 1), *options.get("k_sweep", []), 1)
    if len(train) <= k:
        raise UserError(
            f"{k} neighbours besides the point itself need at least {k + 1} train points, but there are {len(train)}; "
            "lower k, k_max and k_sweep of the k-NN probe or take more images"
        )
    metric = options.get("metric", "l2")
    if metric not in METRICS:
        raise UserError(f"metric is '{metric}' but must be one of {', '.join(METRICS)}; correct the k-NN probe")
    return k, metric, reduce(train, test, options)


def result(
    lists: dict[str, Lists], report: dict[str, Any], started: float, features: Reduced | None = None
) -> ProbeResult:
    """Return neighbours and distances by split as the probe keeps them, with the report on a search that began at `started`."""
    arrays: dict[str, np.ndarray] = {}
    for split, (neighbours, distances) in lists.items():
        arrays[f"{split}_neighbours"] = neighbours.astype(np.int32)
        arrays[f"{split}_distances"] = distances.astype(np.float64)
    arrays |= features.arrays() if features else {}
    report = {"converged": True, "objective": None, "gap": None, "iterations": 0, **report}
    return ProbeResult(arrays, report | {"seconds": round(time.perf_counter() - started, 3)})


def _exact(
    train: np.ndarray, test: np.ndarray, k: int, metric: str, labels: np.ndarray, device: str, chunk_mib: int
) -> tuple[dict[str, Lists], dict[str, Any]]:
    """Return neighbours and distances by `searches`, and what it reports."""
    both = searches(train, [None, test], k, metric=metric, labels=labels, device=device, chunk_mib=chunk_mib)
    found = dict(zip(("train", "test"), both, strict=True))
    return {split: (one.neighbours, one.distances) for split, one in found.items()}, told(found)


def told(found: Mapping[str, Found]) -> dict[str, Any]:
    """Return the report on an exact search of each split."""
    report: dict[str, Any] = {"gap": 0.0, "engine": "products nominate, float64 differences decide"}
    for name in ("settled", "widened", "covered"):
        report[name] = {split: getattr(one, name) for split, one in found.items()}
    return report


def _scikit_learn(
    train: np.ndarray, test: np.ndarray, k: int, metric: str, *_: object
) -> tuple[dict[str, Lists], dict[str, Any]]:
    """Return neighbours and distances by scikit-learn; its order among equal distances is its own."""
    from sklearn.neighbors import NearestNeighbors

    name = {"l2": "euclidean", "l1": "manhattan"}.get(metric, metric)
    index = NearestNeighbors(n_neighbors=k, algorithm="brute", metric=name).fit(train.astype(np.float64))
    found = {"train": index.kneighbors(), "test": index.kneighbors(test.astype(np.float64))}
    lists = {split: (neighbours, distances) for split, (distances, neighbours) in found.items()}
    return lists, {"engine": "scikit-learn brute force, float64"}


def _faiss(
    train: np.ndarray, test: np.ndarray, k: int, metric: str, *_: object
) -> tuple[dict[str, Lists], dict[str, Any]]:
    """Return neighbours and distances by faiss, in float32; a point that is not among its own nearest is not missed."""
    import faiss

    if metric == "cosine":
        train, test = normalize(train), normalize(test)
    kind = {"l2": faiss.METRIC_L2, "l1": faiss.METRIC_L1, "cosine": faiss.METRIC_INNER_PRODUCT}[metric]
    index = faiss.IndexFlat(train.shape[1], kind)
    points = np.ascontiguousarray(train, dtype=np.float32)
    index.add(points)
    lists: dict[str, Lists] = {}
    for split, queries in (("train", points), ("test", np.ascontiguousarray(test, dtype=np.float32))):
        values, neighbours = index.search(queries, k + (split == "train"))
        distances = values.astype(np.float64)
        distances = {"l2": np.sqrt(np.maximum(distances, 0)), "l1": distances, "cosine": 1 - distances}[metric]
        lists[split] = drop_own(neighbours, distances) if split == "train" else (neighbours, distances)
    return lists, {"engine": "faiss flat index, float32"}
