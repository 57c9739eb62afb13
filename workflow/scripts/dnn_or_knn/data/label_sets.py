"""Label sets: which training images a run uses, and the labels that it trains on.  Test labels are always the store's."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from .. import seeds
from ..runtime import files
from ..runtime.errors import UserError, nearest
from .store import LABELS_ARRAYS


def draw(
    true_labels: np.ndarray,
    classes: int,
    *,
    dataset: str,
    randomize: bool,
    subset: Mapping[str, Any] | None,
    seed: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Return a run's image positions and labels, both int64 (N,), as fixed by the seed and the data set's name.

    Random labels are drawn for all training images before a subset is taken, so that an image has the same random label
    in every label set of a seed. Both draws have a stream of their own (`seeds.generator`): ``random-labels/<dataset>`` and
    ``balanced-subset/<dataset>``.

    Parameters
    ----------
    true_labels: int64 (M,), the store's.
    randomize: train on labels that are i.i.d. uniform over the classes; about 1/C keep their true label by chance.
    subset: None for all images, or ``{"draw": "first" | "balanced", "count": N}``.
    """
    indices = np.arange(len(true_labels)) if subset is None else choose(true_labels, classes, subset, dataset, seed)
    labels = random_labels(len(true_labels), classes, dataset, seed) if randomize else true_labels
    return indices.astype(np.int64), labels[indices].astype(np.int64)


def random_labels(count: int, classes: int, dataset: str, seed: int) -> np.ndarray:
    """Return labels, int64 (count,), i.i.d. uniform over the classes."""
    return seeds.generator(f"random-labels/{dataset}", seed).integers(0, classes, size=count, dtype=np.int64)


def choose(true_labels: np.ndarray, classes: int, subset: Mapping[str, Any], dataset: str, seed: int) -> np.ndarray:
    """Return the positions of a subset, ascending: it stays in the data set's own order, classes mixed as they are there.

    ``first`` takes the first `count` images. ``balanced`` takes count // C random images of each class, without
    replacement, and one more of count mod C classes that are drawn among those that have one more.
    """
    count, available = subset["count"], len(true_labels)
    if isinstance(count, bool) or not isinstance(count, int) or count < 1:
        raise UserError(f"subset.count is {count!r}; it has to be an integer from 1 on")
    if count > available:
        raise UserError(
            f"subset.count is {count}, but {dataset} has only {available} training images; lower it to {available} or fewer"
        )
    if subset["draw"] == "first":
        return np.arange(count)
    if subset["draw"] == "balanced":
        return _balanced(true_labels, classes, count, dataset, seed)
    raise UserError(f"subset.draw is '{subset['draw']}'{nearest(str(subset['draw']), ['first', 'balanced'])}")


def _balanced(true_labels: np.ndarray, classes: int, count: int, dataset: str, seed: int) -> np.ndarray:
    """Return the ascending positions of a draw whose class counts differ by at most one."""
    available = np.bincount(true_labels, minlength=classes)
    share, rest = divmod(count, classes)
    spare = np.flatnonzero(available > share)
    if available.min() < share or len(spare) < rest:
        rarest = int(available.argmin())
        most = classes * int(available.min()) + int((available > available.min()).sum())
        raise UserError(
            f"subset.count is {count}, but {dataset} has only {available[rarest]} training images of class {rarest}, which "
            f"allows a balanced draw of {most} at most; lower it"
        )
    generator = seeds.generator(f"balanced-subset/{dataset}", seed)
    shares = np.full(classes, share)
    shares[generator.permutation(spare)[:rest]] += 1
    drawn = [generator.permutation(np.flatnonzero(true_labels == c))[: shares[c]] for c in range(classes)]
    return np.sort(np.concatenate(drawn))


def write_labels(
    folder: Path,
    spec: Mapping[str, Any],
    true_labels: np.ndarray,
    classes: int,
    dataset: str,
) -> tuple[dict[str, Any], list[Path]]:
    """Draw one label set and write its arrays; return what its manifest says, and their paths.

    The specification's keys are ``labels`` (the name), ``randomize``, ``subset`` and ``seed``, see `draw`.

    Raises
    ------
    UserError: a key is missing or cannot be; nothing is written.
    """
    indices, labels = draw(true_labels, classes, dataset=dataset, **_checked(spec))
    paths = files.write_arrays(folder, dict(zip(LABELS_ARRAYS, (indices, labels), strict=True)))
    facts = {
        "labels": spec["labels"],
        "dataset": dataset,
        "seed": spec["seed"],
        "count": len(labels),
        "randomized": spec["randomize"],
        "subset": spec["subset"],
        "kept_true_fraction": float(np.mean(labels == true_labels[indices])),
        "classes": classes,
    }
    return facts, paths


def _checked(spec: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of a specification that decide the draw, or say which is missing or wrong."""
    for key in ("labels", "randomize", "subset", "seed"):
        if key not in spec:
            raise UserError(f"--spec has no '{key}'; see --help for the keys of this stage")
    randomize, subset, seed = spec["randomize"], spec["subset"], spec["seed"]
    if not isinstance(randomize, bool):
        raise UserError(f"randomize is {randomize!r}; it has to be true or false")
    if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
        raise UserError(f"seed is {seed!r}; it has to be an integer from 0 on")
    if subset is not None and not (isinstance(subset, Mapping) and set(subset) == {"draw", "count"}):
        raise UserError(f"subset is {subset!r}; it has to be null or have the keys 'draw' and 'count'")
    return {"randomize": randomize, "subset": subset, "seed": seed}
