"""Configuration or code edited while a run is in flight never mixes old and new."""

from __future__ import annotations

import json
import subprocess
import time
from pathlib import Path

import pytest
from project import Project, same_results

pytestmark = [
    pytest.mark.slow,
    pytest.mark.xdist_group("finished"),
]
#: Runs every job through a new Snakemake that parses the workflow again, as a cluster's node does.
REMOTE = (
    *("--executor", "cluster-generic", "--cluster-generic-submit-cmd", "sh -c '\"$0\" >> jobs.log 2>&1 & echo $!'"),
    *("--cluster-generic-status-cmd", "./status.sh", "--jobs", "2", "--latency-wait", "10", "--retries", "0"),
    *("--seconds-between-status-checks", "1"),
)
STATUS = """#!/bin/sh
# A job that runs is running; how one ended, Snakemake reads off the marks that the job leaves.
kill -0 "$1" 2>/dev/null && echo running || echo success
"""


def start(project: Project, *targets: str) -> subprocess.Popen:
    status = project.folder / "status.sh"
    status.write_text(STATUS)
    status.chmod(0o755)
    return project.start(*REMOTE, "--max-status-checks-per-second", "5", *targets, forked=True)


def wait_until(path: Path, child: subprocess.Popen) -> None:
    while child.poll() is None and not path.exists():
        time.sleep(0.1)
    assert path.exists()


def test_a_configuration_edited_in_flight_is_not_used(finished: Project, project: Project) -> None:
    child = start(project)
    wait_until(project.folder / "results/tiny/digits/store/store.json", child)
    text = (project.folder / "tiny.yaml").read_text()
    edited = text.replace("batch_size: 50", "batch_size: 40").replace("experiment: tiny", "experiment: other")
    (project.folder / "tiny.yaml").write_text(edited)
    output, _ = child.communicate()
    assert child.returncode == 0, output
    for path in (project.folder / "results").rglob("training.provenance.json"):
        if path.parent.name.startswith("seed"):
            assert json.loads(path.read_text())["spec"]["training"]["batch_size"] == 50
    same_results(project, finished)
    assert {job[0] for job in project.planned()} >= {"train"}
    (project.folder / "tiny.yaml").write_text(text)
    assert project.planned() == set()


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("scripts/dnn_or_knn/training/run.py", "\nX = 1\n"),
        ("scripts/dnn_or_knn/plan/registry.py", "\nREAD_OFF = ()\n"),
        ("resources/published.yaml", "\nmore: [1]\n"),
        ("rules/train.smk", "\n# A remark.\n"),
    ],
)
def test_code_edited_in_flight_stops_the_jobs_and_says_so(project: Project, file: str, text: str) -> None:
    child = start(project, "results/tiny/digits/mlp8/true-labels/seed0/training.json")
    wait_until(project.folder / "results/tiny/digits/store/store.json", child)
    path = project.folder / "workflow" / file
    path.write_text(path.read_text() + text)
    child.communicate()
    assert child.returncode
    said = "the code under workflow/ changed while Snakemake was running; stop it and start it again"
    assert said in (project.folder / "jobs.log").read_text()
    assert not list((project.folder / "results").rglob("training.json"))


@pytest.mark.parametrize("file", ["measures/formulas.py", "runtime/files.py"])
def test_code_edited_under_a_local_run_stops_the_jobs_and_says_so(project: Project, file: str) -> None:
    child = project.start("--cores", "1", "--retries", "0", forked=True)
    wait_until(project.folder / "results/tiny/digits/store/store.json", child)
    path = project.folder / "workflow/scripts/dnn_or_knn" / file
    path.write_text(path.read_text() + "\nX = 1\n")
    output, _ = child.communicate()
    assert child.returncode
    assert "the code of this job changed after Snakemake started; run again" in output
