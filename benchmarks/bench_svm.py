"""Linear SVMs: this project's solvers against LinearSVC and libsvm, on the same objective and at a known gap.

Three tables, in Markdown:

- One-vs-rest squared hinge, all classes, one fit (what the protocol `paper` uses): `solvers.svm.solve` and LinearSVC.
- One-vs-one hinge, a few of the pairs, one fit each (the protocol `authors`): `solvers.svm.solve` and libsvm's SVC.
- The whole probe, with the probabilities from five further fits: `probes.svm.run` and CalibratedClassifierCV.

Features are made up: `random` know nothing of the labels, `overlapping` and `easy` have one centre a class, near or far.
Every fit's objective is evaluated by this project's formula; what is listed as distance is how far it lies above the
best lower bound that any certificate gave. scikit-learn runs at its default tolerance, and at finer ones until the
distance is below the one wanted. Competitors take turns, so that what else the machine does meets all of them; the
table has medians, of the clock and of the processors' time. A fit of over ten seconds is not repeated. A last check
fits features without signal and compares the train accuracy by decision value with that by probability.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "workflow" / "scripts"))
from dnn_or_knn.probes import svm
from dnn_or_knn.probes.solvers import svm as solver
from dnn_or_knn.probes.solvers.svm_problem import Problems, certificate, scores
from sklearn.calibration import CalibratedClassifierCV
from sklearn.exceptions import ConvergenceWarning
from sklearn.svm import SVC, LinearSVC
from threadpoolctl import threadpool_limits

#: kind → distance of the class centres, in units of the spread within a class.
FEATURES = {"random": 0.0, "overlapping": 0.12, "easy": 0.4}
#: Seconds after which a fit is not repeated.
LONG = 10.0
#: A competitor fits signs (B, n) and returns weights (B, d + 1), intercept last, and multipliers (B, n) or None.
Fit = Callable[[Problems], tuple[torch.Tensor, torch.Tensor | None]]


def features(kind: str, count: int, dimensions: int, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Return features (N, d) float32, non-negative as behind a ReLU, and uniform labels (N,)."""
    random = np.random.default_rng(0)
    labels = random.integers(0, classes, count)
    centres = FEATURES[kind] * random.normal(size=(classes, dimensions))
    values = random.normal(size=(count, dimensions)) + centres[labels]
    return np.maximum(values, 0).astype(np.float32), labels


def ours(tolerance: float) -> Fit:
    """Return a fit by this project's solver."""

    def fit(problems: Problems) -> tuple[torch.Tensor, torch.Tensor | None]:
        return solver.solve(problems, tolerance=tolerance).weights, None

    return fit


def linear_svc(tolerance: float, dual: bool) -> Fit:
    """Return a fit of every problem by LinearSVC."""

    def fit(problems: Problems) -> tuple[torch.Tensor, torch.Tensor | None]:
        points, found = problems.points[:, :-1].numpy(), []
        for signs in problems.signs.numpy():
            model = LinearSVC(dual=dual, tol=tolerance, max_iter=1000).fit(points, signs)
            found.append(np.append(model.coef_[0], model.intercept_))
        return torch.as_tensor(np.array(found)), None

    return fit


def libsvm(tolerance: float, cap: int) -> Fit:
    """Return a fit of every problem by SVC, with its multipliers."""

    def fit(problems: Problems) -> tuple[torch.Tensor, torch.Tensor | None]:
        found, alpha = [], torch.zeros_like(problems.signs)
        for b, signs in enumerate(problems.signs):
            rows = np.flatnonzero(signs.numpy())
            model = SVC(kernel="linear", tol=tolerance, cache_size=1000, max_iter=cap)
            model.fit(problems.points[b, rows, :-1].numpy(), signs.numpy()[rows])
            found.append(np.append(model.coef_[0], model.intercept_))
            alpha[b, torch.as_tensor(rows[model.support_])] = torch.as_tensor(np.abs(model.dual_coef_[0]))
        return torch.as_tensor(np.array(found)), alpha

    return fit


