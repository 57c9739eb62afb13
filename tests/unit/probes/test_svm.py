"""The SVM probe: at the optimum scikit-learn agrees, the certificate tells the truth, and odd input has a defined result."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from dnn_or_knn.probes import svm
from dnn_or_knn.probes.common import ProbeResult
from dnn_or_knn.probes.solvers import libsvm, platt, svm_newton
from dnn_or_knn.probes.solvers import svm as solver
from dnn_or_knn.probes.solvers.svm_newton import by_products, newton_by_products
from dnn_or_knn.probes.solvers.svm_problem import Problems, Solution, certificate, few_points, whitened
from dnn_or_knn.runtime.errors import UserError
from dnn_or_knn.seeds import generator
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize
from simulated_cuda import simulated
from sklearn.calibration import CalibratedClassifierCV
from sklearn.model_selection import PredefinedSplit
from sklearn.svm import SVC, LinearSVC

torch.set_num_threads(1)
PROTOCOLS = [("squared_hinge", "ovr"), ("hinge", "ovo")]
COMBINATIONS = [(loss, multiclass) for loss in ("squared_hinge", "hinge") for multiclass in ("ovr", "ovo")]


def blobs(
    count: int, dimensions: int, classes: int, *, seed: int = 0, distance: float = 1.0, noise: float = 1.0
) -> tuple[np.ndarray, np.ndarray]:
    """Points around class centres; distance 0 leaves labels that the features know nothing about."""
    random = np.random.default_rng(seed)
    labels = random.integers(0, classes, count)
    labels[:classes] = np.arange(classes)
    centres = distance * random.normal(size=(classes, dimensions))
    return (centres[labels] + noise * random.normal(size=(count, dimensions))).astype(np.float32), labels


def collapsed(count: int, dimensions: int, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Features of a network trained to zero loss: nearly one point a class, spread/norm 1e-4."""
    random = np.random.default_rng(7)
    labels = np.arange(count) % classes
    centres = np.abs(random.normal(size=(classes, dimensions)))
    centres *= 10 / np.linalg.norm(centres, axis=1, keepdims=True)
    spread = 1e-4 * 10 / np.sqrt(dimensions)
    return (centres[labels] + spread * random.normal(size=(count, dimensions))).astype(np.float32), labels


def fit(
    train: np.ndarray, labels: np.ndarray, test: np.ndarray | None = None, *, classes: int | None = None, **options: Any
) -> ProbeResult:
    test = train[:5] if test is None else test
    classes = int(labels.max()) + 1 if classes is None else classes
    return svm.run(train, labels, test, classes=classes, options=options, seed=3, device="cpu")


def objective(train: np.ndarray, labels: np.ndarray, result: ProbeResult, *, loss: str, C: float = 1.0) -> float:
    """The sum over the fits of the objective in the module's first lines, straight from the kept arrays."""
    total = 0.0
    weights, intercepts = result.arrays["coefficients"], result.arrays["intercepts"]
    for w, b, about in zip(weights, intercepts, result.arrays["fit_classes"], strict=True):
        part = np.isin(labels, about) if len(about) == 2 else np.ones(len(labels), bool)
        sides = np.where(labels[part] == about[0], 1.0, -1.0)
        slack = np.maximum(0, 1 - sides * (train[part].astype(float) @ w + b))
        penalty = 0.5 * w @ w + (0.5 * b * b if loss == "squared_hinge" else 0)
        total += penalty + C * (slack**2 if loss == "squared_hinge" else slack).sum()
    return total


def check(result: ProbeResult, classes: int, tolerance: float = 1e-6) -> None:
    """What holds for every result: probabilities that sum to 1, valid decisions, a report that JSON can hold."""
    for split in ("train", "test"):
        probabilities = result.arrays[f"{split}_probabilities"]
        assert probabilities.dtype == np.float32
        assert np.isfinite(probabilities).all()
        assert (probabilities >= 0).all()
        np.testing.assert_allclose(probabilities.sum(1), 1, atol=1e-5)
        decision = result.arrays[f"{split}_decision"]
        assert decision.dtype == np.int16
        assert ((decision >= 0) & (decision < classes)).all()
    assert result.report["converged"] is True, result.report
    assert 0 <= result.report["gap"] <= tolerance
    json.dumps(result.report, allow_nan=False)


@pytest.mark.parametrize(("loss", "multiclass"), COMBINATIONS)
@pytest.mark.parametrize("distance", [0.8, 0.4])
def test_reference_finds_the_same_optimum(loss: str, multiclass: str, distance: float) -> None:
    train, labels = blobs(150, 6, 3, distance=distance)
    test, _ = blobs(50, 6, 3, seed=1, distance=distance)
    options = {"loss": loss, "multiclass": multiclass, "tolerance": 1e-8}
    ours = fit(train, labels, test, **options)
    theirs = fit(train, labels, test, backend="reference", **{**options, "tolerance": 1e-6})
    check(ours, 3, 1e-8)
    assert ours.report["objective"] == pytest.approx(theirs.report["objective"], rel=2e-6)
    assert ours.report["objective"] == pytest.approx(objective(train, labels, ours, loss=loss), rel=1e-9)
    assert "scikit-learn" in theirs.report["engine"]
    # The strongly convex part fixes w: ‖w − w*‖² ≤ 2 (P − P*).
    distance_w = np.square(ours.arrays["coefficients"] - theirs.arrays["coefficients"]).sum()
    assert distance_w <= 2 * 4e-6 * ours.report["objective"]
    for split in ("train", "test"):
        np.testing.assert_allclose(
            ours.arrays[f"{split}_probabilities"], theirs.arrays[f"{split}_probabilities"], atol=3e-3
        )
        agree = ours.arrays[f"{split}_decision"] == theirs.arrays[f"{split}_decision"]
        assert agree.mean() > 0.98


