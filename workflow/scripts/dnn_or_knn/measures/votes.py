"""k-NN probabilities and labels, read off kept neighbour lists: any k up to the length of the lists."""

from __future__ import annotations

import numpy as np

from ..runtime.errors import UserError


def vote_fractions(neighbours: np.ndarray, labels: np.ndarray, classes: int, k: int | None = None) -> np.ndarray:
    """Return the fractions (n, classes) of uniform votes for each class among the k nearest neighbours, float64.

    Parameters
    ----------
    neighbours: (n, k_max) indices of training points, nearest first.
    labels: (N,) the training points' labels, in 0 … classes − 1.
    classes: number of classes; one without votes has the fraction 0.
    k: neighbours that vote, 1 … k_max (default: all that are kept).

    A fraction is votes / k: a multiple of 1/k, and equal votes give equal fractions.
    """
    kept = neighbours.shape[1]
    k = kept if k is None else k
    if not 1 <= k <= kept:
        raise UserError(f"k = {k} neighbours were asked for, but {kept} are kept; raise k_max of the k-NN probe")
    points = len(neighbours)
    voted = labels[neighbours[:, :k]] + classes * np.arange(points)[:, None]
    return np.bincount(voted.ravel(), minlength=points * classes).reshape(points, classes) / k


def vote_labels(fractions: np.ndarray) -> np.ndarray:
    """Return the class (n,) with most votes; ties go to the lowest class index."""
    return fractions.argmax(axis=1)
