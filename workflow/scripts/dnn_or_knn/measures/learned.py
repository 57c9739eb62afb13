"""Runs whose network did not learn: with another seed the same training may have gone well."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from .tables import RUN_KEYS


def at_chance(accuracy: Any, classes: Any) -> Any:
    """Return whether a network does little more than guess; not a number means no.

    That is less than twice the accuracy of guessing, or than half of the way from it to 1 where that is less.

    Parameters
    ----------
    accuracy, classes: numbers or arrays of one shape: an accuracy, 0 … 1, and the number of classes.
    """
    chance = 1 / classes
    return accuracy < np.minimum(2 * chance, (1 + chance) / 2)


def failed(runs: pd.DataFrame) -> pd.Series:
    """Return which runs did not learn, bool: at the end they are at chance on what they were trained on.

    Not so where other seeds learned that and are at chance on test, as with random labels: what fails there is memorization,
    which is measured.

    Parameters
    ----------
    runs: from `tables.read_runs`, or rows of it.
    """
    guesses = at_chance(runs["final_train_accuracy"], runs["classes"])
    learned = _learned(runs)
    generalizes = learned & ~at_chance(runs["final_test_accuracy"], runs["classes"])
    return guesses & (_with_any_seed(generalizes, runs) | ~_with_any_seed(learned, runs))


def of_learned(measures: pd.DataFrame, runs: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame, list[dict[str, Any]]]:
    """Return the tables without the seeds that did not learn where another one did, and the rows of `runs` left out.

    A mean over a network and one that guesses is of neither. Where no seed learned all stay, as there is nothing else to show.

    Parameters
    ----------
    measures, runs: from `tables.read` and `tables.read_runs`.
    """
    out = failed(runs) & _with_any_seed(_learned(runs), runs)
    gone = pd.MultiIndex.from_frame(runs.loc[out, RUN_KEYS])
    stays = ~pd.MultiIndex.from_frame(measures[RUN_KEYS]).isin(gone)
    rows = [{str(key): value for key, value in row.items()} for row in runs[out].to_dict("records")]
    return measures[stays], runs[~out], rows


def _learned(runs: pd.DataFrame) -> pd.Series:
    accuracy = runs["final_train_accuracy"]
    return accuracy.notna() & ~at_chance(accuracy, runs["classes"])


def _with_any_seed(which: pd.Series, runs: pd.DataFrame) -> pd.Series:
    """Return whether something holds for a run with any seed, for each row."""
    return which.groupby([runs[key] for key in RUN_KEYS[:3]]).transform("any")
