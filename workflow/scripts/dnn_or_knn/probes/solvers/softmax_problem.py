"""The problem of multinomial logistic regression with an L2 penalty, and the certificate of its solutions; see `multinomial`."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass

import torch

#: Rows that one block converts to float64 at a time: 8,192 × 640 values are 42 MB.
ROWS = 8192
#: Values that may be held as centred float64, by device; of larger features blocks are converted at each product.
KEPT = {"cpu": 2**24, "cuda": 2**28}
#: Multiply-adds of one product above which float32 goes first.
SINGLE = 2**24
#: Score of the classes that fill up; its exponential is 0.
NOTHING = -1e30
#: Rows up to which a matrix's eigenvectors are found on the CPU, which on a GPU takes longer than the way there and back.
SMALL = 256


@dataclass(frozen=True)
class Points:
    """What fits on the same features share: features (N, d) minus their mean (d,), and their Gram matrix, `spectrum`.

    `features` are as they came; `centred` holds them centred in the types in which they are held so.
    """

    features: torch.Tensor
    mean: torch.Tensor
    centred: dict[torch.dtype, torch.Tensor]

    @staticmethod
    def of(features: torch.Tensor, classes: int) -> Points:
        """Return the points for fits of `classes` classes, held in float64 if they are few, in float32 if it goes first."""
        mean = features.sum(0, dtype=torch.float64) / len(features)
        types = [torch.float64] * (features.numel() <= KEPT[features.device.type])
        # Where products cost much, and neither they nor their squares overflow.
        types += [torch.float32] * (features.numel() * classes > SINGLE and 1e-12 < float(features.abs().max()) < 1e12)
        centred = {dtype: torch.empty(features.shape, dtype=dtype, device=features.device) for dtype in types}
        for start in range(0, len(features), ROWS):
            block = features[start : start + ROWS].double() - mean
            for held in centred.values():
                held[start : start + ROWS] = block
        return Points(features, mean, centred)

    @functools.cached_property
    def spectrum(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Eigenvalues (d,) and eigenvectors (d, d) of XᵀX, float64, made when they are first asked for."""
        return eigh(self.gram(torch.float64))

    def gram(self, dtype: torch.dtype, weights: torch.Tensor | None = None) -> torch.Tensor:
        """Return Σ_i w_i x_i x_iᵀ (d, d) of the centred points, products in a type and their sum over blocks in float64; w (N,) or 1."""
        total = torch.zeros_like(self.mean).repeat(len(self.mean), 1)
        for rows, block in self.blocks(dtype):
            total += (block if weights is None else block * weights[rows, None]).T @ block
        return total

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

    `labels` and `missing` (N, 1) are the label's column and −(the sum of the other probabilities): right to the last digits
    where that sum is far below 1's rounding, as is the loss.
    """

    weights: torch.Tensor
    intercepts: torch.Tensor
    scores: torch.Tensor
    softmax: torch.Tensor
    labels: torch.Tensor
    missing: torch.Tensor
    loss: float

    @property
    def residual(self) -> torch.Tensor:
        """Softmax − one-hot labels (N, K), made when it is asked for: with many classes it is as large as the features."""
        return self.softmax.scatter(1, self.labels, self.missing)

    def along(self, moved: torch.Tensor) -> float:
        """Return Σ residual · moved (N, K), some rows at a time, with the bits of `dot`."""
        sums = [
            (self.softmax[rows].scatter(1, self.labels[rows], self.missing[rows]) * moved[rows]).sum(1)
            for rows in (slice(start, start + ROWS) for start in range(0, len(moved), ROWS))
        ]
        return float(torch.cat(sums).sum(dtype=torch.float64))

    def objective(self, C: float) -> float:
        """Return f."""
        return C * self.loss + 0.5 * dot(self.weights, self.weights)


@dataclass(frozen=True)
class Problem:
    """Points, labels and what is counted on them once, all float64.

    `counts` (K,) and `pulled` (d, K) are the labels' column sums and XᵀY.
    Columns from `classes` on fill up.
    """

    points: Points
    labels: torch.Tensor
    classes: int
    wide: int
    C: float
    counts: torch.Tensor
    pulled: torch.Tensor

    @staticmethod
    def of(points: Points, labels: torch.Tensor, classes: int, wide: int, C: float) -> Problem:
        """Return the problem with its sums, in one pass over the points."""
        counts = torch.bincount(labels, minlength=wide).double()
        pulled = torch.zeros(points.mean.shape[0], wide, dtype=torch.float64, device=labels.device)
        for rows, block in points.blocks(torch.float64):
            pulled += block.T @ torch.nn.functional.one_hot(labels[rows], wide).double()
        return Problem(points, labels, classes, wide, C, counts, pulled)

    def zero(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Return no weights (d, K) and the intercepts (K,) that are best with them, float64."""
        intercepts = self.counts[: self.classes].log()
        pad = (0, self.wide - self.classes)
        return torch.zeros_like(self.pulled), torch.nn.functional.pad(intercepts - intercepts.mean(), pad)

    def state(self, weights: torch.Tensor, intercepts: torch.Tensor) -> State:
        """Return the state at a model, in the weights' type."""
        scores = self.points.times(weights)
        scores += intercepts
        scores[:, self.classes :] = NOTHING
        return self.at(weights, intercepts, scores)

    def at(self, weights: torch.Tensor, intercepts: torch.Tensor, scores: torch.Tensor) -> State:
        """Return the state at a model whose scores are known; it takes them for its own."""
        labels = self.labels[:, None]
        scores -= scores.gather(1, labels)  # so that the label's is 0, exactly
        largest = scores.amax(1, keepdim=True)
        own = torch.exp(-largest)
        powers = (scores - largest).exp_().scatter_(1, labels, 0.0)
        others = powers.sum(1, keepdim=True)
        loss = float((largest + torch.log1p(own - 1 + others)).sum(dtype=torch.float64))
        total = own + others
        powers /= total
        softmax = powers.scatter_(1, labels, own / total)
        return State(weights, intercepts, scores, softmax, labels, -others / total, loss)

    def gradient(self, state: State) -> tuple[torch.Tensor, torch.Tensor]:
        """Return ∂f/∂W (d, K), and the column sums (K,) of softmax − one-hot labels, in float64."""
        residual = state.residual
        sums = residual.sum(0).double()
        # The classes' gradients add up to 0, and so do their weights; rounding, on large features, must not move them.
        pulled = self.points.pull(residual)
        pulled[:, : self.classes] -= pulled[:, : self.classes].mean(1, keepdim=True)
        return self.C * pulled + state.weights, sums


