"""The nine claims of the paper: effects, decision rules, verdicts.

Every claim is a function from a `Study` (the measures with their replicates, the runs, the thresholds) to effects, one
for each part of the claim and each cell that it speaks of. The rules were fixed before any result was looked at; the
reasons for each threshold are in docs/claims.md. A function that computes an effect takes the seed as its last
argument and returns the effect with its replicates, (1 + B,), and a remark.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np

from .effects import Effect, Run, TooSmall
from .study import ROLES, Depth, Finding, Parting, Study, half_depth, kept_to, last_quarter, line_rise, parting
from .words import INCONCLUSIVE, NOT_SUPPORTED, RANK, SUPPORTED

#: A curve of logarithms that moves less than this along all steps stands still.
STILL = 1e-9

# Claim 1.


def same_accuracy(study: Study) -> Iterator[Effect]:
    """Claim 1: k-NN, SVM, LR and the DNN have the same test accuracy in every cell, the deepest network most of all."""
    for dataset in study.datasets:
        runs = study.true_runs(dataset)
        for run in runs:
            where = (1, "spread of test accuracies", f"{dataset}, {run.architecture}")
            yield study.effect(where, [run], partial(_spread, study, run), "below", "same_accuracy", "accuracy")
        if len(runs) > 1:
            where = (1, "the deepest network's median spread less the best of the others'", dataset)
            yield study.effect(where, runs, partial(_excess, study, runs), "below", "closest", "accuracy")


def _spreads(study: Study, run: Run, seed: int) -> tuple[np.ndarray, str]:
    """Return the distance between the best and the worst of the four test accuracies at each counted step, (S, 1 + B)."""
    models = ["dnn", *map(study.probe, ROLES)]
    curves = [study.data.curve(run, seed, "test", model, "accuracy") for model in models]
    counted = study.trained(run, seed)
    values = np.array([curve.values[counted] for curve in curves])
    spread = values.max(axis=0) - values.min(axis=0)
    widest = int(spread[:, 0].argmax())
    high, low = int(values[:, widest, 0].argmax()), int(values[:, widest, 0].argmin())
    within = int((spread[:, 0] < study["same_accuracy"]).sum())
    return spread, (
        f"{within} of {len(spread)} steps within; widest at step {curves[0].steps[counted][widest]}: {models[high]} "
        f"{values[high, widest, 0]:.3f}, {models[low]} {values[low, widest, 0]:.3f}"
    )


def _spread(study: Study, run: Run, seed: int) -> Finding:
    spread, note = _spreads(study, run, seed)
    return kept_to(spread, study["step_share"]), note


def _excess(study: Study, runs: list[Run], seed: int) -> Finding:
    """Return by how much the median spread of the last network exceeds the smallest of the others'."""
    medians = [np.median(_spreads(study, run, seed)[0], axis=0) for run in runs]
    said = ", ".join(f"{run.architecture} {median[0]:.4f}" for run, median in zip(runs, medians, strict=True))
    return medians[-1] - np.min(medians[:-1], axis=0), said


# Claim 2.


def same_answers(study: Study) -> Iterator[Effect]:
    """Claim 2: P_SAME of every probe is high; k-NN's rises during training and with the depth of the network."""
    for dataset in study.datasets:
        runs = study.true_runs(dataset)
        for run in runs:
            cell = f"{dataset}, {run.architecture}"
            for role in ROLES:
                where = (2, "P_SAME on test beyond what is asked", f"{cell}, {role}")
                yield study.effect(where, [run], partial(_p_same_level, study, run, role), "above", 0.0, "P_SAME")
            where = (2, "rise of k-NN's P_SAME over training", cell)
            yield study.effect(where, [run], partial(_p_same_rise, study, run), "above", "rising", "P_SAME")
        for pair in pairwise(runs):
            cell = f"{dataset}, {pair[1].architecture} − {pair[0].architecture}"
            where = (2, "k-NN's P_SAME, deeper minus shallower", cell)
            yield study.effect(where, [*pair], partial(_p_same_depth, study, pair), "above", "rising", "P_SAME")


