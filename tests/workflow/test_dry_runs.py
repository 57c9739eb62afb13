"""Every configuration plans the whole DAG, and wrong ones stop with one sentence."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from project import Project

pytestmark = pytest.mark.xdist_group("dry")

#: What is drawn once, whatever the configuration.
ONCE = {"figure": 7, "collect": 1, "claims": 1, "published": 1, "training_curves": 1, "report": 1}
#: What the demo measures beside the paper's numbers, in five runs.
BESIDE = {"measure_outputs": 5, "measure_table": 1, "beside_figure": 2, "later_claims": 1}
#: overlays → jobs. The paper: 1,057 evaluations in shards of 26 per run, and 6 runs probed in every layer; three probes each.
PLANS = {
    (): {"prepare": 3, "labels": 9, "train": 15, "features": 49, "probe": 147, "measures": 15},
    ("authors.yaml",): {"prepare": 3, "labels": 12, "train": 18, "features": 55, "probe": 165, "measures": 18},
    ("short.yaml",): {"prepare": 3, "labels": 9, "train": 15, "features": 43, "probe": 129, "measures": 15},
    ("cpu.yaml",): {"prepare": 3, "labels": 27, "train": 45, "features": 66, "probe": 198, "measures": 45},
    ("demo.yaml",): {"prepare": 1, "labels": 3, "train": 5, "features": 7, "probe": 21, "measures": 5} | BESIDE,
    ("demo.yaml", "choices.yaml"): {
        **{"prepare": 1, "labels": 3, "train": 5, "features": 7, "probe": 112, "measures": 5},
        "choices": 1,
        **BESIDE,
    },
    ("demo.yaml", "authors.yaml", "authors-demo.yaml"): {
        **{"prepare": 1, "labels": 5, "train": 7, "features": 10, "probe": 30, "measures": 7},
        **BESIDE | {"measure_outputs": 7},
    },
}


@pytest.mark.parametrize("overlays", PLANS, ids=lambda names: "+".join(names) or "config.yaml")
def test_every_configuration_plans_exactly_its_jobs(project: Project, overlays: tuple[str, ...]) -> None:
    files = tuple(f"config/{name}" for name in overlays) or ("config.yaml",)
    assert Counter(job[0] for job in project.planned(overlays=files)) == PLANS[overlays] | ONCE


def test_a_search_is_cut_into_jobs_where_it_can_be(project: Project) -> None:
    """The demo's k-NN on all of its seven shards; with a PCA, on none."""
    cut = ("--config", "shards={queries: 3}")
    counted = Counter(job[0] for job in project.planned(*cut, overlays=("config/demo.yaml",)))
    assert counted == PLANS[("demo.yaml",)] | ONCE | {"query_shard": 21}
    reduced = (*cut, "probes={knn: {pca: {components: 2}}}")
    assert (
        Counter(job[0] for job in project.planned(*reduced, overlays=("config/demo.yaml",)))
        == PLANS[("demo.yaml",)] | ONCE
    )


def test_a_wrong_key_stops_before_anything_is_written(project: Project) -> None:
    output = project.snakemake("--cores", "1", "--config", "sedes=[1]", check=False)
    assert re.search(r"unknown key 'sedes' \(did you mean 'seeds'\?\)", output)
    assert "Traceback" not in output
    assert not (project.folder / "results").exists()


def test_the_command_line_takes_what_is_in_brackets(project: Project, tmp_path: Path) -> None:
    """The README's way to use data sets that are there."""
    datasets = tmp_path / "datasets"
    datasets.mkdir()
    output = project.snakemake(
        "--dry-run",
        "--config",
        f"data={{root: {datasets}, download: false}}",
        "seeds=[3]",
        "--printshellcmds",
        overlays=("config/cpu.yaml",),
    )
    assert f"--root {datasets} --no-download" in output
    assert "labels=true-labels, seed=3" in output and "seed=0" not in output


def shown(project: Project, *arguments: str, **options: Any) -> dict[str, list[str]]:
    """Return the architectures, data sets and probes in the order in which the claims would be judged on them."""
    output = project.snakemake("--dry-run", "--printshellcmds", "claims", *arguments, **options)
    spec = json.loads(re.search(r"scripts/claims\.py --spec '(.*?)' --measures", output)[1])
    return {key: spec[key] for key in ("architectures", "datasets", "probes")}


def test_overlays_and_the_command_line_leave_the_order_as_it_is(project: Project) -> None:
    """Snakemake puts their keys first. Networks are taken from shallow to deep, the rest in the order of config.yaml."""
    assert shown(project, overlays=("config/cpu.yaml",))["architectures"] == ["mlp640", "lenet", "wrn-28-1"]
    (project.folder / "front.yaml").write_text(
        "datasets: {cifar100: {}, digits: {}, mnist: {}}\nprobes: {lr: {C: 1.0}}\n"
    )
    options = ("--config", "architectures={wrn-28-10: {}, wrn-10-1: {}}", "probes={svm: {C: 1.0}}")
    assert shown(project, *options, overlays=("front.yaml",)) == {
        "architectures": ["mlp640", "lenet", "wrn-10-1", "wrn-28-10"],
        "datasets": ["mnist", "cifar10", "cifar100", "digits"],
        "probes": ["knn", "svm", "lr"],
    }


def test_a_key_given_twice_and_an_absurd_count_stop_with_one_sentence(project: Project) -> None:
    wrong = {
        "seeds: [1]\nkeep: {}\nseeds: [2]\n": "twice.yaml: the key 'seeds' stands in line 1 and again in line 3; keep one",
        "measures: {replicates: 1000000000}\n": "measures.replicates is 1000000000, but must be at most 100000",
    }
    for text, sentence in wrong.items():
        (project.folder / "twice.yaml").write_text(text)
        output = project.snakemake("--dry-run", overlays=("twice.yaml",), check=False)
        assert sentence in output and "Traceback" not in output


def test_the_short_form_fits_a_screen_and_the_long_one_is_a_flag_away(project: Project) -> None:
    short = project.snakemake("--dry-run", overlays=("config.yaml",))
    assert len(short.splitlines()) <= 60 and re.search(r"^total +251$", short, re.MULTILINE), short
    long = project.snakemake("--dry-run", "--printshellcmds", overlays=("config.yaml",))
    assert long.count("workflow/scripts/probe.py") == 147


def test_a_figure_is_a_target_under_any_configuration(project: Project) -> None:
    jobs = project.planned("figure6", overlays=("config/demo.yaml",))
    assert {job for job in jobs if job[0] == "figure"} == {("figure", "6")} and ("claims",) not in jobs
    assert {job[0] for job in project.planned("report", overlays=("config/demo.yaml",))} >= {"claims", "report"}


def test_why_of_a_fresh_checkout_is_one_line(project: Project) -> None:
    said = project.python("workflow/scripts/results.py", "why", "--configfile", "tiny.yaml")
    assert said.returncode == 0 and said.stdout.count("\n") == 1
    assert said.stdout.startswith("No result is there yet: all 49 jobs would run")
    wrong = project.python("workflow/scripts/results.py", "why", "figur6", "--configfile", "tiny.yaml")
    assert wrong.returncode == 1 and wrong.stderr.startswith("error: there is no target 'figur6'")


def test_a_dry_run_writes_nothing(project: Project) -> None:
    project.planned()
    assert not (project.folder / "results").exists()
