"""Guesses for many small two-class problems: libsvm's, whose compiled loop knows no cost of a step.

Pairs of classes with few points each, 4,950 of 40 points for CIFAR-100's first 2,000, are less work than the calls of a batched
method. scikit-learn's SVC fits all pairs in one call. What it returns is held against the certificate (`svm.solve`), as
every solution is; a pair that it left too far from its optimum is solved anew.
"""

from __future__ import annotations

import warnings

import numpy as np
import torch

from .svm_problem import Problems, Solution, cholesky, pull

#: The most points of a pair for which a guess is worth its time.
SMALL = 256
#: Steps a pair: on features of a large scale libsvm goes on for ever.
STEPS = 3000


def start(
    guess: torch.Tensor, problems: Problems, rows: torch.Tensor, labels: torch.Tensor, pairs: torch.Tensor
) -> Solution:
    """Return where to start problems over `rows` (B, n) of all points, about `pairs` (B, 2), from a guess; P and gaps are not known."""
    first, second = pairs[:, :1], pairs[:, 1:]
    other = torch.where(labels[rows] == first, second, first)
    alpha, intercept = polished(problems, guess[rows, other] * problems.signs.abs())
    weights = pull(problems.points, problems.signs * alpha)
    weights[:, -1] = intercept
    return Solution(weights, alpha, intercept, torch.full_like(intercept, torch.inf), 0)


def polished(problems: Problems, alpha: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the α (B, n) and intercepts (B,) at which points with 0 < α < C have a margin of 1: libsvm's kernel has 24 bits.

    Solves y f = 1 for the free points and Σ α y = 0. Where none is free, or others should be, nothing is gained: a gap will tell.
    """
    signs, C = problems.signs, problems.C
    free = ((alpha > 0) & (alpha < C)).to(alpha.dtype)  # libsvm ends at the bounds themselves
    # The last column, of ones, adds (Σ α y)² to the kernel: nothing at a solution, but it makes one of d + 1 free points regular.
    signed = problems.points * signs[:, :, None]
    kernel = torch.bmm(signed, signed.transpose(1, 2))
    fixed, sides = alpha * (1 - free), signs * free
    right = free * (1 - torch.bmm(kernel, fixed[:, :, None])[:, :, 0])
    # By Cholesky's factor: MKL's factors of a batch of other matrices end on two threads in errors, or never.
    factor = cholesky(kernel * free[:, :, None] * free[:, None, :] + torch.diag_embed(1 - free))
    ahead, across = torch.cholesky_solve(torch.stack([right, sides], dim=2), factor).unbind(2)
    bend = (sides * across).sum(1)
    intercept = ((sides * ahead).sum(1) + (signs * fixed).sum(1)) / torch.where(bend > 0, bend, torch.inf)
    return (ahead - intercept[:, None] * across + fixed).nan_to_num(0.0, 0.0, 0.0).clamp(0, C), intercept.nan_to_num(
        0.0
    )


def guesses(
    points: torch.Tensor, labels: torch.Tensor, fold: torch.Tensor, C: float, tolerance: float
) -> list[torch.Tensor]:
    """Return libsvm's α (N, classes) of each point in its pair with each class, with the hinge: of all points, then without each fold.

    Parameters
    ----------
    points: (N, d + 1) float64, from which the problems' points are made. labels, fold: (N,).
    tolerance: of the duality gap; libsvm's own is a tenth of it.

    Returns nothing if there are fewer than three classes, of which libsvm makes another case.
    """
    held = [torch.zeros_like(fold, dtype=torch.bool), *(fold == number for number in range(int(fold.max()) + 1))]
    if min(len(labels[~out].unique()) for out in held) < 3:
        return []
    shape = (len(labels), int(labels.max()) + 1)
    return [_guess(points[:, :-1], labels, torch.nonzero(~out)[:, 0], shape, C, tolerance) for out in held]


def _guess(
    features: torch.Tensor, labels: torch.Tensor, rows: torch.Tensor, shape: tuple[int, int], C: float, tolerance: float
) -> torch.Tensor:
    """Return α of the points `rows`, 0 of the others."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.svm import SVC

    sides = labels[rows].cpu().numpy()
    known = np.unique(sides)
    model = SVC(C=C, kernel="linear", tol=0.1 * tolerance, max_iter=STEPS, cache_size=500)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # the certificate will tell
        model.fit(features[rows].cpu().numpy(), sides)
    # Row k of a support vector's coefficients is its pair with the kth of the other classes.
    own = np.searchsorted(known, sides[model.support_])
    others = np.array([np.delete(known, c) for c in range(len(known))])[own].T
    alpha = np.zeros(shape)
    alpha[rows.cpu().numpy()[model.support_][None], others] = np.abs(model.dual_coef_)
    return torch.as_tensor(alpha, device=features.device)
