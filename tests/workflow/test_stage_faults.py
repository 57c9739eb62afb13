"""Each stage alone: on a disk that is full at any of its writes, on inputs that were damaged, killed at any moment."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import time
from pathlib import Path
from typing import NamedTuple

import pytest
from forking import python
from project import Project, small_disk

pytestmark = [
    pytest.mark.slow,
    pytest.mark.xdist_group("stages"),
]
RUN = "results/tiny/digits/mlp8/true-labels/seed0"
#: What each stage is asked for: its manifest.
STAGES = {
    "prepare": "results/tiny/digits/store/store.json",
    "labels": "results/tiny/digits/labels/random-labels/seed0/labels.json",
    "train": f"{RUN}/training.json",
    "features": f"{RUN}/features/steps000000-000010.json",
    "knn": f"{RUN}/probes/knn/steps000000-000010.json",
    "svm": f"{RUN}/probes/svm/steps000000-000010.json",
    "lr": f"{RUN}/probes/lr/steps000000-000010.json",
    "measures": f"{RUN}/measures/measures.json",
    "collect": "results/tiny/measures/measures.json",
    "figure": "results/tiny/figures/figure1.json",
    "training_curves": "results/tiny/figures/training.json",
    "claims": "results/tiny/claims/claims.json",
    "published": "results/tiny/claims/published.json",
    "report": "results/tiny/report.json",
}
FULL = re.compile(
    r"error: (\S+) could not be written: No space left on device; free space or permissions there, then run again\n"
)


class Job(NamedTuple):
    """One job as Snakemake would run it; paths are relative to the checkout."""

    words: list[str]
    inputs: list[str]
    outputs: list[str]


@pytest.fixture(scope="module")
def jobs(finished: Project) -> dict[str, Job]:
    """Return each stage's job, as a dry run prints it."""
    found = {}
    output = finished.snakemake("--dry-run", "--printshellcmds", "--forceall")
    for block in re.split(r"\n(?=(?:local)?rule )", output):
        fields = dict(re.findall(r"^    (input|output): (.*)$", block, re.MULTILINE))
        inputs, outputs = (fields[kind].split(", ") if kind in fields else [] for kind in ("input", "output"))
        command = re.search(r"^Shell command: (?:\w+=(?:\$\(\(.*\)\)|\S*) )*python (.*)$", block, re.MULTILINE)
        for name, manifest in STAGES.items():
            if manifest in outputs and command:
                found[name] = Job(shlex.split(command[1]), inputs, outputs)
    assert found.keys() == STAGES.keys(), output
    return found


class Runner:
    """Runs stage scripts as forks of a process that has imported all of a checkout."""

    def __init__(self, checkout: Path) -> None:
        self.python = python(checkout)

    def __call__(self, folder: Path, words: list[str], kill_after: float | None = None) -> tuple[int, str, float]:
        """Return the exit status, what the script said, and the seconds that it took."""
        started = time.monotonic()
        pipe = {"text": True, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
        with subprocess.Popen([self.python, *words], cwd=folder, **pipe) as child:
            if kill_after is not None:
                time.sleep(kill_after)
                child.kill()
            said, _ = child.communicate()  # to its last word: a fork outlives its kill by a moment
        return child.returncode, said, time.monotonic() - started


@pytest.fixture(scope="module")
def run(finished: Project) -> Runner:
    return Runner(finished.folder)


class Stage:
    """One stage's job in a checkout of its own that holds everything but its outputs."""

    def __init__(self, job: Job, finished: Project, project: Project, run: Runner) -> None:
        self.job, self.run, self.folder, self.results = job, run, project.folder, project.folder / "results"
        shutil.copytree(finished.folder / "results", self.results, dirs_exist_ok=True)
        self.wanted = self.made()
        self.forget()

    def files(self, names: list[str]) -> list[Path]:
        """Return the files, and those in the folders, that are there; Snakemake's own marks are hidden files."""
        paths = [self.folder / name for name in names]
        files = [file for path in paths for file in (path.rglob("*") if path.is_dir() else [path])]
        return [file for file in files if file.is_file() and not file.name.startswith(".")]

    def made(self) -> dict[Path, bytes]:
        """Return the outputs that are there; provenance is left out, which differs from run to run."""
        files = self.files(self.job.outputs)
        return {file: file.read_bytes() for file in files if not file.name.endswith("provenance.json")}

    def forget(self) -> None:
        """Remove outputs, logs, and the states of jobs that did not end."""
        made = [self.folder / name for name in self.job.outputs]
        for path in [*made, self.results / "tiny" / "logs", *self.results.rglob(".state")]:
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)

    def whole_or_not_there(self) -> bool:
        return self.made().items() <= self.wanted.items()

    def succeeds(self) -> float:
        """Assert that the job makes the same bytes as ever and leaves nothing else; return how long it took."""
        status, said, seconds = self.run(self.folder, self.job.words)
        assert status == 0, said
        assert self.made() == self.wanted
        assert not list(self.results.rglob("*.part"))
        return seconds


