"""What a job leaves: a manifest whose files are found from it alone, and its provenance."""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

import pytest
from dnn_or_knn.runtime import files, provenance, results
from dnn_or_knn.runtime.errors import UserError


def finished(folder: Path) -> Path:
    """Make a result with a file in a folder of its name, one beside that, and one in another folder; return its manifest."""
    made = [folder / "dumps/shard/a.npy", folder / "dumps/b.csv", folder / "outputs/shard/a.npy"]
    for path in made:
        files.write_text(path, path.as_posix().removeprefix(f"{folder}/"))
    files.write_json(folder / "in.json", {})
    args = argparse.Namespace(spec={"k": 30}, threads=1, output=folder / "dumps/shard.json")
    results.finish(args, {"layers": 3}, made, inputs=[folder / "in.json"], resumed=2)
    return args.output


def test_a_result_is_found_from_its_manifest_wherever_it_lies(tmp_path: Path) -> None:
    manifest = finished(tmp_path / "here")
    content = results.read(manifest)
    assert content["layers"] == 3 and list(content["files"]) == ["../outputs/shard/a.npy", "b.csv", "shard/a.npy"]
    record = files.read_json(manifest.with_name("shard.provenance.json"))
    assert provenance.faults(record) == [] and record["resumed"] == 2
    assert record["inputs"] == {"../in.json": files.sha256(tmp_path / "here/in.json")}
    assert record["results"] == {"shard.json": files.sha256(manifest)}
    shutil.move(tmp_path / "here", tmp_path / "there")
    assert results.read(tmp_path / "there/dumps/shard.json") == content
    assert str(tmp_path) not in manifest.name + (tmp_path / "there/dumps/shard.json").read_text()


@pytest.mark.parametrize("name", ["dumps/shard/a.npy", "dumps/b.csv", "outputs/shard/a.npy"])
def test_a_file_that_differs_is_named_with_what_to_delete(tmp_path: Path, name: str) -> None:
    manifest = finished(tmp_path)
    (tmp_path / name).write_text("x" * (tmp_path / name).stat().st_size)
    with pytest.raises(UserError) as caught:
        results.read(manifest)
    path = tmp_path / name
    assert str(caught.value).startswith(f"{path} is damaged") and f"delete {path.parent} and" in str(caught.value)
    others = [other for other in files.read_json(manifest)["files"] if files.within(manifest.parent, other) != path]
    assert results.read(manifest, others)["layers"] == 3


@pytest.mark.parametrize("text", ["[]", "{}", '{"files": 3}'])
def test_what_is_no_manifest_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(UserError, match=r"x\.json is no manifest of this project; delete it and run again"):
        results.read(tmp_path / "x.json")


def test_every_run_has_its_manifest() -> None:
    assert results.of_runs(["a", "b"], [Path("x"), Path("y")]) == {"a": Path("x"), "b": Path("y")}
    for runs, manifests in ((["a"], []), ([], [Path("x")]), ([], [])):
        with pytest.raises(UserError, match=f"names {len(runs)} runs, and {len(manifests)} manifests are given"):
            results.of_runs(runs, manifests)


def test_where_the_disk_is_full_neither_manifest_nor_provenance_is_half(tmp_path: Path, monkeypatch) -> None:
    args = argparse.Namespace(spec={}, threads=1, output=tmp_path / "x.json")
    write = files.write_text

    def full(path: Path, text: str) -> None:
        if path.name == "x.provenance.json":
            raise UserError("the disk is full")
        write(path, text)

    monkeypatch.setattr(files, "write_text", full)
    with pytest.raises(UserError, match="the disk is full"):
        results.finish(args, {}, [], inputs=[])
    assert [path.name for path in tmp_path.iterdir()] == ["x.json"] and results.read(tmp_path / "x.json") == {
        "files": {}
    }
