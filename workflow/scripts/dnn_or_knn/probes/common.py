"""The probes: classifiers fitted on a layer's features, and what they all share.

Every kind is one module beside this one, with one function::

    run(train, labels, test, *, classes, options, seed, device) -> ProbeResult

where `train` (N, d) and `test` (M, d) are float32 features of one evaluation, `labels` (N,) int64 what the network was
trained on, `classes` the number of classes, `options` the configured values (with ``pca`` already resolved to a number
of components or None), `seed` what any random choice starts from, and `device` ``"cpu"`` or ``"cuda"``.  The result
depends on these alone.  Bad features or labels raise `UserError` with a sentence that starts in lower case: the stage
puts run, step and layer before it.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..runtime.errors import UserError


@dataclass(frozen=True)
class ProbeResult:
    """What one probe makes of one evaluation.

    Parameters
    ----------
    arrays: what is kept. Linear probes: ``train_probabilities``, ``test_probabilities`` float32 (n, C) with rows that
        sum to 1; ``train_decision``, ``test_decision`` int16 (n,), the class of the largest decision value;
        ``coefficients`` and ``intercepts`` float64. k-NN: ``train_neighbours``, ``test_neighbours`` int32 (n, k_max)
        and ``train_distances``, ``test_distances`` float64 (n, k_max).
    report: plain JSON values: ``converged``, ``objective``, ``gap``, ``iterations``, ``engine`` and what else the
        probe has to say; times go under ``seconds``, which the stage keeps out of the manifest.
    """

    arrays: dict[str, np.ndarray]
    report: dict[str, Any]


def load(module: str) -> Callable[..., ProbeResult]:
    """Return the `run` function of the probe module `module` of this package; an unknown one raises `UserError`."""
    name = f"{__package__}.{module}"
    try:
        return importlib.import_module(name).run
    except ModuleNotFoundError as error:
        if error.name != name:
            raise
        raise UserError(f"there is no probe module '{module}'; add probes/{module}.py or correct the name") from error


def check_input(train: np.ndarray, labels: np.ndarray, test: np.ndarray, classes: int) -> np.ndarray:
    """Return the classes that occur in `labels`, ascending, after checking the features and labels of a fit.

    A class that does not occur is no error: its probability is 0 everywhere (`spread`). Nor are constant features or
    a single class (`one_class`).

    Raises
    ------
    UserError: shapes that do not fit together, no training points, NaN or infinity, labels that are no integers in
        0 … classes − 1.
    """
    if train.ndim != 2 or test.ndim != 2 or train.shape[1] != test.shape[1]:
        raise UserError(
            f"train features {train.shape} and test features {test.shape} must be two tables with the same columns"
        )
    if labels.shape != (len(train),):
        raise UserError(f"{len(train)} train points need as many labels, but the labels have shape {labels.shape}")
    if not train.size:
        raise UserError(f"train features {train.shape} are empty; a probe needs at least one point and one dimension")
    for split, features in (("train", train), ("test", test)):
        _check_finite(split, features)
    if not np.issubdtype(labels.dtype, np.integer):
        raise UserError(f"labels must be integers, not {labels.dtype}")
    outside = np.flatnonzero((labels < 0) | (labels >= classes))
    if outside.size:
        first = outside[0]
        raise UserError(
            f"{outside.size} labels lie outside 0 … {classes - 1} (the first: point {first}, label {labels[first]}); "
            "the labels belong to another data set"
        )
    return np.unique(labels)


def _check_finite(split: str, features: np.ndarray, rows: int = 8192) -> None:
    """Raise `UserError` if a feature is NaN or infinite, looking at some rows at a time."""
    bad, first = 0, None
    for start in range(0, len(features), rows):
        where = np.argwhere(~np.isfinite(features[start : start + rows]))
        if len(where) and first is None:
            first = (start + int(where[0, 0]), int(where[0, 1]))
        bad += len(where)
    if first is not None:
        raise UserError(
            f"{bad} {split} features are not finite (the first: point {first[0]}, dimension {first[1]}, value "
            f"{features[first]}); the network diverged, so lower its learning rate or leave out this step"
        )


def spread(values: np.ndarray, present: np.ndarray, classes: int, fill: float = 0.0) -> np.ndarray:
    """Return columns (n, P) of the present classes as (n, classes), `fill` for the classes that do not occur."""
    if len(present) == classes:
        return values
    wide = np.full((len(values), classes), fill, values.dtype)
    wide[:, present] = values
    return wide


def one_class(label: int, train: np.ndarray, test: np.ndarray, classes: int) -> ProbeResult:
    """Return a linear probe's result where all labels are `label`: that class with probability 1, weights of zero."""
    arrays: dict[str, np.ndarray] = {}
    for split, features in (("train", train), ("test", test)):
        probabilities = np.zeros((len(features), classes), np.float32)
        probabilities[:, label] = 1.0
        arrays[f"{split}_probabilities"] = probabilities
        arrays[f"{split}_decision"] = np.full(len(features), label, np.int16)
    arrays["coefficients"] = np.zeros((1, train.shape[1]))
    arrays["intercepts"] = np.zeros(1)
    report = {"converged": True, "objective": 0.0, "gap": 0.0, "iterations": 0, "engine": "none: a single class"}
    return ProbeResult(arrays, report)
