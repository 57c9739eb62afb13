"""Runs whose network did not learn: with another seed the same training may have gone well."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from .tables import RUN_KEYS


def at_chance(train_accuracy: Any, classes: Any) -> Any:
    """Return whether a network does little more than guess on what it was trained on; not a number means no.

    That is less than twice the accuracy of guessing, or than half of the way from it to 1 where that is less.

    Parameters
    ----------
    train_accuracy, classes: numbers or arrays of one shape: a run's final train accuracy, 0 … 1, and number of classes.
    """
    chance = 1 / classes
    return train_accuracy < np.minimum(2 * chance, (1 + chance) / 2)


def of_learned(measures: pd.DataFrame, runs: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame, list[dict[str, Any]]]:
    """Return the tables without the seeds that did not learn where another one did, and the rows of `runs` left out.

    A mean over a network and one that guesses is of neither. Where no seed learned all stay, as there is nothing else to show.

    Parameters
    ----------
    measures, runs: from `tables.read` and `tables.read_runs`.
    """
    failed = at_chance(runs["final_train_accuracy"], runs["classes"])
    out = failed & (~failed).groupby([runs[key] for key in RUN_KEYS[:3]]).transform("any")
    gone = pd.MultiIndex.from_frame(runs.loc[out, RUN_KEYS])
    stays = ~pd.MultiIndex.from_frame(measures[RUN_KEYS]).isin(gone)
    return (
        measures[stays],
        runs[~out],
        [{str(key): value for key, value in row.items()} for _, row in runs[out].iterrows()],
    )
