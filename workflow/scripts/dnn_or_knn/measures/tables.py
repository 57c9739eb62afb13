"""The tidy tables: their columns, how they are written, how they are read.

Measures: one row per run, step, layer, split and model. Replicates: the same rows with a list of bootstrap replicates
in place of each number. Fractions lie in [0, 1], divergences are in nats. Parquet is what programs read; the CSV holds
the same numbers for everyone else.

Replicates lie on a grid of their row's own, `LEVELS` + 1 points from the least to the greatest: a list of integers, and for
the row the value of 0 (`<measure>_low`) and of 1 more (`<measure>_unit`). That takes a third of what float64 does, and moves
no replicate by more than 1/131,070 of the row's range, a thousandth of the noise that a few hundred draws leave in an
interval's ends. Rows with the same replicates keep them the same, and a row without width keeps its number.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ..runtime import files
from ..runtime.errors import UserError

#: What names a row.
KEYS = ["dataset", "architecture", "labels", "seed", "step", "layer", "layer_index", "split", "model"]
#: What each row measures; the first four have replicates.
REPLICATED = ["accuracy", "p_same", "d_kl", "d_kl_column"]
COLUMNS = [
    *KEYS,
    "count",
    "accuracy",
    "accuracy_decision",
    "accuracy_probability",
    "p_same",
    "d_kl",
    "d_kl_column",
    "floored",
    "generalization_gap",
    "converged",
    "gap",
]
TYPES = dict.fromkeys(["seed", "step", "layer_index", "count", "floored"], "int64") | {"converged": "bool"}
#: One row per run.
RUN_COLUMNS = [
    "dataset",
    "architecture",
    "labels",
    "seed",
    "classes",
    "train_count",
    "test_count",
    "memorization_step",
    "step_90",
    "last_step",
    "final_train_accuracy",
    "final_test_accuracy",
]
RUN_KEYS = RUN_COLUMNS[:4]
MEASURES = "measures.parquet"
REPLICATES = "replicates.parquet"
RUNS = "runs.csv"
#: Steps of the grid on which a row's replicates lie.
LEVELS = 2**16 - 1


def frame(rows: list[dict[str, Any]]) -> pd.DataFrame:
    """Return rows of measures as a table with the columns and types of `COLUMNS`; numbers not given are NaN."""
    table = pd.DataFrame(rows).reindex(columns=COLUMNS)
    numbers = [name for name in COLUMNS[len(KEYS) :] if name not in TYPES]
    return table.astype(TYPES | dict.fromkeys(numbers, "float64"))


def write(folder: str | Path, measures: pd.DataFrame, replicates: Mapping[str, np.ndarray]) -> list[Path]:
    """Write the tables of a run or an experiment into `folder`, and return their paths.

    Parameters
    ----------
    measures: from `frame`.
    replicates: for each of `REPLICATED` the replicates of each row, float64 (rows, replicates), all finite or all NaN.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    folder = Path(folder)
    columns = {name: pa.array(measures[name].to_numpy()) for name in KEYS}
    for name in REPLICATED:
        values = np.asarray(replicates[name], dtype=np.float64)
        if values.shape[0] != len(measures):
            raise ValueError(f"{len(measures)} rows, but {values.shape[0]} rows of replicates of {name}")
        places, low, unit = _on_grid(values)
        offsets = np.arange(len(values) + 1, dtype=np.int32) * values.shape[1]
        columns[name] = pa.ListArray.from_arrays(pa.array(offsets), pa.array(places.ravel()))
        columns |= {f"{name}_low": pa.array(low), f"{name}_unit": pa.array(unit)}
    with files.atomic(folder / MEASURES) as temporary:
        pq.write_table(pa.Table.from_pandas(measures, preserve_index=False), temporary)
    with files.atomic(folder / "measures.csv") as temporary:
        measures.to_csv(temporary, index=False, lineterminator="\n")
    # Equal bytes of neighbouring numbers side by side.
    encoding = {f"{name}.list.element": "BYTE_STREAM_SPLIT" for name in REPLICATED}
    with files.atomic(folder / REPLICATES) as temporary:
        pq.write_table(pa.table(columns), temporary, use_dictionary=KEYS, compression="zstd", column_encoding=encoding)
    return [folder / name for name in (MEASURES, "measures.csv", REPLICATES)]


def read(folder: str | Path) -> pd.DataFrame:
    """Return the measures table in `folder`; a missing or damaged file raises `UserError`."""
    import pyarrow.parquet as pq

    path = Path(folder) / MEASURES
    with _readable(path):
        return pq.read_table(path).to_pandas()


def read_replicates(folder: str | Path) -> dict[str, np.ndarray]:
    """Return the replicates in `folder`, float64 (rows, replicates) for each of `REPLICATED`.

    Rows are those of `read`, in the same order; a missing or damaged file raises `UserError`.
    """
    import pyarrow.parquet as pq

    path = Path(folder) / REPLICATES
    with _readable(path):
        table = pq.read_table(path)
        return {name: _replicates(table, name) for name in REPLICATED}


def _on_grid(values: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return values (rows, replicates) as places on their row's grid, uint16, its first point (rows,) and its unit (rows,)."""
    blank = np.isnan(values).all(axis=1)
    if not np.isfinite(values[~blank]).all():
        raise ValueError("the replicates of a row must be all finite or all NaN")
    low, high = (values.min(axis=1), values.max(axis=1)) if values.size else (np.full(len(values), np.nan),) * 2
    unit = (high - low) / LEVELS
    wide = unit > 0
    places = np.zeros(values.shape, np.uint16)
    # No further than the last one, where the unit itself is rounded.
    places[wide] = np.rint((values[wide] - low[wide, None]) / unit[wide, None]).clip(max=LEVELS)
    return places, low, unit


def _replicates(table: Any, name: str) -> np.ndarray:
    """Return a measure's replicates, float64 (rows, replicates), from the table that `write` wrote."""
    values = table[name].combine_chunks().flatten().to_numpy().reshape(table.num_rows, -1)
    if values.dtype == np.float64:  # as they were written before they lay on a grid
        return values
    low, unit = (table[f"{name}_{part}"].to_numpy()[:, None] for part in ("low", "unit"))
    return low + unit * values


def read_runs(folder: str | Path) -> pd.DataFrame:
    """Return the experiment's table of runs: steps that were never reached are NA (nullable integers)."""
    path = Path(folder) / RUNS
    with _readable(path):
        steps = {"memorization_step": "Int64", "step_90": "Int64"}
        table = pd.read_csv(path, dtype=steps, keep_default_na=False, na_values=[""])
    absent = [name for name in RUN_COLUMNS if name not in table.columns]
    if absent:
        raise UserError(f"{path} has no column '{absent[0]}'; delete it and run again")
    return table


def run_name(run: Mapping[str, Any]) -> str:
    """Return a run's name as in its path: dataset/architecture/labels/seed0."""
    return f"{run['dataset']}/{run['architecture']}/{run['labels']}/seed{run['seed']}"


@contextlib.contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Turn the errors of reading a table into one sentence for the user."""
    try:
        yield
    except FileNotFoundError as error:
        raise UserError(f"{path} is missing; run the stage that makes it first") from error
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"{path} is damaged ({error}); delete it and run again") from error
