"""Votes: fractions of k, any k from one list, ties to the lowest class."""

from __future__ import annotations

import numpy as np
from dnn_or_knn.measures.formulas import predicted
from dnn_or_knn.measures.votes import vote_fractions
from hypothesis import given
from hypothesis import strategies as st

LABELS = np.array([2, 2, 0, 1, 0])


def test_a_case_by_hand() -> None:
    neighbours = np.array([[0, 2, 1, 4], [3, 0, 1, 2]], np.int32)
    assert vote_fractions(neighbours, LABELS, 4).tolist() == [[0.5, 0, 0.5, 0], [0.25, 0.25, 0.5, 0]]
    assert vote_fractions(neighbours[:, :3], LABELS, 4).tolist() == [[1 / 3, 0, 2 / 3, 0], [0, 1 / 3, 2 / 3, 0]]
    assert vote_fractions(neighbours[:, :1], LABELS, 4).tolist() == [[0, 0, 1, 0], [0, 1, 0, 0]]


def test_ties_go_to_the_lowest_class() -> None:
    neighbours = np.array([[0, 2], [3, 4], [0, 1]])
    assert predicted(vote_fractions(neighbours, LABELS, 3)).tolist() == [0, 0, 2]


@given(st.integers(1, 12), st.integers(0, 6), st.integers(1, 7), st.integers(0, 10**6))
def test_fractions_are_counts_over_k(points: int, queries: int, kept: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    labels = random.integers(0, 5, points)
    neighbours = random.integers(0, points, (queries, kept))
    for k in range(1, kept + 1):
        fractions = vote_fractions(neighbours[:, :k], labels, 5)
        assert fractions.shape == (queries, 5) and fractions.dtype == np.float64
        for row, near in zip(fractions, neighbours, strict=True):
            assert row.tolist() == [list(labels[near[:k]]).count(c) / k for c in range(5)]
