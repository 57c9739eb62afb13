"""Two-class problems of linear SVMs, their solutions and certificates, and products that their solvers share; see `svm`."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

import torch

#: Bytes of points that are copied at a time.
COPIED = 2**26
#: Columns of a Gram matrix that are made at a time, from the diagonal down.
PANEL = 256
#: G + 1/2C (n, n), with G = x·x' + 1 of points as they were, and its inverse.
Kernel = tuple[torch.Tensor, torch.Tensor]


class Whitened(NamedTuple):
    """Points in coordinates in which the Hessian over all of them is the identity.

    Parameters
    ----------
    points: (n, D) float32.
    basis: (D, D) float64, these coordinates' weights @ basis.T are those of the points as they were.
    penalty: (D,) float64, R in these coordinates, where it is diagonal; 2C Σ x xᵀ is 1 − penalty.
    C: with which the Hessian is the identity.
    """

    points: torch.Tensor
    basis: torch.Tensor
    penalty: torch.Tensor
    C: float

    def hessian(self, C: float, share: torch.Tensor | float = 1.0) -> torch.Tensor:
        """Return the diagonal (…, D) that R + 2C Σ x xᵀ has over all points, or over a `share` (…, 1) that is like them."""
        return self.penalty + share * (C / self.C) * (1 - self.penalty)


@dataclass(frozen=True)
class Problems:
    """B two-class problems, over points that they share or over points of their own.

    Parameters
    ----------
    points: (n, d + 1) shared, or (B, n, d + 1), float64: x − mean, and a last column of ones for the intercept.
    signs: (B, n) float64: +1 and −1 are the two sides, 0 a point that is not in the problem. Both sides must occur.
    C: weight of the loss.
    squared: whether the loss is the squared hinge; ½b² is part of the objective then, and not else.
    mean: (d,) or (B, d), what was taken off the points.
    kernel: of the points, if they are shared and fewer than their dimensions.
    gram: Σ x xᵀ (d + 1, d + 1) over all points, if they are shared and it is known.
    whitened: the points, if they are shared and the fits are to be by products with them.
    """

    points: torch.Tensor
    signs: torch.Tensor
    C: float
    squared: bool
    mean: torch.Tensor
    kernel: Kernel | None = None
    gram: torch.Tensor | None = None
    whitened: Whitened | None = None

    def take(self, which: torch.Tensor) -> Problems:
        """Return the problems numbered `which`."""
        points = self.points if self.points.ndim == 2 else self.points[which]
        mean = self.mean if self.mean.ndim == 1 else self.mean[which]
        return replace(self, points=points, signs=self.signs[which], mean=mean)

    def plain(self, weights: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return w (B, d) and b (B,) of weights (B, d + 1) for points of which no mean was taken off."""
        inner = weights[:, :-1]
        return inner, weights[:, -1] - (inner * self.mean).sum(1)

    def penalty_slope(self, weights: torch.Tensor) -> torch.Tensor:
        """Return the gradient R w (B, d + 1) of the penalty."""
        inner, intercept = self.plain(weights)
        if not self.squared:
            return torch.cat([inner, torch.zeros_like(intercept)[:, None]], dim=1)
        return torch.cat([inner - self.mean * intercept[:, None], intercept[:, None]], dim=1)

    def expanded(self, coefficients: torch.Tensor) -> torch.Tensor:
        """Return the weights (B, d + 1) whose w is Σ β x and whose b is Σ β, of β (B, n) and the points as they were."""
        sums = pull(self.points, coefficients)
        inner = sums[:, :-1] + self.mean * sums[:, -1:]
        return torch.cat([inner, sums[:, -1:] + (inner * self.mean).sum(1, keepdim=True)], dim=1)

    def ridge(self) -> torch.Tensor:
        """Return the penalty's matrices R (B or 1, d + 1, d + 1)."""
        mean = self.mean.reshape(-1, self.mean.shape[-1])[: None if self.squared else 1]
        eye = torch.eye(mean.shape[1] + 1, dtype=mean.dtype, device=mean.device).repeat(len(mean), 1, 1)
        eye[:, -1, -1] = 0.0
        if self.squared:
            shift = torch.cat([-mean, torch.ones_like(mean[:, :1])], dim=1)
            eye += shift[:, :, None] * shift[:, None, :]
        return eye


@dataclass(frozen=True)
class Solution:
    """What a solver makes of B problems.

    Parameters
    ----------
    weights: (B, d + 1) for `Problems.points`, the intercept last.
    alpha: (B, n) multipliers, 0 for points outside a problem.
    objective, gap: (B,) P and (P − D)/P at these.
    iterations: the most that any problem took.
    active, gram: (B, n) the points that `newton` took for active last, and their Gram matrices, for another to start from.
    """

    weights: torch.Tensor
    alpha: torch.Tensor
    objective: torch.Tensor
    gap: torch.Tensor
    iterations: int
    active: torch.Tensor | None = None
    gram: torch.Tensor | None = None

    def take(self, which: torch.Tensor) -> Solution:
        """Return the solutions numbered `which`."""
        active = None if self.active is None else self.active[which]
        gram = None if self.gram is None else self.gram[which]
        weights, alpha, objective, gap = (x[which] for x in (self.weights, self.alpha, self.objective, self.gap))
        return Solution(weights, alpha, objective, gap, self.iterations, active, gram)


