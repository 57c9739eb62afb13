"""Newton's method for linear SVMs with the squared hinge: on Gram matrices, by products with the points, along a path of C; see `svm`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

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
#: The path begins where 2C‖x‖² of a point is this on average, goes on by this factor, and asks for this gap on the way.
FIRST, FACTOR, LOOSE = 4.0, 4.0, 0.1
#: Active points a dimension that are few, those from where products get there by themselves, and near points an active one.
FEW, MANY, NEAR = 1.5, 4.0, 2.5
#: Near points a dimension at most, and choices of them at most.
MOST, ROUNDS = 8, 5
#: What a fit over near points leaves of the tolerance to rounding.
INNER = 0.3
#: Steps by products that a fit is given at least and at most before it goes along the path, and products in each.
PATIENCE, TRIED = (2, 12), 25
#: What a fit is taken to need in `by_products`: steps, points that change their side in one, products in one.
TYPICAL_STEPS, TYPICAL_CHANGE, TYPICAL_PRODUCTS = 10, 0.1, 20
#: Operations by Gram matrices, half an hour of one core, from where fits by products are thought of: others keep their bits.
HALF_AN_HOUR = 5e13


def newton(
    problems: Problems,
    start: Solution | None = None,
    *,
    tolerance: float = 1e-6,
    limit: int = STEPS,
    settle: bool = False,
) -> Solution:
    """Minimise the squared-hinge objective of every problem in at most `limit` Newton steps; see the module.

    With `settle` a problem also ends where a step changed no point's side: all that is left then is rounding.
    """
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
        if settle and iteration:
            live = live[((slack[live] > 0) != (active[live] > 0)).any(1)]
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
    weights: torch.Tensor,
    *,
    tolerance: float = 1e-6,
    limit: int = PRODUCT_STEPS,
    products: int = PRODUCTS,
    leave: float = -1,
) -> Solution:
    """Minimise the squared-hinge objective of every problem from `weights` (B, D) in at most `limit` steps of `products`, all at once.

    A problem ends, too, where at most `leave` points are active. The points are multiplied with all problems' vectors in one
    product; a problem that is done leaves the batch. float32 only makes directions: gradients and certificates are float64.
    """
    points, C = problems.points, problems.C
    weights = weights.clone()
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
        open_ = torch.nonzero(~(gap <= tolerance) & ((slack > 0).sum(1) > leave))[:, 0]
        if iteration == limit or not len(open_):
            break
        if len(open_) < len(live):
            part, live, slack, now, gathered = part.take(open_), live[open_], slack[open_], now[open_], gathered[open_]
        downhill = gathered - part.penalty_slope(now)
        direction, moved = _products_direction(white, C, slack > 0, downhill, products)
        quadratic = (direction * part.penalty_slope(direction)).sum(1)
        step = _changed_step(C, slack, part.signs * moved, -(downhill * direction).sum(1), quadratic)
        weights[live] = now + step[:, None] * direction
    return Solution(found.weights, found.alpha, found.objective, found.gap, iteration)


def _first_weights(problems: Problems, white: Whitened, start: Solution | None) -> torch.Tensor:
    """Return weights (B, D) to begin with: those of `start`, or the minimum with every point of all active.

    Where the points that are active in `start` and take part here are about as many as dimensions, the first step would satisfy
    them all and put others on the wrong side, so that it is farther from there than from the beginning.
    """
    anew = _all_active(problems, white)
    if start is None:
        return anew
    active = ((start.alpha > 0) & (problems.signs != 0)).sum(1)
    near = (active > 0.5 * anew.shape[1]) & (active < 2 * anew.shape[1])
    return torch.where(near[:, None], anew, start.weights)


def _all_active(problems: Problems, white: Whitened) -> torch.Tensor:
    """Return the weights (B, D) that minimise every problem's objective as if all points were active."""
    uphill = pull(problems.points, 2 * problems.C * problems.signs) @ white.basis
    return uphill / white.hessian(problems.C) @ white.basis.T


