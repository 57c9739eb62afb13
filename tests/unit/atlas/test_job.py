"""The measure and measure_table stages as commands, on a run of 200 images."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from conftest import SCRIPTS
from dnn_or_knn.atlas import common, examples, tables
from dnn_or_knn.features import dumps
from dnn_or_knn.runtime import files
from dnn_or_knn.runtime.errors import UserError
from forking import python
from toy_run import EMBEDDING, HIDDEN, RUN, Toy

NAME = list(RUN)


def command(script: str, *words: str | Path, **values: Any) -> subprocess.CompletedProcess[str]:
    line = [python(), str(SCRIPTS / script), "--spec", json.dumps(values), *map(str, words)]
    return subprocess.run(line, capture_output=True, text=True)


def measure(toy: Toy, name: str, *features: str, **changes: Any) -> subprocess.CompletedProcess[str]:
    folder, run = toy.folder, toy.folder / "run"
    part = toy.part(*features)
    words: list[str | Path] = ["--store", folder / "store/store.json", "--labels", folder / "labels/labels.json"]
    words += [
        "--training",
        run / "training.json",
        "--output",
        run / f"measures/{name}/{features[0] if features else 'run'}.json",
    ]
    words += ["--inputs", *(run / f"features/{shard['name']}.json" for shard in part.spec["shards"])]
    if features:
        words += [
            "--features",
            *(run / f"features/{shard}.json" for shard in features),
            "--reader",
            f"{name}.{features[0]}",
        ]
    return command("measure.py", *words, **{**part.spec, "measure": name, "module": name, **changes})


def test_tables_of_parts_are_put_together(tmp_path: Path) -> None:
    toys = [Toy(tmp_path / f"toy{number}", seed=number, hidden=number == 0).write() for number in range(2)]
    for toy in toys:
        done = measure(toy, "examples")
        assert done.returncode == 0, done.stderr
    parts = [toy.folder / "run/measures/examples/run.json" for toy in toys]
    joined = tmp_path / "measures" / "examples.json"
    done = command("measure_table.py", "--output", joined, "--parts", *parts, measure="examples", parts=["a", "b"])
    assert done.returncode == 0, done.stderr
    table = tables.read(joined.with_suffix(".parquet"))
    assert list(table)[:4] == NAME and len(table) == files.read_json(joined)["rows"] == 2 * 320
    assert set(table.labels) == {"random-labels"} and table.seed.dtype == "int64"
    alone = pd.DataFrame(common.named(RUN, examples.measure(toys[1].part())))
    pd.testing.assert_frame_equal(table.iloc[320:].reset_index(drop=True), alone, check_dtype=False)
    record = files.read_json(parts[0].with_name("run.provenance.json"))
    read = {"store.json", "labels.json", "training.json", f"{EMBEDDING}.json", f"{HIDDEN}.json"}
    assert {Path(name).name for name in record["inputs"]} == read


def test_a_measure_of_features_is_one_more_reader_of_them(tmp_path: Path) -> None:
    toy = Toy(tmp_path).write()
    manifests = {shard: tmp_path / f"run/features/{shard}.json" for shard in (EMBEDDING, HIDDEN)}
    hidden = f"geometry.{HIDDEN}"
    dumps.await_readers(manifests[EMBEDDING], [f"geometry.{EMBEDDING}", hidden])
    dumps.await_readers(manifests[HIDDEN], ["knn", hidden])
    done = measure(toy, "geometry", HIDDEN, EMBEDDING)
    assert done.returncode == 0, done.stderr
    assert dumps.folder_of(manifests[EMBEDDING]).is_dir(), "its own job has yet to read it"
    assert [path.name for path in dumps.marks_of(manifests[HIDDEN]).iterdir()] == ["knn"]
    done = measure(toy, "geometry", EMBEDDING)
    assert done.returncode == 0, done.stderr
    assert not dumps.folder_of(manifests[EMBEDDING]).exists() and dumps.folder_of(manifests[HIDDEN]).is_dir()
    table = tables.read(tmp_path / f"run/measures/geometry/{HIDDEN}.parquet")
    assert (
        list(table.layer) == ["input", "conv"] and table.nc3.isna().all() and [len(row) for row in table.cka] == [3, 3]
    )
    assert not list(tmp_path.rglob(".state"))


def test_features_that_are_gone_and_cannot_be_made_again_are_one_sentence(tmp_path: Path) -> None:
    toy = Toy(tmp_path).write()
    dumps.release_all(tmp_path)
    files.remove(dumps.folder_of(tmp_path / f"run/features/{EMBEDDING}.json"))
    done = measure(toy, "geometry", EMBEDDING)
    assert (
        done.returncode == 2
        and done.stderr.count("\n") == 1
        and "is missing though its manifest lists it" in done.stderr
    )


def test_damaged_outputs_are_one_sentence(tmp_path: Path) -> None:
    toy = Toy(tmp_path).write()
    path = tmp_path / f"run/probes/knn/{HIDDEN}/step000100_conv.npz"
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    done = measure(toy, "examples")
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and "step000100_conv.npz is damaged" in done.stderr


def test_a_measure_that_is_not_there_is_named() -> None:
    with pytest.raises(UserError, match=r"there is no measure 'exampels'; add atlas/exampels\.py"):
        common.load("exampels")


def test_columns_of_two_lengths_are_a_fault() -> None:
    with pytest.raises(ValueError, match=r"the columns have \[2, 3\] rows"):
        common.named(RUN, {"a": np.zeros(2), "b": np.zeros(3)})


def test_a_column_that_a_part_lacks_values_of_keeps_its_type(tmp_path: Path) -> None:
    paths = [tmp_path / name for name in ("a.parquet", "b.parquet")]
    tables.write(paths[0], {"x": np.array([np.nan, np.nan]), "cka": np.array([[1.0], [1.0]])})
    tables.write(paths[1], {"x": np.array([1.5]), "cka": np.array([[1.0, 0.5]])})
    assert tables.join(tmp_path / "c.parquet", paths) == 3
    table = tables.read(tmp_path / "c.parquet")
    assert list(table.x.isna()) == [True, True, False] and [len(row) for row in table.cka] == [1, 1, 2]
    (tmp_path / "a.parquet").write_text("no table")
    with pytest.raises(UserError, match=r"a\.parquet is damaged"):
        tables.join(tmp_path / "c.parquet", paths)
    with pytest.raises(UserError, match=r"a\.parquet is damaged"):
        tables.read(tmp_path / "a.parquet")
    with pytest.raises(UserError, match=r"d\.parquet is missing"):
        tables.read(tmp_path / "d.parquet")
