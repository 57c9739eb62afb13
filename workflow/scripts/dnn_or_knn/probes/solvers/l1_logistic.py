"""Two-class logistic regression with an L1 penalty, liblinear's objective, by an interior point with a duality gap.

Over w (d + 1), the last entry the intercept, which liblinear penalises like any other (x carries a 1), minimise

    f(w) = ‖w‖₁ + C Σ_i log(1 + exp(−y_i w·x_i)),   y = ±1.

The method is that of Koh, Kim and Boyd (2007): bounds |w| < u are kept by logarithmic barriers, the Newton system in
(w, u) is reduced to one in w. **Certificate.** With θ_i = s C σ(−y_i w·x_i) and s ≤ 1 such that ‖Σ θ_i y_i x_i‖∞ ≤ 1,
f* is at least C Σ_i H(θ_i / C), H the binary entropy; the gap is the difference, relative to f.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from .svm_problem import cholesky

#: Factor by which the barrier is lowered, least step at which it is, and the line search's constants.
LOWER, LEAST, ARMIJO, SHRINK = 2.0, 0.5, 0.01, 0.5


@dataclass(frozen=True)
class LassoFit:
    """A fitted model: w·x + b, `weights` (d,) float64, with its certificate."""

    weights: torch.Tensor
    intercept: float
    objective: float
    gap: float
    iterations: int


def fit_lasso(
    features: torch.Tensor, signs: torch.Tensor, *, C: float, tolerance: float = 1e-6, limit: int = 300
) -> LassoFit:
    """Minimise f to a relative duality gap of `tolerance`, or as near as `limit` Newton steps come.

    Parameters
    ----------
    features: (N, d), computed on in float64 on their device.
    signs: (N,) +1 or −1, both present.
    """
    ones = torch.ones(len(features), 1, dtype=torch.float64, device=features.device)
    # Rows y·x: every product below wants them so.
    rows = torch.cat([features.double(), ones], dim=1) * signs.double()[:, None]
    w = rows.new_zeros(rows.shape[1])
    u = torch.ones_like(w)
    t = min(max(1.0, 1.0 / max(C * len(rows), 1e-300)), 2.0 * len(w) / 1e-3)
    objective, gap = evaluate(rows, w, C)
    best = (w, objective, gap)
    step, iterations = 1.0, 0
    while gap > tolerance * objective and iterations < limit:
        iterations += 1
        if step >= LEAST:
            t = max(LOWER * min(2 * len(w) / gap, t), t)
        w, u, step = _newton(rows, w, u, t, C)
        objective, gap = evaluate(rows, w, C)
        if gap < best[2]:
            best = (w, objective, gap)
        if step == 0.0:
            break
    w, objective, gap = best
    return LassoFit(w[:-1], float(w[-1]), objective, gap / max(objective, 1e-300), iterations)


def evaluate(rows: torch.Tensor, w: torch.Tensor, C: float) -> tuple[float, float]:
    """Return f and its certified distance from the optimum; `rows` are y·(x, 1)."""
    margins = rows @ w
    objective = w.abs().sum() + C * torch.nn.functional.softplus(-margins).sum()
    share = torch.sigmoid(-margins)
    share = share / max(1.0, float((rows.T @ (C * share)).abs().max()))
    entropy = -(torch.xlogy(share, share) + torch.special.xlog1py(1 - share, -share))
    return float(objective), max(float(objective - C * entropy.sum()), 0.0)


def _newton(
    rows: torch.Tensor, w: torch.Tensor, u: torch.Tensor, t: float, C: float
) -> tuple[torch.Tensor, torch.Tensor, float]:
    """Return (w, u) after one damped Newton step on the barrier function of weight t, and the step's length."""
    margins = rows @ w
    share = torch.sigmoid(-margins)
    slope = -C * (rows.T @ share)
    above, below = 1 / (u + w), 1 / (u - w)
    first, mixed = above**2 + below**2, above**2 - below**2
    gradient_w, gradient_u = t * slope - above + below, t - above - below
    curvature = t * C * (rows.T @ (rows * (share * (1 - share))[:, None]))
    curvature.diagonal().add_(first - mixed**2 / first)
    factor = cholesky(curvature[None])[0]
    towards_w = torch.cholesky_solve((mixed / first * gradient_u - gradient_w)[:, None], factor)[:, 0]
    towards_u = -(gradient_u + mixed * towards_w) / first
    descent = float(gradient_w @ towards_w + gradient_u @ towards_u)

    def barrier(w: torch.Tensor, u: torch.Tensor) -> float:
        if not bool(((u + w > 0) & (u - w > 0)).all()):
            return float("inf")
        loss = C * torch.nn.functional.softplus(-(rows @ w)).sum()
        return float(t * (loss + u.sum()) - (u + w).log().sum() - (u - w).log().sum())

    start, step = barrier(w, u), 1.0
    while step > 1e-12:
        trial = (w + step * towards_w, u + step * towards_u)
        if barrier(*trial) <= start + ARMIJO * step * descent:
            return *trial, step
        step *= SHRINK
    return w, u, 0.0