def summed_curvature(softmax: torch.Tensor, weights: torch.Tensor | None = None) -> torch.Tensor:
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
    columns = sums[inside] + problem.counts[inside]
    t = max(0.0, float((sums[inside] / columns.clamp(min=1e-300)).max()))
    q = (t * columns - sums[inside]).clamp(min=0)
    if t == 0 or not bool(q.any()):  # every sum is too large, by a last digit: there is nothing to mix in
        return 0.5 * dot(gradient, gradient)
    q = q / q.sum()
    weights = state.weights[:, inside].double()
    mixed = (1 - t) * (gradient[:, inside].double() - weights)
    mixed += problem.C * t * (torch.outer(problem.pulled.sum(1), q) - problem.pulled[:, inside])
    scores = state.scores[:, inside].double()
    divergence = len(scores) * float(torch.special.xlogy(q, q).sum()) - float(q @ scores.sum(0))
    divergence += float(torch.cat([torch.logsumexp(some, 1) for some in scores.split(ROWS)]).sum())
    return 0.5 * dot(mixed + weights, mixed + weights) + problem.C * t * max(divergence, 0.0)


def set_intercepts(problem: Problem, state: State, inverted: torch.Tensor, spare: float = 0.0) -> State:
    """Return the state after a Newton step in the intercepts, or unchanged if that promises less than `spare` of f.

    inverted: `inverse` of the softmax Hessian, (K, K).
    """
    inside = slice(0, problem.classes)
    sums = state.residual[:, inside].sum(0).double()
    newton = -(inverted @ sums)
    if -0.5 * problem.C * float(sums @ newton) < spare:
        return state
    step = torch.zeros_like(state.intercepts)
    step[inside] = newton.to(step.dtype)
    stepped = problem.at(state.weights, state.intercepts + step, state.scores + step)
    noise = 1e-7 if step.dtype == torch.float32 else 1e-13
    return stepped if stepped.loss <= state.loss * (1 + noise) else state


def inverse(curvature: torch.Tensor) -> torch.Tensor:
    """Return the pseudo-inverse (K, K) of a summed softmax Hessian, whose null space holds the constant vector.

    Diagonal scaling goes before the cut-off, so that classes of little curvature are moved too; those of none are not. It
    is worked out on the CPU, which for so small a matrix takes less than a GPU's launches.
    """
    matrix = curvature.cpu()
    diagonal = matrix.diagonal()
    scale = torch.where(diagonal > 1e-200, diagonal.clamp(min=1e-200).rsqrt(), 0.0)
    values, vectors = torch.linalg.eigh(matrix * scale[:, None] * scale)
    inverted = torch.where(values > 1e-10, 1 / values.clamp(min=1e-10), 0.0)
    inverted = scale[:, None] * ((vectors * inverted) @ vectors.T) * scale
    # Project onto vectors that sum to 0.
    inverted = inverted - inverted.mean(0)
    return (inverted - inverted.mean(1, keepdim=True)).to(curvature.device)


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
        state = set_intercepts(problem, state, inverse(summed_curvature(state.softmax)))
    gradient, sums = problem.gradient(state)
    bound = state.objective(C) - certificate(problem, state, gradient, sums)
    return objective, max(objective - bound, 0.0) / max(objective, 1e-300)


def eigh(matrix: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return eigenvalues, those below 0 by rounding as 0, and eigenvectors of a symmetric matrix, on its device."""
    values, vectors = torch.linalg.eigh(matrix.cpu() if len(matrix) <= SMALL else matrix)
    return values.clamp(min=0).to(matrix.device), vectors.to(matrix.device)


def dot(left: torch.Tensor, right: torch.Tensor) -> float:
    """Return Σ left · right of two tables; the sums of rows are added in float64."""
    return float((left * right).sum(1).sum(dtype=torch.float64))
