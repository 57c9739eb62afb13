"""PCA, normalisation and the search for equal rows: against scikit-learn, and exact where bits count."""

from __future__ import annotations

import numpy as np
import pytest
from dnn_or_knn.probes import preprocessing
from dnn_or_knn.runtime.errors import UserError
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.decomposition import PCA

RNG = np.random.default_rng(0)


def features(points: int, dimensions: int, seed: int = 0) -> np.ndarray:
    """Correlated features, so that the variances differ."""
    random = np.random.default_rng(seed)
    return (random.normal(size=(points, dimensions)) @ random.normal(size=(dimensions, dimensions))).astype(np.float32)


@pytest.mark.parametrize(("points", "dimensions", "components"), [(200, 12, 5), (200, 12, 64), (9, 30, 64)])
def test_pca_is_scikit_learns(points: int, dimensions: int, components: int) -> None:
    train, test = features(points, dimensions), features(7, dimensions, seed=1)
    kept = min(components, dimensions, points - 1)
    reduced = preprocessing.reduce(train, test, {"pca": components})
    theirs = PCA(kept, svd_solver="full").fit(train.astype(np.float64))
    assert reduced.train.shape == (points, kept) and reduced.train.dtype == np.float64
    signs = np.sign((theirs.components_.T * reduced.basis).sum(axis=0))
    scale = np.abs(train).max()
    assert np.allclose(reduced.train, theirs.transform(train.astype(np.float64)) * signs, atol=1e-9 * scale)
    assert np.allclose(reduced.test, theirs.transform(test.astype(np.float64)) * signs, atol=1e-9 * scale)
    assert np.allclose(reduced.basis.T @ reduced.basis, np.eye(kept), atol=1e-12)


def test_the_signs_of_the_components_do_not_depend_on_the_signs_of_the_data() -> None:
    train = features(100, 6)
    mirrored = preprocessing.fit_pca(-train, 6)[1]
    basis = preprocessing.fit_pca(train, 6)[1]
    assert np.allclose(basis, mirrored, atol=1e-12)
    assert (basis[np.abs(basis).argmax(axis=0), range(6)] > 0).all()


def test_equal_rows_have_equal_coordinates() -> None:
    different = features(37, 40)
    train = different[RNG.integers(0, 37, 5001)]
    reduced = preprocessing.reduce(train, different, {"pca": 8})
    assert len(np.unique(reduced.train, axis=0)) == len(np.unique(train, axis=0))
    assert len(np.unique(np.concatenate([reduced.train, reduced.test]), axis=0)) == 37


def test_nothing_asked_leaves_the_features_alone() -> None:
    train, test = features(5, 3), features(2, 3)
    reduced = preprocessing.reduce(train, test, {"pca": None, "normalize": False})
    assert reduced.train is train and reduced.test is test and reduced.arrays() == {}


def test_normalised_rows_have_length_one_and_zero_stays_zero() -> None:
    rows = np.array([[3, 4], [0, 0], [1e-30, 0], [3e38, -3e38]], np.float32)
    unit = preprocessing.normalize(rows)
    assert np.allclose(unit, [[0.6, 0.8], [0, 0], [1, 0], [0.5**0.5, -(0.5**0.5)]], atol=1e-15)


@pytest.mark.parametrize(("points", "components", "words"), [(1, 3, "2 points"), (5, 0, "at least 1")])
def test_bad_pca_is_one_sentence(points: int, components: int, words: str) -> None:
    with pytest.raises(UserError, match=words):
        preprocessing.fit_pca(features(points, 4), components)


def test_constant_features_have_a_defined_pca() -> None:
    reduced = preprocessing.reduce(np.full((50, 4), 0.1, np.float32), np.full((3, 4), 0.1, np.float32), {"pca": 3})
    assert reduced.train.shape == (50, 3) and np.abs(reduced.train).max() < 1e-12
    assert (reduced.train == reduced.train[0]).all() and (reduced.test == reduced.train[0]).all()


@settings(deadline=None, max_examples=60)
@given(
    points=st.integers(0, 40),
    dimensions=st.integers(1, 90),
    values=st.sampled_from([(0.0,), (0.0, -0.0), (0.0, 1.0), (1.0, 2.0, 4.0), tuple(range(50))]),
    double=st.booleans(),
    seed=st.integers(0, 10**6),
)
def test_unique_rows_are_numpys(
    points: int, dimensions: int, values: tuple[float, ...], double: bool, seed: int
) -> None:
    rows = np.random.default_rng(seed).choice(values, size=(points, dimensions)).astype("f8" if double else "f4")
    first, inverse = preprocessing.unique_rows(rows)
    assert (np.diff(first) > 0).all()
    assert np.array_equal(rows[first[inverse]], rows)
    assert len(first) == len(np.unique(rows + 0.0, axis=0))


def test_rows_of_equal_hash_are_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preprocessing, "_row_hashes", lambda rows: np.zeros(len(rows), np.uint64))
    rows = np.array([[2.0], [1.0], [2.0], [3.0], [1.0]])
    first, inverse = preprocessing.unique_rows(rows)
    assert first.tolist() == [0, 1, 3] and inverse.tolist() == [0, 1, 0, 2, 1]


@given(width=st.integers(1, 40), seed=st.integers(0, 10**6))
def test_fold_adds_the_upper_half_to_the_lower(width: int, seed: int) -> None:
    terms = np.random.default_rng(seed).normal(size=width)

    def total(values: list[float]) -> float:
        half = (len(values) + 1) // 2
        upper = [*values[half:], *[0.0] * (2 * half - len(values))]
        return values[0] if len(values) == 1 else total([a + b for a, b in zip(values[:half], upper, strict=True)])

    assert preprocessing.fold(terms[None].copy())[0, 0] == total(terms.tolist())
