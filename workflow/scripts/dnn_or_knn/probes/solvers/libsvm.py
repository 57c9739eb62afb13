"""Guesses for many small two-class problems: libsvm's, whose compiled loop knows no cost of a step.

Pairs of classes with few points each, 4,950 of 40 points for CIFAR-100's first 2,000, are less work than the calls of a batched
method. scikit-learn's SVC fits all pairs in one call. What it returns is held against the certificate (`svm.solve`), as
every solution is; a pair that it left too far from its optimum is solved anew.
"""

from __future__ import annotations

import warnings
from typing import NamedTuple

import numpy as np
import torch

from .svm_problem import Problems, Solution, pull

#: The most points of a pair for which a guess is worth its time, and steps a pair: on features of a large scale libsvm goes on for ever.
SMALL, STEPS = 256, 3000


class Guess(NamedTuple):
    """α (N, classes) of each point in its pair with each class."""

    alpha: torch.Tensor

    def of(self, problems: Problems, rows: torch.Tensor, labels: torch.Tensor, pairs: torch.Tensor) -> Solution:
        """Return the guess for problems over `rows` (B, n) of all points, about `pairs` (B, 2); gaps are not known."""
        first, second = pairs[:, :1], pairs[:, 1:]
        other = torch.where(labels[rows] == first, second, first)
        alpha, intercept = polished(problems, self.alpha[rows, other] * problems.signs.abs())
        weights = pull(problems.points, problems.signs * alpha)
        weights[:, -1] = intercept
        unknown = torch.full_like(intercept, torch.inf)
        return Solution(weights, alpha, unknown, unknown.clone(), 0)


def polished(problems: Problems, alpha: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the α (B, n) and intercepts (B,) at which points with 0 < α < C have a margin of 1: libsvm's kernel has 24 bits.

    Solves y f = 1 for the free points and Σ α y = 0. Where none is free, or others should be, nothing is gained: a gap will tell.
    """
    points, signs, C = problems.points[:, :, :-1], problems.signs, problems.C
    free = ((alpha > 0) & (alpha < C)).to(alpha.dtype)  # libsvm ends at the bounds themselves
    signed = points * signs[:, :, None]
    kernel = torch.bmm(signed, signed.transpose(1, 2))
    fixed = alpha * (1 - free)
    count = alpha.shape[1]
    system = alpha.new_zeros(len(alpha), count + 1, count + 1)
    system[:, :count, :count] = kernel * free[:, :, None] * free[:, None, :] + torch.diag_embed(1 - free)
    system[:, :count, count] = system[:, count, :count] = signs * free
    system[:, count, count] = (free.sum(1) == 0).to(alpha.dtype)
    right = free * (1 - torch.bmm(kernel, fixed[:, :, None])[:, :, 0]) + fixed
    right = torch.cat([right, -(signs * fixed).sum(1, keepdim=True)], dim=1)
    found = torch.linalg.solve_ex(system, right)[0].nan_to_num(0.0, 0.0, 0.0)
    return found[:, :count].clamp(0, C), found[:, count]


def guesses(points: torch.Tensor, labels: torch.Tensor, fold: torch.Tensor, C: float, tolerance: float) -> list[Guess]:
    """Return guesses on all points (N, d + 1) and then without each fold (N,), or none if there are fewer than three classes."""
    held = [torch.zeros_like(fold, dtype=torch.bool), *(fold == number for number in range(int(fold.max()) + 1))]
    classes = int(labels.max()) + 1
    made = [guess(points[:, :-1], labels.where(~out, -1), classes, C=C, tolerance=tolerance) for out in held]
    return [] if None in made else [one for one in made if one is not None]


def guess(features: torch.Tensor, labels: torch.Tensor, classes: int, *, C: float, tolerance: float) -> Guess | None:
    """Return libsvm's α of every pair of classes, with the hinge.

    Parameters
    ----------
    features: (N, d) float64, from which the problems' points were made. labels: (N,) 0 … `classes` − 1; −1 leaves a point out.
    tolerance: of the duality gap; libsvm's own is a tenth of it.

    Returns None if there are fewer than three classes.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.svm import SVC

    rows = torch.nonzero(labels >= 0)[:, 0]
    sides = labels[rows].cpu().numpy()
    known = np.unique(sides)
    if len(known) < 3:
        return None
    model = SVC(C=C, kernel="linear", tol=0.1 * tolerance, max_iter=STEPS, cache_size=500)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # the certificate will tell
        model.fit(features[rows].cpu().numpy(), sides)
    # Row k of a support vector's coefficients is its pair with the kth of the other classes.
    own = np.searchsorted(known, sides[model.support_])
    others = np.array([np.delete(known, c) for c in range(len(known))])[own].T
    alpha = np.zeros((len(labels), classes))
    alpha[rows.cpu().numpy()[model.support_][None], others] = np.abs(model.dual_coef_)
    return Guess(torch.as_tensor(alpha, device=features.device))
