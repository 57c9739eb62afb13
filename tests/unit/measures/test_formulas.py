"""The formulas of the measures, against hand-made cases, SciPy and naive resampling."""

from __future__ import annotations

import numpy as np
import pytest
from dnn_or_knn.measures import formulas
from dnn_or_knn.measures.bootstrap import draw_counts
from dnn_or_knn.runtime.errors import UserError
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import entropy


def random_case(seed: int, size: int = 40, classes: int = 5) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return logits, vote fractions with many exact zeros, and labels."""
    rng = np.random.default_rng(seed)
    votes = rng.multinomial(6, rng.dirichlet(np.ones(classes)), size=size) / 6
    return rng.normal(size=(size, classes)).astype(np.float32) * 4, votes, rng.integers(0, classes, size)


def authors_d_kl(p: np.ndarray, q: np.ndarray) -> float:
    """D_KL as the authors' code had it: zeros become 1e-6, SciPy's entropy over axis 0, the classes averaged."""
    p, q = p.astype(np.float64), q.astype(np.float64)
    p[p == 0], q[q == 0] = 1e-6, 1e-6
    return float(entropy(p, q, axis=0).mean())


def model(probabilities: np.ndarray, decision: np.ndarray | None = None, predict: str = "decision") -> formulas.Model:
    return formulas.Model(lambda rows: probabilities[rows], decision, predict)


def test_d_kl_by_hand():
    p = np.array([[0.5, 0.5, 0.0], [1.0, 0.0, 0.0], [0.2, 0.3, 0.5]])
    q = np.array([[0.25, 0.5, 0.25], [0.5, 0.25, 0.25], [0.2, 0.3, 0.5]])
    expected = [0.5 * np.log(2), np.log(2), 0.0]
    np.testing.assert_allclose(formulas.d_kl(p, np.log(q)), expected, atol=1e-15)


def test_d_kl_stays_finite_where_float32_probabilities_are_zero():
    logits = np.array([[0.0, 300.0]], np.float32)
    assert formulas.softmax_float32(logits)[0, 0] == 0
    assert formulas.d_kl(np.array([[1.0, 0.0]]), formulas.log_softmax(logits)) == pytest.approx(300)


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 10_000), classes=st.integers(2, 9))
def test_d_kl_per_sample_is_scipys_entropy(seed, classes):
    logits, votes, _ = random_case(seed, classes=classes)
    log_q = formulas.log_softmax(logits)
    result = formulas.d_kl(formulas.normalized(votes), log_q)
    np.testing.assert_allclose(result, entropy(votes, np.exp(log_q), axis=1), rtol=1e-9, atol=1e-12)
    assert (result >= -1e-12).all()


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 10_000), classes=st.integers(2, 9))
def test_d_kl_by_column_is_the_authors_computation(seed, classes):
    logits, votes, _ = random_case(seed, classes=classes)
    logits[:, 0] -= 200
    q = formulas.softmax_float32(logits)
    (p_floored, p_zeros), (q_floored, q_zeros) = formulas.floored(votes), formulas.floored(q)
    assert (p_zeros, q_zeros) == ((votes == 0).sum(), (q == 0).sum()) and q_zeros >= len(q)
    columns = (p_floored, q_floored, formulas.cross(p_floored, q_floored))
    result = formulas.d_kl_column(*(values.sum(axis=0, keepdims=True) for values in columns))
    np.testing.assert_allclose(result, authors_d_kl(votes, q), rtol=1e-9, atol=1e-12)  # 0 but for rounding, of one vote


def test_the_two_divergences_part_when_the_network_favours_one_class():
    logits, votes, _ = random_case(1, size=2000)
    logits[:, 0] += 6
    log_q, q = formulas.log_softmax(logits), formulas.softmax_float32(logits)
    assert abs(formulas.d_kl(votes, log_q).mean() - authors_d_kl(votes, q)) > 0.3


def test_ties_go_to_the_lowest_class():
    np.testing.assert_array_equal(formulas.predicted(np.array([[0.2, 0.4, 0.4], [0.5, 0.0, 0.5]])), [1, 0])


def test_first_step_takes_100_percent_at_its_word():
    accuracies = [(300, 0.99949), (100, 0.5), (400, 0.9995), (500, 0.99), (200, 0.91)]
    assert formulas.first_step(accuracies, 0.9995) == 400
    assert formulas.first_step(accuracies, 0.9) == 200
    assert formulas.first_step(accuracies, 0.9999) is None


def test_measures_of_a_hand_made_split():
    logits = np.log(np.array([[0.7, 0.2, 0.1], [0.1, 0.8, 0.1], [0.3, 0.3, 0.4], [0.9, 0.05, 0.05]])).astype(np.float32)
    truth = np.array([0, 1, 1, 2])
    probabilities = np.array([[0.6, 0.4, 0.0], [0.5, 0.5, 0.0], [0.2, 0.2, 0.6], [0.1, 0.1, 0.8]])
    decision = np.array([0, 1, 1, 2], np.int16)
    models = {"svm": model(probabilities, decision), "platt": model(probabilities, decision, "probability")}
    models["knn"] = model(probabilities, None, "probability")
    dnn, measured = formulas.measure(logits, truth, models, draw_counts(4, 3, seed=0, split="test"))
    assert dnn[0] == 0.5 and dnn.shape == (4,)
    svm, platt, knn = (measured[name].values for name in ("svm", "platt", "knn"))
    assert (svm["accuracy"][0], svm["accuracy_decision"][0], svm["accuracy_probability"][0]) == (1.0, 1.0, 0.5)
    assert (platt["accuracy"][0], platt["accuracy_decision"][0], platt["accuracy_probability"][0]) == (0.5, 1.0, 0.5)
    assert (svm["p_same"][0], platt["p_same"][0]) == (0.5, 0.5)
    assert "accuracy_decision" not in knn and knn["accuracy"][0] == 0.5
    assert measured["knn"].floored == 2
    expected = entropy(probabilities, np.exp(logits.astype(np.float64)), axis=1).mean()
    assert knn["d_kl"][0] == pytest.approx(expected, rel=1e-6)


@settings(deadline=None, max_examples=15)
@given(seed=st.integers(0, 10_000), block=st.integers(3, 60))
def test_replicates_are_the_measures_of_the_resampled_split(seed, block):
    logits, votes, truth = random_case(seed)
    decision = np.random.default_rng(seed).integers(0, 5, len(truth)).astype(np.int16)
    counts = draw_counts(len(truth), 5, seed=seed, split="test")
    none = counts[:0]
    before, formulas.BLOCK = formulas.BLOCK, block
    try:
        dnn, measured = formulas.measure(logits, truth, {"svm": model(votes, decision)}, counts)
    finally:
        formulas.BLOCK = before
    for replicate, row in enumerate(counts, start=1):
        drawn = np.repeat(np.arange(len(truth)), row)
        again = {"svm": model(votes[drawn], decision[drawn])}
        dnn_again, expected = formulas.measure(logits[drawn], truth[drawn], again, none[:, drawn])
        assert dnn[replicate] == pytest.approx(dnn_again[0], rel=1e-12)
        for name, value in expected["svm"].values.items():
            assert measured["svm"].values[name][replicate] == pytest.approx(value[0], rel=1e-9, abs=1e-12), name


def test_a_diverged_network_is_named():
    logits, votes, truth = random_case(0)
    logits[3, 1] = np.nan
    with pytest.raises(UserError, match="not finite"):
        formulas.measure(logits, truth, {"knn": model(votes)}, draw_counts(len(truth), 2, seed=0, split="test"))


def test_broken_probabilities_are_named():
    logits, votes, truth = random_case(0)
    votes[3, 1] = np.nan
    with pytest.raises(UserError, match="knn"):
        formulas.measure(logits, truth, {"knn": model(votes)}, draw_counts(len(truth), 2, seed=0, split="test"))
