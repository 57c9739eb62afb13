"""The k-NN probe: every neighbour equal to the truth, whatever the features look like and whichever way it was found."""

from __future__ import annotations

import json
import threading
import tracemalloc
from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch
from dnn_or_knn.probes import knn
from dnn_or_knn.probes.common import ProbeResult, check_input, load, one_class, spread
from dnn_or_knn.probes.solvers import neighbours, nomination
from dnn_or_knn.probes.solvers.neighbours import search
from dnn_or_knn.runtime.errors import UserError
from hypothesis import given, settings
from hypothesis import strategies as st
from simulated_cuda import simulated
from sklearn.neighbors import NearestNeighbors

METRICS = ("l2", "l1", "cosine")


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


# The truth: all pairs, in NumPy, by the formula of the module's text, written out once more.


def summed(terms: np.ndarray) -> np.ndarray:
    """Sum the last axis: the upper half onto the lower, until one term is left."""
    while terms.shape[-1] > 1:
        half = (terms.shape[-1] + 1) // 2
        padded = np.zeros((*terms.shape[:-1], 2 * half))
        padded[..., : terms.shape[-1]] = terms
        terms = padded[..., :half] + padded[..., half:]
    return terms[..., 0]


def unit(rows: np.ndarray) -> np.ndarray:
    """Divide by the largest magnitude, then by the length."""
    rows = rows.astype(np.float64)
    rows = rows / np.where(rows.any(axis=1), np.abs(rows).max(axis=1), 1.0)[:, None]
    return rows / np.where(rows.any(axis=1), np.sqrt(summed(rows * rows)), 1.0)[:, None]


def truth(train: np.ndarray, queries: np.ndarray | None, k: int, metric: str) -> tuple[np.ndarray, np.ndarray]:
    """Return neighbours and distances (n, k), ordered by (distance, index)."""
    y = unit(train) if metric == "cosine" else train.astype(np.float64)
    asked = train if queries is None else queries
    x = unit(asked) if metric == "cosine" else asked.astype(np.float64)
    near, far = np.empty((len(x), k), int), np.empty((len(x), k))
    for i, point in enumerate(x):
        terms = np.abs(point - y) if metric == "l1" else (point - y) ** 2
        distance = summed(terms)
        if metric == "l2":
            distance = np.sqrt(distance)
        if metric == "cosine":
            distance = np.where(point.any() & y.any(axis=1), distance / 2, 1.0)
        order = np.lexsort((np.arange(len(y)), distance))
        order = order[order != i] if queries is None else order
        near[i], far[i] = order[:k], distance[order[:k]]
    return near, far


def assert_true(
    train: np.ndarray,
    queries: np.ndarray | None,
    k: int,
    metric: str = "l2",
    labels: np.ndarray | None = None,
    chunk_mib: int = 256,
) -> neighbours.Found:
    before = train.copy()
    found = search(train, queries, k, metric=metric, labels=labels, chunk_mib=chunk_mib)
    assert np.array_equal(train, before)
    near, far = truth(train, queries, k, metric)
    assert np.array_equal(found.neighbours, near)
    assert np.array_equal(found.distances, far)
    assert found.neighbours.dtype == np.int32 and found.distances.dtype == np.float64
    assert np.isclose(sum(found.settled.values()), 1.0)
    return found


