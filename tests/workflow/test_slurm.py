"""A real SLURM with a stand-in GPU: the whole DAG through sbatch, with jobs cancelled and the node's daemon killed."""

from __future__ import annotations

import os
import re
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import ROOT
from project import Project, same_results

pytestmark = [
    pytest.mark.slow,
    pytest.mark.xdist_group("finished"),
]
SCRIPT = str(ROOT / "tests" / "slurm" / "slurm.sh")
#: The profile's executor, on a partition without accounting, looking at its jobs every two seconds.
OPTIONS = (
    *("--profile", "profiles/slurm", "--jobs", "4", "--default-resources", "slurm_partition=gpu", "mem_mb=1500"),
    *("runtime=10m", "--slurm-no-account", "--slurm-init-seconds-before-status-checks", "2"),
    *("--slurm-status-command", "squeue", "--latency-wait", "20", "--config", "device=cpu"),
    *("--set-resources", "train:gpu=1", "train:mem_mb=1500", "features:mem_mb=1500", "probe:mem_mb=1500"),
    *("measures:mem_mb=1500", "prepare:mem_mb=1500"),
)


@pytest.fixture(scope="module")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    if os.geteuid():
        pytest.skip("starting SLURM's daemons needs root")
    folder = tmp_path_factory.mktemp("slurm")
    started = subprocess.run([SCRIPT, "start", str(folder)], capture_output=True, text=True)
    if started.returncode == 77:
        pytest.skip("SLURM is not installed here and could not be installed")
    assert started.returncode == 0, started.stdout + started.stderr
    os.environ["SLURM_CONF"] = str(folder / "slurm.conf")
    yield folder
    subprocess.run([SCRIPT, "stop", str(folder)], check=False)


def queue(*words: str) -> str:
    return subprocess.run(["squeue", "--noheader", *words], capture_output=True, text=True, check=True).stdout


def wait_for_job(rule: str, snakemake: subprocess.Popen, seconds: float = 180) -> str:
    """Wait until a job of a rule runs, and return its id."""
    end = time.monotonic() + seconds
    while time.monotonic() < end and snakemake.poll() is None:
        for line in queue("--states=RUNNING", "--format=%i|%k").splitlines():
            number, comment = line.split("|", 1)
            if comment.startswith(f"rule_{rule}"):
                return number
        time.sleep(0.3)
    raise AssertionError(f"no job of {rule} ever ran")


def test_the_dag_through_sbatch_with_a_cancelled_job_and_a_killed_daemon(
    finished: Project, project: Project, slurm: Path
) -> None:
    snakemake = project.start(*OPTIONS)
    cancelled = wait_for_job("train", snakemake)
    shown = subprocess.run(["scontrol", "show", "job", cancelled], capture_output=True, text=True, check=True).stdout
    assert re.search(r"gres[:/]gpu[:=]1", shown)
    time.sleep(2)
    subprocess.run(["scancel", cancelled], check=True)
    wait_for_job("features", snakemake)
    daemon = int((slurm / "slurmd.pid").read_text())
    os.kill(daemon, 9)
    time.sleep(3)
    subprocess.run([SCRIPT, "node", str(slurm)], check=True)
    output, _ = snakemake.communicate(timeout=1500)
    assert snakemake.returncode == 0, output
    assert queue() == ""
    same_results(project, finished)
    assert project.planned() == set()
