"""Linear SVMs with the squared hinge over fewer points than dimensions, by block principal pivoting; see `svm`."""

from __future__ import annotations

import torch

from .svm_problem import Kernel, Problems, Solution, certificate, cholesky, slacks

#: Steps that may leave as many points on the wrong side as the best did before a fit is left to another method.
PATIENCE = 3


def pivots(problems: Problems, kernel: Kernel, *, tolerance: float = 1e-6) -> Solution:
    """Minimise the squared-hinge objective of every problem, or come as near as it is given up.

    With w = Σ β x, the optimum has (G + 1/2C) β = y at the active points, where h > 0, and β = 0 elsewhere. A step solves that
    and moves every point that is on the wrong side, with y β < 0 or with h > 0, to the other (Júdice and Pires 1994).
    """
    signs = problems.signs
    beta, active, live = torch.zeros_like(signs), signs != 0, torch.arange(len(signs), device=signs.device)
    least, patience = torch.full_like(signs[:, 0], torch.inf), torch.full_like(signs[:, 0], PATIENCE)
    weights, primal, gap, iteration = problems.expanded(beta), least.clone(), least.clone(), 0
    while len(live):
        iteration += 1
        part, now = problems.take(live), active[live]
        beta[live] = found = _over_points(part.signs, kernel, beta[live], now)
        weights[live] = part.expanded(found)
        slack = slacks(part, weights[live])
        primal[live], distance = certificate(part, weights[live], (part.signs * found).clamp(min=0), slack)
        gap[live] = distance / primal[live].clamp(min=1e-300)
        wrong = torch.where(now, part.signs * found < 0, slack > 0)
        count = wrong.sum(1).to(least.dtype)
        patience[live] = torch.where(count < least[live], PATIENCE, patience[live] - 1)
        least[live] = torch.minimum(count, least[live])
        active[live] = now ^ wrong
        live = live[~(gap[live] <= tolerance) & (patience[live] >= 0)]
    return Solution(weights, (signs * beta).clamp(min=0), primal, gap, iteration)


def _over_points(signs: torch.Tensor, kernel: Kernel, beta: torch.Tensor, active: torch.Tensor) -> torch.Tensor:
    """Return the β (B, n) with (G + 1/2C) β = y at `active` points and 0 elsewhere, from a guess: it saves digits.

    The system is that of the active points or, from the inverse over all, that of the others: of whichever are fewer.
    """
    matrix, inverse = kernel
    kept, found = beta * active, torch.zeros_like(beta)
    missing = (signs - kept @ matrix) * active
    few = 2 * active.sum(1) <= active.shape[1]
    asked = torch.where(few[:, None], missing, missing @ inverse)
    for b, own in enumerate(few.tolist()):
        rows = torch.nonzero(active[b] == own)[:, 0]
        factor = cholesky((matrix if own else inverse)[rows[:, None], rows][None])[0]
        found[b, rows] = torch.cholesky_solve(asked[b, rows, None], factor)[:, 0]
    return kept + torch.where(few[:, None], found, ((missing - found) @ inverse) * active)
