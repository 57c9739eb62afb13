"""The JSON beside a result."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import pytest
from dnn_or_knn import code, files, provenance


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
    assert first["code"] == code.code_files("probe.py")
    assert first["wall_seconds"] >= 0 and first["peak_memory_bytes"] > 1e6
    assert first["libraries"]["numpy"]
    assert str(tmp_path) not in json.dumps(first)


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