def _p_same_level(study: Study, run: Run, role: str, seed: int) -> Finding:
    """Return the excess of P_SAME over what likeness asks that the counted steps keep above."""
    counted = study.trained(run, seed)
    same = study.data.curve(run, seed, "test", study.probe(role), "p_same").values[counted]
    steps, excess = (part[counted] for part in study.excess(run, seed, role, "test"))
    lowest = int(excess[:, 0].argmin())
    asked = same[lowest, 0] - excess[lowest, 0]
    note = f"lowest {same[lowest, 0]:.3f} of {asked:.3f} asked, at step {steps[lowest]}; last {same[-1, 0]:.3f}"
    return -kept_to(-excess, study["step_share"]), note


def _p_same_rise(study: Study, run: Run, seed: int) -> Finding:
    """Return the rise of the line through k-NN's P_SAME at all steps after 0: an untrained network is no trend."""
    curve = study.data.curve(run, seed, "test", study.probe("knn"), "p_same")
    values = curve.values[curve.steps > 0]
    return line_rise(values), f"from {values[0, 0]:.3f} to {values[-1, 0]:.3f}"


def _p_same_depth(study: Study, runs: tuple[Run, Run], seed: int) -> Finding:
    """Return the median difference of k-NN's P_SAME between two networks over the steps at which both are trained."""
    curves = [study.data.curve(run, seed, "test", study.probe("knn"), "p_same") for run in runs]
    counted = [curve.steps[study.trained(run, seed)] for curve, run in zip(curves, runs, strict=True)]
    common = np.intersect1d(*counted)
    if not len(common):
        raise TooSmall("no step at which both networks are trained")
    shallow, deep = (curve.values[np.isin(curve.steps, common)] for curve in curves)
    above = int((deep[:, 0] > shallow[:, 0]).sum())
    return np.median(deep - shallow, axis=0), f"above at {above} of {len(common)} steps"


# Claims 3 and 4: layers.


def gradual_layers(study: Study) -> Iterator[Effect]:
    """Claim 3: with true labels the probes' test accuracy improves gradually from layer to layer."""
    for dataset in study.datasets:
        run = study.run(dataset, "true")
        for role in ROLES:
            cell = f"{dataset}, {role}"
            where = (3, "rise over the layers", cell)
            yield study.effect(where, [run], partial(_layer_rise, study, run, role), "above", "layer_rise", "accuracy")
            where = (3, "largest fall below an earlier layer", cell)
            yield study.effect(where, [run], partial(_layer_drop, study, run, role), "below", "layer_drop", "accuracy")
            where, half = (3, "depth of half the rise", cell), partial(_generalization_depth, study, run, role)
            yield study.effect(where, [run], half, "below", "gradual_depth", "share of depth")


def _layer_rise(study: Study, run: Run, role: str, seed: int) -> Finding:
    names, values = study.layers(run, seed, role, "test")
    return values[-1] - values[0], f"{values[0, 0]:.3f} at {names[0]}, {values[-1, 0]:.3f} at {names[-1]}"


def _layer_drop(study: Study, run: Run, role: str, seed: int) -> Finding:
    names, values = study.layers(run, seed, role, "test")
    drops = np.maximum.accumulate(values, axis=0) - values
    worst = int(drops[:, 0].argmax())
    return drops.max(axis=0), f"furthest below at {names[worst]}" if drops[worst, 0] > 0 else "no layer falls"


def _generalization_depth(study: Study, run: Run, role: str, seed: int) -> Finding:
    return half_depth(study, run, seed, role, "test", study["layer_rise"]).told(study["gradual_depth"])


def late_memorization(study: Study) -> Iterator[Effect]:
    """Claim 4: with random labels the probes' train accuracy appears only in the last layers."""
    for dataset in study.datasets:
        true, random = study.run(dataset, "true"), study.run(dataset, "random_layers")
        for role in ROLES:
            where = (4, "depth of half the rise, random labels", f"{dataset}, {role}")
            depth = partial(_memorization_depth, study, random, role)
            yield study.effect(where, [random], depth, "above", "last_layers", "share of depth")
            where = (4, "the same, random minus true labels", f"{dataset}, {role}")
            later = partial(_memorization_later, study, true, random, role)
            yield study.effect(where, [true, random], later, "above", "later", "share of depth")


def _memorization_depth(study: Study, random: Run, role: str, seed: int) -> Finding:
    study.data.step(random, seed)
    return half_depth(study, random, seed, role, "train", study["memorized_rise"]).told(study["last_layers"])


