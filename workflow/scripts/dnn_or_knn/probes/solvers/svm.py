"""Linear support vector machines solved to a certified duality gap, many two-class problems at a time.

One problem is: minimise over w, b, with f = w·x + b and the hinge h = max(0, 1 − y f),

    P(w, b) = ½‖w‖² [+ ½b² if the intercept is penalised] + C Σ h   or   … + C Σ h² (the squared hinge).

Any α ≥ 0 (≤ C for the hinge; Σ α y = 0 for an unpenalised intercept) bounds the optimum from below by

    D(α) = Σ α − ½‖Σ α y x‖² [− ½(Σ α y)²] [− Σ α²/(4C) for the squared hinge],

so that (P − D)/P says how far from the optimum a fit can be at most (`certificate`). `solve` chooses the method: Newton
steps over all points for a squared hinge that most points touch, an interior point over few or all points otherwise.
Everything is float64 and runs on the device that the points are on.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch

from .gram import gram

#: Conjugate-gradient steps that one Newton step may take.
CG_STEPS = 24
#: How much faster the products behind a preconditioner run than those of a conjugate-gradient step, which wait for memory.
RATE = 5
#: A preconditioner is made anew at every Newton step if that takes no longer than so many conjugate-gradient steps;
#: otherwise only once as many steps have been taken as it is worth.
DIRECT = 1.6
#: Residual of a Newton step's equations, relative to the gradient, at which they count as solved.
CG_ACCURACY = 0.03
#: `newton` leaves a problem to `working_set` when fewer than this part of its points are active.
SPARSE = 1 / 10
#: `working_set` keeps points with margins up to this as those that may matter.
MARGIN = 1.05
#: Points of either side that `working_set` starts with, at most this and this part of a problem's; twice as many are
#: added at first, then half as many again in each round.
FEW, PART = 96, 8
#: `interior_point` starts from α of this over the points' mean square, if that is below C: 1/‖x‖² moves a margin by 1.
START = 100.0
#: Rounds after which `working_set` drops no point any more; after four times as many it takes all points.
ROUNDS = 6
#: `working_set` takes the points that a start with at most this gap thinks matter, else those of lowest margin.
TRUSTED = 1e-3
#: Relative gap at which `working_set` ends a round whose points are a guess, and the gap over all points that says so.
ROUGH, FAR = 0.03, 0.3
#: Bytes of points that `working_set` copies at a time.
COPIED = 2**28
#: Columns of a Gram matrix that are made at a time, from the diagonal down.
PANEL = 128
#: Added to the intercept's entry of a Newton preconditioner, which is singular where no point is active.
PIVOT = 1e-8


#: What is worked out only if it is asked for.
Later = Callable[[], torch.Tensor]


@dataclass(frozen=True)
class Problems:
    """B two-class problems, over points that they share or over points of their own.

    Parameters
    ----------
    points: (n, d + 1) shared, or (B, n, d + 1), float64; the last column is ones, for the intercept.
    signs: (B, n) float64: +1 and −1 are the two sides, 0 a point that is not in the problem. Both sides must occur.
    C: weight of the loss.
    squared: whether the loss is the squared hinge.
    penalized: whether ½b² is part of the objective.
    total: Gram matrix (d + 1, d + 1) of the points of every problem, where they share it: `newton` needs it.
    """

    points: torch.Tensor
    signs: torch.Tensor
    C: float
    squared: bool
    penalized: bool
    total: torch.Tensor | None = None

    @property
    def ridge(self) -> torch.Tensor:
        """Return the penalty's diagonal (d + 1,): ones, and 1 or 0 for the intercept."""
        ridge = self.points.new_ones(self.points.shape[-1])
        ridge[-1] = float(self.penalized)
        return ridge

    def take(self, which: torch.Tensor) -> Problems:
        """Return the problems numbered `which`, ascending."""
        if len(which) == len(self.signs):
            return self
        points = self.points if self.points.ndim == 2 else self.points[which]
        return replace(self, points=points, signs=self.signs[which])


