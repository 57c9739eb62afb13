"""The tables of the measures beside the paper's, as parquet: written part by part, put together, read.

Without pandas, whose import takes longer than most of these jobs compute.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..runtime import files
from ..runtime.errors import UserError

if TYPE_CHECKING:
    import pandas as pd


def write(path: Path, columns: Mapping[str, np.ndarray]) -> None:
    """Write columns of one length, each (N,), or (N, m) for lists of m values; NaN becomes a missing value."""
    import pyarrow as pa

    given = {name: list(column) if column.ndim > 1 else column for name, column in columns.items()}
    _write(path, pa.table({name: pa.array(column, from_pandas=True) for name, column in given.items()}))


def join(path: Path, parts: Sequence[Path]) -> int:
    """Write the rows of some parts, in their order, as one table, and return their number."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    tables = []
    for part in parts:
        try:
            tables.append(pq.read_table(part))
        except (OSError, ValueError) as error:
            raise UserError(f"{part} is damaged ({error}); delete it and run again") from error
    # A column that is missing throughout a part has no type there.
    joined = pa.concat_tables(tables, promote_options="permissive")
    _write(path, joined)
    return joined.num_rows


def _write(path: Path, table: Any) -> None:
    import pyarrow.parquet as pq

    with files.atomic(path) as temporary:
        pq.write_table(table, temporary)


def read(path: Path) -> pd.DataFrame:
    """Return a table; a missing or damaged file raises `UserError`."""
    import pandas as pd

    try:
        return pd.read_parquet(path)
    except FileNotFoundError as error:
        raise UserError(f"{path} is missing; run the stage that makes it first") from error
    except (OSError, ValueError) as error:
        raise UserError(f"{path} is damaged ({error}); delete it and run again") from error
