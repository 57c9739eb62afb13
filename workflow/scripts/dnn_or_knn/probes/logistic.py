"""The logistic regression probe: certified fits, softmax or one sigmoid a class, L2 or L1 penalty.

Objectives (C is the option ``C``):

    multinomial, l2:  ½‖W‖² + C Σ_i cross-entropy_i       scikit-learn's; the intercepts are free
    ovr, l2:          ½‖w‖² + C Σ_i log(1 + exp(−y_i f_i))  for each class, the intercept free
    ovr, l1:          ‖w‖₁ + |b| + C Σ_i log(1 + exp(−y_i f_i))  liblinear's: the intercept is penalised

Probabilities: the softmax, or the sigmoids divided by their sum. Decision: the class of the largest score, ties to the
lowest.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import torch

from ..runtime.errors import UserError
from .common import ProbeResult, check_input, one_class, spread
from .preprocessing import reduce
from .solvers.l1_logistic import evaluate as evaluate_lasso
from .solvers.l1_logistic import fit_lasso
from .solvers.multinomial import fit_softmax
from .solvers.softmax_problem import Points
from .solvers.softmax_problem import evaluate as evaluate_softmax
from .solvers.svm_problem import span

#: Rows whose scores are worked out at a time.
ROWS = 8192


@dataclass(frozen=True)
class Model:
    """Scores x·`weights` (d, K) + `intercepts` (K,), float64, and how far each fit is from its optimum."""

    weights: torch.Tensor
    intercepts: torch.Tensor
    objective: float
    gap: float
    iterations: int


class Objective(NamedTuple):
    """What is minimised (see the module), and the relative gap at which a fit ends."""

    penalty: str
    multiclass: str
    C: float
    tolerance: float


def run(
    train: np.ndarray,
    labels: np.ndarray,
    test: np.ndarray,
    *,
    classes: int,
    options: dict[str, Any],
    seed: int,
    device: str,
) -> ProbeResult:
    """Fit logistic regression on train features (N, d) and apply it to train and test features (M, d).

    Parameters
    ----------
    options: ``penalty`` (l2 or l1), ``multiclass`` (multinomial or ovr), ``C``, ``tolerance`` (relative gap of every
        fit), ``backend`` (exact, or reference: scikit-learn on the same objective), ``normalize``, ``pca``.
    seed: unused; nothing here is random.

    Returns
    -------
    ProbeResult with the linear probes' arrays, `coefficients` (K, d) and `intercepts` (K,) of the classes that occur. A
    class without points takes no part and has probability 0.

    Raises
    ------
    UserError: unusable features, labels or options.
    """
    started = time.perf_counter()
    penalty, multiclass = options.get("penalty", "l2"), options.get("multiclass", "multinomial")
    C, tolerance = float(options.get("C", 1.0)), float(options.get("tolerance", 1e-6))
    if penalty == "l1" and multiclass == "multinomial":
        raise UserError("penalty l1 goes with multiclass ovr alone, as in liblinear; set `multiclass: ovr`")
    present = check_input(train, labels, test, classes)
    reduced = reduce(train, test, options)
    if len(present) == 1:
        single = one_class(int(present[0]), reduced.train, reduced.test, classes)
        return ProbeResult({**single.arrays, **reduced.arrays()}, {**single.report, "seconds": {"fit": 0.0}})
    features = torch.as_tensor(reduced.train, device=device)
    targets = torch.as_tensor(np.searchsorted(present, labels), device=device)
    fit = reference if options.get("backend", "exact") == "reference" else exact
    model = fit(features, targets, len(present), Objective(penalty, multiclass, C, tolerance))
    fitted = time.perf_counter()
    arrays: dict[str, np.ndarray] = {}
    for split, values in (("train", reduced.train), ("test", reduced.test)):
        probabilities, decision = _apply(values, model, multiclass)
        arrays[f"{split}_probabilities"] = spread(probabilities, present, classes)
        arrays[f"{split}_decision"] = present[decision].astype(np.int16)
    arrays |= {"coefficients": model.weights.T.cpu().numpy().copy(), "intercepts": model.intercepts.cpu().numpy()}
    report = {
        "objective": model.objective,
        "gap": model.gap,
        "iterations": model.iterations,
        "converged": model.gap <= tolerance,
        "engine": fit.__name__,
        "C": C,
        "penalty": penalty,
        "multiclass": multiclass,
        "seconds": {"fit": fitted - started, "apply": time.perf_counter() - fitted},
    }
    return ProbeResult({**arrays, **reduced.arrays()}, report)


def exact(features: torch.Tensor, targets: torch.Tensor, classes: int, objective: Objective) -> Model:
    """Fit by the solvers of this project; `targets` (N,) are 0 … classes − 1, each of which occurs."""
    penalty, multiclass, C, tolerance = objective
    if penalty == "l2" and len(features) < features.shape[1]:
        # The optimal weights lie in the span of the centred points: they are turned into as many dimensions as there are.
        mean = features.mean(0, dtype=torch.float64)
        basis = span(features - mean)
        turned = (features - mean) @ basis
        model = exact(turned, targets, classes, objective)
        weights = basis @ model.weights
        return replace(model, weights=weights, intercepts=model.intercepts - mean @ weights)
    if multiclass == "multinomial":
        fit = fit_softmax(features, targets, classes, C=C, tolerance=tolerance)
        return Model(fit.weights, fit.intercepts, fit.objective, fit.gap, fit.iterations)
    if penalty == "l1":
        return _together([_one_lasso(features, targets == c, C, tolerance) for c in range(classes)])
    points = Points.of(features, 2)
    return _together([_one(points, targets == c, C, tolerance) for c in range(classes)])


def _one_lasso(features: torch.Tensor, own: torch.Tensor, C: float, tolerance: float) -> Model:
    """Fit one class against the rest with an L1 penalty."""
    fit = fit_lasso(features, torch.where(own, 1.0, -1.0), C=C, tolerance=tolerance)
    intercept = torch.tensor([fit.intercept], dtype=torch.float64, device=features.device)
    return Model(fit.weights[:, None], intercept, fit.objective, fit.gap, fit.iterations)


def _one(points: Points, own: torch.Tensor, C: float, tolerance: float) -> Model:
    """Fit one class against the rest with an L2 penalty."""
    # Of two classes the softmax spends ½‖w‖² as two weights ±w/2, half of it: with C/2 it is half of this objective.
    two = fit_softmax(points.features, own.long(), 2, C=C / 2, tolerance=tolerance, points=points)
    weights, intercepts = two.weights.diff(dim=1), two.intercepts.diff()
    return Model(weights, intercepts, 2 * two.objective, two.gap, two.iterations)


def reference(features: torch.Tensor, targets: torch.Tensor, classes: int, objective: Objective) -> Model:
    """Fit the same objective with scikit-learn, and certify what it finds by our formula."""
    from sklearn.linear_model import LogisticRegression

    penalty, multiclass, C, _ = objective
    x, y = features.double().cpu().numpy(), targets.cpu().numpy()
    if multiclass == "multinomial":
        # With two classes scikit-learn fits one weight vector w, where the softmax has ±w/2 and half the penalty.
        fitted = LogisticRegression(C=2 * C if classes == 2 else C, tol=1e-8, max_iter=20_000).fit(x, y)
        coefficients, intercepts = fitted.coef_, fitted.intercept_
        if classes == 2:
            coefficients, intercepts = (np.concatenate([-v, v]) / 2 for v in (coefficients, intercepts))
        weights = torch.as_tensor(coefficients.T.copy(), device=features.device)
        biases = torch.as_tensor(intercepts, device=features.device)
        value, gap = evaluate_softmax(features, targets, weights, biases, C)
        return Model(weights, biases - biases.mean(), value, gap, int(fitted.n_iter_.max()))
    return _together([_one_reference(features, x, targets == c, penalty, C) for c in range(classes)])


def _one_reference(features: torch.Tensor, x: np.ndarray, own: torch.Tensor, penalty: str, C: float) -> Model:
    """Fit one class against the rest with scikit-learn."""
    from sklearn.linear_model import LogisticRegression

    if penalty == "l1":
        solver = LogisticRegression(C=C, l1_ratio=1.0, solver="liblinear", tol=1e-9, max_iter=20_000, random_state=0)
    else:
        solver = LogisticRegression(C=C, tol=1e-8, max_iter=20_000)
    fitted = solver.fit(x, own.cpu().numpy())
    weights = torch.as_tensor(fitted.coef_.T.copy(), device=features.device)
    intercept = torch.as_tensor(fitted.intercept_, device=features.device)
    if penalty == "l1":
        signs = torch.where(own, 1.0, -1.0).double()[:, None]
        rows = torch.cat([features.double(), torch.ones_like(signs)], dim=1) * signs
        objective, distance = evaluate_lasso(rows, torch.cat([weights[:, 0], intercept]), C)
        return Model(weights, intercept, objective, distance / objective, int(fitted.n_iter_.max()))
    two, biases = torch.cat([-weights, weights], dim=1) / 2, torch.cat([-intercept, intercept]) / 2
    objective, gap = evaluate_softmax(features, own.long(), two, biases, C / 2)
    return Model(weights, intercept, 2 * objective, gap, int(fitted.n_iter_.max()))


def _together(models: list[Model]) -> Model:
    """Return the models of single classes as one: objectives added, the worst gap."""
    return Model(
        torch.cat([model.weights for model in models], dim=1),
        torch.cat([model.intercepts for model in models]),
        sum(model.objective for model in models),
        max(model.gap for model in models),
        max(model.iterations for model in models),
    )


def _apply(features: np.ndarray, model: Model, multiclass: str) -> tuple[np.ndarray, np.ndarray]:
    """Return probabilities (n, K) float32 and the class of the largest score (n,), a block of rows at a time."""
    probabilities = np.empty((len(features), model.weights.shape[1]), np.float32)
    decision = np.empty(len(features), np.int64)
    for start in range(0, len(features), ROWS):
        block = torch.as_tensor(features[start : start + ROWS], device=model.weights.device).double()
        scores = block @ model.weights + model.intercepts
        if multiclass == "multinomial":
            shares = torch.softmax(scores, dim=1)
        else:
            # log σ, so that a point that every class refuses still has shares.
            shares = torch.softmax(torch.nn.functional.logsigmoid(scores), dim=1)
        probabilities[start : start + ROWS] = shares.cpu().numpy()
        decision[start : start + ROWS] = scores.cpu().numpy().argmax(axis=1)
    return probabilities, decision