def test_paper_protocol_equals_scikit_learns_calibrated_classifier() -> None:
    train, labels = blobs(300, 6, 4, distance=0.5)
    ours = fit(train, labels, train, tolerance=1e-10)
    fold = platt.stratified_folds(labels, 5, generator("platt folds", 3))
    theirs = CalibratedClassifierCV(
        LinearSVC(dual=False, tol=1e-12, max_iter=10000), method="sigmoid", cv=PredefinedSplit(fold), ensemble=False
    ).fit(train.astype(float), labels)
    np.testing.assert_allclose(ours.arrays["train_probabilities"], theirs.predict_proba(train.astype(float)), atol=1e-4)
    inner = theirs.calibrated_classifiers_[0].estimator
    np.testing.assert_allclose(ours.arrays["coefficients"], inner.coef_, atol=1e-6)
    np.testing.assert_array_equal(ours.arrays["train_decision"], inner.predict(train.astype(float)))


def test_authors_protocol_votes_as_libsvm() -> None:
    train, labels = blobs(240, 5, 5, distance=0.4)
    test, _ = blobs(400, 5, 5, seed=2, distance=0.4)
    ours = fit(train, labels, test, loss="hinge", multiclass="ovo", tolerance=1e-10)
    theirs = SVC(kernel="linear", tol=1e-6, max_iter=10**6, decision_function_shape="ovo").fit(
        train.astype(float), labels
    )
    values = test.astype(float) @ ours.arrays["coefficients"].T + ours.arrays["intercepts"]
    np.testing.assert_allclose(values, theirs.decision_function(test.astype(float)), atol=2e-3)
    clear = np.abs(values).min(1) > 5e-3
    assert clear.mean() > 0.9
    np.testing.assert_array_equal(ours.arrays["test_decision"][clear], theirs.predict(test.astype(float))[clear])


