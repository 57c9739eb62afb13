"""Which results were made otherwise: what their provenance is held against."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from dnn_or_knn.plan import staleness
from dnn_or_knn.plan.specifications import Task
from dnn_or_knn.plan.told import specification
from dnn_or_knn.runtime import files
from dnn_or_knn.runtime.code_digest import code_files

NOW = code_files(*staleness.SEARCH)
SHARDS = "dnn_or_knn/probes/query_shards.py"


@pytest.mark.parametrize(
    ("more", "found"),
    [
        ({"pieces": 1}, []),
        ({"pieces": 3}, []),  # made before pieces left their code
        ({"pieces": 3, "pieces_code": NOW}, []),
        ({"pieces": 3, "pieces_code": NOW | {SHARDS: "0"}}, [f"code {SHARDS}"]),
        ({"pieces": 3, "pieces_code": {**NOW, "dnn_or_knn/gone.py": "0"}}, ["code dnn_or_knn/gone.py"]),
    ],
)
def test_a_search_is_stale_where_the_code_of_its_pieces_changed(
    more: dict[str, Any], found: list[str], tmp_path: Path
) -> None:
    """How it was cut is no part of its specification, and a result that no piece made depends on none of their code."""
    task = Task("probe", {}, specification("probe.py", "probes/knn", kind="knn"), "knn")
    assert SHARDS in NOW and SHARDS not in code_files("probe.py", "dnn_or_knn/probes/knn.py")
    record = {"spec": json.loads(task.spec), "inputs": {}, "code": {}, **more}
    files.write_json(tmp_path / "knn.provenance.json", record)
    assert list(staleness._differences(task, str(tmp_path / "knn"), {})) == found
