"""Claim 12: setting the last stage back alone removes memorization. Later work, judged on the measure `rewind`."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import numpy as np

from .effects import Effect, Run, TooSmall
from .later_study import LaterStudy
from .study import Finding

LAST, BEFORE, ALL = "last stage", "before it", "all"


def last_stage_holds_memorization(study: LaterStudy) -> Iterator[Effect]:
    """Claim 12: setting the last stage back alone removes memorization."""
    for dataset in study.datasets:
        run = study.run(dataset, "random")
        for layer, part, decides in (
            (LAST, "memorization taken away by the last stage alone", True),
            (BEFORE, "the same by all layers before it", False),
        ):
            removed = partial(_removed, study, run, layer)
            yield study.effect((12, part, dataset), [run], removed, "above", "removed", "share", decides=decides)


def _removed(study: LaterStudy, run: Run, layer: str, seed: int) -> Finding:
    """Return which share of the accuracy on relabelled train images, of what setting all layers back takes away, goes with these.

    They are set back to the last evaluation at which the whole network had less than half of its final accuracy on them.
    """
    study.data.step(run, seed)
    steps, whole = study.rewound(run, seed, ALL)
    final = whole[-1]
    before = [step for step, values in zip(steps, whole, strict=True) if values[0] < final[0] / 2]
    if not before or before[-1] == 0:
        raise TooSmall(f"too few evaluations before memorization in {run} seed {seed}")
    step = before[-1]
    earlier, (some, values) = whole[steps.index(step)], study.rewound(run, seed, layer)
    back = values[some.index(step)]
    lost = final - earlier
    share = np.divide(final - back, lost, out=np.zeros_like(lost), where=lost != 0)
    return share, f"{final[0]:.3f} at the end, {back[0]:.3f} set back to step {step}, {earlier[0]:.3f} then"
