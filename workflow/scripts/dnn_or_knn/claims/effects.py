"""Effects with confidence intervals, from the tables of an experiment: what the claims are made of.

Everything is computed on arrays whose last axis holds the measured value first and its bootstrap replicates after
it, (…, 1 + B): whatever is done to the value is done to each replicate.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from ..measures import learned, tables
from ..seeds import generator
from .words import INCONCLUSIVE, NOT_SUPPORTED, SUPPORTED, TOO_SMALL, wanted

#: Draws over seeds and replicates where there are several seeds.
DRAWS = 2000


class Undecided(Exception):
    """Why an effect is undecided: a run or a probe is missing."""

    verdict = INCONCLUSIVE


class TooSmall(Undecided):
    """Why no measure of this experiment could decide an effect: too few layers or steps, or data that are too easy."""

    verdict = TOO_SMALL


class Run(NamedTuple):
    """A network's place in the experiment, without the seed."""

    dataset: str
    architecture: str
    labels: str

    def __str__(self) -> str:
        return "/".join(self)


class Curve(NamedTuple):
    """A measure at ascending steps: (S,), and its values with replicates, (S, 1 + B)."""

    steps: np.ndarray
    values: np.ndarray


@dataclass(frozen=True)
class Data:
    """The tables of an experiment, for look-up."""

    measures: dict[str, np.ndarray]  #: measure → (rows, 1 + B)
    rows: dict[tuple[Any, ...], tuple[np.ndarray, np.ndarray]]  #: (run, seed, layer, split, model) → steps, rows
    layers: dict[tuple[Run, int], list[str]]  #: probed layers in order
    runs: dict[tuple[Run, int], dict[str, Any]]  #: the lines of runs.csv
    failed: frozenset[tuple[Run, int]]  #: runs whose network did not learn

    def seeds(self, run: Run) -> list[int]:
        """Return the seeds with which a run was trained."""
        return sorted(seed for name, seed in self.runs if name == run)

    def curve(self, run: Run, seed: int, split: str, model: str, measure: str, layer: str = "embedding") -> Curve:
        """Return a measure along the steps of a run; raise `Undecided` if it was not measured."""
        try:
            steps, rows = self.rows[run, seed, layer, split, model]
        except KeyError:
            self.networks(run, seed)
            raise Undecided(f"{run} seed {seed} has no {model} at {layer}") from None
        if measure != "accuracy":
            self.networks(run, seed)
        return Curve(steps, self.measures[measure][rows])

    def networks(self, run: Run, seed: int) -> None:
        """Raise `Undecided` if a run has no network's output to compare with: of given features, or of none at all."""
        if not _given(self.runs.get((run, seed), {}).get("final_train_accuracy", 0.0)):
            raise Undecided(f"{run} seed {seed} has features without logits, and no network's answers to compare with")

    def step(self, run: Run, seed: int, milestone: str = "memorization_step") -> int:
        """Return the first step at which a run reached a milestone; raise `TooSmall` if it never did."""
        self.networks(run, seed)
        step = self.runs[run, seed][milestone]
        if step is None:
            share = "90 % train accuracy" if milestone == "step_90" else "memorization"
            raise TooSmall(f"no {share} reached in {run} seed {seed}")
        return step

    def overfitted(self, run: Run, seed: int, least: float) -> None:
        """Raise `TooSmall` if a run's final train accuracy exceeds its test accuracy by less than `least`."""
        self.networks(run, seed)
        facts = self.runs[run, seed]
        if facts["final_train_accuracy"] - facts["final_test_accuracy"] < least:
            raise TooSmall(f"no overfitting in {run} seed {seed}: test accuracy {facts['final_test_accuracy']:.3f}")


def read(folder: str | Path) -> Data:
    """Return the tables in an experiment's `measures` folder; missing or damaged ones raise `UserError`."""
    measures = tables.read(folder)
    runs = [
        dict(zip(tables.RUN_COLUMNS, row, strict=True)) for row in tables.read_runs(folder)[tables.RUN_COLUMNS].values
    ]
    return prepare(measures, tables.read_replicates(folder), runs)


def prepare(measures: Any, replicates: dict[str, np.ndarray], runs: Iterable[dict[str, Any]]) -> Data:
    """Return tables (`tables.read`, `tables.read_replicates`, rows of `tables.read_runs`) arranged for look-up."""
    values = {name: np.column_stack([measures[name].to_numpy(), replicates[name]]) for name in tables.REPLICATED}
    keys = measures[tables.KEYS].reset_index(drop=True)
    rows: dict[tuple[Any, ...], tuple[np.ndarray, np.ndarray]] = {}
    layers: dict[tuple[Run, int], list[str]] = {}
    for (dataset, architecture, labels, seed), part in keys.groupby(tables.RUN_KEYS):
        run = Run(dataset, architecture, labels)
        order = part[["layer", "layer_index"]].drop_duplicates().sort_values("layer_index")
        layers[run, int(seed)] = list(order["layer"])
        for (layer, split, model), group in part.groupby(["layer", "split", "model"]):
            group = group.sort_values("step")
            rows[run, int(seed), layer, split, model] = (group["step"].to_numpy(), group.index.to_numpy())
    facts = {}
    for row in runs:
        steps = {n: None if not _given(row[n]) else int(row[n]) for n in ("memorization_step", "step_90")}
        facts[Run(row["dataset"], row["architecture"], row["labels"]), int(row["seed"])] = {**row, **steps}
    return Data(values, rows, layers, facts, _failed(facts))


