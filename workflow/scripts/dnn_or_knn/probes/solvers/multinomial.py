"""Multinomial logistic regression with an L2 penalty, solved to a certified duality gap.

Problem. Over weights W (d, K) and intercepts b (K,), with scores z = xW + b and one-hot labels Y, minimise

    f(W, b) = ½‖W‖² + C Σ_i [log Σ_k exp z_ik − z_i,y(i)],

scikit-learn's objective: the intercepts are free.

Method. L-BFGS on min_b f(W, b). The intercepts are eliminated: every step moves them as W moves, then one Newton step
sets the sums right. It is preconditioned by the Kronecker product of XᵀX (later: of the points still uncertain) and the
mean softmax Hessian over the points, which is the Hessian itself at W = 0; one eigendecomposition of each inverts it, so
that memory is O(d² + K²), never d²K². Large problems are first solved in float32, whose result float64 steps then
finish and certify. Features are centred, which the intercepts take up.

Certificate. Any P with rows in the simplex and the labels' column sums bounds the optimum from below by
D(P) = C Σ_i H(P_i) − ½‖C Xᵀ(P − Y)‖², H the entropy (Fenchel; the free intercepts make the condition on the sums). For
P = softmax(z) that satisfies it, f − D = ½‖∂f/∂W‖². A P that misses it by rounding is mixed with one constant row q,
(1 − t)P + t·1qᵀ, so that it holds; since KL is convex, at most C t Σ_i KL(q‖P_i) is added to the gap
(`softmax_problem.certificate`). No constant is estimated: (f − D)/f is a bound, up to the rounding of float64.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from .softmax_problem import (
    SINGLE,
    Points,
    Problem,
    State,
    certificate,
    dot,
    eigh,
    inverse,
    set_intercepts,
    summed_curvature,
)

#: Steps whose curvature L-BFGS remembers.
MEMORY = 20
#: Steps after which the preconditioner's class part is made anew; until then it is at every step.
REFRESH = 10
#: Step at which the preconditioner's other part is made anew for the points still uncertain; again at its doubles.
REWEIGH = 60
#: Steps without progress after which a precision has given what it can.
PATIENCE = 30
#: A skinny product runs several times faster if its columns fill registers: fewer classes than 64 are padded to a
#: multiple of this.
LANES = 16


@dataclass(frozen=True)
class SoftmaxFit:
    """A fitted model: z = x·`weights` (d, K) + `intercepts` (K,), which sum to 0; both float64.

    `gap` is the certificate (f − D)/f of `objective` f; `iterations` counts steps, of which `single` were taken in
    float32.
    """

    weights: torch.Tensor
    intercepts: torch.Tensor
    objective: float
    gap: float
    iterations: int
    single: int


def fit_softmax(
    features: torch.Tensor,
    labels: torch.Tensor,
    classes: int,
    *,
    C: float = 1.0,
    tolerance: float = 1e-6,
    limit: int = 1500,
    points: Points | None = None,
) -> SoftmaxFit:
    """Minimise f to a relative duality gap of `tolerance`.

    Parameters
    ----------
    features: (N, d), float32 or float64, finite; what is computed on is their device.
    labels: (N,) int64; each of 0 … classes − 1 occurs, and there are two at least.
    points: `Points.of` these features and as many classes, where other fits use them too.
    limit: steps after which the fit is returned as it is; so is one that makes no more progress.
    """
    wide = classes
    if features.numel() * classes > SINGLE and classes < 4 * LANES:
        wide = -(-classes // LANES) * LANES
    points = points or Points.of(features, classes)
    problem = Problem.of(points, labels, classes, wide, C)
    weights, intercepts = problem.zero()
    history, single = History(), 0
    if torch.float32 in points.centred:
        descent = Descent(problem, 0.5 * tolerance, limit, history)
        weights, intercepts, _, _, single = descent.run(weights.float(), intercepts.float())
        if not bool(weights.isfinite().all() and intercepts.isfinite().all()):
            (weights, intercepts), history = problem.zero(), History()
        history = history.double()
    descent = Descent(problem, tolerance, limit - single, history)
    weights, intercepts, objective, gap, taken = descent.run(weights.double(), intercepts.double())
    weights, intercepts = weights[:, :classes], intercepts[:classes] - points.mean @ weights[:, :classes]
    return SoftmaxFit(weights, intercepts - intercepts.mean(), objective, gap, single + taken, single)


class Descent:
    """L-BFGS until the gap is `tolerance`, no progress is made or `limit` steps were taken."""

    def __init__(self, problem: Problem, tolerance: float, limit: int, history: History) -> None:
        self.problem, self.tolerance, self.limit, self.history = problem, tolerance, limit, history
        self.geometry: Geometry | None = None
        self.precondition: Preconditioner | None = None

    def run(
        self, weights: torch.Tensor, intercepts: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, float, float, int]:
        """Return weights, intercepts, f, relative gap and the number of steps, computed in the weights' type.

        In float32 the intercepts' part of the gap is left to float64, whose sums it needs.
        """
        problem, single = self.problem, weights.dtype == torch.float32
        state = problem.state(weights, intercepts)
        # Of the best state its model alone is held.
        best, reached, best_gap = (weights, intercepts), state.objective(problem.C), math.inf
        best_objective, waited, step = math.inf, 0, 0
        before: tuple[torch.Tensor, torch.Tensor] | None = None
        fresh = True
        while True:
            state, inverted, gradient, sums, objective, gap = self._look(state, single)
            if not (math.isfinite(objective) and math.isfinite(gap)):
                break
            progress = gap < 0.9 * best_gap or objective < best_objective * (1 - (1e-8 if single else 1e-13))
            waited = 0 if progress else waited + 1
            best_objective = min(best_objective, objective)
            if gap < best_gap:
                best, reached, best_gap = (state.weights, state.intercepts), objective, gap
            if gap <= self.tolerance or step >= self.limit or waited > PATIENCE:
                if fresh or single:
                    break
                # Scores were added up step by step: what is certified are those that the weights have.
                state, fresh, best_gap, before = problem.state(*best), True, math.inf, None
                continue
            fresh = False
            if before is not None:
                self.history.add(before[0], gradient - before[1])
            direction = -self.history.direction(gradient, self._preconditioner(state, step))
            ahead = _line_search(problem, state, gradient, sums, direction, inverted)
            step += 1
            if ahead is not None:
                before, state = (ahead.weights - state.weights, gradient), ahead
            elif self.history.moved is None:
                break
            else:
                self.history.moved = None
                before = self.precondition = None
                waited += PATIENCE // 3
            del ahead
        return *best, reached, best_gap, step

    def _look(self, state: State, single: bool) -> tuple[State, torch.Tensor, torch.Tensor, torch.Tensor, float, float]:
        """Return the state with its intercepts set right, the inverse Hessian in them, gradient, column sums, f and relative gap."""
        problem = self.problem
        inverted = inverse(summed_curvature(state.softmax[:, : problem.classes]))
        # In float32 the intercepts may lag behind a little; the next step makes up for it.
        spare = 0.01 * self.tolerance * state.objective(problem.C) if single else 0.0
        state = set_intercepts(problem, state, inverted, spare)
        gradient, sums = problem.gradient(state)
        objective = state.objective(problem.C)
        gap = 0.5 * dot(gradient, gradient) if single else certificate(problem, state, gradient, sums)
        return state, inverted, gradient, sums, objective, gap / max(objective, 1e-300)

    def _preconditioner(self, state: State, step: int) -> Preconditioner:
        """Return the preconditioner for a step, made anew where it is due."""
        if step >= REWEIGH and step % REWEIGH == 0 and (step // REWEIGH).bit_count() == 1:
            self.geometry = Geometry.of(self.problem, state)
        self.geometry = self.geometry or Geometry(*self.problem.points.spectrum, None)
        if self.precondition is None or step < REFRESH or step % REFRESH == 0:
            self.precondition = Preconditioner.of(self.problem, state, self.geometry)
        return self.precondition


class History:
    """The last steps in W and what they changed in the gradient of min_b f: `moved` and `changed` (m, dK).

    `products` (m, m) holds moved_i · changed_j for i ≤ j, and zeros: what makes the two loops of L-BFGS triangular systems.
    """

    moved: torch.Tensor | None = None

    def double(self) -> History:
        """Return the same in float64."""
        other = History()
        if self.moved is not None:
            other.moved, other.changed, other.products = (
                each.double() for each in (self.moved, self.changed, self.products)
            )
        return other

    def add(self, moved: torch.Tensor, changed: torch.Tensor) -> None:
        """Take a step and the change of the gradient, both (d, K), unless f does not curve along it as far as one can see."""
        if not dot(moved, changed) > 1e-10 * math.sqrt(dot(moved, moved) * dot(changed, changed)):
            return
        row, other = moved.reshape(1, -1), changed.reshape(1, -1)
        if self.moved is None:
            self.moved, self.changed, self.products = row, other, row @ other.T
            return
        kept = slice(1 if len(self.moved) == MEMORY else 0, None)
        self.moved = torch.cat([self.moved[kept], row])
        self.changed = torch.cat([self.changed[kept], other])
        earlier = torch.nn.functional.pad(self.products[kept, kept], (0, 0, 0, 1))
        self.products = torch.cat([earlier, self.moved @ other.T], dim=1)

    def direction(self, gradient: torch.Tensor, precondition: Preconditioner) -> torch.Tensor:
        """Return the L-BFGS approximation of the inverse Hessian times the gradient (d, K)."""
        if self.moved is None:
            return precondition(gradient)
        upper, last = self.products, self.changed[-1].view_as(gradient)
        factors = torch.linalg.solve_triangular(upper, self.moved @ gradient.reshape(-1, 1), upper=True)
        vector = precondition(gradient - (factors.T @ self.changed).view_as(gradient))
        vector *= upper[-1, -1] / (last * precondition(last)).sum()
        rest = upper.diagonal()[:, None] * factors - self.changed @ vector.reshape(-1, 1)
        more = torch.linalg.solve_triangular(upper.T, rest, upper=False)
        return vector + (more.T @ self.moved).view_as(gradient)


@dataclass(frozen=True)
class Geometry:
    """A Gram matrix (d, d) as `values` and `vectors`, of all points alike (`leverage` None) or of those that count."""

    values: torch.Tensor
    vectors: torch.Tensor
    leverage: torch.Tensor | None

    @staticmethod
    def of(problem: Problem, state: State) -> Geometry:
        """Return the Gram matrix of the points, each weighted by its uncertainty 1 − ΣP², its softmax Hessian's trace.

        Points that have been fitted to certainty curve f no more. In the mean Hessian the others count by leverage.
        """
        dtype = state.softmax.dtype
        uncertainty = 1 - state.softmax.square().sum(1)
        mean = float(uncertainty.mean().clamp(min=1e-30))
        values, vectors = eigh(problem.points.gram(dtype, uncertainty / mean))
        root = (problem.C * mean / problem.classes * values + 1).rsqrt()
        leverage = torch.cat(
            [(block @ (vectors * root).to(dtype)).square().sum(1) for _, block in problem.points.blocks(dtype)]
        )
        return Geometry(values, vectors, leverage)


@dataclass(frozen=True)
class Preconditioner:
    """(C A ⊗ S + 1)⁻¹ with A (d, d) and S (K, K) such that A ⊗ S is near Σ_i x_i x_iᵀ ⊗ (diag(P_i) − P_i P_iᵀ).

    `rows` (d, d) and `columns` (K, K) are the eigenvectors of A and S.
    """

    rows: torch.Tensor
    columns: torch.Tensor
    inverse: torch.Tensor

    @staticmethod
    def of(problem: Problem, state: State, geometry: Geometry) -> Preconditioner:
        """Return the preconditioner at a state; with a weighted A, A ⊗ S has the trace of what it stands for."""
        softmax = state.softmax[:, : problem.classes]
        if geometry.leverage is None:
            mean = summed_curvature(softmax) / len(softmax)
        else:
            mean = summed_curvature(softmax, geometry.leverage)
            squares = torch.cat([block.square().sum(1) for _, block in problem.points.blocks(softmax.dtype)])
            trace = float((squares * (1 - softmax.square().sum(1))).sum())
            mean *= trace / float((geometry.values.sum() * mean.trace()).clamp(min=1e-300))
        values, columns = eigh(mean)
        inverse = 1 / (problem.C * geometry.values[:, None] * values + 1)
        dtype = softmax.dtype
        return Preconditioner(geometry.vectors.to(dtype), columns.to(dtype), inverse.to(dtype))

    def __call__(self, values: torch.Tensor) -> torch.Tensor:
        """Return the product with `values` (d, K); filling columns stay 0."""
        classes = len(self.columns)
        inner = self.rows.T @ values[:, :classes] @ self.columns
        inner = self.rows @ (inner * self.inverse) @ self.columns.T
        inner -= inner.mean(1, keepdim=True)
        return torch.nn.functional.pad(inner, (0, values.shape[1] - classes))


def _line_search(
    problem: Problem,
    state: State,
    gradient: torch.Tensor,
    sums: torch.Tensor,
    direction: torch.Tensor,
    inverted: torch.Tensor,
) -> State | None:
    """Return the state at a step along `direction` that fulfils Wolfe's conditions, else the lowest that was found, or None.

    The intercepts move along with W to first order, to where the sums are right. Only the softmax is computed anew at
    each trial, no product.
    """
    inside = slice(0, problem.classes)
    moved = problem.points.times(direction)
    moved -= moved.gather(
        1, problem.labels[:, None]
    )  # the same for all classes: it changes no probability, but is rounded
    weighted = state.softmax * moved
    shift = weighted.sum(0) - state.softmax.T @ weighted.sum(1)
    del weighted  # as large as the features where classes are many
    tilt = torch.zeros_like(state.intercepts)
    tilt[inside] = -(inverted @ (shift[inside].double() + sums[inside])).to(tilt.dtype)
    moved += tilt
    C = problem.C
    linear, quadratic = dot(state.weights, direction), dot(direction, direction)
    slope = dot(gradient, direction) + C * float(sums @ tilt.double())
    if not slope < 0:
        return None
    start = state.objective(C)
    noise = start * (1e-6 if moved.dtype == torch.float32 else 1e-13)
    # Below this, f and its slope are rounding, while the gradient still says where to go: the full step is taken.
    blind = 0.0 if moved.dtype == torch.float32 else noise
    low, high, step = 0.0, math.inf, 1.0

    def at(step: float) -> State:
        weights, intercepts = state.weights + step * direction, state.intercepts + step * tilt
        return problem.at(weights, intercepts, torch.add(state.scores, moved, alpha=step))

    # Of other trials their step alone is held: where classes are many, a state is as large as the features.
    lowest, least_seen = None, start - noise
    for _ in range(30):
        trial = at(step)
        rise = C * trial.along(moved) + linear + step * quadratic
        objective = trial.objective(C)
        if -slope < blind and objective <= start + noise:
            return trial
        if objective < least_seen:
            lowest, least_seen = step, objective
        # The last condition: a first step may end far behind the minimum, where all probabilities are 0 or 1.
        if not objective <= start + 1e-4 * step * slope + noise or rise > min(-0.9 * slope, 0.3 * objective / step):
            high = step
        elif rise < 0.9 * slope:
            low = step
        else:
            return trial
        del trial
        # The secant of the slope, kept inside the bracket.
        guess = step * slope / (slope - rise) if rise > slope else 4 * step
        least, most = (
            (low + 0.1 * (high - low), low + 0.9 * (high - low)) if math.isfinite(high) else (2 * step, 10 * step)
        )
        step = min(max(guess, least), most) if math.isfinite(guess) else 0.5 * (low + min(high, 2 * step))
    return None if lowest is None else at(lowest)