@pytest.mark.parametrize("scale", [1.0, 100.0])
def test_small_pairs_start_from_libsvm_and_end_where_the_interior_point_does(
    scale: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    train, labels = blobs(60, 20, 4, distance=0.5)
    train = (scale * train).astype(np.float32)
    guessed = fit(train, labels, loss="hinge", multiclass="ovo")
    monkeypatch.setattr(libsvm, "SMALL", 0)
    anew = fit(train, labels, loss="hinge", multiclass="ovo")
    assert guessed.report["iterations"] == 0 < anew.report["iterations"]
    assert guessed.report["converged"] and anew.report["converged"]
    assert guessed.report["objective"] == pytest.approx(anew.report["objective"], rel=2e-6)
    np.testing.assert_array_equal(guessed.arrays["train_decision"], anew.arrays["train_decision"])


def test_guesses_are_polished_on_two_threads_as_on_one() -> None:
    """MKL's batched LU factors ended there in errors, or never."""
    random = torch.Generator().manual_seed(0)
    points = torch.randn(6, 200, 61, generator=random, dtype=torch.float64)
    points[:, :, -1] = 1
    signs = torch.where(torch.arange(200) % 2 == 0, 1.0, -1.0).double().repeat(6, 1)
    problems = Problems(points, signs, 1.0, False, torch.zeros(60).double())
    alpha = torch.randint(0, 3, (6, 200), generator=random).double() / 2  # 0, free, C
    free = (alpha == 0.5) & (torch.rand(6, 200, generator=random) < 0.5)
    alpha = torch.where(free, 0.5, alpha.round())
    one = libsvm.polished(problems, alpha)
    try:
        torch.set_num_threads(2)
        two = libsvm.polished(problems, alpha)
    finally:
        torch.set_num_threads(1)
    for here, there in zip(one, two, strict=True):
        torch.testing.assert_close(there, here)


def test_a_bad_guess_is_mended(monkeypatch: pytest.MonkeyPatch) -> None:
    train, labels = blobs(60, 20, 4, distance=0.2)
    good = fit(train, labels, loss="hinge", multiclass="ovo")
    monkeypatch.setattr(libsvm, "STEPS", 1)
    mended = fit(train, labels, loss="hinge", multiclass="ovo")
    assert mended.report["converged"] and mended.report["iterations"] > 0
    assert mended.report["objective"] == pytest.approx(good.report["objective"], rel=2e-6)


def test_decision_and_probability_part_without_signal() -> None:
    """The sigmoids undo what the fit memorized: train accuracy by probability is far lower than by decision value."""
    train, labels = blobs(600, 60, 10, distance=0.0)
    result = fit(train, labels)
    by_decision = (result.arrays["train_decision"] == labels).mean()
    by_probability = (result.arrays["train_probabilities"].argmax(1) == labels).mean()
    assert by_decision > by_probability + 0.1


@settings(deadline=None, max_examples=12)
@given(
    st.integers(0, 10**6),
    st.sampled_from(COMBINATIONS),
    st.sampled_from([0.01, 1.0, 100.0]),
    st.sampled_from([0.0, 0.4, 4.0]),
)
def test_certificate_is_true(seed: int, combination: tuple[str, str], C: float, distance: float) -> None:
    """No optimizer gets below what the certificate says is left."""
    train, labels = blobs(40, 3, 2, seed=seed, distance=distance)
    loss, multiclass = combination
    result = fit(train, labels, loss=loss, multiclass=multiclass, C=C)
    check(result, 2)
    squared = loss == "squared_hinge"
    sides = np.where(labels == result.arrays["fit_classes"][0, 0], 1.0, -1.0)

    def primal(weights: np.ndarray) -> float:
        slack = np.maximum(0, 1 - sides * (train @ weights[:-1] + weights[-1]))
        penalty = 0.5 * weights[:-1] @ weights[:-1] + (0.5 * weights[-1] ** 2 if squared else 0.0)
        return float(penalty + C * (slack**2 if squared else slack).sum())

    start = np.append(result.arrays["coefficients"][0], result.arrays["intercepts"][0])
    ours = primal(start)
    for method in ("Powell", "Nelder-Mead"):
        other = minimize(primal, start, method=method, options={"maxiter": 300}).fun
        assert other >= ours * (1 - 1.1e-6)


@pytest.mark.parametrize("squared", [True, False])
def test_every_engine_reaches_the_same_objective(squared: bool) -> None:
    """Newton and the interior point, shared or own points, with or without their mean: one optimum."""
    train, labels = blobs(900, 12, 2, distance=1.2)
    points = torch.cat([torch.as_tensor(train, dtype=torch.float64), torch.ones(900, 1, dtype=torch.float64)], 1)
    signs = torch.as_tensor(2.0 * labels - 1)[None]
    shared = Problems(points, signs, 1.0, squared, torch.zeros(12).double())
    own = replace(shared, points=points[None])
    mean = points[:, :-1].mean(0)
    centred = replace(shared, points=torch.cat([points[:, :-1] - mean, points[:, -1:]], 1), mean=mean)
    found = [solver.interior_point(one) for one in (shared, own, centred)]
    found += [solver.solve(one) for one in (shared, own, centred)]
    if squared:
        found += [solver.newton(one) for one in (shared, own, centred)]
    for one in found:
        assert float(one.gap) <= 1e-6
        assert float(one.objective) == pytest.approx(float(found[0].objective), rel=2e-6)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize(("loss", "multiclass"), COMBINATIONS)
@pytest.mark.parametrize("distance", [0.8, 0.0])
def test_cuda_reaches_the_same_optimum(loss: str, multiclass: str, distance: float) -> None:
    train, labels = blobs(600, 24, 5, distance=distance)
    options = {"loss": loss, "multiclass": multiclass, "tolerance": 1e-8}
    here, there = (
        svm.run(train, labels, train[:50], classes=5, options=options, seed=3, device=device)
        for device in ("cpu", "cuda")
    )
    for result in (here, there):
        check(result, 5, 1e-8)
    assert there.report["objective"] == pytest.approx(here.report["objective"], rel=2e-8)
    for split in ("train", "test"):
        name = f"{split}_probabilities"
        np.testing.assert_allclose(there.arrays[name], here.arrays[name], atol=2e-3)


@pytest.mark.parametrize(
    ("shape", "loss", "multiclass"),
    [
        *(("random labels", *combination) for combination in COMBINATIONS),
        *((shape, *protocol) for shape in ("wide", "collapsed", "reference") for protocol in PROTOCOLS),
    ],
)
def test_a_simulated_gpu_reaches_the_same_optimum(shape: str, loss: str, multiclass: str) -> None:
    train, labels = {
        "wide": lambda: blobs(30, 50, 3),
        "random labels": lambda: blobs(60, 6, 3, distance=0.0),
        "collapsed": lambda: collapsed(48, 20, 3),
        "reference": lambda: blobs(40, 5, 3),
    }[shape]()
    options = {"loss": loss, "multiclass": multiclass, "platt_folds": 2}
    options["backend"] = "reference" if shape == "reference" else "exact"
    here = svm.run(train, labels, train[:20], classes=3, options=options, seed=3, device="cpu")
    with simulated() as device:
        there = svm.run(train, labels, train[:20], classes=3, options=options, seed=3, device="cuda")
    assert there.report["converged"] == here.report["converged"]
    assert there.report["gap"] == pytest.approx(here.report["gap"], abs=1e-9)
    assert there.report["objective"] == pytest.approx(here.report["objective"], rel=2e-6)
    for split in ("train", "test"):
        name = f"{split}_probabilities"
        np.testing.assert_allclose(there.arrays[name], here.arrays[name], atol=2e-3)
        assert np.array_equal(there.arrays[f"{split}_decision"], here.arrays[f"{split}_decision"])
    if shape != "reference":
        check(there, 3)
        # Some looks at each step of all problems together, and at each problem where its factor is made anew.
        assert sum(device.waits.values()) < 60 * 6 * (3 + there.report["iterations"])


def test_gap_of_a_bad_fit_is_large() -> None:
    points = torch.tensor([[1.0, 1.0], [-1.0, 1.0]], dtype=torch.float64)
    problems = Problems(points, torch.tensor([[1.0, -1.0]]).double(), 1.0, True, torch.zeros(1).double())
    primal, gap = certificate(problems, torch.zeros(1, 2).double(), torch.full((1, 2), 2.0).double())
    assert float(primal) == 2.0
    # α = 2C h = 2 for both: D = 4 − ½·16 − 2, a bound, if a poor one.
    assert float(gap) == pytest.approx(2.0 - (4 - 8 - 2))


@pytest.mark.parametrize(("loss", "multiclass"), COMBINATIONS)
def test_collapsed_features(loss: str, multiclass: str) -> None:
    train, labels = collapsed(150, 40, 10)
    result = fit(train, labels, loss=loss, multiclass=multiclass)
    check(result, 10)
    np.testing.assert_array_equal(result.arrays["train_decision"], labels)
    shuffled = np.random.default_rng(0).permutation(labels)
    check(fit(train, shuffled, loss=loss, multiclass=multiclass), 10)


@pytest.mark.parametrize(
    ("loss", "multiclass", "classes"),
    [
        ("squared_hinge", "ovr", 50),
        ("hinge", "ovo", 20),
        pytest.param("hinge", "ovo", 100, marks=pytest.mark.slow),
    ],
)
def test_many_classes(loss: str, multiclass: str, classes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """In batches, and any size of batch gives the same fits."""
    train, labels = blobs(5 * classes, 8, classes, distance=1.0)
    whole = fit(train, labels, loss=loss, multiclass=multiclass)
    check(whole, classes)
    monkeypatch.setitem(svm.BATCH, "cpu", 2**21)
    parts = fit(train, labels, loss=loss, multiclass=multiclass)
    assert parts.report["objective"] == pytest.approx(whole.report["objective"], rel=2e-6)
    assert (parts.arrays["train_decision"] == whole.arrays["train_decision"]).mean() > 0.98


def test_more_dimensions_than_points() -> None:
    train, labels = blobs(30, 200, 3, distance=0.2)
    for loss, multiclass in COMBINATIONS:
        ours = fit(train, labels, loss=loss, multiclass=multiclass)
        check(ours, 3)
        assert ours.arrays["coefficients"].shape == (3, 200)
        assert ours.report["objective"] == pytest.approx(objective(train, labels, ours, loss=loss), rel=1e-6)
    free = fit(train + 100, labels, loss="hinge", multiclass="ovo")
    assert free.report["objective"] == pytest.approx(objective(train + 100, labels, free, loss="hinge"), rel=1e-4)


def test_same_bits_again_and_seed_moves_only_the_sigmoids() -> None:
    train, labels = blobs(200, 6, 3, distance=0.5)
    one, two = fit(train, labels), fit(train, labels)
    for name, array in one.arrays.items():
        np.testing.assert_array_equal(array, two.arrays[name])
    other = svm.run(train, labels, train[:5], classes=3, options={}, seed=4, device="cpu")
    np.testing.assert_array_equal(one.arrays["coefficients"], other.arrays["coefficients"])
    assert (one.arrays["sigmoids"] != other.arrays["sigmoids"]).any()
    assert (one.report["platt"], other.report["platt"]) == ({"folds": 5, "seed": 3}, {"folds": 5, "seed": 4})


def test_pca_and_normalisation_are_fitted_here_and_kept() -> None:
    train, labels = blobs(120, 10, 3)
    result = fit(train, labels, train, pca=4, normalize=True)
    check(result, 3)
    assert result.arrays["coefficients"].shape == (3, 4)
    assert result.arrays["pca_basis"].shape == (10, 4)
    rows = train / np.linalg.norm(train, axis=1, keepdims=True)
    values = (rows - result.arrays["pca_mean"]) @ result.arrays["pca_basis"] @ result.arrays["coefficients"].T
    decision = (values + result.arrays["intercepts"]).argmax(1)
    assert (decision == result.arrays["train_decision"]).mean() > 0.99


@pytest.mark.parametrize(("loss", "multiclass"), COMBINATIONS)
def test_an_absent_class_has_no_part(loss: str, multiclass: str) -> None:
    train, labels = blobs(90, 4, 3)
    with_gap = np.array([0, 2, 5])[labels]
    result = fit(train, with_gap, classes=7, loss=loss, multiclass=multiclass)
    check(result, 7)
    assert not result.arrays["train_probabilities"][:, [1, 3, 4, 6]].any()
    assert set(result.arrays["train_decision"]) <= {0, 2, 5}
    without = fit(train, labels, loss=loss, multiclass=multiclass)
    np.testing.assert_array_equal(result.arrays["coefficients"], without.arrays["coefficients"])
    np.testing.assert_array_equal(
        result.arrays["train_probabilities"][:, [0, 2, 5]], without.arrays["train_probabilities"]
    )


@settings(deadline=None, max_examples=20)
@given(
    st.lists(st.integers(0, 4), min_size=1, max_size=14),
    st.sampled_from(COMBINATIONS),
    st.sampled_from(["normal", "constant", "zero", "two values"]),
    st.integers(0, 100),
)
def test_small_and_odd_problems_have_a_result(
    labels: list[int], combination: tuple[str, str], kind: str, seed: int
) -> None:
    """Classes with fewer points than folds, one class, one point, constant features: probabilities all the same."""
    random = np.random.default_rng(seed)
    train = random.normal(size=(len(labels), 3)).astype(np.float32)
    if kind == "constant":
        train[:] = 2.5
    elif kind == "zero":
        train[:] = 0
    elif kind == "two values":
        train = (train > 0).astype(np.float32)
    loss, multiclass = combination
    check(fit(train, np.array(labels), classes=5, loss=loss, multiclass=multiclass), 5)


def test_one_class_only() -> None:
    train, _ = blobs(20, 3, 2)
    result = fit(train, np.full(20, 2), classes=4)
    check(result, 4)
    assert (result.arrays["train_probabilities"][:, 2] == 1).all()
    assert (result.arrays["test_decision"] == 2).all()


def test_a_class_of_one_point_is_left_out_of_its_own_fold() -> None:
    train, labels = blobs(60, 4, 2, distance=2.0)
    labels[0] = 2
    for loss, multiclass in COMBINATIONS:
        result = fit(train, labels, loss=loss, multiclass=multiclass)
        check(result, 3)
        assert (result.arrays["train_probabilities"][:, 2] > 0).all()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_features_that_are_not_finite(bad: float) -> None:
    train, labels = blobs(20, 3, 2)
    train[7, 1] = bad
    with pytest.raises(UserError, match="point 7, dimension 1"):
        fit(train, labels)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"loss": "hing"}, "loss must be squared_hinge or hinge"),
        ({"multiclass": "all"}, "multiclass must be ovr or ovo"),
        ({"backend": "libsvm"}, "backend must be exact or reference"),
        ({"C": 0}, "C must be a number above 0"),
        ({"C": float("nan")}, "C must be a number above 0"),
        ({"tolerance": -1e-6}, "tolerance must be"),
        ({"platt_folds": 1}, "platt_folds must be an integer of at least 2"),
    ],
)
def test_bad_options_are_one_sentence(options: dict[str, Any], says: str) -> None:
    train, labels = blobs(20, 3, 2)
    with pytest.raises(UserError, match=says):
        fit(train, labels, **options)