@pytest.mark.parametrize("limit", ["size", "nr_inodes"])
@pytest.mark.parametrize("name", STAGES)
def test_a_disk_that_is_full_at_any_write(
    finished: Project, project: Project, jobs: dict[str, Job], run: Runner, name: str, limit: str
) -> None:
    with small_disk(project.folder / "results", 300) as remount:
        stage = Stage(jobs[name], finished, project, run)

        failed: dict[int, str | None] = {}

        def attempt(more: int) -> str | None:
            """Run on a disk with room for so many more pages or files; return what did not fit, None if all did.

            The first time that a file does not fit, run again with room for all, from what was left.
            """
            disk = os.statvfs(stage.results)
            pages, files = disk.f_blocks - disk.f_bfree, disk.f_files - disk.f_ffree
            remount(f"size={(pages + more) * disk.f_bsize}" if limit == "size" else f"nr_inodes={files + more}")
            status, said, _ = run(stage.folder, stage.job.words)
            fault = FULL.fullmatch(said.splitlines(keepends=True)[-1]) if status else None
            assert status == 0 or (status == 2 and fault), said
            assert "Traceback" not in said
            assert not list(stage.results.rglob("*.part"))
            assert stage.whole_or_not_there()
            remount("size=300m,nr_inodes=100k")
            file = fault and fault[1]
            if file not in failed.values():
                stage.succeeds()
            stage.forget()
            return file

        def fill(low: int, high: int) -> None:
            """Try sizes in between until neighbours end at the same file: then every file that is written was the one."""
            if high - low > 1 and failed[low] != failed[high]:
                middle = (low + high) // 2
                failed[middle] = attempt(middle)
                fill(low, middle)
                fill(middle, high)

        enough = 1
        failed[0] = attempt(0)
        while (file := attempt(enough)) is not None:
            failed[enough] = file
            enough *= 2
        failed[enough] = None
        fill(0, enough)
    assert len({file for file in failed.values() if file}) >= 3, f"hardly anything failed: {failed}"


@pytest.mark.parametrize("name", [name for name in STAGES if name != "prepare"])
def test_an_input_that_was_damaged_is_named_or_makes_no_difference(
    finished: Project, project: Project, jobs: dict[str, Job], run: Runner, name: str
) -> None:
    """One bit of each array, table and picture, the end of each manifest."""
    stage = Stage(jobs[name], finished, project, run)
    noticed = []
    for file in stage.files(stage.job.inputs):
        whole = file.read_bytes()
        middle = len(whole) // 2
        damaged = whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :]
        file.write_bytes(whole[:middle] if file.suffix == ".json" else damaged)
        status, said, _ = run(stage.folder, stage.job.words)
        file.write_bytes(whole)
        if status == 0:
            assert stage.made() == stage.wanted, f"{file} was damaged, and nothing said so"
        else:
            sentence = said.splitlines()[-1]
            assert status == 2 and "Traceback" not in said, said
            assert re.match(
                rf"error: \S*{re.escape(file.name)} is (damaged|not valid JSON)\b.*; .* run again", sentence
            ), said
            assert stage.whole_or_not_there()
            noticed.append(file.name)
        stage.forget()
    assert noticed
    stage.succeeds()


@pytest.mark.parametrize("name", STAGES)
def test_killed_at_any_moment(
    finished: Project, project: Project, jobs: dict[str, Job], run: Runner, name: str
) -> None:
    stage = Stage(jobs[name], finished, project, run)
    seconds = stage.succeeds()
    for moment in (0.1, 0.3, 0.5, 0.7, 0.9):
        stage.forget()
        run(stage.folder, stage.job.words, kill_after=moment * seconds)
        assert stage.whole_or_not_there()
        stage.succeeds()
