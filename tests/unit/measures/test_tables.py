"""Replicates come back as they were written but for a thousandth of their own noise, in a third of the space."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from dnn_or_knn.measures import tables
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays


def rows(count: int) -> Any:
    """Return a table of measures with that many rows."""
    key = {"dataset": "toy", "architecture": "mlp8", "labels": "true-labels", "seed": 0, "step": 0}
    key |= {"layer": "embedding", "layer_index": 0, "split": "test", "model": "knn", "count": 9, "floored": 0}
    return tables.frame([key | {"converged": True}] * count)


def there_and_back(folder: Path, values: np.ndarray) -> np.ndarray:
    """Return replicates as they are read after they were written."""
    tables.write(folder, rows(len(values)), dict.fromkeys(tables.REPLICATED, values))
    read = tables.read_replicates(folder)
    assert all(np.array_equal(read[name], read["accuracy"], equal_nan=True) for name in tables.REPLICATED)
    return read["accuracy"]


VALUES = arrays.arrays(
    np.float64, arrays.array_shapes(min_dims=2, max_dims=2, max_side=6), elements=st.floats(-1e300, 1e300)
)


@given(values=VALUES, blank=st.booleans())
@settings(max_examples=60)
def test_replicates_move_by_less_than_half_a_unit_of_their_rows_range(
    tmp_path_factory: pytest.TempPathFactory, values: np.ndarray, blank: bool
) -> None:
    folder = tmp_path_factory.mktemp("tables")
    if blank:
        values[0] = np.nan
    read = there_and_back(folder, values)
    assert read.dtype == np.float64 and read.shape == values.shape
    assert np.array_equal(np.isnan(read), np.isnan(values))
    extent = np.ptp(values, axis=1, keepdims=True)
    rounding = 4 * np.finfo(float).eps * np.abs(values).max(axis=1, keepdims=True) + 1e-300
    error = np.abs(read - values)
    assert np.all((error <= 0.501 * extent / tables.LEVELS + rounding) | np.isnan(values))
    # Put together with others' and written again, as for an experiment, they stay where they are.
    again = there_and_back(folder, read)
    assert np.all((np.abs(again - read) <= rounding) | np.isnan(values))


def test_equal_rows_stay_equal_and_a_row_without_width_exact(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    one = random.normal(0.7, 0.01, 200)
    read = there_and_back(tmp_path, np.vstack([one, np.full(200, 1 / 3), one]))
    assert np.array_equal(read[0], read[2]) and np.all(read[1] == 1 / 3)
    assert np.allclose(
        np.quantile(read[0], [0.025, 0.975]), np.quantile(one, [0.025, 0.975]), rtol=0, atol=1e-3 * one.std()
    )


def test_replicates_that_are_numbers_only_in_part_are_refused(tmp_path: Path) -> None:
    for odd in (np.nan, np.inf):
        with pytest.raises(ValueError, match="all finite or all NaN"):
            there_and_back(tmp_path, np.array([[0.5, odd]]))
    assert not (tmp_path / tables.REPLICATES).exists()


def test_none_at_all_are_written_and_read(tmp_path: Path) -> None:
    assert there_and_back(tmp_path, np.empty((3, 0))).shape == (3, 0)


def test_they_take_a_third_of_the_space(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    values = random.normal(0.7, 0.01, (100, 200))
    there_and_back(tmp_path, values)
    assert (tmp_path / tables.REPLICATES).stat().st_size < len(tables.REPLICATED) * values.nbytes / 3


def test_tables_of_floating_numbers_are_read_as_they_are(tmp_path: Path) -> None:
    """As they were written before they lay on a grid: archives hold such ones."""
    values = np.random.default_rng(0).normal(size=(2, 5))
    pq.write_table(pa.table(dict.fromkeys(tables.REPLICATED, pa.array(values.tolist()))), tmp_path / tables.REPLICATES)
    assert np.array_equal(tables.read_replicates(tmp_path)["p_same"], values)
