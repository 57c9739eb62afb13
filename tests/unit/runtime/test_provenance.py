"""The JSON beside a result."""

from __future__ import annotations

import argparse
import json
import subprocess
from pathlib import Path

import pytest
from dnn_or_knn.runtime import code_digest, files, provenance


def test_it_says_what_was_read_and_made_independently_of_the_place(tmp_path: Path) -> None:
    for name in ("a", "b"):
        folder = tmp_path / name
        files.write_json(folder / "in" / "x.json", {"x": 1})
        files.write_json(folder / "out" / "y.json", {"y": 2})
        args = argparse.Namespace(spec={"k": 30, "code": {"files": ["probe.py"], "digest": ""}}, threads=2)
        provenance.write(
            folder / "out" / "y.provenance.json",
            args,
            inputs=[folder / "in" / "x.json"],
            results=[folder / "out" / "y.json"],
            seconds={"fit": 1.5},
        )
    first, second = (json.loads((tmp_path / n / "out" / "y.provenance.json").read_text()) for n in ("a", "b"))
    assert first["inputs"] == {"../in/x.json": files.sha256(tmp_path / "a" / "in" / "x.json")}
    assert first["inputs"] == second["inputs"] and first["results"] == second["results"]
    assert first["spec"]["k"] == 30 and first["threads"] == 2 and first["seconds"] == {"fit": 1.5}
    assert first["code"] == code_digest.code_files("probe.py")
    assert first["wall_seconds"] >= 0 and first["peak_memory_bytes"] > 1e6
    assert first["libraries"]["numpy"]
    assert str(tmp_path) not in json.dumps(first)


def test_a_checkout_with_changed_or_new_code_is_dirty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scripts = tmp_path / "workflow" / "scripts"
    files.write_text(scripts / "train.py", "x = 1\n")
    files.write_text(scripts / "dnn_or_knn" / "runtime" / "provenance.py", "")
    files.write_text(tmp_path / "theirs.txt", "another project's\n")
    monkeypatch.setattr(provenance, "SCRIPTS", scripts)

    def unknown(words: str) -> None:
        provenance.git_state.cache_clear()
        state = provenance.git_state()
        assert (state["commit"], state["dirty"]) == (None, None) and words in state["reason"]

    unknown("git knows no commit here")

    def git(*words: str) -> str:
        command = ["git", "-C", str(tmp_path), "-c", "user.name=x", "-c", "user.email=x@x", *words]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    git("init", "--quiet")
    unknown("git knows no commit here")
    # The code as an archive inside somebody's own repository, ignored there or not.
    git("add", "theirs.txt")
    git("commit", "--quiet", "--message", "theirs")
    unknown("of the repository around the code does not hold it")
    files.write_text(tmp_path / ".gitignore", "workflow/\n")
    unknown("of the repository around the code does not hold it")
    (tmp_path / ".gitignore").unlink()
    git("add", ".")
    git("commit", "--quiet", "--message", "x")
    states = []
    for path, text in (
        (tmp_path / "notes.txt", "beside the workflow"),
        (scripts / "new_probe.py", ""),
        (scripts / "train.py", "x = 2\n"),
    ):
        files.write_text(path, text)
        provenance.git_state.cache_clear()
        states.append(provenance.git_state())
        if path.name != "train.py":
            path.unlink()
    provenance.git_state.cache_clear()
    assert states == [{"commit": git("rev-parse", "HEAD"), "dirty": dirty} for dirty in (False, True, True)]


def test_a_record_that_was_altered_says_so(tmp_path: Path) -> None:
    spec = {"k": 30, "code": {"files": ["probe.py"], "digest": code_digest.code_digest("probe.py")}}
    args = argparse.Namespace(spec=spec, threads=2)
    provenance.write(tmp_path / "x.provenance.json", args, inputs=[], results=[], seconds={10: 1.5, 9: 0.1})
    record = files.read_json(tmp_path / "x.provenance.json")
    assert provenance.faults(record) == []
    for key in record:
        changed = record | {key: "another"}
        assert provenance.faults(changed), key


def test_energy_is_read_where_it_can_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(provenance, "RAPL", tmp_path)
    assert provenance.energy() == {}
    for package in ("intel-rapl:0", "intel-rapl:1", "intel-rapl:0:0"):
        files.write_text(tmp_path / package / "energy_uj", "5000000\n")
    monkeypatch.setattr(provenance, "_ENERGY", {"intel-rapl:0": 1_000_000, "intel-rapl:1": 4_000_000})
    assert provenance.energy() == {"intel-rapl:0": 5_000_000, "intel-rapl:1": 5_000_000}
    assert provenance.energy_since_start() == 5.0
    monkeypatch.setattr(provenance, "_ENERGY", {"intel-rapl:0": 9_000_000})
    assert provenance.energy_since_start() is None
