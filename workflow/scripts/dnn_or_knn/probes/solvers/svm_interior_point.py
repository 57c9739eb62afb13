"""An interior point method for linear SVMs with either hinge, over all points or those near the margin; see `svm`."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import torch

from .svm_problem import COPIED, Problems, Solution, certificate, cholesky, grams, pull, put, scores, slacks

#: `interior_point` starts from α of this over the points' mean square, if that is below C: 1/‖x‖² moves a margin by 1.
START = 100.0
#: `shrunk` takes points whose margin is up to this above 1 for those that may matter, and adds to them so many times.
NEAR, ROUNDS = 0.5, 4
#: `interior_point` goes on without the problems that are done once no more than this part is left.
DROP = 0.75


def shrunk(problems: Problems, guess: torch.Tensor, *, tolerance: float = 1e-6) -> Solution:
    """Minimise the objective by `interior_point` over the points near the margin under a guess of the weights (B, d + 1).

    The gap is taken over all points. Where it is too large, the points that violate their margin are added; where most
    are, all points are taken.
    """
    signs, points = problems.signs, problems.points
    worst = torch.full_like(guess[:, 0], torch.inf)
    found = Solution(guess.clone(), torch.zeros_like(signs), worst, worst.clone(), 0)
    slack = slacks(problems, guess)
    chosen, open_ = (slack > -NEAR) & (signs != 0), torch.arange(len(signs), device=signs.device)
    for side in (signs > 0, signs < 0):
        chosen |= side & (slack == slack.where(side, -torch.inf).amax(1, keepdim=True))
    for _ in range(ROUNDS):
        size = int(chosen.sum(1).max())
        if 2 * size > signs.shape[1]:
            break
        for some in torch.arange(len(open_), device=signs.device).split(
            max(1, COPIED // (8 * size * points.shape[-1]))
        ):
            part, which = problems.take(open_[some]), open_[some]
            rows = (~chosen[some]).to(torch.int8).argsort(dim=1, stable=True)[:, :size]
            copied = points[rows] if points.ndim == 2 else part.points[torch.arange(len(some))[:, None], rows]
            few = replace(part, points=copied, signs=part.signs.gather(1, rows))
            solution = interior_point(few, tolerance=0.5 * tolerance)
            alpha = torch.zeros_like(part.signs).scatter_(1, rows, solution.alpha)
            slack[which] = slacks(part, solution.weights)
            primal, distance = certificate(part, solution.weights, alpha, slack[which])
            gap = distance / primal.clamp(min=1e-300)
            put(found, which, Solution(solution.weights, alpha, primal, gap, 0))
            found = replace(found, iterations=max(found.iterations, solution.iterations))
        live = torch.nonzero(~(found.gap[open_] <= tolerance))[:, 0]
        open_ = open_[live]
        if not len(open_):
            return found
        chosen = chosen[live] | ((slack[open_] > 0) & (signs[open_] != 0))
    solution = interior_point(problems.take(open_), tolerance=tolerance)
    put(found, open_, solution)
    return replace(found, iterations=max(found.iterations, solution.iterations))


class _Iterate(NamedTuple):
    """Weights (B, d + 1), α, z and ξ (B, n), all positive, and the last μ (B,)."""

    weights: torch.Tensor
    alpha: torch.Tensor
    lower: torch.Tensor
    upper: torch.Tensor
    last: torch.Tensor


def interior_point(problems: Problems, *, tolerance: float = 1e-6, limit: int = 80) -> Solution:
    """Minimise the objective of every problem, at any scale.

    Mehrotra's predictor-corrector method on the optimality conditions, with z ≥ 0 for α ≥ 0 and ξ for the slack:

        R w = Σ α y x,   y f − 1 + ξ − z = 0,   α z = μ,   (C − α) ξ = μ  or, squared,  ξ = α/(2C),   μ → 0.

    With δ = z/α + ξ/(C − α) or z/α + 1/(2C), a step costs the Cholesky factor of R + Σ x xᵀ/δ over all points. A
    problem that has reached `tolerance`, or cannot get nearer, keeps its best.
    """
    points, signs = problems.points, problems.signs
    open_ = torch.arange(len(signs), device=signs.device)
    # One α that gives a point a margin of about 1 is far below C where C is in effect infinite.
    length = points[..., :-1].square().sum(-1).mean(-1).expand(len(signs))
    first = (START / length.clamp(min=1e-300)).clamp(max=problems.C if problems.squared else 0.5 * problems.C)
    last = torch.full_like(first, torch.inf)
    at = _Iterate(
        points.new_zeros(len(signs), points.shape[-1]),
        first[:, None].expand_as(signs).clone(),
        torch.ones_like(signs),
        torch.full_like(signs, 2.0),
        last,
    )
    best = Solution(at.weights.clone(), at.alpha.clone(), last.clone(), last.clone(), 0)
    for iteration in range(limit + 1):
        # From the weights themselves: steps added to the margins would lose what the weights round off.
        slack = slacks(problems, at.weights)
        alpha = problems.signs.abs() * at.alpha
        primal, distance = certificate(problems, at.weights, alpha, slack)
        gap = distance / primal.clamp(min=1e-300)
        better = torch.nonzero(gap < best.gap[open_])[:, 0]
        put(best, open_[better], Solution(at.weights, alpha, primal, gap, 0).take(better))
        # Far above its best, a problem has lost to rounding and will not come back.
        least = best.gap[open_]
        unfinished = (least > tolerance) & ((gap < 1e3 * least) | (least > 1e-3))
        live = torch.nonzero(unfinished)[:, 0]
        if iteration == limit or not len(live):
            break
        if len(live) <= DROP * len(open_):
            problems, open_, unfinished, slack = problems.take(live), open_[live], unfinished[live], slack[live]
            at = _Iterate(*(each[live] for each in at))
        at = _advance(problems, at, slack, unfinished)
    return replace(best, iterations=iteration)


def _advance(problems: Problems, at: _Iterate, slack: torch.Tensor, unfinished: torch.Tensor) -> _Iterate:
    """Return the iterate after one step; `slack` (B, n) is that of its weights. Problems that are not `unfinished` stand still."""
    points, signs, C, squared = problems.points, problems.signs, problems.C, problems.squared
    inside = signs.abs()
    weights, alpha, lower, upper, last = at
    room = torch.full_like(alpha, torch.inf) if squared else C - alpha
    bend = torch.full_like(alpha, 0.5 / C) if squared else upper / room
    missing = slack - inside * alpha * bend if squared else slack
    inverse = inside / (lower / alpha + bend)
    factor = cholesky(grams(points, inverse) + problems.ridge())
    unmet = pull(points, signs * alpha) - problems.penalty_slope(weights)

    def change(to_lower: torch.Tensor, to_upper: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Return Δα, Δz, Δξ and Δw towards α z = `to_lower` and (C − α) ξ = `to_upper`."""
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
    pairs = (1 if squared else 2) * inside.sum(1)
    mu = (inside * now).sum(1) / pairs
    centre = ((inside * ahead).sum(1) / pairs / mu).clamp(0, 1).pow(3)
    # The second-order term may drive a problem round in circles: where μ stood still, leave it out and centre.
    stuck = mu > 0.9 * last
    centre = (torch.where(stuck, 0.5, centre) * mu)[:, None]
    second = by * torch.where(stuck[:, None], 0.0, reach * reach)
    by, by_lower, by_upper, step = change(centre - second * by_lower, centre + second * by_upper)
    reach = _reach(((alpha, by), (room, -by), (lower, by_lower), (upper, by_upper)))
    length = torch.where(unfinished, (0.995 * reach).clamp(max=1), 0.0)[:, None]
    return _Iterate(
        weights + length * step, alpha + length * by, lower + length * by_lower, upper + length * by_upper, mu
    )


def _reach(moves: tuple[tuple[torch.Tensor, torch.Tensor], ...]) -> torch.Tensor:
    """Return the longest step (B,) that keeps all of the positive (B, n) values positive, at most 1/0.995."""
    reach = moves[0][0].new_full((len(moves[0][0]),), 1 / 0.995)
    for value, by in moves:
        rate = (-by / value).amax(1)
        reach = torch.where(rate * reach > 1, 1 / rate, reach)
    return reach