def test_labels_out_of_range() -> None:
    train, labels = blobs(20, 3, 2)
    with pytest.raises(UserError, match="labels lie outside"):
        svm.run(train, labels + 5, train, classes=4, options={}, seed=0, device="cpu")


def test_a_fit_that_misses_its_tolerance_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(svm, "LIBSVM_ITERATIONS", 5)
    train, labels = blobs(60, 4, 2, distance=0.1)
    result = fit(train, labels, loss="hinge", multiclass="ovo", backend="reference")
    assert result.report["converged"] is False
    assert result.report["gap"] > 1e-3


@settings(deadline=None, max_examples=15)
@given(
    st.integers(0, 10**6),
    st.sampled_from([(10, 16), (28, 16), (60, 4), (40, 40)]),
    st.sampled_from([0.0, 0.3, 5.0]),
    st.sampled_from([1e-3, 1.0, 1e3]),
    st.sampled_from([0.01, 1.0, 100.0]),
    st.booleans(),
)
@example(0, (28, 16), 0.0, 1e3, 100.0, True)
def test_solvers_converge_at_any_scale(
    seed: int, shape: tuple[int, int], distance: float, C: float, scale: float, squared: bool
) -> None:
    """From C in effect 0 to C in effect infinite, separable and not, with duplicates and points left out."""
    random = np.random.default_rng(seed)
    count, dimensions = shape
    signs = torch.as_tensor(np.where(random.random((8, count)) < 0.4, 1.0, -1.0) * (random.random((8, count)) < 0.9))
    signs[:, 0], signs[:, 1] = 1, -1
    shift = distance * random.normal(size=dimensions)
    features = random.normal(size=(count, dimensions)).round(1) + signs[0].numpy()[:, None] * shift
    points = torch.cat([torch.as_tensor(scale * features), torch.ones(count, 1, dtype=torch.float64)], 1)
    shared = Problems(points, signs, C, squared, torch.zeros(dimensions).double())
    own = replace(shared, points=points.expand(8, -1, -1).contiguous())
    one, two = solver.solve(shared), solver.solve(own)
    assert float(one.gap.max()) <= 1e-6
    assert float(two.gap.max()) <= 1e-6
    torch.testing.assert_close(one.objective, two.objective, rtol=2e-6, atol=0)


