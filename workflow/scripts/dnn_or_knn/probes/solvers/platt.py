"""Probabilities from decision values: Platt's sigmoids and the coupling of pairwise probabilities.

Sigmoids are Platt's with the Newton method and the stable formulas of Lin, Lin and Weng (2007); the coupling is the
second method of Wu, Lin and Weng (2004), the one in libsvm, solved exactly instead of to libsvm's 0.005/C.
"""

from __future__ import annotations

import numpy as np
import torch

#: libsvm keeps pairwise probabilities this far from 0 and 1 before it couples them.
SMALLEST = 1e-7


def stratified_folds(labels: np.ndarray, folds: int, generator: np.random.Generator) -> np.ndarray:
    """Return the fold 0 … folds − 1 (N,) of each point: classes and folds are as even as they can be.

    Each class's points are shuffled and dealt out in turn, the next class going on where the last one stopped. A
    class with fewer points than folds is missing from some folds.
    """
    shuffled = np.argsort(generator.random(len(labels)), kind="stable")
    by_class = shuffled[np.argsort(labels[shuffled], kind="stable")]
    fold = np.empty(len(labels), np.int64)
    fold[by_class] = np.arange(len(labels)) % folds
    return fold


def fit_sigmoids(scores: torch.Tensor, signs: torch.Tensor, *, limit: int = 100) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the slopes A and offsets B (K,) of K sigmoids ``p(y = +1 | s) = 1 / (1 + exp(A s + B))``.

    Parameters
    ----------
    scores: (K, n) float64 decision values, out of fold.
    signs: (K, n) +1 or −1, and 0 for what is not part of a fit.

    The targets are smoothed by Platt's prior, (N₊ + 1)/(N₊ + 2) and 1/(N₋ + 2), so that the optimum is finite for
    separable scores too. Newton's method with halving; scores are standardised first, which leaves the optimum where it
    is. Constant scores have slope 0.
    """
    inside = signs.abs()
    count = inside.sum(1).clamp(min=1)
    up = (signs > 0).sum(1, keepdim=True).to(scores.dtype)
    down = (signs < 0).sum(1, keepdim=True).to(scores.dtype)
    target = torch.where(signs > 0, (up + 1) / (up + 2), 1 / (down + 2))
    mean = (inside * scores).sum(1) / count
    centred = inside * (scores - mean[:, None])
    spread = (centred.square().sum(1) / count).sqrt()
    flat = spread <= 1e-12 * (inside * scores).abs().amax(1)
    scaled = torch.where(flat[:, None], 0.0, centred / torch.where(flat, 1.0, spread)[:, None])

    def loss(slope: torch.Tensor, offset: torch.Tensor) -> torch.Tensor:
        z = slope[:, None] * scaled + offset[:, None]
        return (inside * (target * z + torch.nn.functional.softplus(-z))).sum(1)

    slope, offset = torch.zeros_like(mean), ((down + 1) / (up + 1)).log()[:, 0]
    value = loss(slope, offset)
    for _ in range(limit):
        p = torch.sigmoid(-(slope[:, None] * scaled + offset[:, None]))
        rise, bend = inside * (target - p), inside * p * (1 - p)
        by_slope, by_offset = (rise * scaled).sum(1), rise.sum(1)
        unfinished = torch.maximum(by_slope.abs(), by_offset.abs()) > 1e-10 * count
        if not bool(unfinished.any()):
            break
        ss, so, oo = (bend * scaled.square()).sum(1) + 1e-12, (bend * scaled).sum(1), bend.sum(1) + 1e-12
        determinant = ss * oo - so * so
        step_slope = -(oo * by_slope - so * by_offset) / determinant
        step_offset = -(ss * by_offset - so * by_slope) / determinant
        descent = by_slope * step_slope + by_offset * step_offset
        length = unfinished.to(scores.dtype)
        for _ in range(40):
            trial = loss(slope + length * step_slope, offset + length * step_offset)
            # What rounding may add to the sum counts as no rise.
            high = trial > value + 1e-4 * length * descent + 1e-14 * value.abs()
            if not bool(high.any()):
                break
            length = torch.where(high, 0.5 * length, length)
        slope, offset, value = slope + length * step_slope, offset + length * step_offset, trial
    slope = torch.where(flat, 0.0, slope / torch.where(flat, 1.0, spread))
    return slope, offset - slope * mean


def sigmoid(scores: torch.Tensor, slope: torch.Tensor, offset: torch.Tensor) -> torch.Tensor:
    """Return ``1 / (1 + exp(A s + B))`` of scores (n, K) with A and B (K,)."""
    return torch.sigmoid(-(scores * slope + offset))


def normalised_sigmoids(scores: torch.Tensor, slope: torch.Tensor, offset: torch.Tensor) -> torch.Tensor:
    """Return the `sigmoid` of scores (n, K) divided by each row's sum, from logarithms: none is too small to count."""
    return torch.softmax(torch.nn.functional.logsigmoid(-(scores * slope + offset)), dim=1)


def couple(pairwise: torch.Tensor, pairs: torch.Tensor, classes: int) -> torch.Tensor:
    """Return class probabilities (n, C) from pairwise ones.

    Parameters
    ----------
    pairwise: (n, P) the probability of a pair's first class, given that it is one of the two.
    pairs: (P, 2) all pairs i < j of the C classes.

    The solution of ``min Σ_i Σ_{j≠i} (r_ji p_i − r_ij p_j)²``, ``Σ p = 1``: Q p is the same in all entries, with
    ``Q_ii = Σ_{j≠i} r_ji²`` and ``Q_ij = −r_ji r_ij``. Q is singular where the pairs agree, Q + 1 1ᵀ never is.
    """
    first, second = pairs[:, 0], pairs[:, 1]
    forward = pairwise.clamp(SMALLEST, 1 - SMALLEST)
    r = pairwise.new_zeros(len(pairwise), classes, classes)
    r[:, first, second], r[:, second, first] = forward, 1 - forward
    quadratic = 1 - r * r.transpose(1, 2)
    quadratic.diagonal(dim1=1, dim2=2).add_(r.square().sum(1))
    ones = pairwise.new_ones(len(pairwise), classes, 1)
    solution = torch.cholesky_solve(ones, torch.linalg.cholesky(quadratic))[:, :, 0]
    solution = solution.clamp(min=0)
    return solution / solution.sum(1, keepdim=True)
