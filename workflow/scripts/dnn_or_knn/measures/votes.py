"""k-NN probabilities and labels, read off kept neighbour lists: any k up to the length of the lists."""

from __future__ import annotations

import numpy as np


def vote_fractions(neighbours: np.ndarray, labels: np.ndarray, classes: int) -> np.ndarray:
    """Return the fractions (n, classes) of uniform votes of k neighbours for each class, float64.

    Parameters
    ----------
    neighbours: (n, k) indices of training points.
    labels: (N,) the training points' labels, in 0 … classes − 1.
    classes: number of classes; one without votes has the fraction 0.

    A fraction is votes / k: a multiple of 1/k, and equal votes give equal fractions.
    """
    points, k = neighbours.shape
    voted = labels[neighbours] + classes * np.arange(points)[:, None]
    return np.bincount(voted.ravel(), minlength=points * classes).reshape(points, classes) / k
