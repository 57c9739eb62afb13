"""Probabilities that are kept only until they are measured: whose, what reads them, what is left of them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from conftest import ROOT
from dnn_or_knn.plan import probing
from dnn_or_knn.plan.configuration import load_overlays
from dnn_or_knn.plan.runs import create
from dnn_or_knn.plan.specifications import Jobs, Task
from dnn_or_knn.runtime import files
from dnn_or_knn.tools import disk, verify, why

TINY = ROOT / "tests" / "workflow" / "tiny.yaml"
RUN = {"dataset": "digits", "architecture": "mlp8", "labels": "random-labels", "seed": "0"}
CHOICES = {"c": {"probes": {"lr": {"C": 0.5}, "knn": {"metric": "l1"}}}}


def jobs(kept: str = "until-measured", **more: object) -> Jobs:
    config = load_overlays(TINY)
    return Jobs(create({**config, "keep": {**config["keep"], "probabilities": kept}, **more}))


def test_every_probe_but_knn_passes_and_no_specification_knows() -> None:
    keeping, passing = jobs("all", choices=CHOICES), jobs(choices=CHOICES)
    assert keeping.passing() == set() and passing.passing() == {"svm", "lr", "lr--c"}
    before, now = ({task.manifest: task for task in made.tasks} for made in (keeping, passing))
    assert {name: task.spec for name, task in before.items()} == {name: task.spec for name, task in now.items()}
    probes = {task.wildcards["probe"]: task.rule for task in now.values() if "probe" in task.wildcards}
    other = dict.fromkeys(("svm", "lr", "lr--c"), "passing_probe")
    assert probes == {"knn": "probe", "knn--c": "probe"} | other
    assert re.fullmatch(passing.staying(), "knn--c") and not re.fullmatch(passing.staying(), "lr")
    assert re.fullmatch(passing.going(), "lr--c") and not re.fullmatch(keeping.going(), "lr")


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Task]:
    """Some probes and measures of the tiny experiment on disk, those of one run; return them."""
    monkeypatch.chdir(tmp_path)
    rules = ("probe", "passing_probe", "measures", "measure_outputs")
    every = [task for task in jobs(measures={"examples": True}).tasks if task.rule in rules]
    tasks = [task for task in every if RUN.items() <= task.wildcards.items()]
    for task in tasks:
        files.write_json(Path("results/tiny", f"{task.manifest}.json"), {})
        if "probe" in task.wildcards:
            files.write_text(Path("results/tiny", task.manifest, "a.npz"), "1234")
    assert {task.rule for task in tasks} == set(rules)
    return tasks


def test_what_a_measure_has_yet_to_read_stays(made: list[Task]) -> None:
    now = jobs(measures={"examples": True})
    folders = sorted(Path("results/tiny", task.manifest) for task in made if task.rule == "passing_probe")
    assert len(folders) == 4 and sorted(probing.measured(now, set())) == folders
    assert probing.measured(jobs("all", measures={"examples": True}), set()) == []
    for task in made:
        if task.rule in ("measures", "measure_outputs"):
            manifest = Path("results/tiny", f"{task.manifest}.json")
            assert probing.measured(now, {str(manifest)}) == [], "it will be made anew"
            manifest.rename("aside")
            assert probing.measured(now, set()) == [], "it is not made yet"
            Path("aside").rename(manifest)
    assert sorted(probing.measured(jobs(), set())) == folders, "a measure that is off reads nothing"


def test_verify_misses_what_the_configuration_keeps(made: list[Task]) -> None:
    folders = {task.rule: Path("results/tiny", task.manifest) for task in made if "probe" in task.wildcards}
    for kept, lost in (("until-measured", ["probe"]), ("all", ["probe", "passing_probe"])):
        found = verify.missing(Path("results/tiny"), jobs(kept), set(folders.values()))
        assert sorted(found) == sorted(folders[rule] for rule in lost)
    for task in made:
        if "probe" in task.wildcards:
            folders[task.manifest] = Path("results/tiny", task.manifest)
            (folders[task.manifest] / "a.npz").unlink()
            folders[task.manifest].rmdir()
    assert verify.missing(Path("results/tiny"), jobs("all"), set(folders.values())) == [], "an archive holds none"


def test_disk_says_what_passes(made: list[Task], capsys: pytest.CaptureFixture[str]) -> None:
    overlay = Path("passing.yaml")
    overlay.write_text("keep: {probabilities: until-measured}\n")
    words = ["--configfile", str(TINY), str(overlay)]
    probes = jobs().config["probes"]
    assert disk.share_of({"svm", "lr"}, probes, 10) == 80 / (80 + 12 * probes["knn"]["k_max"])
    assert disk.main("disk", words) == 0
    said = capsys.readouterr().out
    assert re.search(r"Of the probes' 0\.0\d\d GB, 0\.0\d\d of probabilities are released once measured", said), said
    assert "are measured" not in said, "measures without provenance are stale, and will read them"
    assert disk.main("disk", words[:2]) == 0 and "probabilities" not in capsys.readouterr().out


def test_why_says_that_probabilities_were_released() -> None:
    folder = "results/tiny/digits/mlp8/random-labels/seed0/probes/lr/steps000000-000010"
    for reason, released in (
        (f"Missing output files: {folder}", True),
        (f"Missing output files: {folder}; Input files updated by another job: a.json, b", True),
        (f"Missing output files: {folder}.json", False),
        (f"Missing output files: {folder}, {folder}.json", False),
    ):
        assert bool(why.RELEASED.search(reason)) == released
