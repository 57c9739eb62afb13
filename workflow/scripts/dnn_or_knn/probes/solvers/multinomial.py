"""Multinomial logistic regression with an L2 penalty, solved to a certified duality gap.

Over weights W (d, K) and intercepts b (K,), with scores z = xW + b and one-hot labels Y, minimise

    f(W, b) = ½‖W‖² + C Σ_i [log Σ_k exp z_ik − z_i,y(i)],

scikit-learn's objective: the intercepts are free. **Certificate.** Any P with rows in the simplex and the labels'
column sums bounds the optimum from below by D(P) = C Σ_i H(P_i) − ½‖C Xᵀ(P − Y)‖², H the entropy (Fenchel; the free
intercepts make the condition on the sums). For P = softmax(z) that satisfies it, f − D = ½‖∂f/∂W‖². A P that misses it
by rounding is mixed with one constant row q, (1 − t)P + t·1qᵀ, so that it holds; since KL is convex, at most C t Σ_i
KL(q‖P_i) is added to the gap (`certificate`). No constant is estimated: (f − D)/f is a bound, up to the rounding of
float64.

**Method.** L-BFGS on min_b f(W, b). The intercepts are eliminated: every step moves them as W moves, then one Newton
step sets the sums right. It is preconditioned by the Kronecker product of XᵀX (later: of the points still uncertain)
and the mean softmax Hessian over the points, which is the Hessian itself at W = 0; one eigendecomposition of each
inverts it, so that memory is O(d² + K²), never d²K². Large problems are first solved in float32, whose result float64
steps then finish and certify. Features are centred, which the intercepts take up. Every fit starts from W = 0 or, where
training has collapsed the classes, from the optimum for points at their classes' means (`_from_means`).
"""

from __future__ import annotations

import functools
import math
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch

from .gram import ROWS, gram

#: Values that may be held as centred float64, by device; of larger features blocks are converted at each product.
KEPT = {"cpu": 2**24, "cuda": 2**28}
#: Multiply-adds of one product above which float32 goes first.
SINGLE = 2**24
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
#: Squared distance of points from their class means, over that of these from the mean of all, up to which the optimum
#: for the means is the better start.
COLLAPSED = 0.5
#: Gap of that optimum, as a part of the tolerance: what is left is then due to the points' distance from the means.
MEANS_GAP = 1e-3
#: Score of the classes that fill up; its exponential is 0.
NOTHING = -1e30


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