def _products_direction(
    white: Whitened, C: float, active: torch.Tensor, downhill: torch.Tensor, products: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return δ (L, D) with (R + 2C Σ x xᵀ) δ ≈ downhill (L, D) over the `active` points (L, n), and x·δ (L, n) float32.

    Conjugate gradients in the whitened coordinates, as if the active points were that share of all points.
    """
    points, basis, penalty = white.points, white.basis, white.penalty
    scale = white.hessian(C, active.mean(dim=1, keepdim=True, dtype=torch.float64))
    residual = downhill @ basis
    ahead = residual / scale
    along, left = ahead, (residual * ahead).sum(1)
    enough = FORCING**2 * left
    found, moved = torch.zeros_like(residual), torch.zeros(active.shape, dtype=torch.float32, device=active.device)
    live = torch.arange(len(found), device=found.device)
    for _ in range(products):
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


def along_path(
    problems: Problems, white: Whitened, start: Solution | None = None, *, tolerance: float = 1e-6
) -> Solution:
    """Minimise the squared-hinge objective of every problem by products or, where those get nowhere, from a small C to its own.

    Where C is large and about as many points are active as there are dimensions, Newton's method flips points to and fro in short
    steps; from the optimum of a C four times smaller it needs a few whole ones. With a small C nearly all points are active, and
    products with all of them are well conditioned; once few are, the rest of the path is over the points near the margin.
    """
    count, dimensions = problems.points.shape
    # Steps by products that cost what the path does.
    patience = min(max(PATIENCE[0], dimensions**2 // (10 * count)), PATIENCE[1])
    first = _first_weights(problems, white, start)
    found = newton_by_products(problems, white, first, tolerance=tolerance, limit=patience, products=TRIED)
    steps, path = found.iterations, _costs(problems, white)
    left = torch.nonzero(~(found.gap <= tolerance))[:, 0]
    if len(left) and len(path) > 1:
        leave = MANY * dimensions
        many = newton_by_products(problems.take(left), white, found.weights[left], tolerance=tolerance, leave=leave)
        put(found, left, many)
        left = left[~(many.gap <= tolerance)]
        steps += many.iterations
        if len(left):
            found.weights[left], taken = _path_weights(problems.take(left), white, path, tolerance)
            steps += taken
    if len(left):
        last = newton_by_products(problems.take(left), white, found.weights[left], tolerance=tolerance)
        put(found, left, last)
        steps += last.iterations
    return replace(found, iterations=steps)


def _path_weights(problems: Problems, white: Whitened, path: list[float], tolerance: float) -> tuple[torch.Tensor, int]:
    """Return weights (B, D) at the end of the path and the steps to there; what is above the tolerance is for the caller to see."""
    weights = _all_active(replace(problems, C=path[0]), white)
    live = torch.arange(len(weights), device=weights.device)
    steps = most = 0
    for number, C in enumerate(path[:-1]):
        found = newton_by_products(replace(problems.take(live), C=C), white, weights[live], tolerance=LOOSE)
        weights[live] = found.weights
        steps += found.iterations
        most = max(most, steps)
        few = (found.alpha > 0).sum(1) <= FEW * len(white.penalty)
        if bool(few.any()):
            near = problems.take(live[few])
            weights[live[few]], taken = _over_near_points(
                near, white, weights[live[few]], path[number + 1 :], tolerance
            )
            most = max(most, steps + taken)
        live = live[~few]
        if not len(live):
            break
    return weights, most


def _costs(problems: Problems, white: Whitened) -> list[float]:
    """Return the C of each stage of the path, the last of which is the problems' own."""
    bend = (1 / white.penalty - 1).sum().item() / len(problems.points)
    path = [problems.C]
    while bend * path[0] / white.C > FIRST:
        path.insert(0, path[0] / FACTOR)
    return path


def _over_near_points(
    problems: Problems, white: Whitened, weights: torch.Tensor, path: list[float], tolerance: float
) -> tuple[torch.Tensor, int]:
    """Return weights (B, D) of fits over the points near the margin of `weights`, chosen anew while others are on the wrong side.

    `path` is followed over the first choice. What ends above the tolerance is for the caller to see. The second value is the most
    steps that a problem took.
    """
    best, steps = weights.clone(), torch.zeros(len(weights), dtype=torch.int64)
    live, least = torch.arange(len(weights), device=weights.device), torch.full_like(weights[:, 0], torch.inf)
    for number in range(ROUNDS + 1):
        part = problems.take(live)
        slack = slacks(part, weights)
        if number:
            primal, distance = certificate(part, weights, 2 * part.C * slack.clamp(min=0), slack)
            gap = distance / primal.clamp(min=1e-300)
            better = gap < least[live]
            best[live[better]], least[live[better]] = weights[better], gap[better]
            open_ = torch.nonzero(better & (gap > tolerance))[:, 0]
            live, slack, weights = live[open_], slack[open_], weights[open_]
        if number == ROUNDS or not len(live):
            break
        rest = path[-1:] if number else path
        fits = [
            _near_fit(problems, white, b, first, own, rest, tolerance)
            for b, first, own in zip(live.tolist(), weights, slack, strict=True)
        ]
        weights = torch.stack([fit[0] for fit in fits])
        steps[live.cpu()] += torch.tensor([fit[1] for fit in fits])
    return best, int(steps.max())


def _near_fit(
    problems: Problems,
    white: Whitened,
    b: int,
    weights: torch.Tensor,
    slack: torch.Tensor,
    path: list[float],
    tolerance: float,
) -> tuple[torch.Tensor, int]:
    """Return weights (D,) of problem `b` over the points of largest `slack` (n,) at `weights`, and the steps to them.

    In the coordinates of `Whitened`, but with R the identity: there float32 keeps the digits that count.
    """
    signs = problems.signs[b]
    scale, dimensions = white.penalty.sqrt(), len(white.penalty)
    count = max(int(NEAR * (slack > 0).sum()), dimensions)
    inside = int(signs.count_nonzero())
    rows = torch.where(signs != 0, slack, -torch.inf).topk(min(count, MOST * dimensions, inside)).indices
    points = white.points[rows] / scale.float()
    near = Problems(points, signs[None, rows].float(), problems.C, True, points.new_zeros(dimensions - 1))
    nothing, gram = torch.zeros_like(near.signs), points.new_zeros(1, dimensions, dimensions)
    first = problems.penalty_slope(weights[None]) @ white.basis / scale
    found = Solution(first.float(), nothing, nothing[:, 0], nothing[:, 0], 0, nothing, gram)
    steps = 0
    for C in path:
        wanted = INNER * tolerance if C == problems.C else LOOSE
        found = newton(replace(near, C=C), found, tolerance=wanted, settle=True)
        steps += found.iterations
    return white.basis @ (found.weights[0].double() / scale), steps
