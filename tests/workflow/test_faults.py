"""Whatever dies, and whenever: run again, and the results are those of an undisturbed run."""

from __future__ import annotations

import os
import random
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from project import Project, same_results, small_disk

pytestmark = [pytest.mark.xdist_group("finished")]
RUN = "results/tiny/digits/wrn-10-1/true-labels/seed0"
#: stage → what it needs.
BEFORE = {
    "train": "results/tiny/digits/labels/true-labels/seed0/labels.json",
    "features": f"{RUN}/training.json",
    "probe": f"{RUN}/features/layers000008.json",
}
#: stage → what to ask for so that it runs last.
STAGES = {
    "train": f"{RUN}/training.json",
    "features": f"{RUN}/features/layers000008.json",
    "probe": f"{RUN}/probes/svm/layers000008.json",
}


def stage_processes(parent: int, stage: str) -> list[psutil.Process]:
    """Return the running processes of a stage's script below a process."""
    found = []
    for child in psutil.Process(parent).children(recursive=True):
        try:
            words = child.cmdline()
        except psutil.Error:
            continue
        if len(words) > 1 and words[1].endswith(f"/{stage}.py") and "python" in Path(words[0]).name:
            found.append(child)
    return found


def wait_for(stage: str, snakemake: subprocess.Popen, seconds: float = 120) -> psutil.Process:
    """Wait until a stage's script runs, and return it."""
    end = time.monotonic() + seconds
    while time.monotonic() < end and snakemake.poll() is None:
        found = stage_processes(snakemake.pid, stage)
        if found:
            return found[0]
        time.sleep(0.02)
    raise AssertionError(f"{stage} never ran: {snakemake.communicate()[0]}")


def kill_tree(parent: int) -> None:
    """Kill a process and all below it, none of them warned."""
    for process in [*psutil.Process(parent).children(recursive=True), psutil.Process(parent)]:
        try:
            process.kill()
        except psutil.NoSuchProcess:
            continue


def kill_job(snakemake: subprocess.Popen, job: psutil.Process) -> None:
    job.kill()
    snakemake.communicate()


def kill_head(snakemake: subprocess.Popen, job: psutil.Process) -> None:
    snakemake.kill()
    snakemake.communicate()
    while job.is_running() and job.status() != psutil.STATUS_ZOMBIE:
        time.sleep(0.05)


def kill_both(snakemake: subprocess.Popen, job: psutil.Process) -> None:
    kill_tree(snakemake.pid)
    snakemake.communicate()


def disturbed(
    project: Project, stage: str, kill: Callable[[subprocess.Popen, psutil.Process], None], delay: float
) -> None:
    """Run until a stage, kill something a little later, unlock, run again."""
    project.snakemake("--cores", "2", BEFORE[stage])
    snakemake = project.start("--cores", "2", "--retries", "0", STAGES[stage])
    job = wait_for(stage, snakemake)
    time.sleep(delay)
    if snakemake.poll() is None and job.is_running():
        kill(snakemake, job)
    else:
        snakemake.communicate()
    project.snakemake("--unlock")
    project.snakemake("--cores", "2", STAGES[stage])
    assert project.planned(STAGES[stage]) == set()


@pytest.mark.parametrize(("stage", "kill"), [("train", kill_job), ("probe", kill_both)])
def test_killed_once(finished: Project, project: Project, stage: str, kill: Callable) -> None:
    disturbed(project, stage, kill, random.Random(0).uniform(0.5, 3))
    same_results(project, finished, part=True)


@pytest.mark.slow
@pytest.mark.parametrize("attempt", range(2))
@pytest.mark.parametrize("kill", [kill_job, kill_head, kill_both])
@pytest.mark.parametrize("stage", STAGES)
def test_killed_at_random_moments(
    finished: Project, project: Project, stage: str, kill: Callable, attempt: int
) -> None:
    disturbed(project, stage, kill, random.Random(attempt).uniform(0, 4))
    same_results(project, finished, part=True)


def test_a_second_snakemake_is_refused_and_the_first_goes_on(finished: Project, project: Project) -> None:
    project.snakemake("--cores", "1", BEFORE["train"])
    first = project.start("--cores", "1", f"{RUN}/training.json")
    wait_for("train", first)
    second = project.start("--cores", "1", f"{RUN}/training.json", forked=True)
    output, _ = second.communicate()
    assert second.returncode and "cannot be locked" in output
    output, _ = first.communicate()
    assert first.returncode == 0, output


def test_sigterm_is_passed_on_and_the_next_run_resumes(project: Project) -> None:
    project.snakemake("--cores", "1", BEFORE["train"])
    snakemake = project.start("--cores", "1", "--retries", "0", f"{RUN}/training.json", start_new_session=True)
    job = wait_for("train", snakemake)
    while not list((project.folder / RUN / ".state").rglob("step*.pt")) and snakemake.poll() is None:
        time.sleep(0.02)  # until it trains
    if job.is_running():
        job.terminate()
    snakemake.communicate(timeout=600)
    project.snakemake("--cores", "1", f"{RUN}/training.json")