def true_gaps(problems: Problems, found: Solution) -> np.ndarray:
    """(P − D)/P of every problem from its weights and multipliers, as P and D are defined, in long doubles."""
    gaps = []
    mean, C = problems.mean.numpy().astype(np.longdouble), problems.C
    for b in range(len(found.gap)):
        points = (problems.points if problems.points.ndim == 2 else problems.points[b]).numpy().astype(np.longdouble)
        y, w, alpha = (each[b].numpy().astype(np.longdouble) for each in (problems.signs, found.weights, found.alpha))
        slack = np.maximum(0, 1 - y * (points @ w)) * np.abs(y)
        intercept = (w[-1] - w[:-1] @ mean) if problems.squared else 0
        loss = (slack**2).sum() if problems.squared else slack.sum()
        primal = (np.square(w[:-1]).sum() + intercept**2) / 2 + C * loss
        assert (alpha >= 0).all()
        assert problems.squared or (alpha <= C).all()
        if not problems.squared:
            up, down = alpha[y > 0].sum(), alpha[y < 0].sum()
            alpha = np.where(
                y > 0, alpha * (min(up, down) / max(up, 1e-300)), alpha * (min(up, down) / max(down, 1e-300))
            )
        pulled = (alpha * y) @ points
        dual = alpha.sum() - np.square(pulled[:-1] + mean * pulled[-1]).sum() / 2
        dual -= pulled[-1] ** 2 / 2 if problems.squared else 0
        dual -= np.square(alpha).sum() / (4 * C) if problems.squared else 0
        gaps.append(float((primal - dual) / primal))
    return np.array(gaps)


