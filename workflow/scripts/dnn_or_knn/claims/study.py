"""What the claims are judged on: thresholds, the experiment's tables, and the curves that several claims look at."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from ..runtime.errors import UserError, nearest
from .effects import Data, Effect, Run, Untold, estimate

#: An effect with its replicates, (1 + B,), and a remark.
Finding = tuple[np.ndarray, str]


class Threshold(NamedTuple):
    """A number of a decision rule."""

    default: Any
    unit: str
    meaning: str


#: The parts that probes play in the claims.
ROLES = ("knn", "svm", "lr")

#: Thresholds by their name in the configuration (`claims.<name>`).
THRESHOLDS: dict[str, Threshold] = {
    "confidence": Threshold(0.95, "", "Coverage of all intervals."),
    "trained": Threshold(0.5, "share", "Claims 1 and 2 count from the step at which the network's test accuracy has made this share of its rise from chance to its best."),
    "step_share": Threshold(0.9, "share", "Claims 1 and 2 hold a cell against the value that this share of the counted steps keeps."),
    "same_accuracy": Threshold(0.03, "accuracy", "Claim 1: test accuracies that differ by less are the same."),
    "closest": Threshold(0.005, "accuracy", "Claim 1: the deepest network's spread may exceed the smallest of the others' by less than this."),
    "alike": Threshold(0.8, "P_SAME", "Claims 2 and 8: a probe with a higher P_SAME behaves like the network."),
    "rising": Threshold(0.0, "", "Claims 2, 6, 7, 8: a change above this is a rise."),
    "layer_rise": Threshold(0.02, "accuracy", "Claim 3: test accuracy rises by more from the first layer to the last."),
    "layer_drop": Threshold(0.02, "accuracy", "Claim 3: no layer falls further below the best layer before it."),
    "gradual_depth": Threshold(0.75, "share of depth", "Claim 3: half of the rise is made before this depth."),
    "memorized_rise": Threshold(0.1, "accuracy", "Claim 4: a probe whose train accuracy rises by less over the depth shows no memorization."),
    "last_layers": Threshold(0.6, "share of depth", "Claim 4: with random labels half of the rise is made after this depth."),
    "later": Threshold(0.1, "share of depth", "Claim 4: and by more than this later than with true labels."),
    "correlation": Threshold(0.7, "", "Claim 5: correlation of the logarithms of train and test D_KL along the steps."),
    "opposite": Threshold(1.5, "factor", "Claim 5: over no stretch do train and test D_KL move by this factor in opposite directions."),
    "negligible_kl": Threshold(0.01, "nats", "Claim 5: added to D_KL before its logarithm is taken."),
    "parted": Threshold(0.5, "share", "Claims 6, 7, 9: curves have parted when train D_KL lies this share of the test value below it."),
    "parting": Threshold(0.1, "nats", "Claims 6 and 7: growth of test minus train D_KL from before to after."),
    "vanished": Threshold(0.25, "share", "Claim 6: at the end train D_KL is below this share of what it was before memorization."),
    "constant": Threshold(0.25, "share", "Claim 6: change of test D_KL over the last half after memorization, of its mean."),
    "overfitted": Threshold(0.05, "accuracy", "Claims 7, 8, 9: a run whose final test accuracy lies less than this below its train accuracy did not overfit, and tells nothing of overfitting."),
    "early_parting": Threshold(["cifar100"], "", "Claim 7: data sets whose curves part at 90 % train accuracy; no rise of the test value is claimed there."),
    "unlike": Threshold(0.05, "P_SAME", "Claim 8: k-NN agrees with a network that does not generalize less than the linear probes do, by more than this."),
    "alarm_gap": Threshold(0.2, "nats", "Claim 9: the alarm needs test minus train D_KL above this, and the curves parted."),
    "alarm_persist": Threshold(2, "evaluations", "Claim 9: the alarm rings at the last of this many evaluations in a row."),
    "alarm_near": Threshold(0.5, "share", "Claim 9: near memorization is within this share of the memorization step."),
}  # fmt: skip


def check_thresholds(given: Mapping[str, Any]) -> None:
    """Raise `UserError` for a threshold that no claim has, or whose value is of another kind than its default."""
    for name, value in given.items():
        if name not in THRESHOLDS:
            raise UserError(
                f"claims has no '{name}'{nearest(name, THRESHOLDS)}; correct the configuration's claims block"
            )
        wanted = list if isinstance(THRESHOLDS[name].default, list) else (int, float)
        if not isinstance(value, wanted) or isinstance(value, bool):
            raise UserError(
                f"claims.{name} is {value!r}, but its default is {THRESHOLDS[name].default!r}; give a value of that kind"
            )


@dataclass(frozen=True)
class Study:
    """What the claims are judged on.

    Parameters
    ----------
    data: the tables.
    architectures: from shallow to deep.
    datasets: in the order of the figures.
    labels: label set of each kind of run: ``true``, ``random``, ``random_layers`` (default: ``random``), ``overfit``.
    architecture: the network of figures 4 to 7.
    probes: the probe that plays each part of `ROLES`; what needs a part that is left out cannot be told.
    thresholds: values that differ from `THRESHOLDS`.
    divergence: "d_kl" (eq. 1) or "d_kl_column" (the authors' code).
    """

    data: Data
    architectures: list[str]
    datasets: list[str]
    labels: dict[str, str]
    architecture: str
    probes: dict[str, str]
    thresholds: dict[str, Any] = field(default_factory=dict)
    divergence: str = "d_kl"

    def __getitem__(self, name: str) -> Any:
        """Return a threshold."""
        return self.thresholds.get(name, THRESHOLDS[name].default)

    def run(self, dataset: str, kind: str) -> Run:
        """Return the run of figures 4 to 7 on a data set: `kind` is a key of `labels`."""
        name = self.labels.get(kind) or self.labels["random"]
        return Run(dataset, self.architecture, name)

    def true_runs(self, dataset: str) -> list[Run]:
        """Return the runs of figures 1 to 3 on a data set, from the shallow to the deep network."""
        return [Run(dataset, architecture, self.labels["true"]) for architecture in self.architectures]

    def probe(self, role: str) -> str:
        """Return the name of the probe that plays a part; raise `Untold` if there is none."""
        if role not in self.probes:
            raise Untold(f"no {role} among the probes")
        return self.probes[role]

    def effect(
        self,
        where: tuple[int, str, str],
        runs: list[Run],
        function: Callable[[int], Finding],
        relation: str,
        threshold: str | float,
        unit: str,
        *,
        decides: bool = True,
    ) -> Effect:
        """Return an effect with its interval and verdict.

        Parameters
        ----------
        where: claim, part of the claim, cell.
        runs, function, relation: see `effects.estimate`.
        threshold: its name, or a number that is no choice.
        unit: of the effect.
        decides: False for what is reported only.
        """
        limit = self[threshold] if isinstance(threshold, str) else threshold
        rule = Effect(*where, relation, float(limit), unit, decides)
        return estimate(rule, self.data, runs, function, self["confidence"])

    def divergences(self, run: Run, seed: int, role: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return the steps after 0, and D_KL(probe‖DNN) on train and test at them, (S, 1 + B), in nats."""
        train, test = (self.data.curve(run, seed, s, self.probe(role), self.divergence) for s in ("train", "test"))
        later = train.steps > 0
        if later.sum() < 2:
            raise Untold(f"{run} seed {seed} has fewer than two evaluations after step 0")
        return train.steps[later], train.values[later], test.values[later]

    def trained(self, run: Run, seed: int) -> np.ndarray:
        """Return which evaluations, bool (S,), count as trained: from ``trained`` of the rise in test accuracy on."""
        accuracy = self.data.curve(run, seed, "test", "dnn", "accuracy").values[:, 0]
        chance = 1 / self.data.runs[run, seed]["classes"]
        if accuracy.max() < min(2 * chance, (1 + chance) / 2):
            raise Untold(f"{run} seed {seed} did not learn: its test accuracy stays near chance")
        first = int(np.argmax(accuracy >= chance + self["trained"] * (accuracy.max() - chance)))
        return np.arange(len(accuracy)) >= first

    def layers(self, run: Run, seed: int, role: str, split: str) -> tuple[list[str], np.ndarray]:
        """Return the probe points after the input, and a probe's accuracy at them at the last step, (layers, 1 + B).

        The input is no layer: its pixels still hold where things are, which pooled features do not.
        """
        names = [name for name in self.data.layers.get((run, seed), []) if name != "input"]
        if len(names) < 3:
            raise Untold(f"{run} seed {seed} was probed at fewer than three layers")
        last = self.data.runs[run, seed]["last_step"]
        values = []
        for name in names:
            curve = self.data.curve(run, seed, split, self.probe(role), "accuracy", layer=name)
            if last not in curve.steps:
                raise Untold(f"{run} seed {seed} was not probed at {name} at its last step")
            values.append(curve.values[curve.steps == last][0])
        return names, np.array(values)


class Parting(NamedTuple):
    """Train and test D_KL before and from a run's memorization (or another milestone) on, each (S, 1 + B)."""

    step: int
    train_before: np.ndarray
    test_before: np.ndarray
    train_after: np.ndarray
    test_after: np.ndarray


def parting(study: Study, run: Run, role: str, milestone: str, seed: int) -> Parting:
    """Return a probe's D_KL curves cut at a milestone, ``memorization_step`` or ``step_90``.

    Raises `Untold` unless there are two evaluations on either side: one alone tells nothing of a curve.
    """
    step = study.data.step(run, seed, milestone)
    steps, train, test = study.divergences(run, seed, role)
    before, after = steps < step, steps >= step
    if min(before.sum(), after.sum()) < 2:
        raise Untold(f"too few evaluations before or after step {step} in {run} seed {seed}")
    return Parting(step, train[before], test[before], train[after], test[after])


def line_rise(values: np.ndarray) -> np.ndarray:
    """Return the rise of the least-squares line through evaluations (S, 1 + B), from the first to the last, (1 + B,)."""
    count = len(values)
    if count < 3:
        raise Untold("fewer than three evaluations: no trend")
    place = np.arange(count) - (count - 1) / 2
    return place @ values / (place @ place) * (count - 1)


def kept_to(values: np.ndarray, share: float) -> np.ndarray:
    """Return the least value that a share of the evaluations (S, 1 + B) do not exceed, (1 + B,).

    It is the value of one evaluation, so that those beyond it do not matter, however far out they lie.
    """
    return np.quantile(values, share, axis=0, method="inverted_cdf")


def last_quarter(values: np.ndarray) -> np.ndarray:
    """Return the mean of the last quarter of some evaluations (S, 1 + B), of at least two, (1 + B,)."""
    return values[-max(2, math.ceil(len(values) / 4)) :].mean(axis=0)


def half_depth(values: np.ndarray, minimal_rise: float) -> np.ndarray:
    """Return the depth at which half of the rise from the first layer to the last is passed, (1 + B,).

    Depth is 0 at the first layer and 1 at the last; between layers the curve is a straight line.
    """
    if values[-1, 0] - values[0, 0] < minimal_rise:
        raise Untold(f"accuracy rises by {values[-1, 0] - values[0, 0]:.3f} over the depth, too little to halve")
    half = (values[0] + values[-1]) / 2
    reached = (values >= half).argmax(axis=0).clip(1)
    columns = np.arange(values.shape[1])
    before, after = values[reached - 1, columns], values[reached, columns]
    step = after - before
    part = np.divide(half - before, step, out=np.zeros_like(step), where=step > 0)
    return (reached - 1 + part) / (len(values) - 1)