class Competitor:
    """A fit, its times, and how far its result is from the optimum."""

    def __init__(self, name: str, fit: Fit) -> None:
        self.name, self.fit = name, fit
        self.clock: list[float] = []
        self.processor: list[float] = []
        self.primal = self.bound = torch.zeros(0)

    def run(self, problems: Problems) -> None:
        """Fit once more; keep the objective and the certificate's lower bound, per problem."""
        clock, processor = time.perf_counter(), time.process_time()
        weights, alpha = self.fit(problems)
        self.clock.append(time.perf_counter() - clock)
        self.processor.append(time.process_time() - processor)
        slack = (1 - problems.signs * scores(problems.points, weights)).clamp(min=0) * problems.signs.abs()
        if problems.squared:
            alpha = 2 * problems.C * slack
        if alpha is None:
            # Only the objective: without multipliers there is no bound.
            self.primal = 0.5 * (weights * problems.penalty_slope(weights)).sum(1) + problems.C * slack.sum(1)
            self.bound = torch.full_like(self.primal, -torch.inf)
        else:
            self.primal, gap = certificate(problems, weights, alpha)
            self.bound = self.primal - gap

    def distance(self, bound: torch.Tensor) -> float:
        """Return how far the sum of the objectives may lie above the optimum, relatively."""
        return float((self.primal - bound).sum() / bound.sum())


def until(
    wanted: float, name: str, make: Callable[[float], Fit], problems: Problems, bound: torch.Tensor
) -> Competitor:
    """Return the competitor with the coarsest tolerance that comes within `wanted`, or the last tried, after one run.

    Where a finer tolerance brings it no nearer, it has met its limit of iterations.
    """
    last = np.inf
    for tolerance in (1e-4, 1e-5, 1e-6, 1e-7, 1e-8):
        competitor = Competitor(f"{name}, tol {tolerance:g}", make(tolerance))
        competitor.run(problems)
        distance = competitor.distance(bound)
        if distance <= wanted or competitor.clock[0] > 120 or distance > 0.9 * last:
            break
        last = distance
    return competitor


def compare(
    title: str, problems: Problems, competitors: list[Competitor], rounds: int, wanted: float, seek: str
) -> list[str]:
    """Run the competitors in turns; return the table's rows. The first is ours, and gives the bound."""
    for competitor in competitors:
        competitor.run(problems)
    tight = solver.solve(problems, tolerance=1e-9)
    bound = tight.objective * (1 - tight.gap)
    if seek == "LinearSVC dual":
        competitors.append(until(wanted, seek, lambda tolerance: linear_svc(tolerance, True), problems, bound))
    elif seek:
        competitors.append(until(wanted, seek, lambda tolerance: libsvm(tolerance, 10**7), problems, bound))
    for _ in range(rounds - 1):
        for competitor in competitors:
            if competitor.clock[0] < LONG:
                competitor.run(problems)
    first = competitors[0]
    rows = []
    for competitor in competitors:
        clock, processor = statistics.median(competitor.clock), statistics.median(competitor.processor)
        rows.append(
            f"| {title} | {competitor.name} | {clock:.2f} | {processor:.2f} | {competitor.distance(bound):.1e} "
            f"| {clock / statistics.median(first.clock):.2f} | {processor / statistics.median(first.processor):.2f} |"
        )
    return rows


def rests(points: torch.Tensor, labels: np.ndarray, classes: int) -> Problems:
    """Return the one-vs-rest problems with the squared hinge."""
    signs = 2.0 * (torch.as_tensor(labels)[None] == torch.arange(classes)[:, None]).double() - 1
    return Problems(points, signs, 1.0, True, points.new_zeros(points.shape[1] - 1))


def some_pairs(points: torch.Tensor, labels: np.ndarray, count: int) -> Problems:
    """Return the one-vs-one problems of class 0 with the next `count` classes, with the hinge."""
    rows = [torch.as_tensor(np.flatnonzero(np.isin(labels, (0, other)))) for other in range(1, count + 1)]
    padded = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=-1)
    signs = (padded >= 0) * torch.where(torch.as_tensor(labels)[padded] == 0, 1.0, -1.0).double()
    return Problems(
        points[padded] * (padded >= 0)[:, :, None], signs, 1.0, False, points.new_zeros(points.shape[1] - 1)
    )


def whole_probe(kind: str, train: np.ndarray, labels: np.ndarray, classes: int, rounds: int) -> list[str]:
    """Return the rows of the whole probe: fit, out-of-fold fits, sigmoids, probabilities of the train points."""
    times: dict[str, list[tuple[float, float]]] = {"this project": [], "CalibratedClassifierCV(LinearSVC)": []}
    for _ in range(rounds):
        for name, taken in times.items():
            if taken and taken[0][0] > LONG:
                continue
            clock, processor = time.perf_counter(), time.process_time()
            if name == "this project":
                svm.run(train, labels, train[:1], classes=classes, options={}, seed=0, device="cpu")
            else:
                model = CalibratedClassifierCV(LinearSVC(), method="sigmoid", cv=5, ensemble=False)
                model.fit(train.astype(np.float64), labels).predict_proba(train.astype(np.float64))
            taken.append((time.perf_counter() - clock, time.process_time() - processor))
    medians = {
        name: [statistics.median(column) for column in zip(*taken, strict=True)] for name, taken in times.items()
    }
    ours_clock, ours_processor = medians["this project"]
    return [
        f"| {kind} | {name} | {clock:.2f} | {processor:.2f} | {clock / ours_clock:.2f} | {processor / ours_processor:.2f} |"
        for name, (clock, processor) in medians.items()
    ]


