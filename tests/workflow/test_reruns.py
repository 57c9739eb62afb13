"""The rerun matrix: change X, and exactly these jobs are stale."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import pytest
import yaml
from project import Job, Project

pytestmark = pytest.mark.xdist_group("finished")

LIBRARY = "workflow/scripts/dnn_or_knn"
FIGURES = {("figure", str(number)) for number in range(1, 8)}
#: What is drawn from the experiment's table, whatever changes in it.
ENDS = FIGURES | {("collect",), ("claims",), ("beside",), ("report",)}
STAGES = ("prepare", "labels", "train", "features", "probe", "measures")
Jobs = set[Job]
Change = Callable[[Project], AbstractContextManager[object]]


@contextmanager
def replaced(path: Path, text: str) -> Iterator[None]:
    """Give a file other text for a while."""
    before = path.read_text()
    path.write_text(text)
    try:
        yield
    finally:
        path.write_text(before)


def edit(file: str, pattern: str, new: str) -> Change:
    """Return the change that replaces the first match of a pattern in a file."""

    def change(project: Project) -> AbstractContextManager[object]:
        path = project.folder / file
        text, count = re.subn(pattern, new, path.read_text(), count=1, flags=re.MULTILINE)
        assert count == 1, f"{file} has no {pattern}"
        return replaced(path, text)

    return change


def append(file: str, text: str) -> Change:
    """Return the change that adds text at the end of a file."""
    return lambda project: replaced(project.folder / file, (project.folder / file).read_text() + text)


def configure(change: Callable[[dict[str, Any]], object]) -> Change:
    """Return a change of the tiny configuration."""

    def apply(project: Project) -> AbstractContextManager[object]:
        config = yaml.safe_load((project.folder / "tiny.yaml").read_text())
        change(config)
        return replaced(project.folder / "tiny.yaml", yaml.safe_dump(config, sort_keys=False))

    return apply


def of_block(position: int, **values: object) -> Change:
    return configure(lambda config: config["runs"][position].update(values))


def key(path: str, value: object) -> Change:
    """Return the change of one key, named with dots, of the configuration."""

    def change(config: dict[str, Any]) -> None:
        *parents, last = path.split(".")
        for name in parents:
            config = config.setdefault(name, {})
        config[last] = value

    return configure(change)


def remove(file: str) -> Change:
    """Return the change that takes a file or folder of the results away for a while."""

    @contextmanager
    def change(project: Project) -> Iterator[None]:
        path, aside = project.folder / "results" / "tiny" / file, project.folder / "aside"
        assert path.exists(), file
        path.rename(aside)
        try:
            yield
        finally:
            aside.rename(path)

    return lambda project: change(project)


def of(jobs: Jobs, *rules: str, has: str = "") -> Jobs:
    """Return the jobs of some rules, or those of them with one value among their wildcards."""
    return {job for job in jobs if job[0] in rules and (not has or has in job)}


def after(jobs: Jobs, stage: str, *having: str) -> Jobs:
    """Return a stage's jobs that have all these wildcard values, and what follows from them."""
    stages = STAGES[STAGES.index(stage) :]
    return {job for job in jobs if job[0] in stages and set(having) <= set(job)} | ENDS


