"""Newton's method for linear SVMs with the squared hinge, on Gram matrices that are changed by few points; see `svm`."""

from __future__ import annotations

import torch

from .svm_problem import COPIED, PANEL, Problems, Solution, certificate, cholesky, grams, pull, scores, slacks

#: Newton steps that a fit may take before it is left to the interior point.
STEPS = 40


def newton(
    problems: Problems, start: Solution | None = None, *, tolerance: float = 1e-6, limit: int = STEPS
) -> Solution:
    """Minimise the squared-hinge objective of every problem in at most `limit` Newton steps; see the module."""
    points, signs, C, ridge = problems.points, problems.signs, problems.C, problems.ridge()
    inside, dimensions = signs.abs(), points.shape[-1]
    if start is None or start.active is None or start.gram is None:
        weights = points.new_zeros(len(signs), dimensions)
        active = inside
        shared = points.ndim == 2 and bool(inside.all())
        # Made once for the batches of one-vs-rest problems: of many classes there are many.
        once = problems.gram if shared else None
        gram = (
            (points.T @ points if once is None else once).repeat(len(signs), 1, 1) if shared else grams(points, inside)
        )
    else:
        weights, active, gram = start.weights, start.active, start.gram.clone()
    every = torch.arange(len(signs), device=signs.device)
    for iteration in range(limit + 1):
        slack = slacks(problems, weights)
        alpha = 2 * C * slack.clamp(min=0)
        primal, distance = certificate(problems, weights, alpha, slack)
        gap = distance / primal.clamp(min=1e-300)
        live = torch.nonzero(~(gap <= tolerance))[:, 0]
        if iteration == limit or not len(live):
            break
        part = problems.take(live) if len(live) < len(every) else problems
        now = (slack[live] > 0).to(slack.dtype)
        _change_gram(part.points, gram, live, now - active[live], now)
        active = active.index_copy(0, live, now)
        slope = problems.penalty_slope(weights)[live]
        downhill = pull(part.points, part.signs * alpha[live]) - slope
        direction = _newton_direction(2 * C, gram, ridge, live, downhill)
        moved = part.signs * scores(part.points, direction)
        quadratic = (direction * part.penalty_slope(direction)).sum(1)
        step = _step(C, slack[live], moved, (slope * direction).sum(1), quadratic)
        weights = weights.index_add(0, live, step[:, None] * direction)
    return Solution(weights, alpha, primal, gap, iteration, active, gram)


def _newton_direction(
    bend: float, gram: torch.Tensor, ridge: torch.Tensor, live: torch.Tensor, downhill: torch.Tensor
) -> torch.Tensor:
    """Return δ (L, D) with (R + `bend` gram) δ = downhill (L, D) of the problems `live` (L,), some at a time."""
    direction = torch.empty_like(downhill)
    for some in torch.arange(len(live), device=live.device).split(max(1, COPIED // (8 * gram.shape[-1] ** 2))):
        which = live[some]
        hessian = gram[which].mul_(bend).add_(ridge if len(ridge) == 1 else ridge[which])
        direction[some] = torch.cholesky_solve(downhill[some, :, None], cholesky(hessian))[:, :, 0]
    return direction


def _change_gram(
    points: torch.Tensor, gram: torch.Tensor, live: torch.Tensor, change: torch.Tensor, after: torch.Tensor
) -> None:
    """Change the Gram matrices gram[live] (L, D, D) by points that come (+1) and go (−1) in `change` (L, n).

    Where fewer points are in `after` (L, n) than change, they are made anew. Entries above the diagonal mean nothing.
    """
    fresh = after.sum(1) < change.abs().sum(1)
    change = torch.where(fresh[:, None], after, change)
    counts, dimensions = change.abs().sum(1), points.shape[-1]
    # Of a large matrix no copy is made, one at a time.
    size = 1 if dimensions > PANEL else max(1, COPIED // (8 * dimensions * max(dimensions, int(counts.max()))))
    for some in torch.arange(len(live), device=live.device).split(size):
        block = gram[live[some]] if size > 1 else gram[int(live[some[0]])][None]
        block[fresh[some]] = 0.0
        part = change[some]
        order = part.abs().argsort(dim=1, descending=True, stable=True)[:, : int(counts[some].max())]
        for rows in order.split(max(1, COPIED // (8 * dimensions * len(some))), dim=1):
            picked = points[rows] if points.ndim == 2 else points[some[:, None], rows]
            weighted = (picked * part.gather(1, rows)[:, :, None]).transpose(1, 2)
            for left in range(0, dimensions, PANEL):
                right = left + PANEL
                block[:, left:, left:right] += torch.bmm(weighted[:, left:], picked[:, :, left:right])
        if size > 1:
            gram[live[some]] = block


def _step(
    C: float, slack: torch.Tensor, moved: torch.Tensor, linear: torch.Tensor, quadratic: torch.Tensor
) -> torch.Tensor:
    """Return step lengths (B,) to where P's slope along a direction is at most a tenth of what it was.

    The slope is increasing and piecewise linear in the step: Newton's method on it, kept inside a bracket. `moved` (B, n)
    are y x·direction; `linear` and `quadratic` (B,) the penalty's slope and curvature along the direction.
    """

    def slope(step: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        hinge = (slack - step[:, None] * moved).clamp_(min=0)
        bend = ((hinge > 0) * moved * moved).sum(1)
        return linear + step * quadratic - 2 * C * (hinge * moved).sum(1), quadratic + 2 * C * bend

    first, _ = slope(torch.zeros_like(linear))
    low, high = torch.zeros_like(linear), torch.full_like(linear, torch.inf)
    step = (first < 0).to(linear.dtype)
    for _ in range(30):
        rise, bend = slope(step)
        done = rise.abs() <= 0.1 * first.abs()
        if bool(done.all()):
            break
        low, high = torch.where(rise < 0, step, low), torch.where(rise > 0, step, high)
        proposal = step - rise / bend.clamp(min=1e-300)
        middle = torch.where(high.isinf(), 2 * step, 0.5 * (low + high))
        proposal = torch.where((proposal > low) & (proposal < high), proposal, middle)
        step = torch.where(done, step, proposal)
    return step
