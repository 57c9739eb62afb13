"""Platt's sigmoids, pairwise coupling and the folds, against scikit-learn, libsvm's iteration and plain optimizers."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from dnn_or_knn.probes.solvers import platt
from dnn_or_knn.seeds import generator
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize
from simulated_cuda import simulated
from sklearn.calibration import _SigmoidCalibration


def scores_and_signs(seed: int, count: int, signal: float, scale: float) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    signs = np.where(random.random(count) < 0.3, 1.0, -1.0)
    signs[:2] = 1.0, -1.0
    return scale * (signal * signs + random.normal(size=count)) + 0.5, signs


def platt_loss(parameters: np.ndarray, scores: np.ndarray, signs: np.ndarray) -> float:
    """The regularised likelihood of Lin, Lin and Weng, equation (1)."""
    up, down = (signs > 0).sum(), (signs < 0).sum()
    target = np.where(signs > 0, (up + 1) / (up + 2), 1 / (down + 2))
    z = parameters[0] * scores + parameters[1]
    return float((target * np.logaddexp(0, z) + (1 - target) * np.logaddexp(0, -z)).sum())


@settings(deadline=None, max_examples=40)
@given(
    st.integers(0, 10**6),
    st.integers(4, 200),
    st.sampled_from([0.0, 0.3, 3.0, 30.0]),
    st.sampled_from([1e-6, 1.0, 1e4]),
)
def test_sigmoid_is_at_the_minimum(seed: int, count: int, signal: float, scale: float) -> None:
    scores, signs = scores_and_signs(seed, count, signal, scale)
    slope, offset = (float(v) for v in platt.fit_sigmoids(torch.as_tensor(scores)[None], torch.as_tensor(signs)[None]))
    ours = platt_loss(np.array([slope, offset]), scores, signs)
    # The optimizer works on standardised scores, where it does not stop early for their scale.
    mean, spread = scores.mean(), scores.std()
    other = minimize(platt_loss, [0.0, 0.0], args=((scores - mean) / spread, signs), method="BFGS", tol=1e-12)
    assert ours <= other.fun + 1e-9 * count
    rise = [
        platt_loss(np.array([slope + a / spread, offset + b - a / spread * mean]), scores, signs) - ours
        for a, b in ((1e-3, 0), (-1e-3, 0), (0, 1e-3), (0, -1e-3))
    ]
    assert min(rise) > -1e-12 * count


def test_sigmoid_equals_scikit_learn() -> None:
    scores, signs = scores_and_signs(3, 500, 1.0, 1.0)
    slope, offset = platt.fit_sigmoids(torch.as_tensor(scores)[None], torch.as_tensor(signs)[None])
    theirs = _SigmoidCalibration().fit(scores, signs)
    ours = platt.sigmoid(torch.as_tensor(scores)[:, None], slope, offset)[:, 0].numpy()
    np.testing.assert_allclose(ours, theirs.predict(scores), atol=2e-5)


def test_padding_and_company_do_not_matter() -> None:
    scores, signs = scores_and_signs(1, 60, 1.0, 2.0)
    alone = platt.fit_sigmoids(torch.as_tensor(scores)[None], torch.as_tensor(signs)[None])
    padded = torch.full((2, 90), 1e9, dtype=torch.float64)
    outside = torch.zeros(2, 90, dtype=torch.float64)
    padded[1, :60], outside[1, :60] = torch.as_tensor(scores), torch.as_tensor(signs)
    padded[0, :30], outside[0, :30] = torch.as_tensor(-scores[:30]), torch.as_tensor(signs[:30])
    together = platt.fit_sigmoids(padded, outside)
    for one, two in zip(alone, together, strict=True):
        torch.testing.assert_close(two[1], one[0], rtol=1e-9, atol=1e-9)


def test_a_simulated_gpu_fits_the_same_sigmoids_and_couples_the_same() -> None:
    given = [scores_and_signs(seed, 50, 1.0, 2.0) for seed in range(6)]
    scores, signs = (torch.as_tensor(np.stack(part)) for part in zip(*given, strict=True))
    pairs = torch.combinations(torch.arange(4))

    def everything(device: str) -> list[torch.Tensor]:
        slope, offset = platt.fit_sigmoids(scores.to(device), signs.to(device))
        pairwise = platt.sigmoid(scores.T.to(device), slope, offset)
        coupled = platt.couple(pairwise, pairs.to(device), 4)
        return [slope, offset, coupled, platt.normalised_sigmoids(scores.T.to(device), slope, offset)]

    here = everything("cpu")
    with simulated() as device:
        there = [tensor.cpu() for tensor in everything("cuda")]
    for one, other in zip(here, there, strict=True):
        torch.testing.assert_close(other, one, rtol=1e-9, atol=1e-9)
    assert device.waits["_local_scalar_dense"] < 100  # all problems at once


@pytest.mark.parametrize("constant", [0.0, -1.0, 7e5])
def test_constant_scores_give_the_smoothed_share(constant: float) -> None:
    signs = torch.tensor([[1.0, 1.0, 1.0, -1.0]], dtype=torch.float64)
    slope, offset = platt.fit_sigmoids(torch.full((1, 4), constant, dtype=torch.float64), signs)
    assert float(slope) == 0.0
    # The mean of the smoothed targets: three of 4/5 and one of 1/3.
    expected = (3 * 4 / 5 + 1 / 3) / 4
    assert float(platt.sigmoid(torch.tensor([[constant]]).double(), slope, offset)) == pytest.approx(expected, rel=1e-8)


def libsvm_coupling(r: np.ndarray, sweeps: int = 20000) -> np.ndarray:
    """libsvm's multiclass_probability for one point, iterated to rounding instead of to 0.005/k."""
    k = len(r)
    q = -r.T * r
    np.fill_diagonal(q, 0)
    q[np.diag_indices(k)] = (r * r).sum(0)
    p = np.full(k, 1 / k)
    for _ in range(sweeps):
        qp = q @ p
        pqp = p @ qp
        if np.abs(qp - pqp).max() < 1e-14:
            break
        for t in range(k):
            difference = (-(q @ p)[t] + p @ q @ p) / q[t, t]
            p[t] += difference
            p /= 1 + difference
    return p