CURVES = {("curves",)}
MLP, WRN = "mlp8", "wrn-10-1"
#: name → (the change, the stale jobs out of all jobs of the changed workflow).
MATRIX: dict[str, tuple[Change, Callable[[Jobs], Jobs]]] = {
    # Nothing that determines a result.
    "nothing": (lambda project: nullcontext(), lambda jobs: set()),
    "a comment in the training": (append(f"{LIBRARY}/training.py", "\n# A remark.\n"), lambda jobs: set()),
    "a docstring of a probe": (edit(f"{LIBRARY}/probes/knn.py", r'\A"""', '"""Indeed: '), lambda jobs: set()),
    "formatting": (append("workflow/scripts/train.py", "\n\n\n"), lambda jobs: set()),
    "the registry": (append(f"{LIBRARY}/registry.py", '\nDATASETS["svhn"] = {}\n'), lambda jobs: set()),
    "threads": (key("jobs.train_threads", 2), lambda jobs: set()),
    "the interval of saves": (key("jobs.save_every", 77), lambda jobs: set()),
    "the data folder": (key("data.root", "elsewhere"), lambda jobs: set()),
    "the order of keys": (
        lambda project: replaced(
            project.folder / "tiny.yaml",
            yaml.safe_dump(yaml.safe_load((project.folder / "tiny.yaml").read_text()), sort_keys=True),
        ),
        lambda jobs: set(),
    ),
    # Configuration.
    "k": (
        configure(lambda c: c.update(probes={"knn": {"kind": "knn", "k": 20}})),
        lambda jobs: of(jobs, "measures") | ENDS,
    ),
    "C of the logistic regression": (
        configure(lambda c: c.update(probes={"lr": {"kind": "logistic", "C": 0.5}})),
        lambda jobs: of(jobs, "probe", has="lr") | of(jobs, "measures") | ENDS,
    ),
    "the metric of the k-NN": (
        configure(lambda c: c.update(probes={"knn": {"kind": "knn", "metric": "l1"}})),
        lambda jobs: of(jobs, "probe", has="knn") | of(jobs, "measures") | ENDS,
    ),
    "bootstrap replicates": (key("measures.replicates", 21), lambda jobs: of(jobs, "measures") | ENDS),
    "one learning rate": (
        of_block(1, training={"learning_rate": 0.05}),
        lambda jobs: after(jobs, "train", WRN) | CURVES,
    ),
    "the batch size": (key("training.batch_size", 40), lambda jobs: after(jobs, "train") | CURVES),
    "one run's steps": (of_block(2, steps=25), lambda jobs: after(jobs, "train", "random-labels") | CURVES),
    "the evaluation interval": (of_block(1, evaluate_every=2), lambda jobs: after(jobs, "train", WRN) | CURVES),
    "an option of one network": (
        key(f"architectures.{WRN}", {"shortcut": "pool"}),
        lambda jobs: after(jobs, "train", WRN) | CURVES,
    ),
    "the features of the input layer": (
        key("layer_input", "mean"),
        lambda jobs: after(jobs, "features"),
    ),
    "the look of the figures": (key("figures.style", {"dpi": 100}), lambda jobs: FIGURES | CURVES | {("report",)}),
    # Extending.
    "a new seed": (
        key("seeds", [0, 1]),
        lambda jobs: {job for job in jobs if "1" in job and job[0] in STAGES} | ENDS | CURVES,
    ),
    "a new run": (
        configure(lambda c: c["runs"].append({**c["runs"][2], "architectures": [WRN]})),
        lambda jobs: {job for job in jobs if {WRN, "random-labels"} <= set(job)} | ENDS | CURVES,
    ),
    "a new probe": (
        configure(lambda c: c.update(probes={"cosine": {"kind": "knn", "metric": "cosine"}})),
        lambda jobs: of(jobs, "probe", has="cosine") | of(jobs, "measures") | ENDS,
    ),
    "every layer of one more network": (
        of_block(0, layers="all"),
        lambda jobs: (
            of(jobs, "features", "probe", has="layers000030")
            | {job for job in of(jobs, "measures", has=MLP) if "true-labels" in job}
            | ENDS
        ),
    ),
    # Code.
    "the training's code": (append(f"{LIBRARY}/training.py", "\nX = 1\n"), lambda jobs: after(jobs, "train") | CURVES),
    "one network's code": (
        append(f"{LIBRARY}/networks/mlp.py", "\nX = 1\n"),
        lambda jobs: after(jobs, "train", MLP) | CURVES,
    ),
    "one probe's code": (
        append(f"{LIBRARY}/probes/svm.py", "\nX = 1\n"),
        lambda jobs: of(jobs, "probe", has="svm") | of(jobs, "measures") | ENDS,
    ),
    "one figure's code": (
        append(f"{LIBRARY}/figures/figure5.py", "\nX = 1\n"),
        lambda jobs: {("figure", "5"), ("report",)},
    ),
    "the measures' code": (append(f"{LIBRARY}/measures.py", "\nX = 1\n"), lambda jobs: of(jobs, "measures") | ENDS),
    "the claims' code": (append(f"{LIBRARY}/claims.py", "\nX = 1\n"), lambda jobs: {("claims",), ("report",)}),
    "the report's code": (append("workflow/scripts/report.py", "\nX = 1\n"), lambda jobs: {("report",)}),
    # Results that go missing or change.
    "a deleted figure": (remove("figures/figure3.pdf"), lambda jobs: {("figure", "3"), ("report",)}),
    "a deleted run's table, already read": (
        remove(f"digits/{MLP}/random-labels/seed0/measures/measures.parquet"),
        lambda jobs: set(),
    ),
    "weights deleted": (
        remove(f"digits/{WRN}/true-labels/seed0/checkpoints"),
        lambda jobs: set(),
    ),
}


