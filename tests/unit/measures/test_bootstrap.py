"""The bootstrap: exact, shared, repeatable."""

from __future__ import annotations

import numpy as np
import pytest
from dnn_or_knn.measures import bootstrap
from hypothesis import given, settings
from hypothesis import strategies as st


def resampled_indices(counts: np.ndarray) -> list[np.ndarray]:
    """Spell the counts of each replicate out as a list of drawn samples."""
    return [np.repeat(np.arange(counts.shape[1]), row) for row in counts]


@settings(deadline=None, max_examples=20)
@given(size=st.integers(1, 60), replicates=st.integers(1, 8), seed=st.integers(0, 5), columns=st.integers(1, 3))
def test_weighted_means_are_the_means_of_the_resampled_values(size, replicates, seed, columns):
    counts = bootstrap.draw_counts(size, replicates, seed=seed, split="test")
    values = np.random.default_rng(seed).normal(size=(size, columns))
    naive = [values[indices].mean(axis=0) for indices in resampled_indices(counts)]
    assert (counts.sum(axis=1) == size).all()
    np.testing.assert_allclose(bootstrap.weighted_means(counts, values), naive, rtol=1e-12, atol=1e-14)


def test_blocks_give_the_same_sums_as_one_product(monkeypatch):
    counts = bootstrap.draw_counts(100, 6, seed=0, split="train")
    values = np.random.default_rng(0).normal(size=(100, 4)).astype(np.float32)
    whole = bootstrap.weighted_sums(counts, values)
    monkeypatch.setattr(bootstrap, "BLOCK", 7)
    np.testing.assert_allclose(bootstrap.weighted_sums(counts, values), whole, rtol=1e-13)


def test_draws_depend_on_seed_split_and_size_and_on_nothing_else():
    draw = bootstrap.draw_counts
    first = draw(50, 4, seed=1, split="test")
    np.testing.assert_array_equal(first, draw(50, 4, seed=1, split="test"))
    np.testing.assert_array_equal(first, draw(50, 9, seed=1, split="test")[:4])
    assert (first != draw(50, 4, seed=2, split="test")).any()
    assert (first != draw(50, 4, seed=1, split="train")).any()


def test_replicates_spread_like_the_standard_error():
    values = np.random.default_rng(3).normal(size=(400, 1))
    means = bootstrap.weighted_means(bootstrap.draw_counts(400, 2000, seed=0, split="test"), values)
    assert means.std() == pytest.approx(values.std() / 20, rel=0.06)
    assert means.mean() == pytest.approx(values.mean(), abs=0.005)