@settings(deadline=None, max_examples=25)
@given(
    st.integers(0, 10**6),
    st.sampled_from([0.01, 1.0, 100.0, 3000.0]),
    st.sampled_from([0.0, 0.5, 10.0]),
    st.sampled_from([0.0, 1e6]),
    st.sampled_from([1e-3, 1.0, 1e3]),
    st.booleans(),
    st.booleans(),
)
@example(4, 3000.0, 10.0, 0.0, 1.0, False, True)
def test_gaps_are_those_of_the_weights_at_every_scale(
    seed: int, scale: float, distance: float, offset: float, C: float, squared: bool, own: bool
) -> None:
    """Every certificate against P and D in long doubles, at the weights and multipliers that are returned."""
    random = np.random.default_rng(seed)
    centres, labels = distance * random.normal(size=(4, 6)), np.arange(200) % 4
    features = torch.as_tensor(scale * (centres[labels] + random.normal(size=(200, 6))) + offset)
    mean, classes = features.mean(0), torch.as_tensor(labels)
    points = torch.cat([features - mean, torch.ones(200, 1).double()], 1)
    signs = 2.0 * (classes[None] == torch.arange(4)[:, None]).double() - 1
    if own:
        signs = signs * (
            (classes[None] == torch.arange(4)[:, None]) | (classes[None] == (torch.arange(4)[:, None] + 1) % 4)
        )
        points = points * signs.abs()[:, :, None]
    problems = Problems(points, signs, C, squared, mean)
    found = solver.solve(problems)
    true = true_gaps(problems, found)
    assert (true <= 1.05 * found.gap.numpy() + 1e-8).all(), (true, found.gap)
    # Where 1e-6 is out of reach of float64, the gap says so.
    assert float(found.gap.max()) <= (1e-6 if offset == 0 else 1e-4)


