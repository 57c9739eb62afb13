"""Linear support vector machines to a certified duality gap, many two-class problems at a time.

Problem. Minimise over w, b, with f = w·x + b, slack t = 1 − y f and hinge h = max(0, t),

    P(w, b) = ½‖w‖² [+ ½b² if the intercept is penalised] + C Σ h   or   … + C Σ h² (the squared hinge).

Method. Squared hinge: `newton`. P is piecewise quadratic; a step solves (R + 2C Σ x xᵀ) δ = −∇P over the active points
(h > 0) and is as long as the minimum along it. Their Gram matrix is kept and changed by the points that become active or
cease to be; a fold starts from the fit of all points. Hinge, and what Newton's method leaves: `interior_point`.

Certificate. Any α in [0, C] (α ≥ 0 for the squared hinge; Σ α y = 0 if the intercept is free) bounds P from below by D,

    P − D = ½‖w − Σ α y x‖² [+ ½(b − Σ α y)²] + Σ (C h − α t)   or   … + Σ (C h² − α t + α²/4C),

a sum of terms none of which is negative, so that no digit is lost in a difference of P and D. It is taken at the weights
that are returned, from the points themselves (`certificate`). Points have their mean taken off, so that a large one costs
no digits of the Gram matrices; a penalised intercept stays that of the points as they were. All is float64.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from .gram import gram as total_gram

#: Newton steps that a fit may take before it is left to the interior point.
STEPS = 40
#: Points counted as active for a free intercept alone, whose equation is singular where no point is active.
PIVOT = 1e-6
#: `interior_point` starts from α of this over the points' mean square, if that is below C: 1/‖x‖² moves a margin by 1.
START = 100.0
#: `interior_point` goes on without the problems that are done once no more than this part is left.
DROP = 0.75
#: Bytes of points that are copied at a time.
COPIED = 2**26
#: Columns of a Gram matrix that are made at a time, from the diagonal down.
PANEL = 256


@dataclass(frozen=True)
class Problems:
    """B two-class problems, over points that they share or over points of their own.

    Parameters
    ----------
    points: (n, d + 1) shared, or (B, n, d + 1), float64: x − mean, and a last column of ones for the intercept.
    signs: (B, n) float64: +1 and −1 are the two sides, 0 a point that is not in the problem. Both sides must occur.
    C: weight of the loss.
    squared: whether the loss is the squared hinge.
    penalized: whether ½b² is part of the objective.
    mean: (d,) or (B, d), what was taken off the points.
    """

    points: torch.Tensor
    signs: torch.Tensor
    C: float
    squared: bool
    penalized: bool
    mean: torch.Tensor

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
        if not self.penalized:
            return torch.cat([inner, torch.zeros_like(intercept)[:, None]], dim=1)
        return torch.cat([inner - self.mean * intercept[:, None], intercept[:, None]], dim=1)

    def ridge(self) -> torch.Tensor:
        """Return the penalty's matrices R (B or 1, d + 1, d + 1)."""
        mean = self.mean.reshape(-1, self.mean.shape[-1])
        eye = torch.eye(mean.shape[1] + 1, dtype=mean.dtype, device=mean.device).repeat(len(mean), 1, 1)
        eye[:, -1, -1] = 0.0
        if self.penalized:
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
        active, gram = (None if one is None else one[which] for one in (self.active, self.gram))
        weights, alpha, objective, gap = (one[which] for one in (self.weights, self.alpha, self.objective, self.gap))
        return Solution(weights, alpha, objective, gap, self.iterations, active, gram)


