"""Networks that did not learn: which they are, and what is left without them."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import synthetic
from dnn_or_knn.measures.learned import at_chance, failed, of_learned


@pytest.mark.parametrize(
    ("accuracy", "classes", "failed"),
    [(0.1, 10, True), (0.199, 10, True), (0.2, 10, False), (0.74, 2, True), (0.76, 2, False), (np.nan, 10, False)],
)
def test_chance_is_left_behind_at_twice_of_it_or_half_of_the_way_to_all(accuracy, classes, failed):
    assert at_chance(accuracy, classes) == failed
    assert list(at_chance(np.array([accuracy, 1.0]), np.array([classes, classes]))) == [failed, False]


def tables(failing: list[int], labels: str = "true-labels") -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return made-up tables of three seeds on MNIST, of which a network ended at chance with some."""
    measures, runs = synthetic.tables(datasets=("mnist",), seeds=3)
    network = "lenet" if labels == "true-labels" else "wrn-28-10"
    of = (runs.architecture == network) & (runs.labels == labels) & runs.seed.isin(failing)
    return measures, runs.assign(final_train_accuracy=runs.final_train_accuracy.mask(of, 0.1))


def test_a_seed_that_did_not_learn_is_left_out_and_named():
    measures, runs = tables([1])
    kept, good, out = of_learned(measures, runs)
    assert [(run["architecture"], run["labels"], run["seed"]) for run in out] == [("lenet", "true-labels", 1)]
    gone = (measures.architecture == "lenet") & (measures.labels == "true-labels") & (measures.seed == 1)
    assert gone.any() and len(kept) == len(measures) - gone.sum() and len(good) == len(runs) - 1
    pd.testing.assert_frame_equal(kept, measures[~gone])


@pytest.mark.parametrize("failing", [[], [0, 1, 2]], ids=["none failed", "all failed"])
def test_all_stays_where_no_seed_or_every_seed_failed(failing):
    measures, runs = tables(failing)
    kept, good, out = of_learned(measures, runs)
    pd.testing.assert_frame_equal(kept, measures)
    pd.testing.assert_frame_equal(good, runs)
    assert out == [] and failed(runs).sum() == len(failing)


@pytest.mark.parametrize(("labels", "out"), [("overfit", True), ("random-labels", False)])
def test_random_labels_that_are_not_memorized_are_no_failure(labels, out):
    measures, runs = tables([1], labels)
    assert list(runs[failed(runs)].labels) == ([labels] if out else [])
    assert len(of_learned(measures, runs)[2]) == out


def test_a_seed_without_a_networks_answers_is_none_that_learned():
    measures, runs = tables([0])
    of = (runs.architecture == "lenet") & (runs.seed > 0)
    columns = ["final_train_accuracy", "final_test_accuracy"]
    runs = runs.assign(**{name: runs[name].mask(of, np.nan) for name in columns})
    assert list(runs[failed(runs)].seed) == [0] and of_learned(measures, runs)[2] == []