def without_signal() -> list[str]:
    """Return train accuracies by decision value and by probability on 2,000 points without signal, in percent."""
    random = np.random.default_rng(0)
    train, labels = random.normal(size=(2000, 64)).astype(np.float32), random.integers(0, 10, 2000)
    rows = []
    for name, options in (
        ("one-vs-rest squared hinge", {}),
        ("one-vs-one hinge", {"loss": "hinge", "multiclass": "ovo"}),
    ):
        result = svm.run(train, labels, train[:1], classes=10, options=options, seed=0, device="cpu")
        by_decision = 100 * (result.arrays["train_decision"] == labels).mean()
        by_probability = 100 * (result.arrays["train_probabilities"].argmax(1) == labels).mean()
        rows.append(f"| {name} | {by_decision:.1f} | {by_probability:.1f} |")
    return rows


def main() -> None:
    """Print the tables."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--points", type=int, default=10_000)
    arguments.add_argument("--dimensions", type=int, default=640)
    arguments.add_argument("--classes", type=int, default=10)
    arguments.add_argument("--pairs", type=int, default=3, help="pairs of classes in the second table (default: 3)")
    arguments.add_argument("--rounds", type=int, default=3)
    arguments.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    arguments.add_argument("--features", nargs="+", choices=list(FEATURES), default=list(FEATURES))
    arguments.add_argument(
        "--tables",
        nargs="+",
        choices=["rest", "pairs", "probe", "signal"],
        default=["rest", "pairs", "probe", "signal"],
    )
    args = arguments.parse_args()
    torch.set_num_threads(args.threads)
    warnings.simplefilter("ignore", ConvergenceWarning)
    print(
        f"{args.points:,} × {args.dimensions} features, {args.classes} classes, {args.threads} threads, "
        f"{os.cpu_count()} processors, load {os.getloadavg()[0]:.1f}, median of {args.rounds} rounds.\n"
    )
    head = "| features | solver | seconds | processor seconds | above the optimum | × ours | × ours, processor |"
    sets = {kind: features(kind, args.points, args.dimensions, args.classes) for kind in args.features}
    tensors = {
        kind: torch.cat([torch.as_tensor(x, dtype=torch.float64), torch.ones(len(x), 1, dtype=torch.float64)], 1)
        for kind, (x, _) in sets.items()
    }
    with threadpool_limits(args.threads):
        if "rest" in args.tables:
            print(f"One-vs-rest squared hinge, one fit of all classes:\n\n{head}\n|---|---|---|---|---|---|---|")
            for kind, (_, labels) in sets.items():
                competitors = [
                    Competitor("this project", ours(1e-6)),
                    Competitor("LinearSVC", linear_svc(1e-4, False)),
                ]
                seek = "" if kind == "random" else "LinearSVC dual"
                rows = compare(kind, rests(tensors[kind], labels, args.classes), competitors, args.rounds, 1e-6, seek)
                print("\n".join(rows), flush=True)
        if "pairs" in args.tables:
            print(f"\nOne-vs-one hinge, {args.pairs} pairs:\n\n{head}\n|---|---|---|---|---|---|---|")
            for kind, (_, labels) in sets.items():
                competitors = [Competitor("this project", ours(1e-6)), Competitor("libsvm", libsvm(1e-3, 10**7))]
                seek = "" if kind == "random" else "libsvm"
                rows = compare(
                    kind, some_pairs(tensors[kind], labels, args.pairs), competitors, args.rounds, 1e-6, seek
                )
                print("\n".join(rows), flush=True)
        if "probe" in args.tables:
            print("\nThe whole probe, probabilities included:\n")
            print(
                "| features | probe | seconds | processor seconds | × ours | × ours, processor |\n|---|---|---|---|---|---|"
            )
            for kind, (train, labels) in sets.items():
                print("\n".join(whole_probe(kind, train, labels, args.classes, args.rounds)), flush=True)
        if "signal" in args.tables:
            print("\nTrain accuracy without signal, 2,000 × 64, in percent:\n")
            print("| classifier | by decision | by probability |\n|---|---|---|")
            print("\n".join(without_signal()))


if __name__ == "__main__":
    main()
