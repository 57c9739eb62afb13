"""Multinomial logistic regression: this project's solver against scikit-learn's, at a known distance from the optimum.

One table, in Markdown. Features are made up to look like what networks make, non-negative and of falling spectrum:
classes are Gaussians in 64 dimensions, which a random layer with a ReLU maps to all of them.

- `random labels`: the labels know nothing of the features.
- `overlapping`: an early network; the classes cannot be told apart altogether.
- `separable`: a late one; they nearly can, and few points shape the optimum.
- `collapsed`: each class within 1e-4 of one point.

scikit-learn runs at its defaults (lbfgs, tol 1e-4, at most 100 iterations), on float32 features as they come out of a
network and on float64, and, for as many classes as `--tight` says at most and the features that `--tight-features`
says, with lbfgs at tol 1e-8 until it stops by itself (float64). Every result's objective is evaluated by this project's
formula; `above the optimum` is its distance from the best certified lower bound, relatively, so that it is never
understated. Competitors take turns, so that what else the machine does meets all of them; the table has medians, of the
clock and of the processors' time. A fit of over ten seconds is not repeated.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "workflow" / "scripts"))
from dnn_or_knn.probes.solvers.multinomial import fit_softmax
from dnn_or_knn.probes.solvers.softmax_problem import evaluate
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from threadpoolctl import threadpool_limits

#: kind → distance of the class centres, spread within a class.
FEATURES = {
    "random labels": (0.0, 1.0),
    "overlapping": (0.35, 1.0),
    "separable": (0.8, 1.0),
    "collapsed": (1.0, 1e-4),
}
#: Seconds after which a fit is not repeated.
LONG = 10.0
#: Returns weights (d, K), intercepts (K,) and the iterations taken.
Fit = Callable[[], tuple[torch.Tensor, torch.Tensor, int]]


@dataclass
class Competitor:
    """A fit, its times, and where it ended."""

    name: str
    fit: Fit
    clock: list[float] = field(default_factory=list)
    processor: list[float] = field(default_factory=list)
    objective: float = np.nan
    gap: float = np.nan
    iterations: int = 0

    def run(self, features: np.ndarray, labels: np.ndarray) -> None:
        """Fit once more and evaluate the result."""
        clock, processor = time.perf_counter(), time.process_time()
        weights, intercepts, self.iterations = self.fit()
        self.clock.append(time.perf_counter() - clock)
        self.processor.append(time.process_time() - processor)
        x, y = torch.as_tensor(features), torch.as_tensor(labels)
        self.objective, self.gap = evaluate(x, y, weights, intercepts, 1.0)


def make_features(kind: str, count: int, dimensions: int, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Return features (N, d) float32 and labels (N,), each class present."""
    distance, spread = FEATURES[kind]
    random = np.random.default_rng(0)
    labels = random.permutation(np.arange(count) % classes)
    latent = distance * random.normal(size=(classes, 64))[labels] + spread * random.normal(size=(count, 64))
    layer = random.normal(size=(64, dimensions)) / np.sqrt(np.arange(1, 65))[:, None]
    noise = 0.1 * spread * random.normal(size=(count, dimensions))
    return np.maximum(latent @ layer + noise, 0).astype(np.float32), labels


def ours(features: np.ndarray, labels: np.ndarray, classes: int, tolerance: float) -> Fit:
    """Return a fit by this project's solver."""

    def fit() -> tuple[torch.Tensor, torch.Tensor, int]:
        found = fit_softmax(torch.as_tensor(features), torch.as_tensor(labels), classes, tolerance=tolerance)
        return found.weights, found.intercepts, found.iterations

    return fit


def scikit_learn(features: np.ndarray, labels: np.ndarray, tolerance: float, limit: int) -> Fit:
    """Return a fit by scikit-learn's lbfgs, in the type of the features."""

    def fit() -> tuple[torch.Tensor, torch.Tensor, int]:
        model = LogisticRegression(tol=tolerance, max_iter=limit).fit(features, labels)
        weights = torch.as_tensor(model.coef_.T.astype(np.float64))
        return weights, torch.as_tensor(model.intercept_.astype(np.float64)), int(model.n_iter_[0])

    return fit


def compare(kind: str, args: argparse.Namespace, classes: int) -> list[str]:
    """Run the competitors in turns and return their rows of the table."""
    features, labels = make_features(kind, args.points, args.dimensions, classes)
    double = features.astype(np.float64)
    competitors = [
        Competitor("this project", ours(features, labels, classes, 1e-6)),
        Competitor("scikit-learn, defaults, float32", scikit_learn(features, labels, 1e-4, 100)),
        Competitor("scikit-learn, defaults, float64", scikit_learn(double, labels, 1e-4, 100)),
    ]
    if classes <= args.tight and kind in args.tight_features:
        competitors.append(Competitor("scikit-learn, tol 1e-8, float64", scikit_learn(double, labels, 1e-8, 10**6)))
    for _ in range(args.rounds):
        for competitor in competitors:
            if not competitor.clock or competitor.clock[0] < LONG:
                competitor.run(features, labels)
    bound = max(competitor.objective * (1 - competitor.gap) for competitor in competitors)
    clock, processor = (statistics.median(times) for times in (competitors[0].clock, competitors[0].processor))
    return [
        f"| {classes} | {kind} | {each.name} | {each.iterations} | {statistics.median(each.clock):.2f} "
        f"| {statistics.median(each.processor):.2f} | {each.objective / bound - 1:.1e} "
        f"| {statistics.median(each.clock) / clock:.2f} | {statistics.median(each.processor) / processor:.2f} |"
        for each in competitors
    ]


def main() -> None:
    """Print the table."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--points", type=int, default=10_000)
    arguments.add_argument("--dimensions", type=int, default=640)
    arguments.add_argument("--classes", type=int, nargs="+", default=[10, 100])
    arguments.add_argument("--tight", type=int, default=10, help="most classes for tol 1e-8 (default: 10)")
    arguments.add_argument(
        "--tight-features",
        nargs="+",
        choices=list(FEATURES),
        default=["random labels", "overlapping"],
        help="features for tol 1e-8, which takes a minute and more each (default: random labels, overlapping)",
    )
    arguments.add_argument("--rounds", type=int, default=3)
    arguments.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    arguments.add_argument("--features", nargs="+", choices=list(FEATURES), default=list(FEATURES))
    args = arguments.parse_args()
    torch.set_num_threads(args.threads)
    warnings.simplefilter("ignore", ConvergenceWarning)
    print(
        f"{args.points:,} × {args.dimensions} features, C = 1, {args.threads} threads, {os.cpu_count()} processors, "
        f"load {os.getloadavg()[0]:.1f}, median of {args.rounds} rounds.\n"
    )
    print(
        "| classes | features | solver | iterations | seconds | processor seconds | above the optimum | × ours "
        "| × ours, processor |\n|---|---|---|---|---|---|---|---|---|"
    )
    with threadpool_limits(args.threads):
        for classes in args.classes:
            for kind in args.features:
                print("\n".join(compare(kind, args, classes)), flush=True)


if __name__ == "__main__":
    main()