@pytest.mark.parametrize("name", MATRIX)
def test_a_change_makes_exactly_these_jobs_stale(finished: Project, name: str) -> None:
    change, expected = MATRIX[name]
    with change(finished):
        stale = finished.planned()
        assert stale == expected(finished.planned("--forceall"))


def test_the_matrix_is_large_enough() -> None:
    assert len(MATRIX) >= 25


def test_probing_again_extracts_again_but_never_trains(finished: Project) -> None:
    """Where features are let go once probed, they are missed only by a changed probe, which never retrains."""
    shard = f"digits/{WRN}/true-labels/seed0/features/layers000008"
    gone = key("keep.features", "until-probed")
    changed = configure(lambda c: c.update(probes={"lr": {"kind": "logistic", "C": 0.5}}, keep={}))
    with remove(shard)(finished):
        with gone(finished):
            # The page shows the configuration.
            assert finished.planned() == {("report",)}
        with changed(finished):
            planned = finished.planned()
    assert ("features", "digits", WRN, "true-labels", "0", "layers000008") in planned
    assert not of(planned, "train", "prepare", "labels")


def test_touching_everything_is_nothing_to_do(finished: Project) -> None:
    for path in sorted(finished.folder.rglob("*")):
        if path.is_file() and ".snakemake" not in path.parts:
            os.utime(path)
    assert finished.planned() == set()


def test_moving_the_checkout_is_nothing_to_do(finished: Project, tmp_path: Path) -> None:
    moved = tmp_path / "elsewhere"
    shutil.copytree(finished.folder, moved, symlinks=True)
    there = object.__new__(Project)
    there.folder = moved
    assert there.planned() == set()


def test_checking_out_another_branch_and_back_is_nothing_to_do(finished: Project) -> None:
    scripts = finished.folder / "workflow"
    shutil.copytree(scripts, finished.folder / "branch")
    shutil.rmtree(scripts)
    shutil.copytree(finished.folder / "branch", scripts, copy_function=shutil.copyfile)
    shutil.rmtree(finished.folder / "branch")
    assert finished.planned() == set()


def test_why_names_the_value_and_the_file(finished: Project) -> None:
    with MATRIX["one learning rate"][0](finished):
        said = finished.python("workflow/scripts/why.py", "--configfile", "tiny.yaml").stdout
    assert "training.learning_rate: 0.1 -> 0.05" in said
    with MATRIX["one probe's code"][0](finished):
        said = finished.python("workflow/scripts/why.py", "--configfile", "tiny.yaml").stdout
    assert "code dnn_or_knn/probes/svm.py" in said
    said = finished.python("workflow/scripts/why.py", "--configfile", "tiny.yaml").stdout
    assert said == "Nothing to be done: every result is up to date.\n"
