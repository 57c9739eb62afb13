"""Linear support vector machines to a certified duality gap, many two-class problems at a time.

Problem. Minimise over w, b, with f = w·x + b, slack t = 1 − y f and hinge h = max(0, t),

    P(w, b) = ½‖w‖² + C Σ h (the hinge, libsvm's)   or   ½‖w‖² + ½b² + C Σ h² (the squared hinge, LinearSVC's).

Method. Squared hinge: `newton`. P is piecewise quadratic; a step solves (R + 2C Σ x xᵀ) δ = −∇P over the active points
(h > 0) and is as long as the minimum along it. Their Gram matrix is kept and changed by the points that become active or
cease to be; a fold starts from the fit of all points. Of many classes, points and dimensions those would take days: there all
problems take their steps by conjugate gradients together, by products with points that the Gram matrix of all of them has
whitened (`newton_by_products`); what that leaves goes from a small C to its own, at last over the points near the margin alone
(`along_path`). Of fewer points than dimensions the coefficients are sought instead,
whose system is the points' kernel, shared by all problems and folds (`pivots`). Hinge, and what Newton's method leaves: `interior_point`, for the
hinge over the points near the margin while all others keep theirs (`shrunk`). Small pairs start from libsvm's fit (`libsvm`).

Certificate. Any α in [0, C] with Σ α y = 0 (for the squared hinge: any α ≥ 0) bounds P from below by D,

    P − D = ½‖w − Σ α y x‖² + Σ (C h − α t)   or   ½‖w − Σ α y x‖² + ½(b − Σ α y)² + Σ (C h² − α t + α²/4C),

a sum of terms none of which is negative, so that no digit is lost in a difference of P and D. It is taken at the weights
that are returned, from the points themselves (`svm_problem.certificate`). Points have their mean taken off, so that a large one costs
no digits of the Gram matrices; a penalised intercept stays that of the points as they were. All is float64.
"""

from __future__ import annotations

from dataclasses import replace

import torch

from .svm_interior_point import interior_point, shrunk
from .svm_newton import along_path, newton
from .svm_pivots import pivots
from .svm_problem import Problems, Solution, certificate, put

#: Gap of the squared hinge's fit that the hinge's takes for its first guess.
GUESS = 1e-2
#: Bytes of Gram matrices at a time of the fits that products with the points leave.
LEFT = 2**28


def solve(problems: Problems, start: Solution | None = None, *, tolerance: float = 1e-6) -> Solution:
    """Minimise the objective of every problem to a relative gap of `tolerance`; `start` solves a related set, or nearly this one."""
    if problems.kernel is not None:
        solution = pivots(problems, problems.kernel, tolerance=tolerance)
    elif problems.whitened is not None:
        solution = along_path(problems, problems.whitened, start, tolerance=tolerance)
    elif problems.squared:
        solution = newton(problems, start, tolerance=tolerance)
    elif problems.signs.shape[1] >= 4 * problems.points.shape[-1]:
        # Without the mean, the intercept that the guess penalises is that of the points as they are here.
        smooth = replace(problems, squared=True, mean=torch.zeros_like(problems.mean))
        guess = start or newton(smooth, tolerance=GUESS)
        return shrunk(problems, guess.weights, tolerance=tolerance)
    elif start is None:
        return interior_point(problems, tolerance=tolerance)
    else:
        alpha = start.alpha * problems.signs.abs()
        primal, distance = certificate(problems, start.weights, alpha)
        solution = Solution(start.weights, alpha, primal, distance / primal.clamp(min=1e-300), start.iterations)
    left = torch.nonzero(~(solution.gap <= tolerance))[:, 0]
    if not len(left):
        return solution
    last = problems.kernel is None and problems.whitened is None
    some = len(left) if problems.whitened is None else max(1, LEFT // (24 * problems.points.shape[-1] ** 2))
    iterations = 0
    for which in left.split(some):
        rest = replace(problems.take(which), kernel=None, whitened=None)
        other = (interior_point if last else solve)(rest, tolerance=tolerance)
        better = torch.nonzero(~(other.gap >= solution.gap[which]))[:, 0]
        put(solution, which[better], other.take(better))
        iterations = max(iterations, other.iterations)
    return replace(solution, iterations=solution.iterations + iterations)