def four_classes(
    random: np.random.Generator,
    shape: tuple[int, int],
    scale: float,
    distance: float,
    offset: float,
    *,
    classes: int = 4,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return points (n, d + 1) without their mean, two of them equal, the signs (4, n) of four classes against the rest, the mean."""
    labels = np.arange(shape[0]) % classes
    features = scale * (distance * random.normal(size=(classes, shape[1]))[labels] + random.normal(size=shape)) + offset
    features[5] = features[4]
    mean = torch.as_tensor(features.mean(0))
    points = torch.cat([torch.as_tensor(features) - mean, torch.ones(shape[0], 1).double()], 1)
    return points, torch.as_tensor(np.where(labels == np.arange(4)[:, None], 1.0, -1.0)), mean


@settings(deadline=None, max_examples=25)
@given(
    st.integers(0, 10**6),
    st.sampled_from([(20, 30), (40, 41)]),
    st.sampled_from([0.01, 1.0, 100.0, 3000.0]),
    st.sampled_from([0.0, 0.5, 10.0]),
    st.sampled_from([0.0, 1e6]),
    st.sampled_from([1e-3, 1.0, 1e3]),
)
def test_few_points_are_fitted_by_their_kernel_at_every_scale(
    seed: int, shape: tuple[int, int], scale: float, distance: float, offset: float, C: float
) -> None:
    """Over all points and without some of them, two of them equal: the gaps are true, and the optimum is the other engines'."""
    random = np.random.default_rng(seed)
    points, signs, mean = four_classes(random, shape, scale, distance, offset)
    signs = signs * torch.as_tensor(random.random((4, shape[0])) < 0.8)
    signs[:, :4] = 2 * torch.eye(4).double() - 1
    plain = Problems(points, signs, C, True, mean)
    problems = replace(plain, kernel=few_points(points, mean, C))
    found = solver.solve(problems)
    assert (true_gaps(problems, found) <= 1.05 * found.gap.numpy() + 1e-8).all()
    assert float(found.gap.max()) <= (1e-6 if offset == 0 else 1e-4)
    if offset == 0:
        torch.testing.assert_close(found.objective, solver.solve(plain).objective, rtol=2e-6, atol=0)


@pytest.mark.parametrize("distance", [0.0, 0.5])
def test_few_points_need_their_kernel_alone(distance: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """At the scale of features no other engine mends what the pivots leave."""
    train, labels = blobs(60, 80, 4, distance=distance)
    for other in ("newton", "interior_point"):
        monkeypatch.setattr(solver, other, None)
    check(fit(train, labels), 4)


@pytest.mark.parametrize(
    ("points", "dimensions", "fits", "so"),
    [
        (60_000, 785, 60, False),
        (50_000, 641, 600, False),
        (50_000, 3073, 60, False),
        (2_000, 65, 600, False),
        (50_000, 3073, 600, True),
        (5_000, 3073, 600, True),
        (2_000, 3073, 60, False),
        (10_000, 2049, 6000, True),
        (200_000, 2049, 6000, True),
        (200_000, 17, 60_000, False),
    ],
)
def test_fits_are_by_products_where_gram_matrices_take_hours(points: int, dimensions: int, fits: int, so: bool) -> None:
    """The paper's data sets of ten classes, and layers of a hundred, keep their bits."""
    assert by_products(points, dimensions, fits) is so


@pytest.fixture
def products(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever its size, a squared hinge one-vs-rest is fitted by products where points are as many as dimensions."""
    monkeypatch.setattr(svm, "by_products", lambda *sizes: True)


@pytest.mark.parametrize("distance", [0.0, 0.4, 3.0])
def test_products_find_linear_svcs_optimum_alone(
    distance: float, products: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Random labels, overlapping and separable classes, two points the same, a constant feature, a class of one point."""
    train, labels = blobs(300, 12, 5, distance=distance)
    train[7], train[:, 3] = train[6], 2.5
    labels[labels == 4] = 3
    labels[0] = 4
    for other in ("newton", "interior_point"):
        monkeypatch.setattr(solver, other, None)
    ours = fit(train, labels, tolerance=1e-10)
    check(ours, 5, 1e-10)
    for b in range(5):
        theirs = LinearSVC(dual=False, tol=1e-12, max_iter=10000).fit(train.astype(float), labels == b)
        np.testing.assert_allclose(ours.arrays["coefficients"][b], theirs.coef_[0], atol=1e-5)
        np.testing.assert_allclose(ours.arrays["intercepts"][b], theirs.intercept_[0], atol=1e-5)


def test_products_end_where_gram_matrices_do(products: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Folds included, in batches of any size."""
    train, labels = blobs(400, 40, 20, distance=0.3)
    whole = fit(train, labels)
    check(whole, 20)
    monkeypatch.setitem(svm.BATCH, "cpu", 3 * 8 * svm.TABLES * 400)
    parts = fit(train, labels)
    monkeypatch.setattr(svm, "by_products", lambda *sizes: False)
    grams = fit(train, labels)
    for other in (whole, parts):
        assert other.report["objective"] == pytest.approx(grams.report["objective"], rel=2e-6)
        np.testing.assert_allclose(other.arrays["coefficients"], grams.arrays["coefficients"], atol=1e-3)
        np.testing.assert_allclose(other.arrays["sigmoids"], grams.arrays["sigmoids"], atol=2e-2)
        assert (other.arrays["train_decision"] == grams.arrays["train_decision"]).mean() > 0.99


def along_the_path(patch: pytest.MonkeyPatch) -> None:
    """Have every fit by products go along the path, without a step at its own C before, and over near points although dimensions are few."""
    patch.setattr(svm_newton, "PATIENCE", (0, 0))
    patch.setattr(svm_newton, "MANY", np.inf)
    patch.setattr(svm_newton, "FEW", 2.5)


@pytest.mark.parametrize("near", [svm_newton.NEAR, 1.1])
def test_the_path_ends_at_the_optimum_over_the_points_near_the_margin(
    near: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """About as many points are active as dimensions, of many more: the check over all points finds nothing left to do."""
    points, signs, mean = four_classes(np.random.default_rng(0), (1500, 60), 1.0, 0.6, 0.0, classes=30)
    signs[:, ::7] = 0
    plain = Problems(points, signs, 1.0, True, mean)
    rows, last, begun = [], [], []
    newton = svm_newton.newton

    def near_newton(problems: Problems, start: Solution, **options: Any) -> Solution:
        rows.append(len(problems.points))
        begun.append(problems.C == 1.0 and not bool(start.active.any()))
        assert problems.points.dtype == torch.float32
        return newton(problems, start, **options)

    def products(problems: Problems, *given: Any, **options: Any) -> Solution:
        made = newton_by_products(problems, *given, **options)
        last.append((problems.C, made.iterations))
        return made

    monkeypatch.setattr(svm_newton, "newton", near_newton)
    monkeypatch.setattr(svm_newton, "newton_by_products", products)
    along_the_path(monkeypatch)
    monkeypatch.setattr(svm_newton, "NEAR", near)
    white = whitened(points, mean, 1.0, points.T @ points)
    found = svm_newton.along_path(replace(plain, whitened=white), white)
    assert last[:2] == [(1.0, 0)] * 2 and last[-1][0] == 1.0 and last[-1][1] <= 1
    assert [C for C, _ in last[2:-1]] == sorted({C for C, _ in last[2:-1]})
    assert rows and max(rows) < 0.6 * 1500
    assert found.iterations > sum(steps for _, steps in last), "steps over near points are not counted"
    if near < 2:
        assert sum(begun) > 4, "points were not chosen anew where others ended on the wrong side"
    assert float(found.gap.max()) <= 1e-6
    assert (true_gaps(plain, found) <= 1.05e-6).all()
    torch.testing.assert_close(found.objective, solver.newton(plain).objective, rtol=2e-6, atol=0)


@pytest.mark.parametrize(("many", "begun"), [(6.0, True), (0.0, False)])
def test_a_fit_goes_along_the_path_once_few_of_its_points_are_active(
    many: float, begun: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With all weights at 0 every point is active: steps by products are taken until at most `many` a dimension are."""
    points, signs, mean = four_classes(np.random.default_rng(0), (1500, 60), 1.0, 0.6, 0.0, classes=30)
    plain = Problems(points, signs, 1.0, True, mean)
    taken: list[tuple[float, int, int]] = []

    def products(problems: Problems, white: Any, weights: torch.Tensor, **options: Any) -> Solution:
        made = newton_by_products(problems, white, weights, **options)
        taken.append((problems.C, made.iterations, int((made.alpha > 0).sum(1).max())))
        return made

    monkeypatch.setattr(svm_newton, "newton_by_products", products)
    monkeypatch.setattr(svm_newton, "_first_weights", lambda problems, *_: problems.points.new_zeros(len(signs), 61))
    monkeypatch.setattr(svm_newton, "PATIENCE", (0, 0))
    monkeypatch.setattr(svm_newton, "MANY", many)
    white = whitened(points, mean, 1.0, points.T @ points)
    found = svm_newton.along_path(replace(plain, whitened=white), white)
    assert taken[0] == (1.0, 0, 1500)
    assert taken[1][0] == 1.0 and taken[1][1] > 0
    if begun:
        assert taken[1][2] <= many * 61
    assert (min(C for C, *_ in taken) < 1.0) == begun
    assert float(found.gap.max()) <= 1e-6
    assert (true_gaps(plain, found) <= 1.05e-6).all()


def test_products_keep_the_bits_again(products: None) -> None:
    train, labels = blobs(200, 6, 3, distance=0.5)
    one, two = fit(train, labels), fit(train, labels)
    for name, array in one.arrays.items():
        np.testing.assert_array_equal(array, two.arrays[name])


@settings(deadline=None, max_examples=25)
@given(
    st.integers(0, 10**6),
    st.sampled_from([(200, 6), (60, 40)]),
    st.sampled_from([0.01, 1.0, 100.0, 3000.0]),
    st.sampled_from([0.0, 0.5, 10.0]),
    st.sampled_from([0.0, 1e6]),
    st.sampled_from([1e-3, 1.0, 1e3]),
    st.booleans(),
)
def test_products_have_true_gaps_at_every_scale(
    seed: int,
    shape: tuple[int, int],
    scale: float,
    distance: float,
    offset: float,
    C: float,
    path: bool,
) -> None:
    """Over all points and without some of them, from nothing and from the fit of all, at once and along the path: the optimum is the
    other engines'.
    """
    random = np.random.default_rng(seed)
    points, signs, mean = four_classes(random, shape, scale, distance, offset)
    plain = Problems(points, signs, C, True, mean)
    white = whitened(points, mean, C, points.T @ points)
    start = None
    for dropped in (0.0, 0.2):
        plain = replace(plain, signs=signs * torch.as_tensor(random.random((4, shape[0])) >= dropped))
        plain.signs[:, :4] = signs[:, :4]
        with pytest.MonkeyPatch.context() as patch:
            if path:
                along_the_path(patch)
            found = solver.solve(replace(plain, whitened=white), start)
        assert (true_gaps(plain, found) <= 1.05 * found.gap.numpy() + 1e-8).all()
        assert float(found.gap.max()) <= (1e-6 if offset == 0 else 1e-4)
        if offset == 0:
            torch.testing.assert_close(found.objective, solver.solve(plain).objective, rtol=2e-6, atol=0)
        start = found


@settings(deadline=None, max_examples=15)
@given(
    st.lists(st.integers(0, 4), min_size=4, max_size=14),
    st.sampled_from(["normal", "constant", "zero", "two values"]),
    st.integers(0, 100),
)
def test_small_and_odd_problems_have_a_result_by_products(labels: list[int], kind: str, seed: int) -> None:
    random = np.random.default_rng(seed)
    train = random.normal(size=(len(labels), 3)).astype(np.float32)
    if kind != "normal":
        train[:] = {"constant": 2.5, "zero": 0, "two values": (train > 0)}[kind]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(svm, "by_products", lambda *sizes: True)
        check(fit(train, np.array(labels), classes=5), 5)


def test_what_products_leave_goes_to_the_other_engines(products: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some at a time."""
    train, labels = blobs(100, 10, 5, distance=0.5)
    whole = fit(train, labels)
    seen, newton = [], solver.newton

    def counted(problems: Problems, *given: Any, **options: Any) -> Solution:
        seen.append(len(problems.signs))
        return newton(problems, *given, **options)

    monkeypatch.setattr(solver, "newton", counted)
    monkeypatch.setattr(
        svm_newton,
        "newton_by_products",
        lambda *given, **options: newton_by_products(*given, **options | {"limit": 0}),
    )
    monkeypatch.setattr(solver, "LEFT", 2 * 24 * 11**2)
    left = fit(train, labels)
    check(left, 5)
    assert seen == [2, 2, 1] * 6
    assert left.report["objective"] == pytest.approx(whole.report["objective"], rel=2e-6)


@pytest.mark.parametrize("path", [False, True])
@pytest.mark.parametrize("distance", [0.0, 0.5])
def test_products_on_a_simulated_gpu_reach_the_same_optimum(
    distance: float, path: bool, products: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    if path:
        along_the_path(monkeypatch)
    train, labels = blobs(60, 6, 3, distance=distance)
    options = {"platt_folds": 2}
    here = svm.run(train, labels, train[:20], classes=3, options=options, seed=3, device="cpu")
    with simulated():
        there = svm.run(train, labels, train[:20], classes=3, options=options, seed=3, device="cuda")
    check(there, 3)
    assert there.report["objective"] == pytest.approx(here.report["objective"], rel=2e-6)
    np.testing.assert_allclose(there.arrays["train_probabilities"], here.arrays["train_probabilities"], atol=2e-3)


@pytest.mark.parametrize("seed", range(4, 9))
def test_reported_objective_is_that_of_the_reported_weights(seed: int) -> None:
    """Far apart and large: margins that were added up step by step gave half to a tenth of the weights' own objective."""
    random = np.random.default_rng(seed)
    centres, labels = 10 * random.normal(size=(4, 6)), random.integers(0, 4, 500)
    train = 3000 * (centres[labels] + random.normal(size=(500, 6)))
    result = fit(train, labels, loss="hinge", multiclass="ovo")
    check(result, 4)
    total = 0.0
    for w, b, about in zip(
        result.arrays["coefficients"].astype(np.longdouble),
        result.arrays["intercepts"].astype(np.longdouble),
        result.arrays["fit_classes"],
        strict=True,
    ):
        part = np.isin(labels, about)
        sides = np.where(labels[part] == about[0], 1, -1)
        total += w @ w / 2 + np.maximum(0, 1 - sides * (train[part].astype(np.longdouble) @ w + b)).sum()
    assert result.report["objective"] == pytest.approx(float(total), rel=1e-5)


@pytest.mark.parametrize("kind", ["offset", "outlier", "constant columns"])
@pytest.mark.parametrize("multiclass", ["ovr", "ovo"])
def test_large_means_cost_no_convergence(kind: str, multiclass: str) -> None:
    train, labels = blobs(240, 6, 3, distance=0.5)
    train = train.astype(np.float64)
    if kind == "offset":
        train += 1e6
    elif kind == "outlier":
        train[5] = 1e6
    else:
        train[:, :3] = 1e5
    result = fit(train, labels, multiclass=multiclass)
    check(result, 3)
    assert result.report["objective"] == pytest.approx(objective(train, labels, result, loss="squared_hinge"), rel=1e-6)