def put(solution: Solution, which: torch.Tensor, other: Solution) -> None:
    """Write other solutions in place of the solutions numbered `which`."""
    for name in ("weights", "alpha", "objective", "gap"):
        getattr(solution, name)[which] = getattr(other, name)


def scores(points: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Return x·w (B, n) of points (n, D) or (B, n, D) and weights (B, D)."""
    return weights @ points.T if points.ndim == 2 else torch.bmm(points, weights[:, :, None])[:, :, 0]


def pull(points: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """Return Σ v x (B, D) of points (n, D) or (B, n, D) and values (B, n)."""
    return values @ points if points.ndim == 2 else torch.bmm(values[:, None, :], points)[:, 0]


def slacks(problems: Problems, weights: torch.Tensor) -> torch.Tensor:
    """Return 1 − y f (B, n), 0 outside a problem."""
    return problems.signs.abs() * (1 - problems.signs * scores(problems.points, weights))


def certificate(
    problems: Problems,
    weights: torch.Tensor,
    alpha: torch.Tensor,
    slack: torch.Tensor | None = None,
    gathered: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return P (B,) and P − D (B,) of weights (B, d + 1) and multipliers (B, n).

    Where Σ α y must be 0, the heavier side is scaled down to the other. `slack` (B, n) is 1 − y f, if the caller has it, and
    `gathered` (B, d + 1) is Σ α y x of a squared hinge.
    """
    signs, C = problems.signs, problems.C
    slack = slacks(problems, weights) if slack is None else slack
    if not problems.squared:
        up, down = (alpha * (signs > 0)).sum(1), (alpha * (signs < 0)).sum(1)
        least = torch.minimum(up, down)
        scale_up, scale_down = least / up.clamp(min=1e-300), least / down.clamp(min=1e-300)
        alpha = alpha * torch.where(signs > 0, scale_up[:, None], scale_down[:, None])
    hinge = slack.clamp(min=0)
    loss = C * (hinge.square() if problems.squared else hinge)
    rest = loss - alpha * slack + (alpha.square() / (4 * C) if problems.squared else 0)
    inner, intercept = problems.plain(weights)
    gathered = pull(problems.points, signs * alpha) if gathered is None else gathered
    penalty = inner.square().sum(1)
    distance = (inner - gathered[:, :-1] - problems.mean * gathered[:, -1:]).square().sum(1)
    if problems.squared:
        penalty, distance = penalty + intercept.square(), distance + (intercept - gathered[:, -1]).square()
    return 0.5 * penalty + loss.sum(1), 0.5 * distance + rest.sum(1)


def grams(points: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Return Σ v x xᵀ (B, D, D), of points (n, D) or (B, n, D) and v ≥ 0 (B, n), on and below the diagonal."""
    dimensions = points.shape[-1]
    if points.ndim == 3 and dimensions <= PANEL:
        return torch.bmm((points * weights[:, :, None]).transpose(1, 2), points)
    totals = points.new_zeros(len(weights), dimensions, dimensions)
    for b, total in enumerate(totals):
        rooted = (points if points.ndim == 2 else points[b]) * weights[b].sqrt()[:, None]
        for left in range(0, dimensions, PANEL):
            torch.mm(rooted[:, left:].T, rooted[:, left : left + PANEL], out=total[left:, left : left + PANEL])
    return totals


def cholesky(matrices: torch.Tensor) -> torch.Tensor:
    """Return lower Cholesky factors (B, D, D); a matrix that rounding made indefinite is lifted until it has one."""
    factors, failed = torch.linalg.cholesky_ex(matrices)
    lift = 1e-15
    while bool(failed.any()) and lift < 1:
        bad = torch.nonzero(failed)[:, 0]
        lifted = matrices[bad]
        diagonal = lifted.diagonal(dim1=1, dim2=2)
        diagonal += lift * diagonal.amax(1, keepdim=True)
        factors[bad], failed[bad] = torch.linalg.cholesky_ex(lifted)
        lift *= 10
    return factors


def few_points(points: torch.Tensor, mean: torch.Tensor, C: float) -> Kernel:
    """Return `Problems.kernel` of points (n, d + 1) without their mean (d,)."""
    features = points[:, :-1] + mean
    kernel = features @ features.T + 1
    kernel.diagonal().add_(0.5 / C)
    return kernel, torch.cholesky_inverse(cholesky(kernel[None])[0])


def whitened(points: torch.Tensor, mean: torch.Tensor, C: float, gram: torch.Tensor) -> Whitened:
    """Return `Problems.whitened` of points (n, d + 1) without their mean (d,), and their Gram matrix, for the squared hinge."""
    # With the mean, R is the identity.
    whole = gram.clone()
    whole[:-1] += mean[:, None] * whole[-1]
    whole[:, :-1] += whole[:, -1:] * mean
    bend, axes = torch.linalg.eigh(whole)
    penalty = 1 / (1 + 2 * C * bend.clamp(min=0))
    basis = axes * penalty.sqrt()
    basis[-1] += mean @ basis[:-1]
    moved = torch.empty(points.shape, dtype=torch.float32, device=points.device)
    rows = max(1, COPIED // (8 * points.shape[1]))
    for start in range(0, len(points), rows):
        moved[start : start + rows] = points[start : start + rows] @ basis
    return Whitened(moved, basis, penalty, C)


def span(rows: torch.Tensor) -> torch.Tensor:
    """Return orthonormal bases (…, d, n) of the spans of rows (…, n, d), n < d, in which the optimal w lie."""
    return torch.linalg.qr(rows.transpose(-1, -2))[0]