@dataclass(frozen=True)
class Points:
    """What fits on the same features share: features (N, d) minus their mean (d,), and their Gram matrix, `spectrum`.

    `features` are as they came; `centred` holds them centred in the types in which they are held so; `scatter` is the
    sum of their squared distances from the mean.
    """

    features: torch.Tensor
    mean: torch.Tensor
    centred: dict[torch.dtype, torch.Tensor]
    scatter: float

    @staticmethod
    def of(features: torch.Tensor, classes: int) -> Points:
        """Return the points for fits of `classes` classes, held in float64 if they are few, in float32 if it goes first."""
        mean = features.sum(0, dtype=torch.float64) / len(features)
        types = [torch.float64] * (features.numel() <= KEPT[features.device.type])
        types += [torch.float32] * _single_first(features, classes)
        centred = {dtype: torch.empty(features.shape, dtype=dtype, device=features.device) for dtype in types}
        scatter = mean.new_zeros(())
        for start in range(0, len(features), ROWS):
            block = features[start : start + ROWS].double() - mean
            for held in centred.values():
                held[start : start + ROWS] = block
            scatter += block.square_().sum()
        return Points(features, mean, centred, float(scatter))

    @functools.cached_property
    def spectrum(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Eigenvalues (d,) and eigenvectors (d, d) of XᵀX, float64, made when they are first asked for."""
        total = gram(self.features[:0])
        for _, block in self.blocks(torch.float64):
            total += gram(block)
        values, vectors = torch.linalg.eigh(total)
        return values.clamp(min=0), vectors

    def blocks(self, dtype: torch.dtype) -> Iterator[tuple[slice, torch.Tensor]]:
        """Yield the centred points in a type, some rows at a time, and which rows they are."""
        held = self.centred.get(dtype)
        for start in range(0, len(self.features), ROWS):
            rows = slice(start, start + ROWS)
            yield rows, held[rows] if held is not None else (self.features[rows].double() - self.mean).to(dtype)

    def times(self, weights: torch.Tensor) -> torch.Tensor:
        """Return the product (N, K) of the centred points and weights (d, K), in the weights' type."""
        held = self.centred.get(weights.dtype)
        if held is not None:
            return held @ weights
        product = weights.new_empty(len(self.features), weights.shape[1])
        for rows, block in self.blocks(weights.dtype):
            torch.mm(block, weights, out=product[rows])
        return product

    def pull(self, values: torch.Tensor) -> torch.Tensor:
        """Return Σ_i x_i v_iᵀ (d, K) over the centred points, of values (N, K), in their type."""
        held = self.centred.get(values.dtype)
        if held is not None:
            return held.T @ values
        total = values.new_zeros(self.features.shape[1], values.shape[1])
        for rows, block in self.blocks(values.dtype):
            total.addmm_(block.T, values[rows])
        return total


@dataclass(frozen=True)
class State:
    """A model: weights (d, K), intercepts (K,), scores (N, K) up to a constant a row, their softmax, the summed loss.

    `residual` is softmax − one-hot labels, at the label −(the sum of the others): right to the last digits where that sum
    is far below 1's rounding, as is the loss.
    """

    weights: torch.Tensor
    intercepts: torch.Tensor
    scores: torch.Tensor
    softmax: torch.Tensor
    residual: torch.Tensor
    loss: float

    def objective(self, C: float) -> float:
        """Return f."""
        return C * self.loss + 0.5 * _dot(self.weights, self.weights)


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
    size = features.numel() * classes
    wide = classes if classes >= 4 * LANES else -(-classes // LANES) * LANES
    if size <= SINGLE:
        wide = classes
    points = points or Points.of(features, classes)
    problem = Problem.of(points, labels, classes, wide, C)
    weights, intercepts, (objective, gap) = _start(problem, tolerance)
    history: History = deque(maxlen=MEMORY)
    taken = single = 0
    if gap > tolerance and torch.float32 in points.centred:
        weights, intercepts, _, single = _descend(
            problem, weights.float(), intercepts.float(), history, 0.5 * tolerance, limit
        )
        if not bool(weights.isfinite().all() and intercepts.isfinite().all()):
            weights, intercepts = _zero(problem)
            history.clear()
        history = deque(((s.double(), y.double()) for s, y in history), maxlen=MEMORY)
    if gap > tolerance:
        weights, intercepts, (objective, gap), taken = _descend(
            problem, weights.double(), intercepts.double(), history, tolerance, limit - single
        )
    weights, intercepts = weights[:, :classes], intercepts[:classes] - problem.points.mean @ weights[:, :classes]
    return SoftmaxFit(weights, intercepts - intercepts.mean(), objective, gap, single + taken, single)


def _single_first(features: torch.Tensor, classes: int) -> bool:
    """Say whether float32 goes first: where products cost much, and neither they nor their squares overflow."""
    largest = float(features.abs().max()) if features.numel() else 0.0
    return features.numel() * classes > SINGLE and 1e-12 < largest < 1e12


def evaluate(
    features: torch.Tensor, labels: torch.Tensor, weights: torch.Tensor, intercepts: torch.Tensor, C: float
) -> tuple[float, float]:
    """Return f and the certified relative gap of any model: weights (d, K), intercepts (K,), of whatever origin.

    The model is evaluated as it is. For the lower bound alone, Newton steps set its intercepts right first.
    """
    points = Points.of(features, weights.shape[1])
    problem = Problem.of(points, labels, weights.shape[1], weights.shape[1], C)
    weights = weights.double()
    state = problem.state(weights, intercepts.double() + points.mean @ weights)
    objective = state.objective(C)
    for _ in range(20):
        state = _set_intercepts(problem, state, problem.curvature(state.softmax))
    gradient, sums = problem.gradient(state)
    bound = state.objective(C) - certificate(problem, state, gradient, sums)
    return objective, max(objective - bound, 0.0) / max(objective, 1e-300)


# --- the problem ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Problem:
    """Points, labels and what is counted on them once, all float64.

    `counts` (K,) and `pulled` (d, K) are the labels' column sums and XᵀY; `total` (d,) is Σ x, zero but for rounding.
    Columns from `classes` on fill up.
    """

    points: Points
    labels: torch.Tensor
    classes: int
    wide: int
    C: float
    counts: torch.Tensor
    pulled: torch.Tensor
    total: torch.Tensor

    @staticmethod
    def of(points: Points, labels: torch.Tensor, classes: int, wide: int, C: float) -> Problem:
        """Return the problem with its sums, in one pass over the points."""
        counts = torch.bincount(labels, minlength=wide).double()
        pulled = torch.zeros(points.mean.shape[0], wide, dtype=torch.float64, device=labels.device)
        for rows, block in points.blocks(torch.float64):
            pulled += block.T @ torch.nn.functional.one_hot(labels[rows], wide).double()
        return Problem(points, labels, classes, wide, C, counts, pulled, pulled.sum(1))

    def at_zero(self) -> float:
        """Return f at no weights and the intercepts that are best with them."""
        counts = self.counts[: self.classes]
        return self.C * float((counts * (counts.sum() / counts).log()).sum())

    def state(self, weights: torch.Tensor, intercepts: torch.Tensor) -> State:
        """Return the state at a model, in the weights' type."""
        scores = self.points.times(weights) + intercepts
        scores[:, self.classes :] = NOTHING
        return self.at(weights, intercepts, scores)

    def at(self, weights: torch.Tensor, intercepts: torch.Tensor, scores: torch.Tensor) -> State:
        """Return the state at a model whose scores are known."""
        labels = self.labels[:, None]
        scores = scores - scores.gather(1, labels)  # so that the label's is 0, exactly
        largest = scores.amax(1, keepdim=True)
        own = torch.exp(-largest)
        powers = (scores - largest).exp_().scatter_(1, labels, 0.0)
        others = powers.sum(1, keepdim=True)
        loss = float((largest + torch.log1p(own - 1 + others)).sum(dtype=torch.float64))
        total = own + others
        powers /= total
        residual = powers.scatter(1, labels, -others / total)
        return State(weights, intercepts, scores, powers.scatter_(1, labels, own / total), residual, loss)

    def gradient(self, state: State) -> tuple[torch.Tensor, torch.Tensor]:
        """Return ∂f/∂W (d, K), and the column sums (K,) of softmax − one-hot labels, in float64."""
        sums = state.residual.sum(0).double()
        # The classes' gradients add up to 0, and so do their weights; rounding, on large features, must not move them.
        pulled = self.points.pull(state.residual)
        pulled[:, : self.classes] -= pulled[:, : self.classes].mean(1, keepdim=True)
        return self.C * pulled + state.weights, sums

    def curvature(self, softmax: torch.Tensor) -> torch.Tensor:
        """Return the summed softmax Hessian Σ_i diag(P_i) − P_i P_iᵀ (K, K), float64, without the filling columns."""
        return _curvature(softmax[:, : self.classes])


def _curvature(softmax: torch.Tensor, weights: torch.Tensor | None = None) -> torch.Tensor:
    """Return Σ_i w_i (diag(P_i) − P_i P_iᵀ) (K, K), float64, of P (N, K) and w (N,) or ones."""
    weighted = softmax if weights is None else softmax * weights[:, None]
    product = (weighted.T @ softmax).double()
    # Rows of P sum to 1, so rows of the result to 0: a diagonal from the rest keeps digits where P is near 0 or 1.
    product.fill_diagonal_(0)
    return torch.diag(product.sum(1)) - product


def certificate(problem: Problem, state: State, gradient: torch.Tensor, sums: torch.Tensor) -> float:
    """Return an upper bound of f − D for a dual point made from the softmax, as the module says.

    Parameters
    ----------
    gradient, sums: `Problem.gradient` of the state.
    """
    inside = slice(0, problem.classes)
    counts = problem.counts[inside]
    columns = sums[inside] + counts
    t = max(0.0, float((sums[inside] / columns.clamp(min=1e-300)).max()))
    if t == 0:
        return 0.5 * _dot(gradient, gradient)
    size = len(problem.labels)
    q = ((t * columns - sums[inside]) / (t * size)).clamp(min=0)
    if not bool(q.any()):  # every sum is too large, by a last digit: there is nothing to mix in
        return 0.5 * _dot(gradient, gradient)
    q = q / q.sum()
    weights = state.weights[:, inside].double()
    mixed = (1 - t) * (gradient[:, inside].double() - weights)
    mixed += problem.C * t * (torch.outer(problem.total, q) - problem.pulled[:, inside])
    scores = state.scores[:, inside].double()
    divergence = size * float(torch.special.xlogy(q, q).sum()) - float(q @ scores.sum(0))
    divergence += float(torch.logsumexp(scores, 1).sum())
    return 0.5 * _dot(mixed + weights, mixed + weights) + problem.C * t * max(divergence, 0.0)


# --- the start --------------------------------------------------------------------------------------------------


def _zero(problem: Problem) -> tuple[torch.Tensor, torch.Tensor]:
    """Return no weights (d, K) and the intercepts (K,) that are best with them, float64."""
    weights = torch.zeros_like(problem.pulled)
    intercepts = problem.counts[: problem.classes].log()
    return weights, torch.nn.functional.pad(intercepts - intercepts.mean(), (0, problem.wide - problem.classes))


def _start(problem: Problem, tolerance: float) -> tuple[torch.Tensor, torch.Tensor, tuple[float, float]]:
    """Return the weights (d, K) and intercepts (K,) to start from, float64, and their (f, relative gap) where it is known."""
    means = _from_means(problem, MEANS_GAP * tolerance)
    if means is not None:
        weights, intercepts, found, _ = _descend(problem, *means, deque(), tolerance, 0)
        if found[0] < problem.at_zero():
            return weights, intercepts, found
    return *_zero(problem), (math.inf, math.inf)


def _from_means(problem: Problem, tolerance: float) -> tuple[torch.Tensor, torch.Tensor] | None:
    """Return the optimum, weights (d, K) and intercepts (K,), for points that all lie at the mean of their class.

    Points at distance ε from their mean change its gradient by O(ε²) alone, since the first order cancels within a class: on
    collapsed features this is the optimum. It is that of K weighted points, whose weights are combinations of the means: a
    small problem, left to SciPy. None: the fit is too small for float32 to go first, or the points lie too far from their
    means for this to help.
    """
    if torch.float32 not in problem.points.centred:
        return None
    classes, C = problem.classes, problem.C
    counts = problem.counts[:classes]
    means = problem.pulled[:, :classes] / counts
    if problem.points.scatter > (1 + COLLAPSED) * float((counts * means.square().sum(0)).sum()):
        return None
    from scipy.optimize import minimize  # a quarter of a second of a short job
    from threadpoolctl import threadpool_limits

    basis, triangle = torch.linalg.qr(means)
    points, number, own = triangle.T.cpu().numpy(), counts.cpu().numpy(), np.arange(classes)
    last = np.zeros(2)

    def objective(model: np.ndarray) -> tuple[float, np.ndarray]:
        weights, intercepts = np.split(model, [points.shape[1] * classes])
        scores = points @ weights.reshape(-1, classes) + intercepts
        scores -= scores.max(axis=1, keepdims=True)
        residual = np.exp(scores)
        sums = residual.sum(axis=1, keepdims=True)
        value = C * float(number @ (np.log(sums)[:, 0] - scores[own, own])) + 0.5 * float(weights @ weights)
        residual /= sums
        residual[own, own] -= 1
        residual *= C * number[:, None]
        gradient = np.concatenate([(points.T @ residual).ravel() + weights, residual.sum(axis=0)])
        last[:] = value, 0.5 * float(gradient @ gradient)
        return value, gradient

    def stop(xk: np.ndarray) -> None:
        if last[1] <= tolerance * last[0]:
            raise StopIteration

    start = np.concatenate([np.zeros(points.shape[1] * classes), np.log(number)])
    with threadpool_limits(1, "blas"):  # on products this small, threads would spend their time waiting for each other
        model = minimize(
            objective,
            start,
            jac=True,
            method="L-BFGS-B",
            callback=stop,
            options={"maxiter": 1000, "maxcor": MEMORY, "ftol": 0.0, "gtol": 0.0},
        ).x
    weights, intercepts = np.split(model, [points.shape[1] * classes])
    lifted = basis @ torch.as_tensor(weights.reshape(-1, classes), device=basis.device)
    biases = torch.as_tensor(intercepts, device=basis.device)
    pad = (0, problem.wide - classes)
    return torch.nn.functional.pad(lifted, pad), torch.nn.functional.pad(biases, pad)


# --- the descent ------------------------------------------------------------------------------------------------

#: Pairs of a step in W and what it changed in the gradient of min_b f.
History = deque[tuple[torch.Tensor, torch.Tensor]]


def _descend(
    problem: Problem,
    weights: torch.Tensor,
    intercepts: torch.Tensor,
    history: History,
    tolerance: float,
    limit: int,
) -> tuple[torch.Tensor, torch.Tensor, tuple[float, float], int]:
    """Run L-BFGS in the weights' type until the gap is `tolerance` or no progress is made.

    Returns weights, intercepts, (f, relative gap) and the number of steps. In float32 the intercepts' part of the gap
    is left to float64, whose sums it needs.
    """
    single = weights.dtype == torch.float32
    state = problem.state(weights, intercepts)
    best, best_gap, best_objective, waited, step = state, math.inf, math.inf, 0, 0
    before: tuple[torch.Tensor, torch.Tensor] | None = None
    fresh = True
    geometry: Geometry | None = None
    precondition: Preconditioner | None = None
    while True:
        curvature = problem.curvature(state.softmax)
        # In float32 the intercepts may lag behind a little; the next step makes up for it.
        spare = 0.01 * tolerance * state.objective(problem.C) if single else 0.0
        state = _set_intercepts(problem, state, curvature, spare)
        gradient, sums = problem.gradient(state)
        objective = state.objective(problem.C)
        gap = 0.5 * _dot(gradient, gradient) if single else certificate(problem, state, gradient, sums)
        if not (math.isfinite(objective) and math.isfinite(gap)):
            break
        gap /= max(objective, 1e-300)
        progress = gap < 0.9 * best_gap or objective < best_objective * (1 - (1e-8 if single else 1e-13))
        waited = 0 if progress else waited + 1
        best_objective = min(best_objective, objective)
        if gap < best_gap:
            best, best_gap = state, gap
        if gap <= tolerance or step >= limit or waited > PATIENCE:
            if fresh or single:
                break
            # Scores were added up step by step: what is certified are those that the weights have.
            state, fresh, best_gap, before = problem.state(best.weights, best.intercepts), True, math.inf, None
            continue
        fresh = False
        if before is not None:
            moved, change = before[0], gradient - before[1]
            if _dot(moved, change) > 1e-10 * math.sqrt(_dot(moved, moved) * _dot(change, change)):
                history.append((moved, change))
        if step >= REWEIGH and step % REWEIGH == 0 and (step // REWEIGH).bit_count() == 1:
            geometry = Geometry.of(problem, state)
        geometry = geometry or Geometry(*problem.points.spectrum, None)
        if precondition is None or step < REFRESH or step % REFRESH == 0:
            precondition = Preconditioner.of(problem, state, geometry)
        direction = -_quasi_newton(gradient, history, precondition)
        ahead = _line_search(problem, state, gradient, sums, direction, curvature)
        if ahead is None:
            if not history:
                break
            history.clear()
            before = precondition = None
            waited += PATIENCE // 3
            step += 1
            continue
        before = (ahead.weights - state.weights, gradient)
        state = ahead
        step += 1
    return best.weights, best.intercepts, (best.objective(problem.C), best_gap), step


def _set_intercepts(problem: Problem, state: State, curvature: torch.Tensor, spare: float = 0.0) -> State:
    """Return the state after a Newton step in the intercepts, or unchanged if that promises less than `spare` of f."""
    inside = slice(0, problem.classes)
    sums = state.residual[:, inside].sum(0).double()
    newton = -(_inverse(curvature) @ sums)
    if -0.5 * problem.C * float(sums @ newton) < spare:
        return state
    step = torch.zeros_like(state.intercepts)
    step[inside] = newton.to(step.dtype)
    stepped = problem.at(state.weights, state.intercepts + step, state.scores + step)
    noise = 1e-7 if step.dtype == torch.float32 else 1e-13
    return stepped if stepped.loss <= state.loss * (1 + noise) else state


def _inverse(curvature: torch.Tensor) -> torch.Tensor:
    """Return the pseudo-inverse (K, K) of a summed softmax Hessian, whose null space holds the constant vector.

    Diagonal scaling goes before the cut-off, so that classes of little curvature are moved too; those of none are not.
    """
    diagonal = curvature.diagonal()
    scale = torch.where(diagonal > 1e-200, diagonal.clamp(min=1e-200).rsqrt(), 0.0)
    values, vectors = torch.linalg.eigh(curvature * scale[:, None] * scale)
    inverted = torch.where(values > 1e-10, 1 / values.clamp(min=1e-10), 0.0)
    inverse = scale[:, None] * ((vectors * inverted) @ vectors.T) * scale
    # Project onto vectors that sum to 0.
    inverse = inverse - inverse.mean(0)
    return inverse - inverse.mean(1, keepdim=True)


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
        scatter = gram(problem.points.features[:0])
        for rows, block in problem.points.blocks(dtype):
            scatter += gram(block, uncertainty[rows] / mean, dtype=dtype)
        values, vectors = torch.linalg.eigh(scatter)
        values = values.clamp(min=0)
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
            mean = _curvature(softmax) / len(softmax)
        else:
            mean = _curvature(softmax, geometry.leverage)
            squares = torch.cat([block.square().sum(1) for _, block in problem.points.blocks(softmax.dtype)])
            trace = float((squares * (1 - softmax.square().sum(1))).sum())
            mean *= trace / float((geometry.values.sum() * mean.trace()).clamp(min=1e-300))
        values, columns = torch.linalg.eigh(mean)
        inverse = 1 / (problem.C * geometry.values[:, None] * values.clamp(min=0) + 1)
        dtype = softmax.dtype
        return Preconditioner(geometry.vectors.to(dtype), columns.to(dtype), inverse.to(dtype))

    def __call__(self, values: torch.Tensor) -> torch.Tensor:
        """Return the product with `values` (d, K); filling columns stay 0."""
        classes = len(self.columns)
        inner = self.rows.T @ values[:, :classes] @ self.columns
        inner = self.rows @ (inner * self.inverse) @ self.columns.T
        inner -= inner.mean(1, keepdim=True)
        return torch.nn.functional.pad(inner, (0, values.shape[1] - classes))


def _quasi_newton(gradient: torch.Tensor, history: History, precondition: Preconditioner) -> torch.Tensor:
    """Return the L-BFGS approximation of the inverse Hessian times the gradient (d, K)."""
    vector = gradient.clone()
    factors = []
    for moved, change in reversed(history):
        curvature = (moved * change).sum()
        factor = (moved * vector).sum() / curvature
        factors.append((factor, curvature))
        vector -= factor * change
    vector = precondition(vector)
    if history:
        moved, change = history[-1]
        vector *= factors[0][1] / (change * precondition(change)).sum()
    for (moved, change), (factor, curvature) in zip(history, reversed(factors), strict=True):
        vector += (factor - (change * vector).sum() / curvature) * moved
    return vector


def _line_search(
    problem: Problem,
    state: State,
    gradient: torch.Tensor,
    sums: torch.Tensor,
    direction: torch.Tensor,
    curvature: torch.Tensor,
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
    tilt = torch.zeros_like(state.intercepts)
    tilt[inside] = -(_inverse(curvature) @ (shift[inside].double() + sums[inside])).to(tilt.dtype)
    moved += tilt
    C = problem.C
    linear, quadratic = _dot(state.weights, direction), _dot(direction, direction)
    slope = _dot(gradient, direction) + C * float(sums @ tilt.double())
    if not slope < 0:
        return None
    start = state.objective(C)
    noise = start * (1e-6 if moved.dtype == torch.float32 else 1e-13)
    # Below this, f and its slope are rounding, while the gradient still says where to go: the full step is taken.
    blind = 0.0 if moved.dtype == torch.float32 else noise
    low, high, step = 0.0, math.inf, 1.0
    lowest: State | None = None
    for _ in range(30):
        trial = problem.at(
            state.weights + step * direction,
            state.intercepts + step * tilt,
            torch.add(state.scores, moved, alpha=step),
        )
        rise = C * _dot(trial.residual, moved) + linear + step * quadratic
        objective = trial.objective(C)
        if -slope < blind and objective <= start + noise:
            return trial
        if objective < (start - noise if lowest is None else lowest.objective(C)):
            lowest = trial
        # The last condition: a first step may end far behind the minimum, where all probabilities are 0 or 1.
        if not objective <= start + 1e-4 * step * slope + noise or rise > min(-0.9 * slope, 0.3 * objective / step):
            high = step
        elif rise < 0.9 * slope:
            low = step
        else:
            return trial
        # The secant of the slope, kept inside the bracket.
        guess = step * slope / (slope - rise) if rise > slope else 4 * step
        least, most = (
            (low + 0.1 * (high - low), low + 0.9 * (high - low)) if math.isfinite(high) else (2 * step, 10 * step)
        )
        step = min(max(guess, least), most) if math.isfinite(guess) else 0.5 * (low + min(high, 2 * step))
    return lowest


def _dot(left: torch.Tensor, right: torch.Tensor) -> float:
    """Return Σ left · right of two tables; the sums of rows are added in float64."""
    return float((left * right).sum(1).sum(dtype=torch.float64))
