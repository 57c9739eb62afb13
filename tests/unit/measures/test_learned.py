"""Networks that did not learn: which they are, and what is left without them."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import synthetic
from dnn_or_knn.measures.learned import at_chance, of_learned


@pytest.mark.parametrize(
    ("accuracy", "classes", "failed"),
    [(0.1, 10, True), (0.199, 10, True), (0.2, 10, False), (0.74, 2, True), (0.76, 2, False), (np.nan, 10, False)],
)
def test_chance_is_left_behind_at_twice_of_it_or_half_of_the_way_to_all(accuracy, classes, failed):
    assert at_chance(accuracy, classes) == failed
    assert list(at_chance(np.array([accuracy, 1.0]), np.array([classes, classes]))) == [failed, False]


def tables(failing: list[int]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return made-up tables of three seeds on MNIST, of which LeNet with true labels did not learn with some."""
    measures, runs = synthetic.tables(datasets=("mnist",), seeds=3)
    of = (runs.architecture == "lenet") & (runs.labels == "true-labels") & runs.seed.isin(failing)
    return measures, runs.assign(final_train_accuracy=runs.final_train_accuracy.mask(of, 0.1))


def test_a_seed_that_did_not_learn_is_left_out_and_named():
    measures, runs = tables([1])
    kept, good, failed = of_learned(measures, runs)
    assert [(run["architecture"], run["labels"], run["seed"]) for run in failed] == [("lenet", "true-labels", 1)]
    gone = (measures.architecture == "lenet") & (measures.labels == "true-labels") & (measures.seed == 1)
    assert gone.any() and len(kept) == len(measures) - gone.sum() and len(good) == len(runs) - 1
    pd.testing.assert_frame_equal(kept, measures[~gone])


@pytest.mark.parametrize("failing", [[], [0, 1, 2]], ids=["none failed", "all failed"])
def test_all_stays_where_no_seed_or_every_seed_failed(failing):
    measures, runs = tables(failing)
    kept, good, failed = of_learned(measures, runs)
    pd.testing.assert_frame_equal(kept, measures)
    pd.testing.assert_frame_equal(good, runs)
    assert failed == []
