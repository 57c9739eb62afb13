"""Newton's method for linear SVMs with the squared hinge, on Gram matrices or by products with the points; see `svm`."""

from __future__ import annotations

from collections.abc import Callable

import torch

from .svm_problem import (
    COPIED,
    PANEL,
    Problems,
    Solution,
    Whitened,
    certificate,
    cholesky,
    grams,
    pull,
    put,
    scores,
    slacks,
)

#: Newton steps that a fit may take before it is left to the interior point.
STEPS = 40
#: Newton steps by products that a fit may take before it is left to `newton`, and products with a Hessian in each.
PRODUCT_STEPS, PRODUCTS = 300, 200
#: A step by products ends where what is left of the gradient is this part of it.
FORCING = 0.1
#: What a fit is taken to need in `by_products`: steps, points that change their side in one, products in one.
TYPICAL_STEPS, TYPICAL_CHANGE, TYPICAL_PRODUCTS = 10, 0.1, 20
#: Operations by Gram matrices, half an hour of one core, from where fits by products are thought of: others keep their bits.
HALF_AN_HOUR = 5e13


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

    return _search(slope, slope(torch.zeros_like(linear))[0])


def _changed_step(
    C: float, slack: torch.Tensor, moved: torch.Tensor, first: torch.Tensor, quadratic: torch.Tensor
) -> torch.Tensor:
    """Return what `_step` does, of `moved` with a float32's digits, where the slope `first` (B,) of no step is known to more."""
    hinge = slack.clamp(min=0)

    def slope(step: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        change = torch.addcmul(slack, step[:, None], moved, value=-1).clamp_(min=0)
        bend = torch.where(change > 0, moved, 0.0).square_().sum(1)
        return first + step * quadratic - 2 * C * change.sub_(hinge).mul_(moved).sum(1), quadratic + 2 * C * bend

    return _search(slope, first)


def _search(slope: Callable[[torch.Tensor], tuple[torch.Tensor, torch.Tensor]], first: torch.Tensor) -> torch.Tensor:
    """Return steps (B,) where a slope, which comes with its own, is at most a tenth of the `first` of no step."""
    low, high = torch.zeros_like(first), torch.full_like(first, torch.inf)
    step = (first < 0).to(first.dtype)
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


def by_products(points: int, dimensions: int, fits: int) -> bool:
    """Return whether fits over shared points are made by products with them, from operations that both ways need.

    A step on a Gram matrix changes it by some points and factors it, in float64; one by products takes some Hessian-vector
    products in float32, which count half, and score and gradient in float64, after one eigendecomposition for all.
    """
    area = points * dimensions
    on_grams = TYPICAL_STEPS * fits * (dimensions**3 / 3 + TYPICAL_CHANGE * area * dimensions)
    products = TYPICAL_STEPS * fits * (4 * TYPICAL_PRODUCTS / 2 + 8) * area + 2 * area * dimensions + 25 * dimensions**3
    return on_grams > max(HALF_AN_HOUR, products)


def newton_by_products(
    problems: Problems,
    white: Whitened,
    start: Solution | None = None,
    *,
    tolerance: float = 1e-6,
    limit: int = PRODUCT_STEPS,
) -> Solution:
    """Minimise the squared-hinge objective of every problem in at most `limit` steps of conjugate gradients, all at once.

    The points are multiplied with all problems' vectors in one product; a problem that is done leaves the batch. float32
    only makes directions: gradients and certificates are float64.
    """
    points, C = problems.points, problems.C
    weights = _first_weights(problems, white, start)
    worst = torch.full_like(weights[:, 0], torch.inf)
    found = Solution(weights, torch.zeros_like(problems.signs), worst, worst.clone(), 0)
    live = torch.arange(len(weights), device=weights.device)
    for iteration in range(limit + 1):
        part = problems.take(live) if len(live) < len(weights) else problems
        now = weights[live]
        slack = slacks(part, now)
        alpha = 2 * C * slack.clamp(min=0)
        gathered = pull(points, part.signs * alpha)
        primal, distance = certificate(part, now, alpha, slack, gathered)
        gap = distance / primal.clamp(min=1e-300)
        put(found, live, Solution(now, alpha, primal, gap, 0))
        del alpha
        open_ = torch.nonzero(~(gap <= tolerance))[:, 0]
        if iteration == limit or not len(open_):
            break
        if len(open_) < len(live):
            part, live, slack, now, gathered = part.take(open_), live[open_], slack[open_], now[open_], gathered[open_]
        downhill = gathered - part.penalty_slope(now)
        direction, moved = _products_direction(white, C, slack > 0, downhill)
        quadratic = (direction * part.penalty_slope(direction)).sum(1)
        step = _changed_step(C, slack, part.signs * moved, -(downhill * direction).sum(1), quadratic)
        weights[live] = now + step[:, None] * direction
    return Solution(found.weights, found.alpha, found.objective, found.gap, iteration)


def _first_weights(problems: Problems, white: Whitened, start: Solution | None) -> torch.Tensor:
    """Return weights (B, D) to begin with: those of `start`, or the minimum with every point of all active.

    Where the points that are active in `start` and take part here are about as many as dimensions, the first step would satisfy
    them all and put others on the wrong side, so that it is farther from there than from the beginning.
    """
    anew = pull(problems.points, 2 * problems.C * problems.signs) @ white.basis @ white.basis.T
    if start is None:
        return anew
    active = ((start.alpha > 0) & (problems.signs != 0)).sum(1)
    near = (active > 0.5 * anew.shape[1]) & (active < 2 * anew.shape[1])
    return torch.where(near[:, None], anew, start.weights)


def _products_direction(
    white: Whitened, C: float, active: torch.Tensor, downhill: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return δ (L, D) with (R + 2C Σ x xᵀ) δ ≈ downhill (L, D) over the `active` points (L, n), and x·δ (L, n) float32.

    Conjugate gradients in the whitened coordinates, as if the active points were that share of all points.
    """
    points, basis, penalty = white
    share = active.mean(dim=1, keepdim=True, dtype=torch.float64)
    scale = penalty + share * (1 - penalty)
    residual = downhill @ basis
    ahead = residual / scale
    along, left = ahead, (residual * ahead).sum(1)
    enough = FORCING**2 * left
    found, moved = torch.zeros_like(residual), torch.zeros(active.shape, dtype=torch.float32, device=active.device)
    live = torch.arange(len(found), device=found.device)
    for _ in range(PRODUCTS):
        reached = along.float() @ points.T
        bent = penalty * along + 2 * C * ((reached * active) @ points).double()
        length = left / (along * bent).sum(1).clamp(min=1e-300)
        found[live] += length[:, None] * along
        moved.index_add_(0, live, reached.mul_(length.float()[:, None]))
        residual = residual - length[:, None] * bent
        ahead = residual / scale
        before, left = left, (residual * ahead).sum(1)
        along = ahead + (left / before.clamp(min=1e-300))[:, None] * along
        open_ = torch.nonzero(left > enough)[:, 0]
        if not len(open_):
            break
        if len(open_) < len(live):
            live, active, scale, enough = live[open_], active[open_], scale[open_], enough[open_]
            residual, along, left = residual[open_], along[open_], left[open_]
    return found @ basis.T, moved