#: The run that is trained fastest.
FAST = "digits/mlp8/true-labels/seed0"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("file", "rule", "target"),
    [
        ("digits/store/train_images.npy", "train", f"{FAST}/training.json"),
        (
            f"{FAST}/features/steps000000-000010/step000000_embedding_train.npy",
            "probe",
            f"{FAST}/probes/knn/steps000000-000010.json",
        ),
        (f"{FAST}/checkpoints/step000010.pt", "features", f"{FAST}/features/steps000000-000010.json"),
    ],
)
def test_a_file_damaged_after_it_was_made_stops_what_reads_it(
    finished: Project, file: str, rule: str, target: str
) -> None:
    path = finished.folder / "results" / "tiny" / file
    before = path.read_bytes()
    middle = len(before) // 2
    try:
        path.write_bytes(before[:middle] + bytes([before[middle] ^ 0xFF]) + before[middle + 1 :])
        output = finished.snakemake(
            f"results/tiny/{target}", "--cores", "1", "--retries", "0", "--forcerun", rule, check=False
        )
        assert f"{path.name} is damaged: its SHA-256 is not the one in its manifest" in output
    finally:
        path.write_bytes(before)
        finished.snakemake("--cores", "2", f"results/tiny/{target}", "all")


@pytest.mark.slow
def test_a_clock_that_goes_backwards_confuses_nothing(finished: Project) -> None:
    """All results lie in the future; nothing is stale, and a change still runs exactly what it must."""
    tomorrow = time.time() + 86_400
    for path in (finished.folder / "results").rglob("*"):
        os.utime(path, (tomorrow, tomorrow))
    assert finished.planned() == set()
    text = (finished.folder / "tiny.yaml").read_text()
    try:
        (finished.folder / "tiny.yaml").write_text(text + "probes: {lr: {kind: logistic, C: 0.5}}\n")
        assert "files were dated in the future" in finished.snakemake("--cores", "2")
        assert finished.planned() == set()
    finally:
        (finished.folder / "tiny.yaml").write_text(text)
        finished.snakemake("--cores", "2")


@pytest.mark.slow
@pytest.mark.parametrize("megabytes", [0.1, 1, 3])
def test_a_full_disk_is_one_sentence_and_costs_nothing(finished: Project, project: Project, megabytes: float) -> None:
    with small_disk(project.folder / "results", megabytes) as remount:
        child = project.start("--cores", "1", "--retries", "0", forked=True)
        output, _ = child.communicate()
        assert child.returncode, "the disk was large enough; make it smaller"
        assert "could not be written: No space left on device; free space" in output
        assert not list((project.folder / "results").rglob("*.part"))
        remount("size=500m")
        project.snakemake("--unlock")
        project.snakemake("--cores", "2")
        same_results(project, finished)


@pytest.mark.slow
def test_a_results_folder_made_read_only_is_one_sentence(finished: Project, project: Project) -> None:
    with small_disk(project.folder / "results", 500) as remount:
        project.snakemake("--cores", "2", "results/tiny/digits/store/store.json")
        remount("ro")
        output = project.snakemake("--cores", "1", check=False)
        said = "could not be written: Read-only file system; free space or permissions there, then run again"
        assert said in output and "Traceback" not in output and "dnn_or_knn/" not in output
        remount("rw")
        project.snakemake("--unlock")
        project.snakemake("--cores", "2")
        same_results(project, finished)


def test_a_training_that_diverges_is_tried_once_and_on_a_cluster_not_trained_again(project: Project) -> None:
    """No rule has retries of its own; a profile's count for what dies, and repeat a sentence at most."""
    (project.folder / "diverges.yaml").write_text("training: {learning_rate: 1.0e+30, weight_decay: 1.0}\n")
    overlays = ("tiny.yaml", "diverges.yaml")
    log = project.folder / "results/tiny/logs/train/digits-wrn-10-1-true-labels-seed0.log"
    output = project.snakemake("--cores", "1", f"{RUN}/training.json", overlays=overlays, check=False)
    assert ": training diverged: " in output and "to try the same again" not in output
    assert "tried again" not in output and output.count("training diverged") == 1
    output = project.snakemake("--cores", "1", "--retries", "2", f"{RUN}/training.json", overlays=overlays, check=False)
    assert output.count("tried again") == 2 and "to try the same again, delete " in log.read_text()
    (project.folder / "diverges.yaml").write_text("training: {learning_rate: 0.1}\n")
    project.snakemake("--cores", "1", f"{RUN}/training.json", overlays=overlays)
