"""The formulas: accuracy, P_SAME (eq. 2), D_KL per sample (eq. 1), and D_KL as the authors' code computed it.

All logarithms are natural, so D_KL is in nats; accuracies and P_SAME are fractions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

import numpy as np

from ..runtime.errors import UserError

#: Samples that are measured at a time: at 200 replicates their counts take 13 MB as float64.
BLOCK = 8192
#: What the authors' code puts where a float32 probability is exactly zero.
FLOOR = 1e-6


def log_softmax(logits: np.ndarray) -> np.ndarray:
    """Return the log-softmax of logits (N, C) in float64: finite wherever the logits are."""
    shifted = logits.astype(np.float64)
    shifted -= shifted.max(axis=1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))


def softmax_float32(logits: np.ndarray) -> np.ndarray:
    """Return the softmax of logits (N, C) in float32, as the authors' network put it out: exact zeros occur."""
    powers = np.exp((logits - logits.max(axis=1, keepdims=True)).astype(np.float32))
    return powers / powers.sum(axis=1, keepdims=True)


def predicted(scores: np.ndarray) -> np.ndarray:
    """Return the class of the largest score, (N,); ties go to the lowest class index."""
    return scores.argmax(axis=1)


def agreement(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return 1.0 where two labellings (N,) agree, else 0.0.

    The mean is the accuracy if one of them is the truth, and P_SAME of eq. (2) if they are a probe's and the DNN's.
    """
    return (first == second).astype(np.float64)


def normalized(probabilities: np.ndarray) -> np.ndarray:
    """Return probabilities (N, C) as float64 with rows that sum to 1: storing them as float32 rounded them."""
    wide = probabilities.astype(np.float64)
    return wide / wide.sum(axis=1, keepdims=True)


def d_kl(p: np.ndarray, log_q: np.ndarray) -> np.ndarray:
    """Return D_KL(p‖q) of eq. (1) for every sample, float64 (N,), in nats.

    Parameters
    ----------
    p: a probe's probabilities, float64 (N, C), rows summing to 1. Terms with p = 0 are 0.
    log_q: the DNN's log-softmax, float64 (N, C), finite.
    """
    logarithm = np.log(p, where=p > 0, out=np.zeros_like(p))
    return (p * (logarithm - log_q)).sum(axis=1)


def floored(probabilities: np.ndarray) -> tuple[np.ndarray, int]:
    """Return probabilities as float64 with exact zeros replaced by `FLOOR`, and how many there were."""
    zero = probabilities == 0
    return np.where(zero, FLOOR, probabilities).astype(np.float64), int(zero.sum())


def cross(p: np.ndarray, q: np.ndarray) -> np.ndarray:
    """Return p log(p/q), entry by entry, (N, C)."""
    return p * (np.log(p) - np.log(q))


def d_kl_column(p_sums: np.ndarray, q_sums: np.ndarray, cross_sums: np.ndarray) -> np.ndarray:
    """Return the D_KL of the authors' code, column by column, from weighted sums over the samples: (W,), in nats.

    Their code calls ``scipy.stats.entropy(p, q)`` on arrays (N, C): that normalises each class's column over the
    samples, takes the divergence of the two columns, and the classes are averaged. With weights w, and
    P_c = Σ w p_c, Q_c = Σ w q_c, the divergence of a column is Σ w p_c log(p_c/q_c) / P_c − log(P_c/Q_c).

    Parameters
    ----------
    p_sums, q_sums, cross_sums: for each of W weightings Σ w p, Σ w q and Σ w `cross(p, q)`, float64 (W, C); p and q are
        the probe's and the DNN's probabilities, all above zero (`floored`).
    """
    return (cross_sums / p_sums - np.log(p_sums / q_sums)).mean(axis=1)


def first_step(accuracies: Iterable[tuple[int, float]], threshold: float) -> int | None:
    """Return the first step whose train accuracy reaches `threshold`, None if none does.

    With 0.9995 this is the paper's memorization: train accuracy "reaches 100.0 %" for the first time.
    """
    return next((step for step, accuracy in sorted(accuracies) if accuracy >= threshold), None)


class Model(NamedTuple):
    """A probe's predictions on one split of one evaluation.

    Parameters
    ----------
    probabilities: function that returns the probabilities (n, C) of a slice of the samples.
    decision: the class of the largest decision value, (N,), or None if the probe has no decision values.
    predict: "decision" or "probability": which of the two labels is the probe's answer.
    """

    probabilities: Callable[[slice], np.ndarray]
    decision: np.ndarray | None
    predict: str


class Measured(NamedTuple):
    """A model's measures on one split: entry 0 of each array is the value itself, the rest are its replicates."""

    values: dict[str, np.ndarray]
    floored: int


def measure(
    logits: np.ndarray, truth: np.ndarray, models: Mapping[str, Model], draws: np.ndarray
) -> tuple[np.ndarray, dict[str, Measured]]:
    """Measure the DNN and its probes on one split of one evaluation, a block of samples at a time.

    Parameters
    ----------
    logits: the DNN's, (N, C).
    truth: the labels of the split, (N,).
    models: the probes by name.
    draws: counts of the bootstrap's replicates, (B, N), from `bootstrap.draw_counts`.

    Returns
    -------
    The DNN's accuracy (1 + B,), and for each model ``accuracy``, ``accuracy_probability``, ``p_same``, ``d_kl``,
    ``d_kl_column`` and, if it has decision values, ``accuracy_decision``.

    Raises
    ------
    UserError: logits or probabilities that are not finite.
    """
    totals: np.ndarray | float = 0.0
    zeros = dict.fromkeys(models, 0)
    for start in range(0, len(logits), BLOCK):
        rows = slice(start, start + BLOCK)
        pieces = _columns(logits[rows], truth[rows], models, rows, zeros)
        weights = np.vstack([np.ones((1, len(truth[rows]))), draws[:, rows]])
        totals = totals + weights @ np.hstack(list(pieces.values()))
    ends = np.cumsum([piece.shape[1] for piece in pieces.values()])
    sums = dict(zip(pieces, np.split(np.asarray(totals), ends[:-1], axis=1), strict=True))
    measured = {name: Measured(_values(name, sums, len(logits)), zeros[name]) for name in models}
    return sums["dnn", "accuracy"][:, 0] / len(logits), measured


def _columns(
    logits: np.ndarray, truth: np.ndarray, models: Mapping[str, Model], rows: slice, zeros: dict[str, int]
) -> dict[tuple[str, str], np.ndarray]:
    """Return all per-sample values of a block, (n, columns) by model and measure, adding floored entries to `zeros`."""
    if not np.isfinite(logits).all():
        raise UserError("the network's logits are not finite: it diverged; lower its learning rate and train again")
    log_q, answer = log_softmax(logits), predicted(logits)
    q, q_zeros = floored(softmax_float32(logits))
    pieces = {("dnn", "accuracy"): agreement(answer, truth)[:, None], ("dnn", "q"): q}
    for name, model in models.items():
        given = model.probabilities(rows)
        p, p_zeros = floored(given)
        zeros[name] += p_zeros + q_zeros
        decision = None if model.decision is None else model.decision[rows]
        for measure_name, values in _per_sample(given, decision, model.predict, truth, answer, log_q).items():
            pieces[name, measure_name] = values[:, None]
        pieces[name, "p"], pieces[name, "cross"] = p, cross(p, q)
    return pieces


def _per_sample(
    given: np.ndarray,
    decision: np.ndarray | None,
    predict: str,
    truth: np.ndarray,
    answer: np.ndarray,
    log_q: np.ndarray,
) -> dict[str, np.ndarray]:
    """Return what a probe's predictions on a block of samples are worth, each (n,)."""
    likeliest = predicted(given)
    label = decision if decision is not None and predict == "decision" else likeliest
    values = {
        "accuracy": agreement(label, truth),
        "accuracy_probability": agreement(likeliest, truth),
        "p_same": agreement(label, answer),
        "d_kl": d_kl(normalized(given), log_q),
    }
    return values if decision is None else values | {"accuracy_decision": agreement(decision, truth)}


def _values(name: str, sums: Mapping[tuple[str, str], np.ndarray], size: int) -> dict[str, np.ndarray]:
    """Return a model's measures from its weighted sums."""
    values = {k: total[:, 0] / size for (model, k), total in sums.items() if model == name and k not in ("p", "cross")}
    values["d_kl_column"] = d_kl_column(sums[name, "p"], sums["dnn", "q"], sums[name, "cross"])
    if not all(np.isfinite(value).all() for value in values.values()):
        raise UserError(f"the probabilities of {name} are not finite; fit that probe again")
    return values
