"""A real SLURM with a stand-in GPU: an experiment through sbatch, with a job cancelled and the node's daemon killed."""

from __future__ import annotations

import json
import os
import re
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from conftest import ROOT
from project import Project, same_results

pytestmark = [
    pytest.mark.slow,
    pytest.mark.xdist_group("slurm"),
]
SCRIPT = str(ROOT / "tests" / "slurm" / "slurm.sh")
DIGITS = ("digits.yaml",)
#: The profile, on a cluster without accounting and a small node, looking at its jobs every two seconds. Training and
#: extraction ask for the GPU although they compute on the CPU.
OPTIONS = (
    *("--profile", "profiles/slurm", "--jobs", "20", "--default-resources", "slurm_partition=gpu", "mem_mb=1500"),
    *("runtime=10m", "--slurm-no-account", "--slurm-init-seconds-before-status-checks", "2"),
    *("--slurm-status-command", "squeue", "--latency-wait", "20", "--config", "device=cpu"),
    *("--set-resources", "train:gpu=1", "train:gpu_model=h200", "features:gpu=1", "features:gpu_model=h200"),
    *(f"{rule}:mem_mb=1500" for rule in ("prepare", "train", "features", "probe", "measures")),
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


@pytest.fixture
def local(tmp_path: Path) -> Project:
    """The experiment, run on this machine without a cluster."""
    made = Project(tmp_path / "local")
    made.snakemake("--cores", "2", "--config", "device=cpu", overlays=DIGITS)
    return made


def ask(*words: str) -> str:
    return subprocess.run(words, capture_output=True, text=True, check=True).stdout


def jobs(*states: str) -> dict[str, str]:
    """Return the jobs in any of these states: number → rule and wildcards."""
    lines = ask("squeue", "--noheader", f"--states={','.join(states)}", "--format=%i|%k").splitlines()
    return {number: comment.removeprefix("rule_") for number, comment in (line.split("|", 1) for line in lines)}


def gpus_in_use() -> int:
    used = re.search(r"GresUsed=gpu:h200:(\d+)", ask("scontrol", "--details", "show", "node", "localhost"))
    assert used is not None
    return int(used[1])


def wait_until(true: Callable[[], bool], snakemake: subprocess.Popen, seconds: float = 900) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end and snakemake.poll() is None:
        if true():
            return
        time.sleep(0.2)
    if snakemake.poll() is None:
        snakemake.terminate()
    raise AssertionError(f"this never happened: {snakemake.communicate()[0]}")


def running(rule: str) -> str | None:
    """Return the number of a running job of a rule, None without one."""
    return next((number for number, what in jobs("RUNNING").items() if what.startswith(rule)), None)


def cancel_a_training(results: Path, snakemake: subprocess.Popen) -> tuple[str, Path]:
    """Cancel a training that has written a checkpoint; return the job's number and the run's folder.

    A training that ends before it is cancelled is let go: the next one is taken.
    """
    cancelled: list[tuple[str, Path]] = []

    def done() -> bool:
        number = running("train")
        what = jobs("RUNNING").get(number or "", "")
        for run in {path.parents[3] for path in results.rglob(".state/training/kept/step*.pt")}:
            if number is not None and all(word in what for word in run.relative_to(results).parts[:3]):
                subprocess.run(["scancel", number], check=False)
                wait_until(lambda number=number: number not in jobs("RUNNING", "COMPLETING"), snakemake)
                if "JobState=CANCELLED" in ask("scontrol", "show", "job", number):
                    cancelled.append((number, run))
        return bool(cancelled)

    wait_until(done, snakemake)
    return cancelled[0]


def test_an_experiment_through_sbatch_with_a_cancelled_job_and_a_killed_daemon(
    local: Project, project: Project, slurm: Path
) -> None:
    results = project.folder / "results" / "digits"
    snakemake = project.start(*OPTIONS, overlays=DIGITS)

    # One training holds the node's only GPU, the others wait for it.
    wait_until(
        lambda: any(what.startswith("train") for what in jobs("PENDING").values()) and gpus_in_use() == 1, snakemake
    )
    cancelled, trained = cancel_a_training(results, snakemake)
    assert re.search(r"gres[:/]gpu:h200[:=]1", ask("scontrol", "show", "job", cancelled))

    wait_until(lambda: running("features") is not None, snakemake)
    os.kill(int((slurm / "slurmd.pid").read_text()), 9)
    time.sleep(3)
    subprocess.run([SCRIPT, "node", str(slurm)], check=True)

    output, _ = snakemake.communicate(timeout=3000)
    assert snakemake.returncode == 0, output
    assert f"SLURM-job '{cancelled}' failed, SLURM status is: 'CANCELLED'" in output
    assert "tried again" in output
    assert len(json.loads((trained / "training.provenance.json").read_text())["sessions"]) == 2
    assert jobs("RUNNING", "PENDING", "COMPLETING") == {} and gpus_in_use() == 0
    same_results(project, local, experiment="digits")
    assert project.planned("--config", "device=cpu", overlays=DIGITS) == set()