def _memorization_later(study: Study, true: Run, random: Run, role: str, seed: int) -> Finding:
    study.data.step(random, seed)
    late = half_depth(study, random, seed, role, "train", study["memorized_rise"])
    early = half_depth(study, true, seed, role, "train", study["layer_rise"])
    where = f"{late.where}, with true labels {early.where}"
    apart = Depth(late.values - early.values, late.low - early.high, late.high - early.low, where)
    return apart.told(study["later"])


# Claims 5, 6, 7: curves of D_KL.


def common_trend(study: Study) -> Iterator[Effect]:
    """Claim 5: with true labels train and test D_KL keep the same trend all through training, for each probe."""
    for dataset in study.datasets:
        run = study.run(dataset, "true")
        for role in ROLES:
            where = (5, "correlation of train and test D_KL", f"{dataset}, {role}")
            yield study.effect(where, [run], partial(_correlation, study, run, role), "above", "correlation", "")
            where = (5, "largest movement in opposite directions", f"{dataset}, {role}")
            yield study.effect(where, [run], partial(_opposite, study, run, role), "below", "opposite", "factor")
            where = (5, "parted over the last half", f"{dataset}, {role}")
            yield study.effect(where, [run], partial(_last_half, study, run, role), "within", "parted", "share")


def _logarithms(study: Study, run: Run, role: str, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    steps, train, test = study.divergences(run, seed, role)
    if len(steps) < 3:
        raise TooSmall(f"{run} seed {seed} has fewer than three evaluations after step 0")
    return steps, np.log(train + study["negligible_kl"]), np.log(test + study["negligible_kl"])


def _correlation(study: Study, run: Run, role: str, seed: int) -> Finding:
    """Return the correlation of the logarithms of train and test D_KL along the steps."""
    _, train, test = _logarithms(study, run, role, seed)
    train, test = train - train.mean(axis=0), test - test.mean(axis=0)
    spreads = [np.sqrt((curve**2).sum(axis=0)) for curve in (train, test)]
    scale = spreads[0] * spreads[1]
    # Two curves that do not move at all (but for rounding) keep one trend; where one alone moves they do not.
    still = [spread < STILL for spread in spreads]
    motionless = (still[0] & still[1]).astype(float)
    return np.divide((train * test).sum(axis=0), scale, out=motionless, where=~(still[0] | still[1])), ""


def _opposite(study: Study, run: Run, role: str, seed: int) -> Finding:
    """Return the largest factor by which, between any two steps, one curve rose and the other fell."""
    steps, train, test = _logarithms(study, run, role, seed)
    largest, where = np.zeros(train.shape[1]), "never opposite"
    for start in range(len(steps) - 1):
        up, down = test[start + 1 :] - test[start], train[start] - train[start + 1 :]
        moved = np.maximum(np.minimum(up, down), np.minimum(-up, -down))
        end = int(moved[:, 0].argmax())
        if moved[end, 0] > largest[0]:
            where = f"from step {steps[start]} to {steps[start + 1 + end]}"
        largest = np.maximum(largest, moved.max(axis=0))
    return np.exp(largest), where


def _last_half(study: Study, run: Run, role: str, seed: int) -> Finding:
    steps, train, test = study.divergences(run, seed, role)
    return _share(study, train[len(steps) // 2 :], test[len(steps) // 2 :])


def parting_at_memorization(study: Study) -> Iterator[Effect]:
    """Claim 6: with random labels the curves match until memorization; then train goes to 0, test to a constant."""
    for dataset in study.datasets:
        run, cell = study.run(dataset, "random"), f"{dataset}, knn"
        look = partial(parting, study, run, "knn", "memorization_step")
        yield from _matching_then_parted(study, 6, cell, run, look)
        where = (6, "train D_KL at the end, of that before", cell)
        yield study.effect(where, [run], partial(_vanish, look), "below", "vanished", "share")
        where = (6, "rise of test D_KL", cell)
        yield study.effect(where, [run], partial(_rise_to_the_end, look), "above", "rising", "nats")
        where = (6, "change of test D_KL at the end", cell)
        yield study.effect(where, [run], partial(_change_at_the_end, look), "within", "constant", "share")
        for role in ("svm", "lr"):
            growth = partial(_growth, study, partial(parting, study, run, role, "memorization_step"))
            where = (6, "growth of test − train D_KL, of test", f"{dataset}, {role}")
            yield study.effect(where, [run], growth, "above", "parting", "share", decides=False)


def parting_under_overfitting(study: Study) -> Iterator[Effect]:
    """Claim 7: under enforced overfitting the curves part at memorization; on MNIST and CIFAR-10 test rises slightly."""
    for dataset in study.datasets:
        run, early = study.run(dataset, "overfit"), dataset in study["early_parting"]
        cell = f"{dataset}, knn" + (", at 90 %" if early else "")
        look = partial(_overfitted_parting, study, run, "step_90" if early else "memorization_step")
        yield from _matching_then_parted(study, 7, cell, run, look)
        if not early:
            where = (7, "rise of test D_KL after it", cell)
            yield study.effect(where, [run], partial(_rise_after, look), "above", "rising", "nats")


def _overfitted_parting(study: Study, run: Run, milestone: str, seed: int) -> Parting:
    study.data.overfitted(run, seed, study["overfitted"])
    return parting(study, run, "knn", milestone, seed)


Look = Callable[[int], Parting]


def _matching_then_parted(study: Study, claim: int, cell: str, run: Run, look: Look) -> Iterator[Effect]:
    """Yield what claims 6 and 7 share: the curves match before the step, and are parted after it."""
    where = (claim, "parted before memorization", cell)
    yield study.effect(where, [run], partial(_share_at, study, look, False), "within", "parted", "share")
    where = (claim, "parted after memorization", cell)
    yield study.effect(where, [run], partial(_share_at, study, look, True), "above", "parted", "share")
    where = (claim, "growth of test − train D_KL, of test", cell)
    yield study.effect(where, [run], partial(_growth, study, look), "above", "parting", "share")


def _share(study: Study, train: np.ndarray, test: np.ndarray) -> Finding:
    """Return by which share of test D_KL the train D_KL lies below it, the median over evaluations: 1 is parted."""
    return np.median(study.share(train, test), axis=0), f"{len(train)} evaluations"


def _share_at(study: Study, look: Look, after: bool, seed: int) -> Finding:
    _, *before_after = look(seed)
    return _share(study, *before_after[2:] if after else before_after[:2])


def _growth(study: Study, look: Look, seed: int) -> Finding:
    """Return how much the distance of test from train D_KL grew at the step, as a share of test D_KL after it.

    Medians over evaluations. Curves that fall together at one distance part in their share alone, not in this.
    """
    curves = look(seed)
    before = np.median(curves.test_before - curves.train_before, axis=0)
    after = np.median(curves.test_after - curves.train_after, axis=0)
    level = np.median(curves.test_after, axis=0) + study["negligible_kl"]
    return (after - before) / level, f"from {before[0]:.3f} to {after[0]:.3f} nats at step {curves.step}"


def _vanish(look: Look, seed: int) -> Finding:
    """Return train D_KL over the last quarter after memorization, as a share of its median before."""
    curves = look(seed)
    end, before = last_quarter(curves.train_after), np.median(curves.train_before, axis=0)
    return end / np.maximum(before, 1e-12), f"from {before[0]:.3f} to {end[0]:.3f} nats"


def _rise_to_the_end(look: Look, seed: int) -> Finding:
    curves = look(seed)
    end, before = last_quarter(curves.test_after), np.median(curves.test_before, axis=0)
    return end - before, f"from {before[0]:.3f} to {end[0]:.3f}"


def _change_at_the_end(look: Look, seed: int) -> Finding:
    """Return the rise of the line through test D_KL over the last half after memorization, as a share of its mean."""
    test = look(seed).test_after
    half = test[len(test) // 2 :]
    return line_rise(half) / np.maximum(half.mean(axis=0), 1e-12), f"{len(half)} evaluations"


def _rise_after(look: Look, seed: int) -> Finding:
    """Return the rise of test D_KL from the evaluations on both sides of the milestone to the last half after it."""
    curves = look(seed)
    test = curves.test_after
    start, end = (curves.test_before[-1] + test[0]) / 2, np.median(test[len(test) // 2 :], axis=0)
    return end - start, f"from {start[0]:.3f} to {end[0]:.3f}"


# Claim 8.


def who_is_like_the_network(study: Study) -> Iterator[Effect]:
    """Claim 8: the network behaves like SVM and LR always, like k-NN only where it generalizes."""
    for dataset in study.datasets:
        for kind in ("true", "random", "overfit"):
            run = study.run(dataset, kind)
            for role in ("svm", "lr", "knn") if kind == "true" else ("svm", "lr"):
                for split in ("train", "test"):
                    where = (8, "P_SAME at the end beyond what is asked", f"{dataset}, {kind}, {role}, {split}")
                    alike = partial(_alike, study, run, kind, role, split)
                    yield study.effect(where, [run], alike, "above", 0.0, "P_SAME")
            if kind != "true":
                where = (8, "P_SAME on test, linear probes − k-NN", f"{dataset}, {kind}")
                unlike = partial(_unlike, study, run, "p_same", -1)
                yield study.effect(where, [run], unlike, "above", "unlike", "P_SAME")
                where = (8, "D_KL on test, k-NN − linear probes", f"{dataset}, {kind}")
                unlike = partial(_unlike, study, run, study.divergence, 1)
                yield study.effect(where, [run], unlike, "above", "rising", "nats")


def _alike(study: Study, run: Run, kind: str, role: str, split: str, seed: int) -> Finding:
    """Return the excess of P_SAME over what likeness asks; raise `TooSmall` where memorization was not reached."""
    if kind != "true":
        study.data.step(run, seed)
    same = last_quarter(study.data.curve(run, seed, split, study.probe(role), "p_same").values)
    excess = last_quarter(study.excess(run, seed, role, split).values)
    return excess, f"{same[0]:.3f} of {same[0] - excess[0]:.3f} asked"


def _unlike(study: Study, run: Run, measure: str, sign: int, seed: int) -> Finding:
    """Return how much less than SVM and LR, on average, k-NN is like the network on test at the end."""
    study.data.step(run, seed)
    study.data.overfitted(run, seed, study["overfitted"])
    curves = {role: study.data.curve(run, seed, "test", study.probe(role), measure) for role in ROLES}
    values = {role: last_quarter(curve.values) for role, curve in curves.items()}
    linear = (values["svm"] + values["lr"]) / 2
    return sign * (values["knn"] - linear), f"k-NN {values['knn'][0]:.3f}, linear probes {linear[0]:.3f}"


# Claim 9.


def overfitting_alarm(study: Study) -> Iterator[Effect]:
    """Claim 9: an alarm on the parting of train and test D_KL(k-NN‖DNN) rings near memorization, else never."""
    for dataset in study.datasets:
        run, where = study.run(dataset, "true"), (9, "highest alarm level, true labels", f"{dataset}, true")
        yield study.effect(where, [run], partial(_alarm_peak, study, run), "below", "parted", "share")
        for kind in ("random", "overfit"):
            run = study.run(dataset, kind)
            where = (9, "alarm after memorization", f"{dataset}, {kind}")
            yield study.effect(
                where, [run], partial(_alarm_distance, study, run), "within", "alarm_near", "share of its step"
            )


def alarm_level(study: Study, run: Run, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the alarm's level of k-NN's D_KL curves after step 0: it rings where the level passes ``parted``.

    The level is the share of test D_KL by which train D_KL lies below it, the smallest of the last ``alarm_persist``
    evaluations, so that a single outlier rings nothing.

    Returns
    -------
    steps (S,) and levels (S, 1 + B); S is the number of evaluations after step 0 less ``alarm_persist`` − 1.
    """
    steps, train, test = study.divergences(run, seed, "knn")
    persist = study["alarm_persist"]
    if len(steps) < persist:
        raise TooSmall(f"{run} seed {seed} has fewer than {persist} evaluations after step 0")
    windows = np.lib.stride_tricks.sliding_window_view(study.share(train, test), persist, axis=0)
    return steps[persist - 1 :], windows.min(axis=-1)


def _alarm_peak(study: Study, run: Run, seed: int) -> Finding:
    steps, level = alarm_level(study, run, seed)
    highest = int(level[:, 0].argmax())
    return level.max(axis=0), f"highest at step {steps[highest]}"


def _alarm_distance(study: Study, run: Run, seed: int) -> Finding:
    """Return by which share of the memorization step the alarm rings after it (before: negative).

    Where the alarm never rings, it counts as ringing one evaluation after the last.
    """
    memorized = study.data.step(run, seed)
    study.data.overfitted(run, seed, study["overfitted"])
    steps, level = alarm_level(study, run, seed)
    if steps[0] > (1 + study["alarm_near"]) * memorized:
        raise TooSmall(f"{run} seed {seed} memorized before {study['alarm_persist']} evaluations could ring the alarm")
    silent = steps[-1] + (steps[-1] - steps[-2] if len(steps) > 1 else steps[-1])
    loud = level > study["parted"]
    rings = np.where(loud.any(axis=0), steps[loud.argmax(axis=0)], silent)
    if rings[0] == silent and silent <= (1 + study["alarm_near"]) * memorized:
        raise TooSmall(f"no alarm yet in {run} seed {seed}: the run ends soon after memorization")
    note = "never rings" if rings[0] == silent else f"rings at step {rings[0]}"
    return (rings - memorized) / memorized, f"{note}, memorized at step {memorized}"


# Verdicts.


@dataclass(frozen=True)
class Claim:
    """A claim of the paper and how it is judged."""

    number: int
    title: str
    statement: str
    rule: str
    effects: Callable[[Study], Iterator[Effect]]


def judge(study: Study) -> list[dict[str, Any]]:
    """Return every claim with its effects and its verdict, as plain values."""
    return [judge_one(claim, study) for claim in CLAIMS]


def judge_one(claim: Claim, study: Study) -> dict[str, Any]:
    """Return one claim with its effects and its verdict, as plain values.

    The verdict is the first in `words.VERDICTS` that a deciding effect has. Not supported: the cells are under
    ``failing``. Too small or inconclusive: those that cannot be told are under ``untold``. ``decided`` gives the numbers of
    the one effect of that verdict that lies lowest, counted from its threshold in widths of its interval.
    """
    effects = list(claim.effects(study))
    deciding = [effect for effect in effects if effect.decides]
    failing = [effect for effect in deciding if effect.verdict == NOT_SUPPORTED]
    untold = [effect for effect in deciding if effect.verdict not in (NOT_SUPPORTED, SUPPORTED)]
    verdict = min((effect.verdict for effect in deciding), key=RANK.__getitem__, default=INCONCLUSIVE)
    decisive = [effect for effect in deciding if effect.verdict == verdict]
    seeds = sorted({effect.seeds for effect in deciding if effect.seeds})
    return {
        "claim": claim.number,
        "title": claim.title,
        "statement": claim.statement,
        "rule": claim.rule.format(**{name: _shown(value) for name, value in study.thresholds.items()}),
        "verdict": verdict,
        "one_run": bool(seeds) and seeds[-1] == 1,
        "seeds": seeds,
        "interval": INTERVALS[0] if not seeds or seeds[-1] == 1 else INTERVALS[1] if seeds[0] > 1 else INTERVALS[2],
        "supported": sum(effect.verdict == SUPPORTED for effect in deciding),
        "deciding": len(deciding),
        "decided": min(decisive, key=_certainty).said if decisive else "no deciding effect",
        "failing": [f"{effect.part}: {effect.cell}" for effect in failing],
        "untold": [f"{effect.part}: {effect.cell}" for effect in untold],
        "reasons": _reasons(failing or sorted(untold, key=lambda effect: RANK[effect.verdict])),
        "effects": [asdict(effect) for effect in effects],
    }


def _certainty(effect: Effect) -> float:
    """Return how far an effect is on the supporting side of its threshold, in widths of its interval."""
    if effect.value is None or effect.low is None or effect.high is None:
        return -np.inf
    return effect.margin / max(effect.high - effect.low, 1e-12)


def _reasons(effects: list[Effect]) -> list[str]:
    """Return why a claim is not supported or cannot be told: cells with numbers, or what hinders them, each once."""
    hindered = Counter(effect.said for effect in effects if effect.value is None)
    notes = [f"{said} ({count} effects)" if count > 1 else said for said, count in hindered.items()]
    return [effect.said for effect in effects if effect.value is not None] + notes


def _shown(value: Any) -> str:
    """Return a threshold as words of a sentence."""
    return (", ".join(value) or "none") if isinstance(value, list) else f"{value:g}"


INTERVALS = (
    "paired bootstrap over samples",
    "bootstrap over seeds and, paired, over samples",
    "bootstrap over seeds and, paired, over samples; over samples alone where there is one seed",
)
CLAIMS = (
    Claim(
        1,
        "Same test accuracy",
        "In every architecture × data set cell k-NN, SVM and LR on the embedding have the same test accuracy as each "
        "other and as the DNN; the correspondence is closest for the deeper networks.",
        "In every cell the spread of the four test accuracies keeps below {same_accuracy} at a share of {step_share} of the "
        "trained steps, and the deepest network's median spread exceeds the best of the others' by less than {closest}.",
        same_accuracy,
    ),
    Claim(
        2,
        "Same answers",
        "P_SAME of all three probes is very high, notably for the deeper networks; k-NN's rises during training and "
        "with depth.",
        "In every cell, at a share of {step_share} of the trained steps, P_SAME on test is more than half of the way from the "
        "agreement of independent errors to 1, or above {alike}; k-NN's line over all steps after 0 rises; k-NN's P_SAME is "
        "higher, in the median over steps, for the deeper of each two neighbouring networks.",
        same_answers,
    ),
    Claim(
        3,
        "Generalization grows layer by layer",
        "With true labels the probes' test accuracy improves gradually from layer to layer.",
        "For every probe test accuracy rises by more than {layer_rise} over the layers, no layer falls more than "
        "{layer_drop} below an earlier one, and half of the rise is made before depth {gradual_depth}.",
        gradual_layers,
    ),
    Claim(
        4,
        "Memorization in the last layers",
        "With random labels the probes' train accuracy appears only in the last layers.",
        "For every probe half of the rise in train accuracy is made after depth {last_layers}, and more than {later} of "
        "the depth later than with true labels.",
        late_memorization,
    ),
    Claim(
        5,
        "True labels: one trend",
        "With true labels train and test D_KL(M‖DNN) keep the same trend all through training, for each probe.",
        "For every probe the logarithms of the two curves correlate above {correlation}, and over no stretch of steps does "
        "one rise and the other fall by a factor of {opposite}; over the last half train D_KL lies less than {parted} of test "
        "D_KL away from it.",
        common_trend,
    ),
    Claim(
        6,
        "Random labels: parting at memorization",
        "With random labels they match only until memorization; then train D_KL(k-NN‖DNN) goes to 0 while the test "
        "value rises to a constant. For SVM and LR either outcome agrees with the paper.",
        "For k-NN: train D_KL less than {parted} of test D_KL away from it before memorization, more than that below after "
        "it; their distance grows by more than {parting} of test D_KL; train ends below {vanished} of what it was before; test rises, and "
        "changes by less than {constant} of its mean at the end. SVM and LR are reported and decide nothing.",
        parting_at_memorization,
    ),
    Claim(
        7,
        "Overfitting: parting at memorization",
        "Under enforced overfitting D_KL(k-NN‖DNN) of train and test keep their common trend until memorization and "
        "part there (CIFAR-100: at 90 % train accuracy); for MNIST and CIFAR-10 the test value rises slightly after it.",
        "Train D_KL less than {parted} of test D_KL away from it before, more than that below after; their distance grows by "
        "more than {parting} of test D_KL; test D_KL rises after it (not asked of {early_parting}).",
        parting_under_overfitting,
    ),
    Claim(
        8,
        "Like SVM and LR always, like k-NN only if it generalizes",
        "DNNs behave like SVM and LR on train and test whether or not the network generalizes; like k-NN only when it does.",
        "The paper says this without a figure: it plots P_SAME on test of true-label runs alone. Read here as: at the end of "
        "training P_SAME of SVM and LR is more than half of the way from the agreement of independent errors to 1, or above "
        "{alike}, on train and test of the true, random and overfit runs, and k-NN's of the true run; on test of the random "
        "and overfit runs k-NN's is more than {unlike} lower than theirs, and its D_KL higher.",
        who_is_like_the_network,
    ),
    Claim(
        9,
        "An alarm for overfitting",
        "The sudden parting of train and test D_KL(k-NN‖DNN) can serve as an indicator for overfitting.",
        "The alarm (train D_KL more than {parted} of test D_KL below it, {alarm_persist} evaluations in a row) rings within {alarm_near} of the memorization step in random and overfit runs, and never in true-label runs.",
        overfitting_alarm,
    ),
)