def _failed(facts: Mapping[tuple[Run, int], Mapping[str, Any]]) -> frozenset[tuple[Run, int]]:
    accuracies = dict.fromkeys(("final_train_accuracy", "final_test_accuracy"), float)
    runs = pd.DataFrame(list(facts.values()), columns=tables.RUN_COLUMNS).astype(accuracies)
    return frozenset(run for run, out in zip(facts, learned.failed(runs), strict=True) if out)


def _given(value: Any) -> bool:
    """Return whether a cell of a table holds a number (not None, NaN or NA)."""
    try:
        return bool(value == value) and value is not None
    except TypeError:
        return False


@dataclass(frozen=True)
class Effect:
    """One number of a claim, its interval, the rule it is held against, and the verdict."""

    claim: int
    part: str
    cell: str
    relation: str  #: "above": the whole interval must lie above the threshold; "below"; "within": between ± threshold
    threshold: float
    unit: str
    decides: bool  #: False: reported, but the paper lets both outcomes happen
    value: float | None = None
    low: float | None = None
    high: float | None = None
    verdict: str = INCONCLUSIVE
    note: str = ""
    seeds: int = 0

    @property
    def margin(self) -> float:
        """By how much the value is on the supporting side of the threshold, in its own unit; needs a value."""
        value = float("nan") if self.value is None else self.value
        if self.relation == "within":
            return self.threshold - abs(value)
        return value - self.threshold if self.relation == "above" else self.threshold - value

    @property
    def said(self) -> str:
        """The effect with its numbers in one line, or what hinders it."""
        if self.value is None:
            return self.note
        crosses = ", the interval crosses" if self.verdict == INCONCLUSIVE else ""
        numbers = f"{self.value:.3g} ({self.low:.3g} … {self.high:.3g})"
        return f"{self.part}: {self.cell}: {numbers}, {wanted(self.relation, self.threshold)} wanted{crosses}"


def estimate(
    rule: Effect, data: Data, runs: list[Run], function: Callable[[int], tuple[np.ndarray, str]], confidence: float
) -> Effect:
    """Return `rule` filled in with what `function` computes for every seed that all of `runs` share.

    Seeds with which one of `runs` did not learn are left out, and the note names them.

    Parameters
    ----------
    rule: an effect without value: its names, relation and threshold.
    function: takes a seed, returns the effect with its replicates, (1 + B,), and a remark; raises `Undecided`.
    """
    seeds = sorted(set.intersection(*({*data.seeds(run)} for run in runs)))
    if not seeds:
        missing = [str(run) for run in runs if not data.seeds(run)]
        return replace(rule, note="run missing: " + (", ".join(missing) or "no common seed"))
    failed = {seed: names for seed in seeds if (names := [str(run) for run in runs if (run, seed) in data.failed])}
    without = [f"without seed {seed}, with which {', '.join(names)} did not learn" for seed, names in failed.items()]
    seeds = [seed for seed in seeds if seed not in failed]

    def undecided(note: str, verdict: str = INCONCLUSIVE) -> Effect:
        return replace(rule, note="; ".join([note, *without]), verdict=verdict, seeds=len(seeds))

    if not seeds:
        return undecided("no network that learned", TOO_SMALL)
    try:
        found = [function(seed) for seed in seeds]
    except Undecided as reason:
        return undecided(str(reason), reason.verdict)
    values = np.array([values for values, _ in found])
    if values.shape[1] < 2:
        return undecided("no interval: the measures have no bootstrap replicates")
    if not np.isfinite(values).all():
        return undecided("not a number in the measures that it needs")
    value, low, high = interval(values, confidence)
    notes = [
        note and (note if len(seeds) == 1 else f"seed {s}: {note}") for s, (_, note) in zip(seeds, found, strict=True)
    ]
    verdict = judge(low, high, rule.relation, rule.threshold)
    note = "; ".join(filter(None, [*notes, *without]))
    return replace(rule, value=value, low=low, high=high, verdict=verdict, note=note, seeds=len(seeds))


def judge(low: float, high: float, relation: str, threshold: float) -> str:
    """Return the verdict on an interval: supported if all of it keeps the rule, not supported if none of it does."""
    if relation == "below":
        low, high, threshold = -high, -low, -threshold
    if relation == "within":
        inside, outside = -threshold <= low and high <= threshold, low > threshold or high < -threshold
    else:
        inside, outside = low > threshold, high <= threshold
    return SUPPORTED if inside else NOT_SUPPORTED if outside else INCONCLUSIVE


def interval(values: np.ndarray, confidence: float) -> tuple[float, float, float]:
    """Return the mean over seeds and its confidence interval.

    Parameters
    ----------
    values: (seeds, 1 + B): each seed's effect and its replicates over samples.
    confidence: coverage, such as 0.95.

    With one seed the interval speaks of the samples alone. With several, each of `DRAWS` draws takes the seeds with
    replacement and one replicate for all of them (they share the resampled indices), so it speaks of both. Limits
    are the percentiles' distances from the replicates' median, laid about the value: resampling adds its own noise to
    an effect such as "the widest of all steps", so that its replicates lie further out than the value does.
    """
    point = float(values[:, 0].mean())
    if len(values) == 1:
        draws = values[0, 1:]
    else:
        random = generator("claims", len(values))
        seeds = random.integers(0, len(values), (DRAWS, len(values)))
        replicates = random.integers(1, values.shape[1], (DRAWS, 1))
        draws = values[seeds, replicates].mean(axis=1)
    tail = (1 - confidence) / 2
    low, middle, high = np.quantile(draws, [tail, 0.5, 1 - tail])
    return point, point - float(middle - low), point + float(high - middle)
