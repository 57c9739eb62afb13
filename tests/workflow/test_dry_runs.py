"""Every configuration plans the whole DAG, and wrong ones stop with one sentence."""

from __future__ import annotations

import re
from collections import Counter

import pytest
from project import Project

pytestmark = pytest.mark.xdist_group("dry")

PAPER_JOBS = {
    "train": 15,
    "measures": 15,
    "prepare": 3,
    "figure": 7,
    "collect": 1,
    "claims": 1,
    "curves": 1,
    "report": 1,
}


def test_the_paper_plans_every_stage(project: Project) -> None:
    jobs = Counter(job[0] for job in project.planned(overlays=("config.yaml",)))
    assert {rule: jobs[rule] for rule in PAPER_JOBS} == PAPER_JOBS
    # 1,057 evaluations in shards of 10 per run, and 6 runs probed in every layer; three probes each.
    assert jobs["probe"] == 3 * jobs["features"]


@pytest.mark.parametrize(
    "overlays",
    [
        ("config/demo.yaml",),
        ("config/cpu.yaml",),
        ("config/authors.yaml",),
        ("config/demo.yaml", "config/authors.yaml", "config/authors-demo.yaml"),
        ("config/demo.yaml", "config/choices.yaml"),
    ],
    ids="+".join,
)
def test_every_overlay_plans_every_stage(project: Project, overlays: tuple[str, ...]) -> None:
    rules = {job[0] for job in project.planned(overlays=overlays)}
    assert rules >= {"prepare", "labels", "train", "features", "probe", "measures", "collect", "figure", "claims"}


def test_the_command_line_gives_lists_and_switches_too(project: Project) -> None:
    given = ("--config", "seeds=[0,1]", "data={root: elsewhere, download: false}")
    jobs = project.planned(*given)
    assert {job[-1] for job in jobs if job[0] == "train"} == {"0", "1"}


def test_a_wrong_key_stops_before_anything_is_written(project: Project) -> None:
    output = project.snakemake("--cores", "1", "--config", "sedes=[1]", check=False)
    assert re.search(r"unknown key 'sedes' \(did you mean 'seeds'\?\)", output)
    assert "Traceback" not in output
    assert not (project.folder / "results").exists()


def test_a_dry_run_writes_nothing(project: Project) -> None:
    project.planned()
    assert not (project.folder / "results").exists()
