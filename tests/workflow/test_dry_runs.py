"""Every configuration plans the whole DAG, and wrong ones stop with one sentence."""

from __future__ import annotations

import re
from collections import Counter

import pytest
from project import Project

pytestmark = pytest.mark.xdist_group("dry")

#: What is drawn once, whatever the configuration.
ONCE = {"figure": 7, "collect": 1, "claims": 1, "published": 1, "training_curves": 1, "report": 1}
#: overlays → jobs. The paper: 1,057 evaluations in shards of 26 per run, and 6 runs probed in every layer; three probes each.
PLANS = {
    (): {"prepare": 3, "labels": 9, "train": 15, "features": 49, "probe": 147, "measures": 15},
    ("authors.yaml",): {"prepare": 3, "labels": 12, "train": 18, "features": 55, "probe": 165, "measures": 18},
    ("cpu.yaml",): {"prepare": 3, "labels": 9, "train": 15, "features": 27, "probe": 81, "measures": 15},
    ("demo.yaml",): {"prepare": 1, "labels": 3, "train": 5, "features": 7, "probe": 21, "measures": 5},
    ("demo.yaml", "choices.yaml"): {
        **{"prepare": 1, "labels": 3, "train": 5, "features": 7, "probe": 112, "measures": 5},
        "choices": 1,
    },
    ("demo.yaml", "authors.yaml", "authors-demo.yaml"): {
        **{"prepare": 1, "labels": 5, "train": 7, "features": 10, "probe": 30, "measures": 7},
    },
}


@pytest.mark.parametrize("overlays", PLANS, ids=lambda names: "+".join(names) or "config.yaml")
def test_every_configuration_plans_exactly_its_jobs(project: Project, overlays: tuple[str, ...]) -> None:
    files = tuple(f"config/{name}" for name in overlays) or ("config.yaml",)
    assert Counter(job[0] for job in project.planned(overlays=files)) == PLANS[overlays] | ONCE


def test_a_wrong_key_stops_before_anything_is_written(project: Project) -> None:
    output = project.snakemake("--cores", "1", "--config", "sedes=[1]", check=False)
    assert re.search(r"unknown key 'sedes' \(did you mean 'seeds'\?\)", output)
    assert "Traceback" not in output
    assert not (project.folder / "results").exists()


def test_the_command_line_takes_what_is_in_brackets(project: Project) -> None:
    """The README's way to use data sets that are there."""
    output = project.snakemake(
        "--dry-run", "--config", "data={root: /datasets, download: false}", "seeds=[3]", "--printshellcmds"
    )
    assert "--root /datasets --no-download" in output
    assert "labels=true-labels, seed=3" in output and "seed=0" not in output


def test_a_dry_run_writes_nothing(project: Project) -> None:
    project.planned()
    assert not (project.folder / "results").exists()
