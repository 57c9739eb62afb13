"""Claims 1 to 4 and 8: whether the probes are as right as the network, give its answers, and learn in its layers.

Each claim is a function from a `Study` to effects. A function that computes one effect takes the seed as its last argument
and returns the effect with its replicates, (1 + B,), and a remark.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from itertools import pairwise

import numpy as np

from .effects import Effect, Run, TooSmall
from .study import ROLES, Depth, Finding, Study, half_depth, kept_to, last_quarter, line_rise

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