def scores(points: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Return x·w (B, n) of points (n, D) or (B, n, D) and weights (B, D)."""
    return weights @ points.T if points.ndim == 2 else torch.bmm(points, weights[:, :, None])[:, :, 0]


def pull(points: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """Return Σ v x (B, D) of points (n, D) or (B, n, D) and values (B, n)."""
    return values @ points if points.ndim == 2 else torch.bmm(values[:, None, :], points)[:, 0]


def certificate(
    problems: Problems, weights: torch.Tensor, alpha: torch.Tensor, slack: torch.Tensor | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return P (B,) and P − D (B,) of weights (B, d + 1) and multipliers (B, n).

    Where Σ α y must be 0, the heavier side is scaled down to the other. `slack` (B, n) is 1 − y f, if the caller has it.
    """
    signs, C = problems.signs, problems.C
    slack = _slack(problems, weights) if slack is None else slack
    if not problems.penalized:
        up, down = (alpha * (signs > 0)).sum(1), (alpha * (signs < 0)).sum(1)
        least = torch.minimum(up, down)
        scale_up, scale_down = least / up.clamp(min=1e-300), least / down.clamp(min=1e-300)
        alpha = alpha * torch.where(signs > 0, scale_up[:, None], scale_down[:, None])
    hinge = slack.clamp(min=0)
    loss = C * (hinge.square() if problems.squared else hinge)
    rest = loss - alpha * slack + (alpha.square() / (4 * C) if problems.squared else 0)
    inner, intercept = problems.plain(weights)
    gathered = pull(problems.points, signs * alpha)
    penalty = inner.square().sum(1)
    distance = (inner - gathered[:, :-1] - problems.mean * gathered[:, -1:]).square().sum(1)
    if problems.penalized:
        penalty, distance = penalty + intercept.square(), distance + (intercept - gathered[:, -1]).square()
    return 0.5 * penalty + loss.sum(1), 0.5 * distance + rest.sum(1)


def _slack(problems: Problems, weights: torch.Tensor) -> torch.Tensor:
    """Return 1 − y f (B, n), 0 outside a problem."""
    return problems.signs.abs() * (1 - problems.signs * scores(problems.points, weights))


def solve(problems: Problems, start: Solution | None = None, *, tolerance: float = 1e-6) -> Solution:
    """Minimise the objective of every problem to a relative gap of `tolerance`; `start` solves a related set."""
    if not problems.squared:
        return interior_point(problems, tolerance=tolerance)
    solution = newton(problems, start, tolerance=tolerance)
    left = torch.nonzero(~(solution.gap <= tolerance))[:, 0]
    if not len(left):
        return solution
    other = interior_point(problems.take(left), tolerance=tolerance)
    better = torch.nonzero(other.gap < solution.gap[left])[:, 0]
    changed = {
        name: getattr(solution, name).index_copy(0, left[better], getattr(other, name)[better])
        for name in ("weights", "alpha", "objective", "gap")
    }
    return replace(solution, iterations=solution.iterations + other.iterations, **changed)


# --- squared hinge: Newton's method ---------------------------------------------------------------------------------


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
        gram = total_gram(points).repeat(len(signs), 1, 1) if shared else grams(points, inside)
    else:
        weights, active, gram = start.weights, start.active, start.gram.clone()
    every = torch.arange(len(signs), device=signs.device)
    for iteration in range(limit + 1):
        slack = _slack(problems, weights)
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
        hessian = bend * gram[which] + (ridge if len(ridge) == 1 else ridge[which])
        hessian[:, -1, -1] += PIVOT * bend
        direction[some] = torch.cholesky_solve(downhill[some, :, None], _cholesky(hessian))[:, :, 0]
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
    each = 8 * dimensions * max(dimensions, int(counts.max()))
    for some in torch.arange(len(live), device=live.device).split(max(1, COPIED // each)):
        block = torch.where(fresh[some, None, None], 0.0, gram[live[some]])
        part = change[some]
        order = part.abs().argsort(dim=1, descending=True, stable=True)[:, : int(counts[some].max())]
        for rows in order.split(max(1, COPIED // (8 * dimensions * len(some))), dim=1):
            picked = points[rows] if points.ndim == 2 else points[some[:, None], rows]
            weighted = (picked * part.gather(1, rows)[:, :, None]).transpose(1, 2)
            for left in range(0, dimensions, PANEL):
                right = left + PANEL
                block[:, left:, left:right] += torch.bmm(weighted[:, left:], picked[:, :, left:right])
        gram[live[some]] = block


def _cholesky(matrices: torch.Tensor) -> torch.Tensor:
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


# --- either hinge: interior point -------------------------------------------------------------------------------------


def interior_point(problems: Problems, *, tolerance: float = 1e-6, limit: int = 80) -> Solution:
    """Minimise the objective of every problem, at any scale.

    Mehrotra's predictor-corrector method on the optimality conditions, with z ≥ 0 for α ≥ 0 and ξ for the slack:

        R w = Σ α y x,   y f − 1 + ξ − z = 0,   α z = μ,   (C − α) ξ = μ  or, squared,  ξ = α/(2C),   μ → 0.

    With δ = z/α + ξ/(C − α) or z/α + 1/(2C), a step costs the Cholesky factor of R + Σ x xᵀ/δ over all points. A
    problem that has reached `tolerance`, or cannot get nearer, keeps its best.
    """
    points, signs, C, squared = problems.points, problems.signs, problems.C, problems.squared
    inside, open_ = signs.abs(), torch.arange(len(signs), device=signs.device)
    weights = points.new_zeros(len(signs), points.shape[-1])
    # One α that gives a point a margin of about 1 is far below C where C is in effect infinite.
    length = points[..., :-1].square().sum(-1).mean(-1).expand(len(signs))
    first = (START / length.clamp(min=1e-300)).clamp(max=C if squared else 0.5 * C)
    alpha, lower, upper = first[:, None].expand_as(signs).clone(), torch.ones_like(signs), torch.full_like(signs, 2.0)
    last = torch.full_like(first, torch.inf)
    best = Solution(weights.clone(), alpha.clone(), last.clone(), last.clone(), 0)
    for iteration in range(limit + 1):
        # From the weights themselves: steps added to the margins would lose what the weights round off.
        slack = _slack(problems, weights)
        primal, distance = certificate(problems, weights, inside * alpha, slack)
        gap = distance / primal.clamp(min=1e-300)
        better = torch.nonzero(gap < best.gap[open_])[:, 0]
        for kept, value in zip(
            (best.weights, best.alpha, best.objective, best.gap), (weights, inside * alpha, primal, gap), strict=True
        ):
            kept[open_[better]] = value[better]
        # Far above its best, a problem has lost to rounding and will not come back.
        least = best.gap[open_]
        unfinished = (least > tolerance) & ((gap < 1e3 * least) | (least > 1e-3))
        live = torch.nonzero(unfinished)[:, 0]
        if iteration == limit or not len(live):
            break
        if len(live) <= DROP * len(open_):
            problems, open_, unfinished = problems.take(live), open_[live], unfinished[live]
            weights, alpha, lower, upper, last, slack = (
                each[live] for each in (weights, alpha, lower, upper, last, slack)
            )
            points, signs, inside = problems.points, problems.signs, problems.signs.abs()
        pairs = (1 if squared else 2) * inside.sum(1)
        room = torch.full_like(alpha, torch.inf) if squared else C - alpha
        bend = torch.full_like(alpha, 0.5 / C) if squared else upper / room
        missing = slack - inside * alpha * bend if squared else slack
        delta = lower / alpha + bend
        inverse = inside / delta
        factor = _cholesky(grams(points, inverse) + problems.ridge())
        unmet = pull(points, signs * alpha) - problems.penalty_slope(weights)

        def change(
            to_lower: torch.Tensor,
            to_upper: torch.Tensor,
            at: tuple[torch.Tensor, ...] = (
                points,
                signs,
                inside,
                alpha,
                room,
                lower,
                upper,
                missing,
                inverse,
                factor,
                unmet,
            ),
        ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
            """Return Δα, Δz, Δξ and Δw towards α z = `to_lower` and (C − α) ξ = `to_upper`."""
            points, signs, inside, alpha, room, lower, upper, missing, inverse, factor, unmet = at
            target = missing + inside * (to_lower / alpha - to_upper / room)
            right = unmet + pull(points, signs * inverse * target)
            step = torch.cholesky_solve(right[:, :, None], factor)[:, :, 0]
            by = inverse * (target - signs * scores(points, step))
            by_lower = inside * (to_lower / alpha - lower * (1 + by / alpha))
            by_upper = inside * (to_upper / room + upper * (by / room - 1))
            return by, by_lower, torch.zeros_like(by) if squared else by_upper, step

        none = torch.zeros_like(alpha)
        by, by_lower, by_upper, _ = change(none, none)
        reach = _reach(((alpha, by), (room, -by), (lower, by_lower), (upper, by_upper)))[:, None]
        now, ahead = alpha * lower, (alpha + reach * by) * (lower + reach * by_lower)
        if not squared:
            now, ahead = now + room * upper, ahead + (room - reach * by) * (upper + reach * by_upper)
        mu = (inside * now).sum(1) / pairs
        centre = ((inside * ahead).sum(1) / pairs / mu).clamp(0, 1).pow(3)
        # The second-order term may drive a problem round in circles: where μ stood still, leave it out and centre.
        stuck, last = mu > 0.9 * last, mu
        centre = (torch.where(stuck, 0.5, centre) * mu)[:, None]
        second = by * torch.where(stuck[:, None], 0.0, reach * reach)
        by, by_lower, by_upper, step = change(centre - second * by_lower, centre + second * by_upper)
        reach = _reach(((alpha, by), (room, -by), (lower, by_lower), (upper, by_upper)))
        length = torch.where(unfinished, (0.995 * reach).clamp(max=1), 0.0)[:, None]
        weights, alpha = weights + length * step, alpha + length * by
        lower, upper = lower + length * by_lower, upper + length * by_upper
    return replace(best, iterations=iteration)


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


def _reach(moves: tuple[tuple[torch.Tensor, torch.Tensor], ...]) -> torch.Tensor:
    """Return the longest step (B,) that keeps all of the positive (B, n) values positive, at most 1/0.995."""
    reach = moves[0][0].new_full((len(moves[0][0]),), 1 / 0.995)
    for value, by in moves:
        rate = (-by / value).amax(1)
        reach = torch.where(rate * reach > 1, 1 / rate, reach)
    return reach


def span(rows: torch.Tensor) -> torch.Tensor:
    """Return orthonormal bases (…, d, n) of the spans of rows (…, n, d), n < d, in which the optimal w lie."""
    return torch.linalg.qr(rows.transpose(-1, -2))[0]
