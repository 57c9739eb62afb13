"""The bootstrap: exact, shared, repeatable."""

from __future__ import annotations

import numpy as np
import pytest
from dnn_or_knn.claims.effects import interval
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
    np.testing.assert_allclose(counts @ values / size, naive, rtol=1e-12, atol=1e-14)


def test_draws_depend_on_seed_split_and_size_and_on_nothing_else():
    draw = bootstrap.draw_counts
    first = draw(50, 4, seed=1, split="test")
    np.testing.assert_array_equal(first, draw(50, 4, seed=1, split="test"))
    np.testing.assert_array_equal(first, draw(50, 9, seed=1, split="test")[:4])
    assert (first != draw(50, 4, seed=2, split="test")).any()
    assert (first != draw(50, 4, seed=1, split="train")).any()


@pytest.mark.parametrize("truth", [1.0, 0.9999, 0.999, 0.995, 0.99, 0.95, 0.5, 0.003, 0.0])
def test_intervals_of_fractions_keep_their_level_up_to_the_ends(truth):
    """Of 300 samples without an error: once an interval of no width, which covered 0.995 in 0.77 of all cases."""
    random, covered, runs = np.random.default_rng(0), 0, 1000
    for run in range(runs):
        right = random.binomial(300, truth)
        draws = random.binomial(300, right / 300, 200) / 300
        draws = bootstrap.smoothed(draws, 300, f"run {run}")
        _, low, high = interval(np.append(right / 300, draws)[None], 0.95)
        covered += low <= truth <= high
        assert high - low > 1 / 300
    assert covered >= 0.93 * runs


def test_smoothing_differs_from_name_to_name_and_moves_a_fraction_by_a_few_samples():
    certain = np.ones(400)
    first, again, other = (bootstrap.smoothed(certain, 1000, name) for name in ("a", "a", "b"))
    np.testing.assert_array_equal(first, again)
    assert (first != other).all() and (first < 1).all() and first.min() > 0.99
    assert 1 - first.mean() == pytest.approx(1e-3, rel=0.2)


def test_replicates_spread_like_the_standard_error():
    values = np.random.default_rng(3).normal(size=(400, 1))
    means = bootstrap.draw_counts(400, 2000, seed=0, split="test") @ values / 400
    assert means.std() == pytest.approx(values.std() / 20, rel=0.06)
    assert means.mean() == pytest.approx(values.mean(), abs=0.005)
