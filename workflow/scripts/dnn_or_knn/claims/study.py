"""What the claims are judged on: thresholds, the experiment's tables, and the curves that several claims look at."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from ..measures.learned import at_chance
from ..runtime.errors import UserError
from .effects import Curve, Data, Effect, Run, TooSmall, Undecided, estimate

#: An effect with its replicates, (1 + B,), and a remark.
Finding = tuple[np.ndarray, str]
#: The parts that probes play in the claims.
ROLES = ("knn", "svm", "lr")


@dataclass(frozen=True)
class Study:
    """What the claims are judged on.

    Parameters
    ----------
    data: the tables.
    architectures: from shallow to deep.
    datasets: in the order of the figures.
    labels: label set of each kind of run: ``true``, ``random``, ``random_layers``, ``overfit``.
    architecture: the network of figures 4 to 7.
    probes: the probe that plays each part of `ROLES`; what needs a part that is left out is undecided.
    thresholds: the configuration's block ``claims``, complete.
    divergence: "d_kl" (eq. 1) or "d_kl_column" (the authors' code).
    """

    data: Data
    architectures: list[str]
    datasets: list[str]
    labels: dict[str, str]
    architecture: str
    probes: dict[str, str]
    thresholds: Mapping[str, Any]
    divergence: str = "d_kl"

    def __getitem__(self, name: str) -> Any:
        """Return a threshold; one that the specification lacks raises `UserError`."""
        if name not in self.thresholds:
            raise UserError(f"the specification's claims lack '{name}'; give the configuration's whole claims block")
        return self.thresholds[name]

    def run(self, dataset: str, kind: str) -> Run:
        """Return the run of figures 4 to 7 on a data set: `kind` is a key of `labels`."""
        return Run(dataset, self.architecture, self.labels[kind])

    def true_runs(self, dataset: str) -> list[Run]:
        """Return the runs of figures 1 to 3 on a data set, from the shallow to the deep network."""
        return [Run(dataset, architecture, self.labels["true"]) for architecture in self.architectures]

    def probe(self, role: str) -> str:
        """Return the name of the probe that plays a part; raise `Undecided` if there is none."""
        if role not in self.probes:
            raise Undecided(f"no {role} among the probes")
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
            raise TooSmall(f"{run} seed {seed} has fewer than two evaluations after step 0")
        return train.steps[later], train.values[later], test.values[later]

    def trained(self, run: Run, seed: int) -> np.ndarray:
        """Return which evaluations, bool (S,), count as trained: from ``trained`` of the rise in test accuracy on."""
        accuracy = self.data.curve(run, seed, "test", "dnn", "accuracy").values[:, 0]
        classes = self.data.runs[run, seed]["classes"]
        if at_chance(accuracy.max(), classes):
            raise TooSmall(f"{run} seed {seed} did not learn: its test accuracy stays near chance")
        first = int(np.argmax(accuracy >= 1 / classes + self["trained"] * (accuracy.max() - 1 / classes)))
        return np.arange(len(accuracy)) >= first

    def excess(self, run: Run, seed: int, role: str, split: str) -> Curve:
        """Return by how much a probe's P_SAME exceeds what likeness asks of it at each evaluation, (S, 1 + B).

        Asked is half of the way from accident to 1, at most ``alike``. Accident is the agreement of two classifiers of
        these accuracies a and b whose errors are independent and even over C classes: ab + (1 − a)(1 − b) / (C − 1).
        """
        same = self.data.curve(run, seed, split, self.probe(role), "p_same")
        first, second = (
            self.data.curve(run, seed, split, model, "accuracy").values for model in ("dnn", self.probe(role))
        )
        others = self.data.runs[run, seed]["classes"] - 1
        accident = first * second + (1 - first) * (1 - second) / others
        return Curve(same.steps, same.values - np.minimum(self["alike"], (1 + accident) / 2))

    def share(self, train: np.ndarray, test: np.ndarray) -> np.ndarray:
        """Return by which share of test D_KL train D_KL lies below it, (S, 1 + B): 1 is parted, 0 is one curve."""
        return (test - train) / (test + self["negligible_kl"])

    def layers(self, run: Run, seed: int, role: str, split: str) -> tuple[list[str], np.ndarray]:
        """Return the probe points after the input, and a probe's accuracy at them at the last step, (layers, 1 + B).

        The input is no layer: its pixels still hold where things are, which pooled features do not.
        """
        names = [name for name in self.data.layers.get((run, seed), []) if name != "input"]
        if len(names) < 3:
            raise TooSmall(f"{run} seed {seed} was probed at fewer than three layers")
        last = self.data.runs[run, seed]["last_step"]
        values = []
        for name in names:
            curve = self.data.curve(run, seed, split, self.probe(role), "accuracy", layer=name)
            if last not in curve.steps:
                raise Undecided(f"{run} seed {seed} was not probed at {name} at its last step")
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

    Raises `TooSmall` unless there are two evaluations on either side: one alone tells nothing of a curve.
    """
    step = study.data.step(run, seed, milestone)
    steps, train, test = study.divergences(run, seed, role)
    before, after = steps < step, steps >= step
    if min(before.sum(), after.sum()) < 2:
        raise TooSmall(f"too few evaluations before or after step {step} in {run} seed {seed}")
    return Parting(step, train[before], test[before], train[after], test[after])


def line_rise(values: np.ndarray) -> np.ndarray:
    """Return the rise of the least-squares line through evaluations (S, 1 + B), from the first to the last, (1 + B,)."""
    count = len(values)
    if count < 3:
        raise TooSmall("fewer than three evaluations: no trend")
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


class Depth(NamedTuple):
    """Where, between 0 at the first layer and 1 at the last, half of a rise is passed.

    Parameters
    ----------
    values: a straight line between layers, (1 + B,).
    low, high: the two layers between which the first of `values` lies; both are it where layers lie close together.
    where: these layers, in words.
    """

    values: np.ndarray
    low: float
    high: float
    where: str

    def told(self, limit: float) -> Finding:
        """Return the values and where they are; raise `TooSmall` if the limit of a rule lies between the two layers."""
        if self.low < limit < self.high:
            span = f"anywhere from {self.low:.2f} to {self.high:.2f}, about the rule's {limit:g}"
            raise TooSmall(f"too few layers: half of the rise is passed {self.where}, {span}")
        return self.values, f"half of the rise {self.where}"


def half_depth(study: Study, run: Run, seed: int, role: str, split: str, minimal_rise: float) -> Depth:
    """Return the depth at which half of a probe's rise from the first layer to the last is passed.

    Raises `TooSmall` if it rises by less than `minimal_rise`.
    """
    names, values = study.layers(run, seed, role, split)
    if values[-1, 0] - values[0, 0] < minimal_rise:
        raise TooSmall(f"accuracy rises by {values[-1, 0] - values[0, 0]:.3f} over the depth, too little to halve")
    half = (values[0] + values[-1]) / 2
    reached = (values >= half).argmax(axis=0).clip(1)
    columns = np.arange(values.shape[1])
    before, after = values[reached - 1, columns], values[reached, columns]
    step = after - before
    part = np.divide(half - before, step, out=np.zeros_like(step), where=step > 0)
    unit, first = 1 / (len(values) - 1), int(reached[0])
    depth, where = (reached - 1 + part) * unit, f"between {names[first - 1]} and {names[first]}"
    ends = (float(depth[0]),) * 2 if unit <= study["resolution"] else ((first - 1) * unit, first * unit)
    return Depth(depth, *ends, where)