def clusters(points: int, dimensions: int, spread_: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Ten classes around points of length 1, each a cloud of radius `spread_`: features of a trained network."""
    random = np.random.default_rng(seed)
    labels = random.integers(0, 10, points)
    centres = unit(random.normal(size=(10, dimensions)))
    noise = random.normal(size=(points, dimensions)) / dimensions**0.5
    return (centres[labels] + spread_ * noise).astype(np.float32), labels


# Every neighbour.

RANDOM = np.random.default_rng(5)
KINDS: dict[str, Callable[[int, int], np.ndarray]] = {
    "random": lambda n, d: RANDOM.normal(size=(n, d)),
    "dead": lambda n, d: RANDOM.normal(size=(n, d)) * (RANDOM.random(d) < 0.2) * (RANDOM.random((n, 1)) < 0.8),
    "duplicates": lambda n, d: RANDOM.normal(size=(40, d))[RANDOM.integers(0, 40, n)],
    "two values": lambda n, d: RANDOM.integers(0, 2, size=(n, d)),
    "lattice": lambda n, d: np.pad(RANDOM.integers(0, 3, size=(n, 5)), ((0, 0), (0, d - 5))),
    "equal": lambda n, d: np.full((n, d), 0.1),
    "zero": lambda n, d: np.zeros((n, d)),
    "far from 0": lambda n, d: 1e4 + RANDOM.normal(size=(n, d)),
    "tiny": lambda n, d: 1e-30 * RANDOM.normal(size=(n, d)),
    "huge": lambda n, d: 1e30 * RANDOM.normal(size=(n, d)),
    "of all sizes": lambda n, d: RANDOM.normal(size=(n, d)) * 10.0 ** RANDOM.integers(-30, 30, size=(n, 1)),
    "one dimension": lambda n, d: RANDOM.normal(size=(n, 1)),
}


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("kind", KINDS)
def test_every_neighbour_is_true(kind: str, metric: str) -> None:
    features = KINDS[kind](300, 70).astype(np.float32)
    assert_true(features, None, 30, metric)
    assert_true(features[:200], features[200:], 30, metric)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("sizes", [(1e-149, 1e-161), (1.0, 1e-161), (1e149, 1.0), (3e38, 1e-44), (1e-149, 1e-149)])
def test_every_neighbour_is_true_at_the_ends_of_float64(sizes: tuple[float, float], metric: str) -> None:
    """Squares of the small differences are rounded to multiples of the least float64, or to 0."""
    random = np.random.default_rng(8)
    features = np.where(random.random((150, 1)) < 0.05, *sizes) * random.normal(size=(150, 66)).clip(-1, 1)
    assert_true(features, None, 9, metric)
    assert_true(features[:100], features[100:], 9, metric)


@pytest.mark.parametrize("metric", ["l2", "l1"])
@pytest.mark.parametrize("size", [1e-160, 1e160])
def test_features_whose_squares_leave_float64_are_one_sentence(size: float, metric: str) -> None:
    with pytest.raises(UserError, match=r"the largest feature is 2\.0e.160, .*; rescale the features"):
        search(size * np.array([[1.0], [2.0]]), None, 1, metric=metric)
    assert search(size * np.array([[1.0], [2.0]]), None, 1, metric="cosine").distances.tolist() == [[0], [0]]


@pytest.mark.parametrize("by_class", [True, False])
@pytest.mark.parametrize("spread_", [0.3, 1e-2, 1e-3, 1e-4, 3e-5, 1e-5])
def test_every_neighbour_is_true_on_collapsed_features(
    spread_: float, by_class: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(neighbours, "SMALL", 100)
    count = 900 if spread_ <= 1e-4 and not by_class else 450
    features, labels = clusters(count + 150, 64, spread_)
    given_labels = labels[:count] if by_class else None
    for queries in (None, features[count:]):
        found = assert_true(features[:count], queries, 10, labels=given_labels)
        assert (found.covered < 0.2) == by_class  # nine classes in ten are never looked at
        if by_class:
            assert found.settled["float64"] == 0
    if not by_class and spread_ <= 1e-4:
        assert found.settled["float64"] > 0.9


@pytest.mark.parametrize("metric", ["l1", "cosine"])
def test_classes_make_the_search_shorter_in_every_metric(metric: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(neighbours, "SMALL", 100)
    features, labels = clusters(600, 64, 1e-3)
    assert assert_true(features, None, 10, metric, labels).covered < 0.2


def test_labels_that_say_nothing_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(neighbours, "SMALL", 100)
    features, labels = clusters(600, 64, 0.01)
    for useless in (RANDOM.permutation(labels), np.zeros_like(labels), np.arange(600)):
        assert_true(features, None, 7, labels=useless)


def test_outliers_of_a_class_find_their_neighbours_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(neighbours, "SMALL", 100)
    monkeypatch.setitem(neighbours.BLOCK, "cpu", 50)
    features, labels = clusters(800, 64, 0.05)
    features[::40] = features[1::40] + 1e-3  # these lie in another class than their label says
    features[5::80] *= 3
    assert assert_true(features, None, 12, labels=labels).covered < 0.5


@pytest.mark.parametrize("metric", ["l2", "l1"])
def test_neighbours_beyond_the_query_as_seen_from_its_class_are_found(
    metric: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(neighbours, "SMALL", 100)
    random = np.random.default_rng(4)
    places = np.repeat(
        [0.0, 20.0, 10.0, 1.5], [300, 300, 300, 12]
    )  # the last are of the third class, but near the first
    features = np.zeros((912, 64), np.float32)
    features[:, 0] = places + 1e-3 * random.normal(size=912)
    queries = np.zeros((40, 64), np.float32)
    queries[:, 0] = np.repeat([0.0, 10.0, 1.0], [20, 15, 5]) + 1e-3 * random.normal(size=40)
    found = assert_true(features, queries, 5, metric, np.repeat([0, 1, 2], [300, 300, 312]))
    assert found.covered < 0.5 and (found.neighbours[-5:] >= 900).all()


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("chunk_mib", [1, 256])
@pytest.mark.parametrize("double", [False, True])
def test_blocks_and_float64_features_change_nothing(
    metric: str, chunk_mib: int, double: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(neighbours.BLOCK, "cpu", 100 * chunk_mib)
    random = np.random.default_rng(2)
    features = random.normal(size=(600, 66)).astype(np.float64 if double else np.float32)
    features[400:] = 1e-5 * features[400:] + 1
    assert_true(features, None, 5, metric, chunk_mib=chunk_mib)


def test_threads_change_nothing() -> None:
    features = np.random.default_rng(3).normal(size=(1500, 65)).astype(np.float32)
    before = threading.active_count()
    alone = search(features, None, 9)
    torch.set_num_threads(3)
    try:
        together = search(features, None, 9)
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(1)
    assert np.array_equal(alone.neighbours, together.neighbours)
    assert np.array_equal(alone.distances, together.distances) and alone.settled == together.settled
    assert threading.active_count() == before


@settings(deadline=None, max_examples=60)
@given(data=st.data(), metric=st.sampled_from(METRICS), own=st.booleans(), double=st.booleans())
def test_few_points(data: st.DataObject, metric: str, own: bool, double: bool) -> None:
    """Handfuls of points with many equal distances and equal rows, one dimension and k up to all points."""
    number = st.sampled_from([0.0, -0.0, 1.0, -1.0, 0.5, 3.0, 1e-20, 1e20])
    dimensions = data.draw(st.integers(1, 4))
    row = st.lists(number, min_size=dimensions, max_size=dimensions)
    kind = np.float64 if double else np.float32
    train = np.array(data.draw(st.lists(row, min_size=2, max_size=14)), kind)
    queries = None if own else np.array(data.draw(st.lists(row, min_size=1, max_size=6)), kind)
    k = data.draw(st.integers(1, len(train) - own))
    labels = np.array(data.draw(st.lists(st.integers(0, 2), min_size=len(train), max_size=len(train))))
    assert_true(train, queries, k, metric, labels)


@settings(deadline=None, max_examples=20)
@given(
    points=st.integers(40, 200),
    dimensions=st.integers(60, 130),
    spread_=st.floats(-6, 0),
    copies=st.floats(0, 1),
    k=st.integers(1, 35),
    seed=st.integers(0, 10**6),
)
def test_clouds_with_copies(points: int, dimensions: int, spread_: float, copies: float, k: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    features, labels = clusters(points, dimensions, 10.0**spread_, seed)
    copied = random.random(points) < copies
    features[copied] = features[random.integers(0, points, copied.sum())]
    assert_true(features, None, k, labels=labels)


@pytest.mark.parametrize("metric", METRICS)
def test_scikit_learn_agrees_wherever_distances_differ(metric: str) -> None:
    features, _ = clusters(500, 40, 0.5)
    features[7] = 0
    name = {"l2": "euclidean", "l1": "manhattan"}.get(metric, metric)
    index = NearestNeighbors(n_neighbors=20, algorithm="brute", metric=name).fit(features[:400].astype(np.float64))
    for queries, theirs in (
        (None, index.kneighbors()),
        (features[400:], index.kneighbors(features[400:].astype("f8"))),
    ):
        found = search(features[:400], queries, 20, metric=metric)
        assert np.allclose(found.distances, theirs[0], rtol=1e-9, atol=1e-12)
        far = truth(features[:400], queries, 21, metric)[1]
        apart = np.diff(far, axis=1) > 1e-9
        certain = apart & np.concatenate([np.ones((len(apart), 1), bool), apart[:, :-1]], axis=1)
        assert certain.mean() > 0.9
        assert np.array_equal(found.neighbours[certain], theirs[1][certain])


# The certificate.


def skewed(points: int, dtype: torch.dtype) -> np.ndarray:
    """Points whose coordinates are all rounded in the same direction, by as much as rounding ever does."""
    features = np.full((points, 100), 1 + 0.99 * torch.finfo(dtype).eps / 2)
    features[np.arange(points), np.arange(points) % 100] = 2.0 ** -(np.arange(points) % 7)
    return features


@pytest.mark.parametrize(
    ("metric", "dtype"),
    [(metric, dtype) for metric in ("l2", "l1") for dtype in (torch.float32, torch.float64)],
)
@pytest.mark.parametrize("kind", ["cloud", "collapsed", "skewed"])
def test_no_product_errs_more_than_the_bound(kind: str, dtype: torch.dtype, metric: str) -> None:
    """A point at a distance D is never taken for one that is farther, and not much is taken for nearer."""
    features = (
        skewed(400, dtype) if kind == "skewed" else clusters(400, 100, {"cloud": 1.0, "collapsed": 1e-3}[kind])[0]
    )
    side = nomination.Points(torch.from_numpy(features), None)
    few = side.take(slice(0, 50))
    task = nomination.Task(side, metric, 0.5, 2**20)
    centre = neighbours._mean(side.rows) * (kind != "skewed")
    points, _ = nomination.operand(side, centre, task, dtype, side=1)
    asked, size = nomination.operand(few, centre, task, dtype, side=0)
    values = torch.cdist(asked, points, p=1.0) if metric == "l1" else asked @ points.T
    rows = torch.arange(50).repeat_interleave(400)
    columns = torch.arange(400).repeat(50, 1)
    exact = few.rows.double()
    true = nomination.direct(exact, side.rows, torch.arange(50), columns, metric).flatten()
    true = true * (task.scale if metric == "l1" else task.scale**2)

    def thresholds(bound: torch.Tensor) -> torch.Tensor:
        return nomination.threshold(bound, size[rows], 100, dtype, metric)

    assert (values.flatten() <= thresholds(true)).all()
    if dtype == torch.float64:
        assert (values.flatten() > thresholds(true * (1 - 1e-5) - 1e-11)).all()


def test_no_arithmetic_is_used_whose_error_has_no_bound() -> None:
    """float32 sums of millions of terms may be altogether wrong; the middle point, of norm 0, was once lost to 0 · ∞."""
    two = np.random.default_rng(0).standard_normal((2, 1_700_000), dtype=np.float32)
    found = search(np.concatenate([two, -two, np.zeros_like(two[:1])]), None, 2)
    assert list(found.settled) == ["float64"]
    assert found.neighbours[:4, 0].tolist() == [4] * 4
    assert "float32" in search(two[:, :1000], None, 1).settled


def test_lower_precision_allowed_outside_does_not_reach_the_products() -> None:
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        assert_true(clusters(200, 64, 1e-2)[0], None, 5)
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision(before)


def test_searches_prepared_together_are_those_made_alone() -> None:
    features, labels = clusters(500, 40, 0.1)
    features[:20] = features[20:40]
    asked = (None, features[300:] * np.float32(1e9), features[:5], features[:0])
    together = neighbours.searches(features[:300], asked, 8, labels=labels[:300])
    for queries, found in zip(asked, together, strict=True):
        alone = search(features[:300], queries, 8, labels=labels[:300])
        assert np.array_equal(found.neighbours, alone.neighbours) and np.array_equal(found.distances, alone.distances)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("spread_", [1.0, 1e-5])
def test_cuda_finds_the_same_neighbours(metric: str, spread_: float) -> None:
    features, labels = clusters(3000, 100, spread_)
    here, there = (search(features, None, 30, metric=metric, labels=labels, device=d) for d in ("cpu", "cuda"))
    assert np.array_equal(here.neighbours, there.neighbours) and np.array_equal(here.distances, there.distances)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize(
    "kind", ["random", "dead", "duplicates", "lattice", "equal", "zero", "far from 0", "of all sizes"]
)
def test_a_simulated_gpu_finds_the_same_neighbours(kind: str, metric: str) -> None:
    features = KINDS[kind](150, 70).astype(np.float32)
    for queries in (None, features[100:]):
        near, far = truth(features, queries, 20, metric)
        with simulated():
            found = search(features, queries, 20, metric=metric, device="cuda")
        assert np.array_equal(found.neighbours, near) and np.array_equal(found.distances, far)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("spread_", [1e-2, 1e-7])
@pytest.mark.parametrize("chunk_mib", [1, 256])
def test_a_simulated_gpu_searches_class_by_class(
    monkeypatch: pytest.MonkeyPatch, spread_: float, metric: str, chunk_mib: int
) -> None:
    """Collapsed classes, with all stages, in one tile or in many."""
    monkeypatch.setattr(neighbours, "SMALL", 100)
    monkeypatch.setitem(neighbours.GENEROUS, "cuda", 1 if chunk_mib == 1 else 8)
    features, labels = clusters(900, 40, spread_)
    here = search(features, None, 12, metric=metric, labels=labels)
    with simulated() as device:
        there = search(features, None, 12, metric=metric, labels=labels, device="cuda", chunk_mib=chunk_mib)
    assert here.covered == there.covered < 0.5
    assert np.array_equal(here.neighbours, there.neighbours) and np.array_equal(here.distances, there.distances)
    # A few looks at each class, a few at each of its blocks of queries; none at single queries.
    assert sum(device.waits.values()) < 100 * len(np.unique(labels))


def test_memory_is_bounded_by_the_chunk() -> None:
    features = np.random.default_rng(0).normal(size=(6000, 8)).astype(np.float32)
    taken: list[int] = []
    empty = torch.empty

    def counting(*size: object, **options: object) -> torch.Tensor:
        made = empty(*size, **options)
        taken.append(made.nbytes)
        return made

    tracemalloc.start()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "empty", counting)
        search(features, None, 3, chunk_mib=2)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert max(taken) <= 2 * 2**20 and peak < 16 * 2**20  # all pairs would be 144 MB


@pytest.mark.parametrize("metric", METRICS)
def test_of_points_that_no_product_tells_apart_a_few_pairs_are_held_at_a_time(
    monkeypatch: pytest.MonkeyPatch, metric: str
) -> None:
    """Two points far apart, each a cloud too small for float64 products: half of all pairs are nominated."""
    random = np.random.default_rng(2)
    features = np.where(random.random((200, 1)) < 0.5, 1.0, -1.0) * np.arange(1, 41) + 1e-9 * random.normal(
        size=(200, 40)
    )
    whole = search(features, None, 3, metric=metric)
    empty, held = torch.empty, []

    def counting(*size: object, **options: object) -> torch.Tensor:
        made = empty(*size, **options)
        held.append(made.numel() if made.dtype == torch.float64 and made.shape[1:] == (20,) else 0)
        return made

    monkeypatch.setitem(nomination.HELD, "cpu", 20 * 400)
    monkeypatch.setattr(torch, "empty", counting)
    parts = assert_true(features, None, 3, metric)
    assert 0 < max(held) <= 20 * 400
    if metric != "l1":
        assert whole.settled["float64"] == 1.0
    assert np.array_equal(parts.distances, whole.distances)


# The probe.


def test_the_probe_returns_what_the_contract_says() -> None:
    features, labels = clusters(80, 12, 0.5)
    options = {"metric": "l2", "k_max": 6, "pca": None, "normalize": False, "backend": "exact", "chunk_mib": 16}
    result = load("knn")(features[:60], labels[:60], features[60:], classes=10, options=options, seed=0, device="cpu")
    assert isinstance(result, ProbeResult) and set(result.arrays) == {
        f"{split}_{what}" for split in ("train", "test") for what in ("neighbours", "distances")
    }
    near, far = truth(features[:60], None, 6, "l2")
    assert np.array_equal(result.arrays["train_neighbours"], near)
    assert np.array_equal(result.arrays["train_distances"], far)
    near, far = truth(features[:60], features[60:], 6, "l2")
    assert np.array_equal(result.arrays["test_neighbours"], near)
    assert result.arrays["test_neighbours"].dtype == np.int32
    report = json.loads(json.dumps(result.report))
    assert report["converged"] and report["gap"] == 0 and set(report["widened"]) == {"train", "test"}


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("backend", ["reference", "faiss"])
def test_the_libraries_agree_on_easy_features(backend: str, metric: str) -> None:
    features, labels = clusters(120, 12, 2.0)
    runs = [
        knn.run(
            features[:90],
            labels[:90],
            features[90:],
            classes=10,
            options={"metric": metric, "k_max": 5, "backend": chosen},
            seed=0,
            device="cpu",
        )
        for chosen in ("exact", backend)
    ]
    for split in ("train", "test"):
        ours, theirs = (run.arrays[f"{split}_neighbours"] for run in runs)
        assert (ours == theirs).mean() > 0.99 and theirs.dtype == np.int32
        distances = [run.arrays[f"{split}_distances"] for run in runs]
        assert np.allclose(*distances, atol=1e-5) and distances[1].dtype == np.float64
    assert runs[1].report["gap"] is None and (backend != "faiss" or "float32" in runs[1].report["engine"])


def test_pca_and_normalisation_come_before_the_search() -> None:
    features, labels = clusters(100, 12, 1.0)
    options = {"metric": "l1", "k_max": 4, "pca": 3, "normalize": True}
    result = knn.run(features[:80], labels[:80], features[80:], classes=10, options=options, seed=0, device="cpu")
    mean, basis = result.arrays["pca_mean"], result.arrays["pca_basis"]
    assert basis.shape == (12, 3)
    points = (unit(features) - mean) @ basis
    near, far = truth(points[:80], points[80:], 4, "l1")
    assert np.array_equal(result.arrays["test_neighbours"], near)
    assert np.allclose(result.arrays["test_distances"], far)


def test_a_sweep_of_k_raises_what_is_kept() -> None:
    features, labels = clusters(40, 5, 1.0)
    options = {"k": 3, "k_max": 2, "k_sweep": [1, 9]}
    result = knn.run(features, labels, features[:2], classes=10, options=options, seed=0, device="cpu")
    assert result.arrays["train_neighbours"].shape == (40, 9)
    kept = knn.run(features, labels, features[:2], classes=10, options={"k_max": 4}, seed=0, device="cpu")
    assert np.array_equal(result.arrays["train_neighbours"][:, :4], kept.arrays["train_neighbours"])


def run_on(features: np.ndarray, labels: np.ndarray, **options: object) -> ProbeResult:
    values = {"k_max": 3, **options}
    return knn.run(features, labels, features[:2], classes=3, options=values, seed=0, device="cpu")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"features": np.nan}, "1 train features are not finite .*point 4, dimension 1, value nan"),
        ({"features": np.inf}, "not finite"),
        ({"labels": 3}, "1 labels lie outside 0 … 2 .*point 4, label 3"),
        ({"labels": -1}, "label -1"),
        ({"k_max": 8}, "8 neighbours besides the point itself need at least 9 train points, but there are 8"),
        ({"metric": "l3"}, "metric is 'l3'"),
        ({"backend": "fast"}, "backend is 'fast'"),
    ],
)
def test_bad_input_is_one_sentence(change: dict[str, float], words: str) -> None:
    features, labels = np.ones((8, 2), np.float32), np.arange(8) % 3
    if "features" in change:
        features[4, 1] = change["features"]
    if "labels" in change:
        labels[4] = change["labels"]
    with pytest.raises(UserError, match=words) as caught:
        run_on(features, labels, **{key: v for key, v in change.items() if key not in ("features", "labels")})
    assert "\n" not in str(caught.value)


def test_odd_input_has_a_defined_result() -> None:
    constant = run_on(np.ones((5, 2), np.float32), np.zeros(5, int))
    assert constant.arrays["train_neighbours"].tolist() == [[1, 2, 3], [0, 2, 3], [0, 1, 3], [0, 1, 2], [0, 1, 2]]
    assert (constant.arrays["test_distances"] == 0).all()
    absent = run_on(KINDS["random"](6, 2).astype(np.float32), np.array([0, 2, 0, 2, 0, 2]))
    assert absent.arrays["train_neighbours"].shape == (6, 3)


@pytest.mark.parametrize(
    ("train", "labels", "test", "words"),
    [
        (np.ones((3, 2)), np.zeros(3, int), np.ones((2, 3)), "the same columns"),
        (np.ones((3, 2)), np.zeros(2, int), np.ones((2, 2)), "3 train points need as many labels"),
        (np.ones((0, 2)), np.zeros(0, int), np.ones((2, 2)), "are empty"),
        (np.ones((3, 2)), np.zeros(3), np.ones((2, 2)), "labels must be integers"),
        (np.ones((3, 2)), np.zeros(3, int), np.full((2, 2), np.nan), "4 test features are not finite"),
    ],
)
def test_what_all_probes_check(train: np.ndarray, labels: np.ndarray, test: np.ndarray, words: str) -> None:
    with pytest.raises(UserError, match=words):
        check_input(train, labels, test, 4)


def test_what_all_probes_share() -> None:
    ones = np.ones((3, 2), np.float32)
    present = check_input(ones, np.array([3, 1, 3]), ones[:1], 5)
    assert present.tolist() == [1, 3]
    assert spread(np.array([[0.25, 0.75]]), present, 5).tolist() == [[0, 0.25, 0, 0.75, 0]]
    single = one_class(2, ones, ones[:1], 4)
    assert single.arrays["train_probabilities"].tolist() == [[0, 0, 1, 0]] * 3
    assert single.arrays["test_decision"].tolist() == [2] and single.report["converged"]
    with pytest.raises(UserError, match="no probe module 'nearest'"):
        load("nearest")
