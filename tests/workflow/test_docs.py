"""The pages for those who go on, followed to the letter."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import torch
from conftest import ROOT
from dnn_or_knn.claims.words import VERDICTS
from project import Project

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("docs")]

STEP = re.compile(
    r"(?P<what>New\s+file|In)\s+`(?P<file>[^`]+)`(?:,\s+(?P<side>below|above)\s+`(?P<marker>[^`]+)`)?:\n\n```\w+\n(?P<text>.*?)```\n",
    re.DOTALL,
)
COMMAND = re.compile(r"^Run:\n\n```sh\n(.*?)```", re.DOTALL | re.MULTILINE)


def follow(project: Project, page: str) -> list[str]:
    """Do what a page says to the files of a checkout, and return its commands."""
    text = (ROOT / "docs" / page).read_text()
    steps = list(STEP.finditer(text))
    assert len(steps) == text.count("```python") + text.count("```yaml")
    for step in steps:
        path: Path = project.folder / step["file"]
        if step["what"] == "In":
            old = path.read_text()
            line = next(line for line in old.splitlines(keepends=True) if line.startswith(step["marker"]))
            new = line + step["text"] if step["side"] == "below" else step["text"] + line
            path.write_text(old.replace(line, new, 1))
        else:
            assert not path.exists()
            path.write_text(step["text"])
    return [line for block in COMMAND.findall(text) for line in block.splitlines()]


def run(project: Project, command: str) -> None:
    words = shlex.split(command)
    assert words[0] == "snakemake"
    at = words.index("--configfile")
    project.snakemake(*words[1:at], "--cores", "2", overlays=tuple(words[at + 1 :]))


@pytest.mark.parametrize(
    ("page", "made"),
    [
        ("add-a-data-set.md", "patches/figures/figure1.png"),
        ("add-an-architecture.md", "strided/figures/figure4.png"),
        ("add-a-probe.md", "centroid/figures/figure2.png"),
        ("add-a-measure.md", "margin/measures/margin.parquet"),
    ],
)
def test_a_page_followed_literally_works(project: Project, page: str, made: str) -> None:
    commands = follow(project, page)
    assert commands
    for command in commands:
        run(project, command)
    assert (project.folder / "results" / made).stat().st_size > 10_000
    experiment = made.split("/")[0]
    if experiment == "margin":
        margins = pd.read_parquet(project.folder / "results" / made)
        assert set(margins.split) == {"train", "test"} and len(margins) == 1797 and margins.margin.max() > 0
        return
    table = pd.read_parquet(project.folder / "results" / experiment / "measures" / "measures.parquet")
    assert table.accuracy.between(0, 1).all()
    if experiment == "centroid":
        # Class means separate digits well even on the embedding of a network that was hardly trained.
        assert table[(table.model == "centroid") & (table.split == "test")].accuracy.max() > 0.5
    if experiment == "patches":
        assert set(table.dataset) == {"patches"}
    if experiment == "strided":
        assert set(table.layer) == {"input", "embedding"}


def test_a_claim_added_literally_is_judged(finished: Project) -> None:
    before = {job[0] for job in finished.planned()}
    assert before == set()
    path = finished.folder / "workflow/scripts/dnn_or_knn/claims/paper_claims.py"
    text = path.read_text()
    try:
        follow(finished, "add-a-claim.md")
        assert {job[0] for job in finished.planned()} == {"claims", "report"}
        finished.snakemake("--cores", "2", "results/tiny/claims/claims.json")
        claims = json.loads((finished.folder / "results/tiny/claims/claims.json").read_text())["claims"]
        assert claims[0]["claim"] == 13 and claims[0]["verdict"] in VERDICTS
    finally:
        path.write_text(text)
        path.with_name("generalization.py").unlink(missing_ok=True)
        finished.snakemake("--cores", "2")


def test_the_readmes_own_figure(finished: Project) -> None:
    block = re.search(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert block
    assert len(block[1].strip().splitlines()) <= 10
    code = "import matplotlib; matplotlib.use('Agg')\n" + block[1].replace("results/demo", "results/tiny")
    done = finished.python("-c", code)
    assert done.returncode == 0, done.stderr
    assert (finished.folder / "p_same.png").stat().st_size > 10_000


def test_every_snakemake_command_of_the_readme_plans(project: Project) -> None:
    text = (ROOT / "README.md").read_text()
    lines = [line for block in re.findall(r"```\n(.*?)```", text, re.DOTALL) for line in block.splitlines()]
    lines += re.findall(r"`(snakemake [^`]*)`", text)
    commands = {tuple(shlex.split(line, comments=True)) for line in lines if line.startswith("snakemake ")}
    # A cluster's profile, and an archive's page, are tested where there is one.
    commands = {words for words in commands if not {"--profile", "--report", "--snakefile"} & {*words}}
    assert len(commands) >= 8
    for words in sorted(commands):
        at = words.index("--configfile") if "--configfile" in words else len(words)
        given = [word.replace("/datasets", str(project.folder)) for word in words[1:at]]
        project.snakemake(*given, "--dry-run", overlays=words[at + 1 :] or ("config.yaml",))


def test_every_file_and_command_that_the_readme_names_exists() -> None:
    text = (ROOT / "README.md").read_text() + "".join(p.read_text() for p in (ROOT / "docs").glob("*.md"))
    for link in re.findall(r"\]\((?!http)([^)#]+)\)", (ROOT / "README.md").read_text()):
        assert (ROOT / link).exists(), link
    for script in set(re.findall(r"workflow/scripts/\w+\.py", text)):
        assert (ROOT / script).exists(), script


def changed(text: str, page: str) -> str:
    """Return a file's text with the lines of a page's ``diff`` blocks taken out of it (-) and put in their place (+)."""
    for block in re.findall(r"```diff\n(.*?)```", page, re.DOTALL):
        for old, new in re.findall(r"((?:^-.*\n)+)((?:^\+.*\n)+)", block, re.MULTILINE):
            text = text.replace(re.sub("^-", "", old, flags=re.MULTILINE), re.sub(r"^\+", "", new, flags=re.MULTILINE))
    return text


@pytest.mark.parametrize("library", ["torchvision", "timm"])
def test_a_network_that_was_trained_elsewhere_is_asked_literally(project: Project, library: str) -> None:
    """docs/your-own-network.md: pictures in folders, a plain training of a library's ResNet-18, figures, verdicts, page."""
    pytest.importorskip(library, reason="timm is optional: envs/timm.txt")
    page = (ROOT / "docs/your-own-network.md").read_text()
    written = dict(re.findall(r"New file `([^`]+)`:\n\n```\w+\n(.*?)```\n", page, re.DOTALL))
    if library == "timm":
        written = {file: changed(text, page) for file, text in written.items()}
    assert f"network: {library}:resnet18" in written["config/mine.yaml"]
    assert ("import timm" in written["train_mine.py"]) == (library == "timm")
    for file, text in written.items():
        (project.folder / file).write_text(text)
    train, snakemake, verdicts = [line for block in COMMAND.findall(page) for line in block.splitlines()]
    subprocess.run([sys.executable, *shlex.split(train)[1:]], cwd=project.folder, check=True)
    run(project, snakemake)
    results = project.folder / "results/mine"
    table = pd.read_parquet(results / "measures/measures.parquet")
    assert set(table.architecture) == {"mine"} and set(table.step) == {0, 16, 48}
    assert {"input", "layer1", "embedding"} <= set(table.layer)
    assert not list(results.rglob("train-*.log")) and not (results / "logs/train").exists()
    trained = torch.load(project.folder / "weights/step48.pt", weights_only=True)["state_dict"]
    kept = torch.load(next(results.rglob("step000048.pt")), weights_only=True)["model"]
    assert all(torch.equal(kept[f"model.{name}"], value) for name, value in trained.items())
    assert table[(table.model == "dnn") & (table.split == "train") & (table.step == 48)].accuracy.item() > 0.5
    said = subprocess.run(
        [sys.executable, *shlex.split(verdicts)[1:]], cwd=project.folder, check=True, capture_output=True, text=True
    ).stdout
    assert said.count("inconclusive") >= 4, said  # random labels, overfitting and the alarm: no such runs
    assert "ResNet-18" in (results / "report.html").read_text()
    assert project.planned(overlays=shlex.split(snakemake)[-1:]) == set()