@dataclass(frozen=True)
class Solution:
    """What a solver makes of B problems.

    Parameters
    ----------
    weights: (B, d + 1), the intercept last.
    objective: (B,) P at these weights.
    gap: (B,) (P − D)/P, at least 0.
    iterations: the most that any problem took.
    factor: (B or 1, d + 1, d + 1) Cholesky factors for a related `newton` to start from, or None.
    """

    weights: torch.Tensor
    objective: torch.Tensor
    gap: torch.Tensor
    iterations: int
    factor: torch.Tensor | None = None

    def take(self, which: torch.Tensor) -> Solution:
        """Return the solutions numbered `which`, ascending; without the factors if they are fewer."""
        if len(which) == len(self.weights):
            return self
        return Solution(self.weights[which], self.objective[which], self.gap[which], self.iterations)


def scores(points: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Return x·w (B, n) of points (n, D) or (B, n, D) and weights (B, D)."""
    return weights @ points.T if points.ndim == 2 else torch.bmm(points, weights[:, :, None])[:, :, 0]


def pull(points: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """Return Σ v x (B, D) of points (n, D) or (B, n, D) and values (B, n)."""
    return values @ points if points.ndim == 2 else torch.bmm(values[:, None, :], points)[:, 0]


def pull_sides(points: torch.Tensor, values: torch.Tensor, signs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return `pull` of the values at positive and at negative signs, in one pass over the points."""
    sides = torch.stack([values * (signs > 0), values * (signs < 0)], dim=1)
    both = sides @ points if points.ndim == 2 else torch.bmm(sides, points)
    return both[:, 0], both[:, 1]


def grams(points: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Return Σ v x xᵀ (B, D, D), of points (n, D) or (B, n, D) and v ≥ 0 (B, n).

    For more than `PANEL` dimensions only what lies on and below the diagonal is filled in.
    """
    dimensions = points.shape[-1]
    if points.ndim == 3 and dimensions <= PANEL:
        return torch.bmm((points * weights[:, :, None]).transpose(1, 2), points)
    totals = points.new_zeros(len(weights), dimensions, dimensions)
    for b, total in enumerate(totals):
        rooted = (points if points.ndim == 2 else points[b]) * weights[b].sqrt()[:, None]
        for left in range(0, dimensions, PANEL):
            torch.mm(rooted[:, left:].T, rooted[:, left : left + PANEL], out=total[left:, left : left + PANEL])
    return totals


def certificate(
    problems: Problems, weights: torch.Tensor, alpha: torch.Tensor | None = None, margins: torch.Tensor | None = None
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return P (B,), P − D (B,) and Σ α y x (B, d + 1) of a fit.

    Parameters
    ----------
    weights: (B, d + 1).
    alpha: (B, n) multipliers, ≥ 0 and for the hinge ≤ C; None for α = 2C h, the squared hinge's own. Where Σ α y must
        be 0, the heavier side is scaled down to the other before D is taken.
    margins: (B, n) y f where the caller has them already.
    """
    signs, inside = problems.signs, problems.signs.abs()
    if margins is None:
        margins = signs * scores(problems.points, weights)
    slack = (1 - margins).clamp_(min=0) * inside
    loss = slack.square().sum(1) if problems.squared else slack.sum(1)
    primal = 0.5 * (problems.ridge * weights.square()).sum(1) + problems.C * loss
    alpha = 2 * problems.C * slack if alpha is None else alpha * inside
    if problems.penalized:
        gathered = dual_gathered = pull(problems.points, signs * alpha)
        total, squares = alpha.sum(1), alpha.square().sum(1)
    else:
        up, down = pull_sides(problems.points, alpha, signs)
        gathered = up - down
        # The last column is ones, so the sums of α on either side stand in the last entries.
        least = torch.minimum(up[:, -1], down[:, -1])
        scale_up, scale_down = least / up[:, -1].clamp(min=1e-300), least / down[:, -1].clamp(min=1e-300)
        dual_gathered = scale_up[:, None] * up - scale_down[:, None] * down
        total = 2 * least
        scale = torch.where(signs > 0, scale_up[:, None], scale_down[:, None])
        squares = (scale * alpha).square().sum(1)
    dual = total - 0.5 * (problems.ridge * dual_gathered.square()).sum(1)
    if problems.squared:
        dual = dual - squares / (4 * problems.C)
    return primal, primal - dual, gathered


def _relative(gap: torch.Tensor, primal: torch.Tensor) -> torch.Tensor:
    return gap.clamp(min=0) / primal.clamp(min=1e-300)


def solve(problems: Problems, start: Solution | None = None, *, tolerance: float = 1e-6) -> Solution:
    """Minimise the objective of every problem to a relative gap of `tolerance`; `start` solves a related set."""
    if not problems.squared or problems.total is None:
        return working_set(problems, start, tolerance=tolerance)
    solution, unsolved = newton(problems, start, tolerance=tolerance)
    left = torch.nonzero(unsolved)[:, 0]
    if len(left):
        few = working_set(problems.take(left), solution.take(left), tolerance=tolerance)
        solution = replace(
            solution,
            weights=solution.weights.index_copy(0, left, few.weights),
            objective=solution.objective.index_copy(0, left, few.objective),
            gap=solution.gap.index_copy(0, left, few.gap),
            iterations=solution.iterations + few.iterations,
        )
    return solution


# --- squared hinge: Newton steps over the active points ---------------------------------------------------------


def newton(
    problems: Problems,
    start: Solution | None = None,
    *,
    tolerance: float = 1e-6,
    limit: int = 40,
    sparse: float = SPARSE,
) -> tuple[Solution, torch.Tensor]:
    """Minimise the squared-hinge objective of problems that share their points to a relative gap of `tolerance`.

    P is piecewise quadratic with the Hessian R + 2C Σ x xᵀ over the active points (h > 0). Newton's equations are
    solved by conjugate gradients for all problems at once, preconditioned by a Cholesky factor: at first the one that
    the problems share, of all points; where that serves badly or another costs little, a problem's own, of its active
    points. A line search makes every step a descent, and P ends in the final piece after finitely many.

    Returns the solution, and which problems (B,) were left unsolved: those with fewer than the part `sparse` of their
    points active, where the active set changes from step to step and `working_set` is faster, and those not done after
    `limit` steps.
    """
    points, signs, ridge, total = problems.points, problems.signs, problems.ridge, problems.total
    if points.ndim != 2 or total is None:
        raise ValueError("newton needs shared points and their Gram matrix")
    weights = points.new_zeros(len(signs), points.shape[1]) if start is None else start.weights
    factor = start.factor if start is not None and start.factor is not None else _factor(problems, total)[None]
    counts, dimensions = signs.abs().sum(1), points.shape[1]
    left = torch.zeros_like(counts, dtype=torch.bool)
    for iteration in range(limit + 1):
        margins = signs * scores(points, weights)
        primal, gap, gathered = certificate(problems, weights, margins=margins)
        active = ((margins < 1) & (signs != 0)).to(points.dtype)
        unfinished = ~(gap <= tolerance * primal)
        touched = active.sum(1)
        worth = (torch.minimum(touched, counts - touched) * dimensions + dimensions**2 / 3) / (4 * RATE * counts)
        cheap = worth <= DIRECT
        left |= unfinished & ~cheap & (touched < sparse * counts)
        unfinished &= ~left
        if iteration == limit or not bool(unfinished.any()):
            break
        downhill = (gathered - ridge * weights) * unfinished[:, None]
        if iteration or start is not None:
            factor = _renew(problems, total, factor, active, torch.nonzero(unfinished & cheap)[:, 0])
        direction, solved = _newton_direction(problems, active, downhill, factor, worth)
        late = torch.nonzero(~solved)[:, 0]
        if len(late):
            factor = _renew(problems, total, factor, active, late)
            direction[late], _ = _newton_direction(problems.take(late), active[late], downhill[late], factor[late])
        moved = signs * scores(points, direction)
        weights = weights + _step(problems, weights, direction, margins, moved)[:, None] * direction
    return Solution(weights, primal, _relative(gap, primal), iteration, factor), left | unfinished


def _factor(problems: Problems, total: torch.Tensor) -> torch.Tensor:
    """Return the Cholesky factor of R + 2C times a Gram matrix (D, D), with R's zero for the intercept lifted."""
    ridge = problems.ridge
    ridge[-1] = max(float(problems.penalized), PIVOT)
    return _cholesky((2 * problems.C * total + torch.diag(ridge))[None])[0]


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


def _renew(
    problems: Problems, total: torch.Tensor, factor: torch.Tensor, active: torch.Tensor, which: torch.Tensor
) -> torch.Tensor:
    """Return `factor` with the factors of the problems `which` made anew from their active points."""
    if not len(which):
        return factor
    fresh = factor.expand(len(active), -1, -1).clone()
    for b in which.tolist():
        inactive = (active[b] == 0) & (problems.signs[b] != 0)
        if int(inactive.sum()) < int(active[b].sum()):
            hessian = total - gram(problems.points[inactive])
        else:
            hessian = gram(problems.points[active[b] > 0])
        fresh[b] = _factor(problems, hessian)
    return fresh


def _newton_direction(
    problems: Problems,
    active: torch.Tensor,
    downhill: torch.Tensor,
    factor: torch.Tensor,
    worth: torch.Tensor | float = CG_STEPS,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return a solution (B, D) of (R + 2C Σ_active x xᵀ) δ = downhill, and which problems (B,) reached the accuracy.

    Preconditioned conjugate gradients, for each problem at most as many steps as another preconditioner would be `worth`
    (B,), and at least one; a truncated solution is a descent direction all the same.
    """

    def precondition(values: torch.Tensor) -> torch.Tensor:
        if len(factor) == 1:
            return torch.cholesky_solve(values.T, factor[0]).T
        return torch.cholesky_solve(values[:, :, None], factor)[:, :, 0]

    ridge = problems.ridge
    solution = torch.zeros_like(downhill)
    residual = downhill.clone()
    search = preconditioned = precondition(residual)
    size = (residual * preconditioned).sum(1)
    goal = CG_ACCURACY**2 * size
    for number in range(CG_STEPS):
        live = size > goal
        if number:
            live &= number < worth
        if not bool(live.any()):
            break
        image = ridge * search + 2 * problems.C * pull(problems.points, active * scores(problems.points, search))
        step = torch.where(live, size / (search * image).sum(1).clamp(min=1e-300), 0.0)[:, None]
        solution += step * search
        residual -= step * image
        preconditioned = precondition(residual)
        fresh = (residual * preconditioned).sum(1)
        search = preconditioned + torch.where(live, fresh / size, 0.0)[:, None] * search
        size = torch.where(live, fresh, size)
    return solution, size <= goal


def _step(
    problems: Problems, weights: torch.Tensor, direction: torch.Tensor, margins: torch.Tensor, moved: torch.Tensor
) -> torch.Tensor:
    """Return step lengths (B,) to where P's slope along `direction` is at most a tenth of what it was.

    The slope is increasing and piecewise linear in the step: Newton's method on it, kept inside a bracket. `margins`
    and `moved` (B, n) are y x·w and y x·direction.
    """
    ridge, inside = problems.ridge, problems.signs.abs()
    linear = (ridge * weights * direction).sum(1)
    quadratic = (ridge * direction.square()).sum(1)
    slack = (1 - margins) * inside

    def slope(step: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        hinge = (slack - step[:, None] * moved).clamp_(min=0)
        bend = ((hinge > 0) * moved * moved).sum(1)
        return (
            linear + step * quadratic - 2 * problems.C * (hinge * moved).sum(1),
            quadratic + 2 * problems.C * bend,
        )

    first, _ = slope(torch.zeros_like(linear))
    low, high = torch.zeros_like(linear), torch.full_like(linear, torch.inf)
    step = (first < 0).to(linear.dtype)
    for _ in range(30):
        rise, bend = slope(step)
        if bool((rise.abs() <= 0.1 * first.abs()).all()):
            break
        low, high = torch.where(rise < 0, step, low), torch.where(rise > 0, step, high)
        proposal = step - rise / bend.clamp(min=1e-300)
        middle = torch.where(high.isinf(), 2 * step, 0.5 * (low + high))
        proposal = torch.where((proposal > low) & (proposal < high), proposal, middle)
        step = torch.where(rise.abs() <= 0.1 * first.abs(), step, proposal)
    return step


# --- either hinge: interior point, over all points or a working set ---------------------------------------------


def working_set(problems: Problems, start: Solution | None = None, *, tolerance: float = 1e-6) -> Solution:
    """Minimise the objective of every problem to a relative gap of `tolerance`, looking at few points where few matter.

    Only points with margins up to 1 shape the optimum. Where these are few, `interior_point` sees only the points of
    lowest margin under a guess (`start`, or the direction between the two sides' means), then those of them that
    mattered and the points that its weights violate most, until the gap over *all* points is small enough; where they
    are many, all points are solved for at once.
    """
    signs = problems.signs
    count = signs.shape[1]
    few = max(1, min(FEW, count // PART))
    weights = (_between_means(problems) if start is None else start.weights).clone()
    margins = signs * scores(problems.points, weights)
    objective, gap = (torch.full_like(weights[:, 0], torch.inf) for _ in range(2))
    kept = torch.zeros_like(signs, dtype=torch.bool)
    rough = start is None or not bool((start.gap < TRUSTED).all())
    if not rough:
        kept = (margins < MARGIN) & (signs != 0)
    chosen = kept | _lowest_of_each_side(margins, signs, few)
    added = 2 * few
    open_, iterations, rounds = torch.arange(len(signs), device=signs.device), 0, 0
    while len(open_):
        size = int(chosen[open_].sum(1).max())
        if 2 * size > count:
            solution, _ = interior_point(problems.take(open_), tolerance=tolerance)
            weights[open_], objective[open_], gap[open_] = solution.weights, solution.objective, solution.gap
            return Solution(weights, objective, gap, max(iterations, solution.iterations))
        aim = ROUGH if rough else 0.5 * tolerance
        for some in open_.split(max(1, COPIED // (8 * size * weights.shape[1]))):
            part = problems.take(some)
            rows = (~chosen[some]).to(torch.int8).argsort(dim=1, stable=True)[:, :size]
            solution, alpha = _over_few(part, rows, aim)
            margins[some] = part.signs * scores(part.points, solution.weights)
            primal, distance, _ = certificate(part, solution.weights, alpha, margins[some])
            weights[some], objective[some], gap[some] = solution.weights, primal, _relative(distance, primal)
            iterations = max(iterations, solution.iterations)
        open_ = open_[~(gap[open_] <= tolerance)]
        if not len(open_):
            break
        rough = rough and float(gap[open_].max()) > FAR
        rounds += 1
        # To drop points saves time but could go on for ever.
        kept = chosen & (margins < MARGIN) if rounds < ROUNDS else chosen
        violated = (margins < 1) & (signs != 0) & ~kept
        if rounds == 4 * ROUNDS or int(violated[open_].sum(1).max()) > 0.75 * count:
            chosen = signs != 0
        else:
            worst = margins.where(violated, torch.inf).argsort(dim=1, stable=True)[:, :added]
            chosen = kept | torch.zeros_like(kept).scatter_(1, worst, violated.gather(1, worst))
        added += added // 2
    return Solution(weights, objective, gap, iterations)


def _over_few(problems: Problems, rows: torch.Tensor, tolerance: float) -> tuple[Solution, torch.Tensor]:
    """Solve the problems over their points `rows` (B, m); return also α (B, n), 0 elsewhere."""
    shared = problems.points.ndim == 2
    points = problems.points[rows] if shared else torch.take_along_dim(problems.points, rows[:, :, None], 1)
    few = replace(problems, points=points, signs=torch.take_along_dim(problems.signs, rows, 1), total=None)
    solution, alpha = interior_point(few, tolerance=tolerance)
    return solution, torch.zeros_like(problems.signs).scatter_(1, rows, alpha * few.signs.abs())


def span(features: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return an orthonormal basis (…, d, n) of the rows' span and their coordinates (…, n, n), for n < d rows.

    The optimal w lies in that span, and its norm and products are the same there.
    """
    basis, triangle = torch.linalg.qr(features.transpose(-1, -2))
    return basis, triangle.transpose(-1, -2).contiguous()


def _between_means(problems: Problems) -> torch.Tensor:
    """Return weights (B, d + 1) of the direction from the negative to the positive side's mean."""
    up, down = pull_sides(problems.points, problems.signs.abs(), problems.signs)
    direction = up / up[:, -1:] - down / down[:, -1:]
    direction[:, -1] = 0.0
    return direction


def _lowest_of_each_side(margins: torch.Tensor, signs: torch.Tensor, size: int) -> torch.Tensor:
    """Return a mask (B, n): of either side of each problem the `size` points of lowest margin, or all if fewer."""
    order = margins.argsort(dim=1, stable=True)
    ordered = torch.take_along_dim(signs, order, 1)
    up, down = ordered > 0, ordered < 0
    first = (up & (up.cumsum(1) <= size)) | (down & (down.cumsum(1) <= size))
    return torch.zeros_like(first).scatter_(1, order, first)


def interior_point(problems: Problems, *, tolerance: float = 1e-6, limit: int = 80) -> tuple[Solution, torch.Tensor]:
    """Minimise the objective of every problem; return the solution and its multipliers α (B, n).

    Mehrotra's predictor-corrector method on the optimality conditions, with z ≥ 0 for α ≥ 0 and ξ for the slack:

        R w = Σ α y x,   y f − 1 + ξ − z = 0,   α z = μ,   (C − α) ξ = μ  or, squared,  ξ = α/(2C),   μ → 0.

    With δ = z/α + ξ/(C − α) or z/α + 1/(2C), a step costs the Cholesky factor of R + Σ x xᵀ/δ, or where the points are
    fewer than the dimensions, of their products plus δ. A problem that has reached `tolerance`, or cannot get nearer,
    keeps its best.
    """
    points, signs, C, ridge, squared = problems.points, problems.signs, problems.C, problems.ridge, problems.squared
    inside = signs.abs()
    pairs = (1 if squared else 2) * inside.sum(1)
    weights = points.new_zeros(len(signs), points.shape[-1])
    # One α that gives a point a margin of about 1 is far below C where C is in effect infinite.
    length = points[..., :-1].square().sum(-1).mean(-1).expand(len(signs))
    first = (START / length.clamp(min=1e-300)).clamp(max=C if squared else 0.5 * C)
    alpha, lower, upper = first[:, None].expand_as(signs).clone(), torch.ones_like(signs), torch.full_like(signs, 2.0)
    margins = torch.zeros_like(signs)
    best = Solution(weights, torch.full_like(pairs, torch.inf), torch.full_like(pairs, torch.inf), 0)
    best_alpha, last = alpha, torch.full_like(pairs, torch.inf)
    kernel = _products(problems) if points.ndim == 3 and points.shape[1] < points.shape[2] else None
    for iteration in range(limit + 1):
        primal, distance, gathered = certificate(problems, weights, alpha, margins)
        gap = _relative(distance, primal)
        better = gap < best.gap
        best = Solution(
            torch.where(better[:, None], weights, best.weights),
            torch.where(better, primal, best.objective),
            torch.where(better, gap, best.gap),
            iteration,
        )
        best_alpha = torch.where(better[:, None], alpha, best_alpha)
        # Far above its best, a problem has lost to rounding and will not come back.
        unfinished = (best.gap > tolerance) & ((gap < 1e3 * best.gap) | (best.gap > 1e-3))
        if iteration == limit or not bool(unfinished.any()):
            break
        room = torch.full_like(alpha, torch.inf) if squared else C - alpha
        bend = torch.full_like(alpha, 0.5 / C) if squared else upper / room
        missing = inside * (1 - margins - alpha * bend) if squared else inside * (1 - margins)
        delta, unmet = lower / alpha + bend, gathered - ridge * weights
        if kernel is None:
            solve_for = _eliminated_points(problems, delta, unmet)
        else:
            solve_for = _eliminated_weights(problems, kernel, delta, unmet)

        def change(
            to_lower: torch.Tensor,
            to_upper: torch.Tensor,
            at: tuple[torch.Tensor, ...] = (alpha, room, lower, upper, delta, missing),
            solve_for: Callable[[torch.Tensor], tuple[torch.Tensor, Later]] = solve_for,
        ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, Later]:
            """Return Δα, Δz, Δξ, y x·Δw and Δw towards α z = `to_lower` and (C − α) ξ = `to_upper`."""
            alpha, room, lower, upper, delta, missing = at
            target = missing + inside * (to_lower / alpha - to_upper / room)
            by, step = solve_for(target)
            by_lower = inside * (to_lower / alpha - lower * (1 + by / alpha))
            by_upper = inside * (to_upper / room + upper * (by / room - 1))
            by_upper = torch.zeros_like(by) if squared else by_upper
            return by, by_lower, by_upper, target - inside * delta * by, step

        none = torch.zeros_like(alpha)
        by, by_lower, by_upper, _, _ = change(none, none)
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
        by, by_lower, by_upper, moved, step = change(centre - second * by_lower, centre + second * by_upper)
        reach = _reach(((alpha, by), (room, -by), (lower, by_lower), (upper, by_upper)))
        length = torch.where(unfinished, (0.995 * reach).clamp(max=1), 0.0)[:, None]
        weights, margins = weights + length * step(), margins + length * moved
        alpha, lower, upper = alpha + length * by, lower + length * by_lower, upper + length * by_upper
    return best, best_alpha


def _eliminated_points(
    problems: Problems, delta: torch.Tensor, unmet: torch.Tensor
) -> Callable[[torch.Tensor], tuple[torch.Tensor, Later]]:
    """Return a function from t (B, n) to the Δα (B, n) and Δw (B, D) with R Δw − Σ Δα y x = unmet, y x·Δw + δ Δα = t.

    Through (R + Σ x xᵀ/δ) Δw = unmet + Σ y x t/δ.
    """
    points, signs = problems.points, problems.signs
    inverse = signs.abs() / delta
    factor = _cholesky(grams(points, inverse) + torch.diag(problems.ridge))

    def solve_for(target: torch.Tensor) -> tuple[torch.Tensor, Later]:
        right = unmet + pull(points, signs * inverse * target)
        step = torch.cholesky_solve(right[:, :, None], factor)[:, :, 0]
        return inverse * (target - signs * scores(points, step)), lambda: step

    return solve_for


def _products(problems: Problems) -> torch.Tensor:
    """Return x·x' (B, n, n) of each problem's own points, the intercept's 1 included if it is penalised."""
    points = problems.points if problems.penalized else problems.points[:, :, :-1]
    inside = problems.signs.abs()
    return torch.bmm(points, points.transpose(1, 2)) * inside[:, :, None] * inside[:, None, :]


def _eliminated_weights(
    problems: Problems, kernel: torch.Tensor, delta: torch.Tensor, unmet: torch.Tensor
) -> Callable[[torch.Tensor], tuple[torch.Tensor, Later]]:
    """Do what `_eliminated_points` does through (x·x' + δ) y Δα = y t − x·unmet [− Δb], with the `_products`."""
    points, signs, inside = problems.points, problems.signs, problems.signs.abs()
    factor = _cholesky(kernel + torch.diag_embed(torch.where(inside > 0, delta, 1.0)))
    known = inside * scores(points, unmet * problems.ridge)
    ones = inside if problems.penalized else torch.cholesky_solve(inside[:, :, None], factor)[:, :, 0]

    def solve_for(target: torch.Tensor) -> tuple[torch.Tensor, Later]:
        signed = torch.cholesky_solve((signs * target - known)[:, :, None], factor)[:, :, 0]
        if problems.penalized:
            return signs * signed, lambda: unmet + pull(points, signed)
        shift = (signed.sum(1) + unmet[:, -1]) / ones.sum(1)
        signed = signed - shift[:, None] * ones
        return signs * signed, lambda: torch.cat([(unmet + pull(points, signed))[:, :-1], shift[:, None]], dim=1)

    return solve_for


def _reach(moves: tuple[tuple[torch.Tensor, torch.Tensor], ...]) -> torch.Tensor:
    """Return the longest step (B,) that keeps all of the positive (B, n) values positive, at most 1/0.995."""
    reach = moves[0][0].new_full((len(moves[0][0]),), 1 / 0.995)
    for value, by in moves:
        rate = (-by / value).amax(1)
        reach = torch.where(rate * reach > 1, 1 / rate, reach)
    return reach
