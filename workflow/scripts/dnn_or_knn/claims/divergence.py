"""Claims 5 to 7 and 9: what train and test D_KL do along the steps. Written as those of `agreement.py`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import numpy as np

from .effects import Effect, Run, TooSmall
from .study import ROLES, Finding, Parting, Study, last_quarter, line_rise, parting

#: A curve of logarithms that moves less than this along all steps stands still.
STILL = 1e-9

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
