"""Claims 10 and 11: how deep the network's answers are made. Later work, judged on the measure `examples`.

Depth is the prediction depth of an image as a share of the probed layers (arXiv 2106.09647; `atlas/examples.py`).
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from .effects import Effect, Run, TooSmall
from .later_study import LaterStudy
from .study import Finding

#: Fewer images than this have no mean that could be compared.
FEWEST = 30


def random_labels_deeper(study: LaterStudy) -> Iterator[Effect]:
    """Claim 10: examples with random labels lie deeper than those with true ones."""
    for dataset in study.datasets:
        true, random = study.run(dataset, "true"), study.run(dataset, "random_layers")
        where = (10, "mean depth on train, random less true labels", dataset)
        yield study.effect(
            where, [true, random], partial(_between_runs, study, true, random), "above", "deeper", "share of depth"
        )
        where = (10, "the same within the run, own label drawn or not", dataset)
        within = partial(_within_run, study, random, "train", "relabelled")
        yield study.effect(where, [random], within, "above", "deeper", "share of depth", decides=False)


def wrong_answers_deeper(study: LaterStudy) -> Iterator[Effect]:
    """Claim 11: wrong test answers lie deeper than right ones."""
    for dataset in study.datasets:
        run = study.run(dataset, "true")
        where = (11, "mean depth on test, wrong less right answers", dataset)
        apart = partial(_within_run, study, run, "test", "wrong")
        yield study.effect(where, [run], apart, "above", "deeper", "share of depth")


def _between_runs(study: LaterStudy, true: Run, random: Run, seed: int) -> Finding:
    study.data.step(random, seed)
    means = [study.mean_depth(run, seed, "train") for run in (random, true)]
    return means[0] - means[1], f"{means[0][0]:.3f} with random labels, {means[1][0]:.3f} with true ones"


def _within_run(study: LaterStudy, run: Run, split: str, which: str, seed: int) -> Finding:
    """Return the mean depth of the images of a run that are wrong, or relabelled, less that of the others."""
    images = study.images(run, seed, split)
    chosen = images["label"] != images["true_label"] if which == "relabelled" else ~images["right"]
    chosen = chosen.to_numpy()
    few = min(int(chosen.sum()), int((~chosen).sum()))
    if few < FEWEST:
        raise TooSmall(f"too few to compare: {few} images of {run} seed {seed}")
    means = [study.mean_depth(run, seed, split, those) for those in (chosen, ~chosen)]
    counts = f"{chosen.sum()} images {which}, {(~chosen).sum()} others"
    return means[0] - means[1], f"{means[0][0]:.3f} against {means[1][0]:.3f}: {counts}"
