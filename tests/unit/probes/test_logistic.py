"""The logistic regression probe: at scikit-learn's optimum, certified, and defined on every input."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch
from dnn_or_knn.probes.logistic import Objective, exact, run
from dnn_or_knn.probes.solvers import multinomial, softmax_problem
from dnn_or_knn.probes.solvers.l1_logistic import evaluate, fit_lasso
from dnn_or_knn.probes.solvers.multinomial import fit_softmax
from dnn_or_knn.probes.solvers.softmax_problem import evaluate as evaluate_softmax
from dnn_or_knn.runtime.errors import UserError
from hypothesis import given, settings
from hypothesis import strategies as st
from simulated_cuda import simulated

OBJECTIVES = [("multinomial", "l2"), ("ovr", "l2"), ("ovr", "l1")]


def blobs(
    n: int = 300, d: int = 8, classes: int = 4, spread: float = 1.0, seed: int = 0
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return train features, labels and test features: Gaussian classes, float32."""
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((classes, d))
    labels = np.arange(n) % classes
    train = centres[labels] + spread * rng.standard_normal((n, d))
    return train.astype(np.float32), labels, (centres[labels[:50]] + spread).astype(np.float32)


def single_from(monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    """Let float32 go first from products of `size` multiply-adds on."""
    for module in (multinomial, softmax_problem):
        monkeypatch.setattr(module, "SINGLE", size)


def fit(train: np.ndarray, labels: np.ndarray, test: np.ndarray, classes: int = 4, **options: Any) -> Any:
    return run(train, labels, test, classes=classes, options=options, seed=0, device="cpu")


@pytest.mark.parametrize(("multiclass", "penalty"), OBJECTIVES)
@pytest.mark.parametrize("labels_are", ["true", "random"])
@pytest.mark.parametrize("C", [0.1, 1.0])
def test_it_stands_at_scikit_learns_optimum(multiclass: str, penalty: str, labels_are: str, C: float) -> None:
    train, labels, test = blobs()
    if labels_are == "random":
        labels = np.random.default_rng(1).integers(0, 4, len(labels))
    options: dict[str, Any] = {"multiclass": multiclass, "penalty": penalty, "C": C, "tolerance": 1e-9}
    ours = fit(train, labels, test, **options)
    theirs = fit(train, labels, test, **options, backend="reference")
    assert ours.report["converged"] and ours.report["gap"] <= 1e-9
    assert ours.report["objective"] == pytest.approx(theirs.report["objective"], rel=1e-7)
    assert ours.report["objective"] <= theirs.report["objective"] * (1 + 1e-9)
    np.testing.assert_allclose(ours.arrays["coefficients"], theirs.arrays["coefficients"], atol=2e-4)
    for split in ("train", "test"):
        np.testing.assert_allclose(
            ours.arrays[f"{split}_probabilities"], theirs.arrays[f"{split}_probabilities"], atol=1e-4
        )
        assert (ours.arrays[f"{split}_decision"] == theirs.arrays[f"{split}_decision"]).mean() > 0.99


@pytest.mark.parametrize(("multiclass", "penalty"), OBJECTIVES)
@pytest.mark.parametrize("spread", [1e-1, 1e-4])
def test_collapsed_features_are_fitted_to_the_tolerance(multiclass: str, penalty: str, spread: float) -> None:
    """What a network trained to zero loss makes: each class nearly one point."""
    train, labels, test = blobs(spread=spread)
    result = fit(train, labels, test, multiclass=multiclass, penalty=penalty)
    assert result.report["converged"] and result.report["gap"] <= 1e-6
    assert (result.arrays["train_decision"] == labels).all()


@given(seed=st.integers(0, 1000), scale=st.sampled_from([1e-3, 1.0, 1e3]), classes=st.integers(2, 6))
@settings(max_examples=8, deadline=None)
def test_every_fit_is_certified_and_every_row_a_distribution(seed: int, scale: float, classes: int) -> None:
    train, _, test = blobs(n=60, classes=classes, seed=seed)
    labels = np.random.default_rng(seed).integers(0, classes, 60)
    for multiclass, penalty in OBJECTIVES:
        result = fit(train * np.float32(scale), labels, test, classes, multiclass=multiclass, penalty=penalty)
        assert 0 <= result.report["gap"] <= 1e-6
        for split in ("train", "test"):
            rows = result.arrays[f"{split}_probabilities"]
            np.testing.assert_allclose(rows.sum(axis=1), 1, atol=1e-5)
            assert rows.min() >= 0


@given(seed=st.integers(0, 1000), C=st.sampled_from([1e-3, 1.0, 100.0]))
@settings(max_examples=20, deadline=None)
def test_the_gap_of_l1_bounds_the_distance_to_any_point(seed: int, C: float) -> None:
    rng = np.random.default_rng(seed)
    x, y = rng.standard_normal((40, 5)), np.where(rng.random(40) < 0.5, 1.0, -1.0)
    y[:2] = (1, -1)
    best = fit_lasso(torch.tensor(x), torch.tensor(y), C=C, tolerance=1e-8)
    rows = torch.tensor(np.c_[x, np.ones(40)] * y[:, None])
    anywhere = torch.tensor(rng.standard_normal(6) * rng.choice([0, 0.1, 1]))
    objective, gap = evaluate(rows, anywhere, C)
    assert objective - gap <= best.objective * (1 + 1e-12)
    assert best.objective <= objective * (1 + 1e-8)


def true_gap(x: np.ndarray, y: np.ndarray, weights: np.ndarray, intercepts: np.ndarray, C: float = 1.0) -> float:
    """Return the relative gap of a multinomial model, in extended precision and straight from the definitions."""
    x, weights, intercepts = (values.astype(np.longdouble) for values in (x, weights, intercepts))
    rows, counts = np.arange(len(y)), np.bincount(y)
    primal = dual = np.longdouble(0)
    for step in range(9):  # the first model is the reported one; for the bound alone Newton steps set its sums right
        scores = x @ weights + intercepts
        scores -= scores[rows, y][:, None]
        largest = scores.max(axis=1)
        powers = np.exp(scores - largest[:, None])
        powers[rows, y] = 0
        own, others = np.exp(-largest), powers.sum(axis=1)
        shares = powers / (own + others)[:, None]
        residual = shares.copy()
        residual[rows, y] = -others / (own + others)
        if step == 0:
            primal = C * (largest + np.log1p(own - 1 + others)).sum() + (weights**2).sum() / 2
        shares[rows, y] = own / (own + others)
        curvature = -shares.T @ shares
        np.fill_diagonal(curvature, 0)
        curvature -= np.diag(curvature.sum(axis=1))
        scale = np.sqrt(np.diag(curvature).astype(float))
        scaled = (curvature / np.outer(scale, scale)).astype(float)
        newton = np.linalg.lstsq(scaled, (residual.sum(axis=0) / scale).astype(float), rcond=1e-12)[0] / scale
        intercepts = intercepts - (newton - newton.mean())
    columns = residual.sum(axis=0)
    t = max((columns / (columns + counts)).max(), np.longdouble(0))
    if t > 0:
        q = (t * (columns + counts) - columns) / (t * len(y))
        residual = residual + t * (q - shares)
        shares = (1 - t) * shares + t * q
    # An entropy is −Σ log of the shares but at the label, where −p log p is from what is missing to 1.
    off = shares.copy()
    off[rows, y] = 1
    missing = -residual[rows, y]
    dual = C * (-(off * np.log(np.where(off > 0, off, 1))).sum() - ((1 - missing) * np.log1p(-missing)).sum())
    dual -= ((C * x.T @ residual) ** 2).sum() / 2
    return float((primal - dual) / primal)


def true_l1_gap(x: np.ndarray, signs: np.ndarray, w: np.ndarray, C: float = 1.0) -> float:
    """Return the relative gap of a model (d + 1,) with an L1 penalty, in extended precision."""
    rows = np.c_[x, np.ones(len(x))].astype(np.longdouble) * signs[:, None]
    w = w.astype(np.longdouble)
    margins = rows @ w
    primal = np.abs(w).sum() + C * np.logaddexp(np.longdouble(0), -margins).sum()
    share = np.exp(-margins) / (1 + np.exp(-margins))
    share /= max(1, np.abs(C * rows.T @ share).max())
    dual = -C * (share * np.log(share) + (1 - share) * np.log1p(-share)).sum()
    return float((primal - dual) / primal)


@settings(max_examples=20, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    classes=st.integers(2, 5),
    distance=st.sampled_from([0.0, 1.0, 10.0]),
    size=st.integers(-6, 8),
    offset=st.sampled_from([0.0, 100.0]),
    C=st.sampled_from([0.01, 1.0, 100.0]),
)
def test_certificates_are_true_at_every_scale(
    seed: int, classes: int, distance: float, size: int, offset: float, C: float
) -> None:
    """Of the weights that are reported, by definitions evaluated in extended precision."""
    random = np.random.default_rng(seed)
    labels = np.arange(80) % classes
    x = 10.0**size * (distance * random.normal(size=(classes, 6))[labels] + random.normal(size=(80, 6)) + offset)
    model = fit_softmax(torch.tensor(x), torch.tensor(labels), classes, C=C)
    gap = true_gap(x, labels, model.weights.numpy(), model.intercepts.numpy(), C)
    assert gap <= 1.1 * max(model.gap, 1e-8)
    two = labels == 0
    pair = fit_softmax(torch.tensor(x), torch.tensor(two).long(), 2, C=C / 2)
    gap = true_gap(x, two.astype(int), pair.weights.numpy(), pair.intercepts.numpy(), C / 2)
    assert gap <= 1.1 * max(pair.gap, 1e-8)
    signs = np.where(two, 1.0, -1.0)
    sparse = fit_lasso(torch.tensor(x), torch.tensor(signs), C=C)
    assert true_l1_gap(x, signs, np.append(sparse.weights.numpy(), sparse.intercept), C) <= 1.1 * max(sparse.gap, 1e-8)


@settings(max_examples=10, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    distance=st.sampled_from([0.0, 1.0]),
    size=st.integers(-3, 4),
    offset=st.sampled_from([0.0, 100.0]),
    C=st.sampled_from([0.01, 1.0, 100.0]),
)
def test_fewer_points_than_dimensions_keep_their_certificate(
    seed: int, distance: float, size: int, offset: float, C: float
) -> None:
    """Fitted in the span of the points, certified here in all dimensions."""
    random = np.random.default_rng(seed)
    labels = np.arange(30) % 3
    x = 10.0**size * (distance * random.normal(size=(3, 50))[labels] + random.normal(size=(30, 50)) + offset)
    model = exact(torch.tensor(x), torch.tensor(labels), 3, Objective("l2", "multinomial", C, 1e-6))
    assert model.weights.shape == (50, 3)
    assert model.gap <= 1e-6
    assert true_gap(x, labels, model.weights.numpy(), model.intercepts.numpy(), C) <= 1.1e-6
    each = exact(torch.tensor(x), torch.tensor(labels), 3, Objective("l2", "ovr", C, 1e-6))
    assert each.gap <= 1e-6
    for c in range(3):
        two, biases = (
            torch.stack([-values[c], values[c]], -1).numpy() / 2 for values in (each.weights.T, each.intercepts)
        )
        assert true_gap(x, (labels == c).astype(int), two, biases, C / 2) <= 1.1e-6


@pytest.mark.parametrize("seed", [0, 3, 18])
def test_losses_far_below_the_rounding_of_one_are_certified(seed: int) -> None:
    """Once the loss was rounded at 1: a gap of 5e-8 was reported where it was 0.19."""
    random = np.random.default_rng(seed)
    labels = np.arange(800) % 2
    x = 1e6 * (10 * random.normal(size=(2, 8))[labels] + random.normal(size=(800, 8)))
    model = fit_softmax(torch.tensor(x), torch.tensor(labels), 2)
    assert model.gap <= 1e-6 and model.objective < 1e-11
    assert true_gap(x, labels, model.weights.numpy(), model.intercepts.numpy()) <= 1.01e-6


def test_a_hundred_collapsed_classes_far_from_each_other_converge() -> None:
    random = np.random.default_rng(0)
    centres, labels = random.normal(size=(100, 64)), np.arange(400) % 100
    centres *= 1e5 / np.linalg.norm(centres, axis=1, keepdims=True)
    x = centres[labels] + 10 * random.normal(size=(400, 64))
    model = fit_softmax(torch.tensor(x), torch.tensor(labels), 100)
    assert model.gap <= 1e-6 and model.iterations < 200
    assert true_gap(x, labels, model.weights.numpy(), model.intercepts.numpy()) <= 1.01e-6


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize(("multiclass", "penalty"), OBJECTIVES)
@pytest.mark.parametrize(("size", "spread"), [(softmax_problem.SINGLE, 1.0), (0, 1.0), (0, 1e-4)])
def test_cuda_reaches_the_same_optimum(
    multiclass: str, penalty: str, size: int, spread: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without float32, and with float32 going first, also on collapsed classes."""
    single_from(monkeypatch, size)
    train, labels, test = blobs(n=600, spread=spread)
    options = {"multiclass": multiclass, "penalty": penalty, "tolerance": 1e-8}
    here, there = (
        run(train, labels, test, classes=4, options=options, seed=0, device=device) for device in ("cpu", "cuda")
    )
    assert here.report["converged"] and there.report["converged"]
    assert there.report["objective"] == pytest.approx(here.report["objective"], rel=2e-8)
    for split in ("train", "test"):
        name = f"{split}_probabilities"
        np.testing.assert_allclose(there.arrays[name], here.arrays[name], atol=1e-3)


@pytest.mark.parametrize(
    ("kind", "multiclass", "penalty", "backend"),
    [
        *(("small", *objective, backend) for objective in OBJECTIVES for backend in ("exact", "reference")),
        *(
            (kind, multiclass, "l2", "exact")
            for kind in ("large", "collapsed")
            for multiclass in ("multinomial", "ovr")
        ),
    ],
)
def test_a_simulated_gpu_reaches_the_same_optimum(
    multiclass: str, penalty: str, kind: str, backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As they are, and as if large: float32 goes first, and blocks are converted at each product."""
    if kind != "small":
        single_from(monkeypatch, 0)
        monkeypatch.setattr(softmax_problem, "KEPT", {"cpu": 0, "cuda": 0})
        monkeypatch.setattr(multinomial, "REWEIGH", 5)
    train, labels, test = blobs(n=60, classes=3, spread=1e-4 if kind == "collapsed" else 1.0)
    options = {"multiclass": multiclass, "penalty": penalty, "tolerance": 1e-8, "backend": backend}
    here = run(train, labels, test, classes=3, options=options, seed=0, device="cpu")
    with simulated() as device:
        there = run(train, labels, test, classes=3, options=options, seed=0, device="cuda")
    assert there.report["converged"] == here.report["converged"] == (backend == "exact" or here.report["gap"] <= 1e-8)
    assert there.report["gap"] == pytest.approx(here.report["gap"], abs=1e-9)
    assert there.report["objective"] == pytest.approx(here.report["objective"], rel=2e-8)
    for split in ("train", "test"):
        name = f"{split}_probabilities"
        np.testing.assert_allclose(there.arrays[name], here.arrays[name], atol=1e-5)
    # Steps look at numbers, never at points: features go there, and what is kept comes back.
    fits = 1 if multiclass == "multinomial" else 3
    if backend == "exact":
        # And small matrices, to the CPU for their eigenvectors.
        assert device.waits["copy"] <= 10 + 8 * fits * (1 + there.report["iterations"])
        assert sum(device.waits.values()) < 60 * fits * (1 + there.report["iterations"])


def test_equal_calls_give_equal_bits_and_a_class_without_points_has_probability_zero() -> None:
    train, labels, test = blobs()
    labels = np.where(labels == 2, 5, labels)
    first, second = (fit(train, labels, test, classes=7) for _ in range(2))
    for name in first.arrays:
        np.testing.assert_array_equal(first.arrays[name], second.arrays[name])
    assert (first.arrays["test_probabilities"][:, [2, 4, 6]] == 0).all()
    assert set(first.arrays["train_decision"]) <= {0, 1, 3, 5}


@settings(deadline=None, max_examples=25)
@given(
    st.lists(st.integers(0, 4), min_size=1, max_size=14),
    st.sampled_from(OBJECTIVES),
    st.sampled_from(["normal", "constant", "zero", "two values", "collinear", "large"]),
    st.integers(0, 100),
)
def test_small_and_odd_problems_have_a_result(
    labels: list[int], objective: tuple[str, str], kind: str, seed: int
) -> None:
    """One point, one class, classes of one point, constant and equal features: a certified fit all the same."""
    train = np.random.default_rng(seed).normal(size=(len(labels), 3)).astype(np.float32)
    change: dict[str, Any] = {
        "constant": lambda x: np.full_like(x, 2.5),
        "zero": np.zeros_like,
        "two values": lambda x: (x > 0).astype(np.float32),
        "collinear": lambda x: x[:, :1] * np.float32([1, -2, 0]),
        "large": lambda x: x * np.float32(1e4) + np.float32(1e4),
    }
    train = change.get(kind, lambda x: x)(train)
    multiclass, penalty = objective
    result = fit(train, np.array(labels), train[:1], classes=5, multiclass=multiclass, penalty=penalty)
    assert result.report["converged"] and 0 <= result.report["gap"] <= 1e-6
    rows = result.arrays["train_probabilities"]
    np.testing.assert_allclose(rows.sum(axis=1), 1, atol=1e-5)
    absent = sorted({0, 1, 2, 3, 4} - set(labels))
    assert not rows[:, absent].any() and set(result.arrays["train_decision"]) <= set(labels)
    json.dumps(result.report, allow_nan=False)


@pytest.mark.parametrize("seed", range(6))
def test_two_large_points_are_told_apart(seed: int) -> None:
    """The sums of their probabilities are both a last digit above 1, or below."""
    train = (1e4 * np.random.default_rng(seed).normal(size=(2, 3)) + 1e4).astype(np.float32)
    assert fit(train, np.array([0, 1]), train).report["converged"]


def test_one_class_constant_features_and_pca() -> None:
    train, labels, test = blobs()
    single = fit(train, np.full(len(labels), 3), test)
    assert (single.arrays["test_probabilities"][:, 3] == 1).all()
    constant = fit(np.ones_like(train), labels, np.ones_like(test))
    np.testing.assert_allclose(constant.arrays["test_probabilities"], 0.25, atol=1e-4)
    reduced = fit(train, labels, test, pca=3, normalize=True)
    assert reduced.arrays["coefficients"].shape == (4, 3)
    assert reduced.arrays["pca_basis"].shape == (8, 3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": 9}, "lie outside 0 … 3"),
        ({"value": np.nan}, "(?i)nan|finite"),
        ({"options": {"penalty": "l1"}}, "set `multiclass: ovr`"),
    ],
)
def test_bad_input_is_one_sentence(change: dict[str, Any], message: str) -> None:
    train, labels, test = blobs()
    if "labels" in change:
        labels = np.where(labels == 0, change["labels"], labels)
    if "value" in change:
        train[5, 2] = change["value"]
    with pytest.raises(UserError, match=message):
        fit(train, labels, test, **change.get("options", {}))


def test_a_fit_that_misses_its_tolerance_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(multinomial, "PATIENCE", 3)
    train, labels, test = blobs(n=30, d=3)
    result = fit(train, labels, test, tolerance=1e-300)
    assert result.report["converged"] is False and result.report["gap"] > 1e-300


def loss_and_entropy(train: torch.Tensor, labels: torch.Tensor, shares: torch.Tensor, fit: Any) -> tuple[float, float]:
    """Return f of a fit and D of a dual point, straight from their definitions (C = 1)."""
    scores = train @ fit.weights + fit.intercepts
    primal = torch.nn.functional.cross_entropy(scores, labels, reduction="sum") + 0.5 * fit.weights.square().sum()
    residual = shares - torch.nn.functional.one_hot(labels, shares.shape[1])
    dual = -torch.xlogy(shares, shares).sum() - 0.5 * (train.T @ residual).square().sum()
    return float(primal), float(dual)


@given(seed=st.integers(0, 1000), noise=st.sampled_from([1e-3, 0.1, 1.0]), C=st.sampled_from([0.01, 1.0, 10.0]))
@settings(max_examples=20, deadline=None)
def test_no_model_is_nearer_to_the_optimum_than_its_softmax_gap_allows(seed: int, noise: float, C: float) -> None:
    """The lower bound that comes with any model, its intercepts wrong as well, lies below the optimum."""
    train, labels, _ = blobs(n=60, classes=3, seed=seed)
    x, y = torch.tensor(train), torch.tensor(labels)
    best = fit_softmax(x, y, 3, C=C, tolerance=1e-9)
    rng = np.random.default_rng(seed)
    weights = best.weights + noise * torch.tensor(rng.standard_normal(best.weights.shape))
    intercepts = best.intercepts + noise * torch.tensor(rng.standard_normal(3))
    objective, gap = evaluate_softmax(x, y, weights, intercepts, C)
    assert objective * (1 - gap) <= best.objective * (1 + 1e-12)
    assert best.objective <= objective * (1 + 1e-9)
    assert gap > 0


def test_the_certificate_of_unequal_sums_is_the_dual_of_the_mixed_point() -> None:
    """A softmax whose column sums miss the labels' is mixed with a constant row: the bound then is at most its D."""
    train, labels, _ = blobs(n=80, classes=3)
    x, y = torch.tensor(train).double(), torch.tensor(labels)
    problem = softmax_problem.Problem.of(softmax_problem.Points.of(x, 3), y, 3, 3, 1.0)
    generator = torch.Generator().manual_seed(0)
    weights = 0.1 * torch.randn(8, 3, dtype=torch.float64, generator=generator)
    weights -= weights.mean(1, keepdim=True)
    state = problem.state(weights, torch.tensor([0.3, -0.2, 0.0], dtype=torch.float64))
    gradient, sums = problem.gradient(state)
    columns = sums + problem.counts
    t = float((1 - problem.counts / columns).max())
    assert t > 0.01
    q = (problem.counts - (1 - t) * columns) / (t * len(y))
    shares = (1 - t) * state.softmax + t * q
    np.testing.assert_allclose(shares.sum(0), problem.counts)
    centred = x - x.mean(0)
    fit = multinomial.SoftmaxFit(weights, state.intercepts, 0.0, 0.0, 0, 0)
    primal, dual = loss_and_entropy(centred, y, shares, fit)
    assert primal == pytest.approx(state.objective(1.0))
    gap = softmax_problem.certificate(problem, state, gradient, sums)
    assert gap >= primal - dual - 1e-9 * primal
    assert gap < 2 * (primal - dual)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_slope_along_a_step_has_the_same_bits_some_rows_at_a_time(
    dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    train, labels, _ = blobs(n=83, classes=5)
    x, y = torch.tensor(train).double(), torch.tensor(labels)
    problem = softmax_problem.Problem.of(softmax_problem.Points.of(x, 5), y, 5, 5, 1.0)
    generator = torch.Generator().manual_seed(0)
    weights, moved = (torch.randn(n, 5, dtype=dtype, generator=generator) for n in (8, 83))
    state = problem.state(weights, torch.zeros(5, dtype=dtype))
    once = softmax_problem.dot(state.residual, moved)
    assert once == pytest.approx(float((state.residual.double() * moved.double()).sum()), rel=1e-5)
    assert state.along(moved) == once
    monkeypatch.setattr(softmax_problem, "ROWS", 20)
    assert state.along(moved) == once


@pytest.mark.parametrize("kind", ["overlapping", "random labels", "collapsed", "badly scaled", "far from zero"])
def test_float32_goes_first_and_float64_ends_at_the_same_optimum(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What networks make of images, early and late, large enough here for the two precisions to be used."""
    train, labels, _ = blobs(n=1500, d=40, classes=12, spread=1e-4 if kind == "collapsed" else 2.0)
    if kind == "random labels":
        labels = np.random.default_rng(1).integers(0, 12, len(labels))
    if kind == "badly scaled":
        train *= np.logspace(-3, 3, 40, dtype=np.float32)
    if kind == "far from zero":
        train += 1e3
    x, y = torch.tensor(train), torch.tensor(labels)
    double = fit_softmax(x, y, 12, tolerance=1e-8)
    assert double.single == 0
    single_from(monkeypatch, 0)
    monkeypatch.setitem(softmax_problem.KEPT, "cpu", 0)
    monkeypatch.setattr(softmax_problem, "ROWS", 400)
    mixed = fit_softmax(x, y, 12, tolerance=1e-6)
    assert mixed.single > 0 and mixed.gap <= 1e-6 and double.gap <= 1e-8
    assert double.objective * (1 - 1e-8) <= mixed.objective <= double.objective * (1 + 1e-6)
    assert evaluate_softmax(x, y, mixed.weights, mixed.intercepts, 1.0)[1] <= 1.1e-6
    centred = x.double() - x.double().mean(0)
    shares = [
        torch.softmax(centred @ fit.weights + fit.intercepts + x.double().mean(0) @ fit.weights, 1)
        for fit in (mixed, double)
    ]
    assert float((shares[0] - shares[1]).abs().max()) < 0.02


@pytest.mark.parametrize("dimensions", [5, 40])
@pytest.mark.parametrize("spread", [0.0, 1e-4])
def test_collapsed_classes_of_very_different_size_are_fitted(
    dimensions: int, spread: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    train, labels, _ = blobs(n=1200, d=dimensions, classes=8, spread=spread)
    keep = np.random.default_rng(0).random(1200) < 0.5**labels
    keep[:8] = True
    x, y = torch.tensor(train[keep]), torch.tensor(labels[keep])
    double = fit_softmax(x, y, 8, C=0.5, tolerance=1e-8)
    single_from(monkeypatch, 0)
    mixed = fit_softmax(x, y, 8, C=0.5, tolerance=1e-8)
    assert max(double.gap, mixed.gap) <= 1e-8 and mixed.single > 0
    assert mixed.objective == pytest.approx(double.objective, rel=1e-8)


@pytest.mark.slow
def test_where_no_step_fulfils_all_conditions_the_lowest_is_taken() -> None:
    """From zero, with many classes on collapsed features, a fit once ended before its first step."""
    rng = np.random.default_rng(0)
    centres, labels = 4 * np.maximum(rng.standard_normal((300, 640)), 0), np.arange(3000) % 300
    train = (centres[labels] + 0.3 * rng.standard_normal((3000, 640))).astype(np.float32)
    assert fit_softmax(torch.tensor(train), torch.tensor(labels), 300).gap <= 1e-6


def test_a_hundred_classes_need_no_hessian_of_all_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    """The largest square matrix that is ever factorised has max(dimensions, classes) rows."""
    sizes: list[int] = []
    eigh = torch.linalg.eigh

    def watched(matrix: torch.Tensor) -> Any:
        sizes.append(len(matrix))
        return eigh(matrix)

    monkeypatch.setattr(torch.linalg, "eigh", watched)
    rng = np.random.default_rng(0)
    x, y = torch.tensor(rng.standard_normal((2000, 30))), torch.tensor(np.arange(2000) % 100)
    fit = fit_softmax(x, y, 100)
    assert fit.gap <= 1e-6 and set(sizes) == {30, 100}


def test_the_fits_of_all_classes_share_one_gram_matrix(monkeypatch: pytest.MonkeyPatch) -> None:
    """And are, to the last bit, what each would be alone."""
    train, labels, test = blobs(n=200, classes=4)
    made: list[int] = []
    eigh = torch.linalg.eigh
    monkeypatch.setattr(torch.linalg, "eigh", lambda matrix: made.append(len(matrix)) or eigh(matrix))
    result = fit(train, labels, test, multiclass="ovr", penalty="l2")
    assert made.count(train.shape[1]) == 1 < made.count(2)
    alone = fit_softmax(torch.tensor(train), torch.tensor(labels == 2).long(), 2, C=0.5)
    np.testing.assert_array_equal(result.arrays["coefficients"][2], alone.weights.diff(dim=1)[:, 0].numpy())


@pytest.mark.parametrize(("multiclass", "penalty"), OBJECTIVES)
@pytest.mark.parametrize(
    "kind", ["huge", "tiny", "overflowing", "one outlier", "equal columns", "few points", "constant column"]
)
def test_extreme_features_give_finite_probabilities_and_an_honest_flag(
    multiclass: str, penalty: str, kind: str
) -> None:
    train, labels, test = blobs(n=60, d=6)
    change: dict[str, Any] = {
        "huge": lambda x: x * np.float32(1e5),
        "tiny": lambda x: x * np.float32(1e-30),
        "overflowing": lambda x: np.sign(x) * np.float32(3e38),
        "one outlier": lambda x: np.where(np.arange(len(x))[:, None] == 3, np.float32(1e4), x),
        "equal columns": lambda x: np.repeat(x[:, :1], 6, axis=1),
        "few points": lambda x: x,
        "constant column": lambda x: np.concatenate([x[:, 1:], np.full((len(x), 1), 7, np.float32)], axis=1),
    }
    train, test = change[kind](train), change[kind](test)
    if kind == "few points":
        train, labels = train[:4], labels[:4]
    result = fit(train, labels, test, multiclass=multiclass, penalty=penalty)
    for split in ("train", "test"):
        rows = result.arrays[f"{split}_probabilities"]
        assert np.isfinite(rows).all()
        np.testing.assert_allclose(rows.sum(axis=1), 1, atol=1e-5)
    assert np.isfinite(result.arrays["coefficients"]).all()
    assert result.report["converged"] is bool(result.report["gap"] <= 1e-6)
    if kind != "overflowing":
        assert result.report["converged"]