def random_pairwise(seed: int, k: int, n: int) -> tuple[torch.Tensor, torch.Tensor]:
    pairs = torch.combinations(torch.arange(k))
    values = torch.as_tensor(np.random.default_rng(seed).beta(0.4, 0.4, size=(n, len(pairs))))
    return values, pairs


def matrix(values: np.ndarray, pairs: np.ndarray, k: int) -> np.ndarray:
    r = np.zeros((k, k))
    clipped = values.clip(1e-7, 1 - 1e-7)
    r[pairs[:, 0], pairs[:, 1]], r[pairs[:, 1], pairs[:, 0]] = clipped, 1 - clipped
    return r


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 10**6), st.integers(2, 7))
def test_coupling_is_the_minimum_on_the_simplex(seed: int, k: int) -> None:
    values, pairs = random_pairwise(seed, k, 3)
    coupled = platt.couple(values, pairs, k).numpy()
    assert (coupled >= 0).all()
    np.testing.assert_allclose(coupled.sum(1), 1, rtol=1e-12)
    random = np.random.default_rng(seed)
    for row, p in zip(values.numpy(), coupled, strict=True):
        r = matrix(row, pairs.numpy(), k)

        def objective(p: np.ndarray, r: np.ndarray = r) -> float:
            return float(np.square(r.T * p[:, None] - r * p[None, :])[~np.eye(len(p), dtype=bool)].sum())

        # Any other point of the simplex, near or far, is no better.
        for other in random.dirichlet(np.ones(k), size=20):
            for share in (1.0, 1e-3):
                assert objective(p) <= objective((1 - share) * p + share * other) + 1e-12


def test_coupling_equals_libsvm_iterated_to_the_end() -> None:
    random = np.random.default_rng(5)
    pairs = torch.combinations(torch.arange(4))
    values = torch.as_tensor(random.uniform(0.05, 0.95, size=(6, 6)))
    coupled = platt.couple(values, pairs, 4).numpy()
    for row, p in zip(values.numpy(), coupled, strict=True):
        np.testing.assert_allclose(p, libsvm_coupling(matrix(row, pairs.numpy(), 4)), atol=1e-9)


@settings(deadline=None, max_examples=30)
@given(st.lists(st.floats(1e-3, 1.0), min_size=2, max_size=30))
def test_consistent_pairs_give_their_classes_back(weights: list[float]) -> None:
    p = torch.tensor(weights, dtype=torch.float64)
    p = p / p.sum()
    pairs = torch.combinations(torch.arange(len(p)))
    first, second = p[pairs[:, 0]], p[pairs[:, 1]]
    coupled = platt.couple((first / (first + second))[None], pairs, len(p))
    torch.testing.assert_close(coupled[0], p, rtol=1e-6, atol=1e-9)


def test_certain_pairs_stay_finite() -> None:
    pairs = torch.combinations(torch.arange(100))
    coupled = platt.couple(torch.ones(2, len(pairs), dtype=torch.float64), pairs, 100)
    assert torch.isfinite(coupled).all()
    assert (coupled[:, 0] > 0.999).all()


def test_normalised_sigmoids_survive_underflow() -> None:
    slope, offset = torch.tensor([-1.0, -1.0, -2.0]).double(), torch.tensor([0.0, 1.0, 0.5]).double()
    scores = torch.tensor([[0.5, -1.0, 2.0], [-900.0, -900.5, -900.0]]).double()
    divided = platt.normalised_sigmoids(scores, slope, offset)
    plain = platt.sigmoid(scores[:1], slope, offset)
    torch.testing.assert_close(divided[:1], plain / plain.sum())
    # exp(−900) and exp(−901.5) are 0 in float64 once divided naively; their ratio is not.
    torch.testing.assert_close(divided[1], torch.softmax(torch.tensor([-900.0, -901.5, -1800.5]).double(), 0))


@settings(deadline=None, max_examples=60)
@given(st.lists(st.integers(0, 5), min_size=2, max_size=80), st.integers(2, 7), st.integers(0, 3))
def test_folds_are_stratified_even_and_seeded(labels: list[int], folds: int, seed: int) -> None:
    array = np.array(labels)
    fold = platt.stratified_folds(array, folds, generator("test", seed))
    np.testing.assert_array_equal(fold, platt.stratified_folds(array, folds, generator("test", seed)))
    sizes = np.bincount(fold, minlength=folds)
    assert len(sizes) == folds
    assert sizes.max() - sizes.min() <= 1
    for label in set(labels):
        of_class = np.bincount(fold[array == label], minlength=folds)
        assert of_class.max() - of_class.min() <= 1


def test_folds_depend_on_the_seed() -> None:
    labels = np.arange(100) % 3
    one, two = (platt.stratified_folds(labels, 5, generator("test", seed)) for seed in (0, 1))
    assert (one != two).any()
