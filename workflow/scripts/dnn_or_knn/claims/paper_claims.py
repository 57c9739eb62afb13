"""The nine claims of the paper: what each says, by which rule it is judged, and its verdict.

Every claim has a function from a `Study` (the measures with their replicates, the runs, the thresholds) to effects, one
for each part of the claim and each cell that it speaks of: in `agreement.py` and `divergence.py`. The rules were fixed before
any result was looked at; docs/claims.md has the reasons for each threshold.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from .agreement import gradual_layers, late_memorization, same_accuracy, same_answers, who_is_like_the_network
from .divergence import common_trend, overfitting_alarm, parting_at_memorization, parting_under_overfitting
from .effects import Effect
from .study import Study
from .words import INCONCLUSIVE, NOT_SUPPORTED, RANK, SUPPORTED


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
    ``failing``. Too small or inconclusive: those that are undecided are under ``undecided``. ``decided`` gives the numbers of
    the one effect of that verdict that lies lowest, counted from its threshold in widths of its interval.
    """
    effects = list(claim.effects(study))
    deciding = [effect for effect in effects if effect.decides]
    failing = [effect for effect in deciding if effect.verdict == NOT_SUPPORTED]
    undecided = [effect for effect in deciding if effect.verdict not in (NOT_SUPPORTED, SUPPORTED)]
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
        "undecided": [f"{effect.part}: {effect.cell}" for effect in undecided],
        "reasons": _reasons(failing or sorted(undecided, key=lambda effect: RANK[effect.verdict])),
        "effects": [asdict(effect) for effect in effects],
    }


def _certainty(effect: Effect) -> float:
    """Return how far an effect is on the supporting side of its threshold, in widths of its interval."""
    if effect.value is None or effect.low is None or effect.high is None:
        return -np.inf
    return effect.margin / max(effect.high - effect.low, 1e-12)


def _reasons(effects: list[Effect]) -> list[str]:
    """Return why a claim is not supported or is undecided: cells with numbers, or what hinders them, each once."""
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
