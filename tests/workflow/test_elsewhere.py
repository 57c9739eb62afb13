"""Run from another folder, as a module of another workflow, and under the profiles of a cluster and of a lab."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from project import Project

pytestmark = pytest.mark.xdist_group("dry")

LABELS = "results/tiny/digits/labels/true-labels/seed0/labels.json"
TRAINING = "results/tiny/digits/mlp8/true-labels/seed0/training.json"
MODULE = """
module paper:
    snakefile: "{folder}/Snakefile"
{more}
use rule * from paper as paper_*

rule mine:
    default_target: True
    input: rules.paper_labels.output.manifest.format(dataset="digits", labels="true-labels", seed=0),
    output: "mine.json",
    shell: "cp {{input}} {{output}}"
"""


def made(folder: Path) -> set[str]:
    """Return what a run left at the top of a folder."""
    return {path.name for path in folder.iterdir()} - {".snakemake"}


@pytest.mark.parametrize("how", ["--directory", "--snakefile"])
def test_from_another_folder_results_lie_under_the_working_directory(
    project: Project, tmp_path: Path, how: str
) -> None:
    before, elsewhere = made(project.folder), tmp_path / "else where"
    elsewhere.mkdir()
    value, cwd = (elsewhere, project.folder) if how == "--directory" else (project.folder / "Snakefile", elsewhere)
    project.snakemake(
        *("--cores", "1", how, str(value), LABELS), overlays=(str(project.folder / "tiny.yaml"),), cwd=cwd
    )
    assert (elsewhere / LABELS).is_file() and made(elsewhere) == {"results"}
    assert made(project.folder) == before


@pytest.mark.parametrize("given", ["its own", "the outer's"])
def test_as_a_module_of_another_workflow(project: Project, tmp_path: Path, given: str) -> None:
    """With its own configuration and the command line's overlay, or with one that the outer workflow gives, and a prefix."""
    outer, tiny = tmp_path / "outer", str(project.folder / "tiny.yaml")
    outer.mkdir()
    more, options = "", ["--configfile", tiny]
    if given == "the outer's":
        whole = f'configfile: "{project.folder}/config.yaml"\nconfigfile: "{tiny}"\n'
        more, options = '    config: config\n    prefix: "deep"\n', ["--config", "mine=1"]
    text = MODULE.format(folder=project.folder, more=more)
    if given == "the outer's":
        text = whole + "config = {key: value for key, value in config.items() if key != 'mine'}\n" + text
    (outer / "Snakefile").write_text(text)
    command = [sys.executable, "-m", "snakemake", "--cores", "1", *options]
    done = subprocess.run(command, cwd=outer, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "localrule paper_labels" in done.stderr and "not present in the Snakefile" not in done.stderr
    assert made(outer) == {"Snakefile", "mine.json", "results" if given == "its own" else "deep"}
    command = [*command[:5], "--dry-run", "paper_all", *options]
    done = subprocess.run(command, cwd=outer, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "paper_report" in done.stdout + done.stderr
    command[command.index("paper_all")] = "paper_figure6"
    done = subprocess.run(command, cwd=outer, capture_output=True, text=True)
    assert done.returncode == 0 and "paper_train" in done.stdout + done.stderr
    assert "paper_report" not in done.stdout + done.stderr


def submitted(project: Project, *arguments: str, tiny: dict[str, str]) -> dict[str, str]:
    """Return each rule's `sbatch` options with the cluster's profile, where every submission is refused."""
    programs, log = project.folder / "bin", project.folder / "sbatch.log"
    programs.mkdir(exist_ok=True)
    log.unlink(missing_ok=True)
    # Everything up to the command that the job runs.
    scripts = {"sbatch": f'echo "$@" | tr "\\n" " " | sed "s/ --wrap.*//" >> {log}; echo >> {log}; exit 1'}
    for name in ("sbatch", "scancel", "sinfo", "squeue", "sacct", "sacctmgr", "sshare", "scontrol"):
        (programs / name).write_text(f"#!/bin/sh\n{scripts.get(name, 'echo none')}\n")
        (programs / name).chmod(0o755)
    text = (project.folder / "tiny.yaml").read_text()
    for old, new in tiny.items():
        assert old in text
        text = text.replace(old, new)
    (project.folder / "tiny.yaml").write_text(text)
    environment = {**os.environ, "PATH": f"{programs}:{os.environ['PATH']}", "PYTHONDONTWRITEBYTECODE": "1"}
    for name in list(environment):
        if name.startswith(("SLURM_", "SBATCH_")):
            del environment[name]
    # What is refused is not to be waited for.
    hasty = ("--retries", "0", "--slurm-init-seconds-before-status-checks", "1", "--latency-wait", "1")
    project.snakemake("--profile", "profiles/slurm", *hasty, *arguments, check=False, env=environment)
    lines = log.read_text() if log.exists() else ""
    return {line.split("rule_")[-1].split("_")[0]: line for line in lines.splitlines() if line.strip()}


def test_a_partial_option_drops_nothing_that_the_clusters_profile_asks_for(project: Project) -> None:
    """Neither `--config` nor `--set-resources` of one rule: a GPU of the type, on its partition, with all threads."""
    project.snakemake("--cores", "1", LABELS)
    options = ("--set-resources", "features:mem_mb=100", "--config", "seeds=[0]", "measures={replicates: 21}")
    asked = submitted(
        project, TRAINING, *options, tiny={"device: cpu": "device: auto", "train_threads: 1": "train_threads: 64"}
    )
    for words in ("--gpus=h200:1", "-p gpu", "--cpus-per-task=64"):
        assert words in asked["train"], asked


def test_only_an_explicit_cpu_asks_for_no_gpu(project: Project) -> None:
    project.snakemake("--cores", "1", LABELS)
    train = submitted(project, TRAINING, tiny={})["train"]
    assert "gpu" not in train.split("rule_train")[1] and "-p cpu" in train


def test_preparation_asks_for_no_gpu_and_runs_where_snakemake_does_if_it_may_download(project: Project) -> None:
    store = "results/tiny/digits/store/store.json"
    asked = submitted(project, store, tiny={"device: cpu": "device: cuda"})["prepare"]
    assert "gpu" not in asked.split("rule_prepare")[1] and "-p cpu" in asked
    assert submitted(project, store, tiny={"download: false": "download: true"}) == {}
    assert (project.folder / store).is_file()


def test_a_labs_own_profile_is_not_overridden(project: Project) -> None:
    lab = project.folder / "lab"
    lab.mkdir()
    (lab / "profile.yaml").write_text("cores: 1\nprintshellcmds: true\n")
    text = (project.folder / "tiny.yaml").read_text().replace("train_threads: 1", "train_threads: 9")
    (project.folder / "tiny.yaml").write_text(text)
    output = project.snakemake("--profile", "lab", LABELS)
    assert "Provided cores: 1 " in output and "workflow/scripts/labels.py" in output
