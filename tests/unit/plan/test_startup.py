"""What the Snakefile does first."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from conftest import ROOT
from dnn_or_knn.features import dumps
from dnn_or_knn.plan import startup
from dnn_or_knn.plan.specifications import Task
from dnn_or_knn.runtime import files


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ({"seeds": ["0", "1", "2"]}, {"seeds": [0, 1, 2]}),
        ({"data": {"root": "/datasets", "download": "false"}}, {"data": {"root": "/datasets", "download": False}}),
        ({"figures": {"random_layers": "null"}}, {"figures": {"random_layers": None}}),
        ({"training": {"learning_rate": "1.0e-3"}}, {"training": {"learning_rate": 0.001}}),
        ({"more": {"empty": ""}}, {"more": {"empty": None}}),
        ({"experiment": "seeds", "more": ["2026-01-01", "x: y", "[1", "1e-3"]}, "the same"),
        ({"seeds": [0], "device": True}, "the same"),
    ],
)
def test_values_from_the_command_line_are_what_they_mean_in_yaml(given, meant):
    assert startup.as_in_a_file(given) == (given if meant == "the same" else meant)


def test_only_the_head_forces_what_is_stale(monkeypatch: pytest.MonkeyPatch) -> None:
    """A remote job parses the Snakefile too, when the results that it reads are still being made."""
    monkeypatch.setattr(startup, "found_stale", lambda jobs: [(Task("train", {}, "{}", "x/training"), ["value"])])
    jobs = SimpleNamespace(results="results/toy")
    for main, triggers, forced in (
        (True, {"params", "mtime"}, {"results/toy/x/training.provenance.json"}),
        (True, {"mtime"}, set()),
        (False, {"params"}, set()),
    ):
        dag = SimpleNamespace(forcefiles=set())
        workflow = SimpleNamespace(is_main_process=main, rerun_triggers=triggers, dag=dag)
        assert startup.forcing(jobs, workflow)(None) == []
        assert dag.forcefiles == forced


@pytest.mark.parametrize(
    ("device", "local", "here", "beside", "training", "probe"),
    [
        ("auto", True, 1, 2, (1,), (0, 1)),  # a workstation: a place beside the training
        ("auto", True, 1, 0, (1,), (1, 0)),  # a small card: a training's
        ("auto", True, 0, 2, (0,), (0, 0)),  # no card
        ("cuda", True, 0, 2, (1,), (0, 1)),  # none is seen here, and the job will say so
        ("auto", False, 0, 2, (1,), (1, 0)),  # a cluster: a GPU each
        ("cpu", False, 1, 2, (0,), (0, 0)),
    ],
)
def test_probes_ask_for_a_place_of_their_own_on_a_workstation(
    device: str,
    local: bool,
    here: int,
    beside: int,
    training: tuple[int, ...],
    probe: tuple[int, ...],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(startup, "local_gpus", lambda: here)

    def asked(resources: dict[str, Any], *names: str) -> tuple[int, ...]:
        return tuple(resources[name](None) if callable(resources[name]) else resources[name] for name in names)

    of_training, of_probe = startup.gpu(device, lambda: local, beside)
    assert asked(of_training, "gpu") == training
    assert asked(of_probe, "gpu", "gpu_place") == probe


def test_features_that_lie_there_wait_for_a_probe_that_is_to_run_again(tmp_path: Path) -> None:
    """Such as one whose search is cut into pieces, which leave no marks: another probe would take the features away."""
    waiting, free = (tmp_path / f"digits/mlp8/true-labels/seed0/features/steps00000{n}-000009.json" for n in (0, 9))
    for manifest in (waiting, free):
        dumps.folder_of(manifest).mkdir(parents=True)
    dumps.await_readers(waiting, ["lr", "dropped"])
    readers = {(manifest, reader) for manifest in (waiting, free) for reader in ("knn", "lr")}
    assert startup._awaited(tmp_path, readers) == []
    dumps.done_reading(waiting, "lr")
    assert dumps.folder_of(waiting).is_dir(), "the k-NN has yet to read them"
    dumps.done_reading(waiting, "knn")
    assert not dumps.folder_of(waiting).exists()
    assert dumps.folder_of(free).is_dir() and not dumps.marks_of(free).exists(), "features that nobody marked are kept"
    assert startup._awaited(tmp_path, readers) == [] and not dumps.marked(tmp_path), (
        "nothing waits for what is not there"
    )


def test_make_clean_keeps_the_records_of_what_it_keeps(tmp_path: Path) -> None:
    shutil.copy2(ROOT / "Makefile", tmp_path)
    kept = [tmp_path / ".snakemake/metadata/x", tmp_path / "results/paper/report.html"]
    for path in (*kept, tmp_path / "results/demo/report.html"):
        files.write_text(path, "")
    subprocess.run(["make", "--silent", "clean"], cwd=tmp_path, check=True)
    left = {path for path in tmp_path.rglob("*") if path.is_file()}
    assert left == {*kept, tmp_path / "Makefile"}
