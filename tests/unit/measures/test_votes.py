"""Votes: fractions of k, any k from one list, ties to the lowest class."""

from __future__ import annotations

import numpy as np
import pytest
from dnn_or_knn.measures.votes import vote_fractions, vote_labels
from dnn_or_knn.runtime.errors import UserError
from hypothesis import given
from hypothesis import strategies as st

LABELS = np.array([2, 2, 0, 1, 0])


def test_a_case_by_hand() -> None:
    neighbours = np.array([[0, 2, 1, 4], [3, 0, 1, 2]], np.int32)
    assert vote_fractions(neighbours, LABELS, 4).tolist() == [[0.5, 0, 0.5, 0], [0.25, 0.25, 0.5, 0]]
    assert vote_fractions(neighbours, LABELS, 4, k=3).tolist() == [[1 / 3, 0, 2 / 3, 0], [0, 1 / 3, 2 / 3, 0]]
    assert vote_fractions(neighbours, LABELS, 4, k=1).tolist() == [[0, 0, 1, 0], [0, 1, 0, 0]]


def test_ties_go_to_the_lowest_class() -> None:
    neighbours = np.array([[0, 2], [3, 4], [0, 1]])
    assert vote_labels(vote_fractions(neighbours, LABELS, 3)).tolist() == [0, 0, 2]


@pytest.mark.parametrize("k", [0, 5, -1])
def test_more_neighbours_than_are_kept_is_one_sentence(k: int) -> None:
    with pytest.raises(UserError, match=f"k = {k} neighbours were asked for, but 4 are kept; raise k_max"):
        vote_fractions(np.zeros((2, 4), int), LABELS, 3, k=k)


@given(st.integers(1, 12), st.integers(0, 6), st.integers(1, 7), st.integers(0, 10**6))
def test_fractions_are_counts_over_k(points: int, queries: int, kept: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    labels = random.integers(0, 5, points)
    neighbours = random.integers(0, points, (queries, kept))
    for k in range(1, kept + 1):
        fractions = vote_fractions(neighbours, labels, 5, k)
        assert fractions.shape == (queries, 5) and fractions.dtype == np.float64
        for row, near in zip(fractions, neighbours, strict=True):
            assert row.tolist() == [list(labels[near[:k]]).count(c) / k for c in range(5)]
