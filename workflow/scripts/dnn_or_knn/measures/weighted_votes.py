"""k-NN probabilities from votes that are weighted by similarity, as evaluations of self-supervised networks take them."""

from __future__ import annotations

import numpy as np


def fractions(
    neighbours: np.ndarray, distances: np.ndarray, labels: np.ndarray, classes: int, temperature: float
) -> np.ndarray:
    """Return each class's share (n, classes) of the votes of k neighbours, float64; neighbour i has the vote

        exp(cos_i / T) / Σ_j exp(cos_j / T),   j over the k neighbours.

    This is DINOv2's k-NN (softmax over the neighbours, then a sum by class). InstDisc's, DINO's and lightly's leave the
    denominator out, which changes neither the order of the classes nor what their scores divided by the sum are.

    Parameters
    ----------
    neighbours: (n, k) indices of training points. labels: (N,) those points' labels, in 0 … classes − 1.
    distances: (n, k) cosine distances, 1 − cos.
    temperature: T.
    """
    weights = np.exp((distances.min(axis=1, keepdims=True) - distances) / temperature)
    weights /= weights.sum(axis=1, keepdims=True)
    points = len(neighbours)
    voted = labels[neighbours] + classes * np.arange(points)[:, None]
    return np.bincount(voted.ravel(), weights.ravel(), minlength=points * classes).reshape(points, classes)
