"""The reference results: whole, and drawn again from their archives by one command, to the same numbers."""

from __future__ import annotations

import json
import subprocess
import tarfile
from pathlib import Path

import pandas as pd
import pytest
from conftest import ROOT, SCRIPTS
from dnn_or_knn.plan.runs import create
from dnn_or_knn.runtime.files import read_json
from dnn_or_knn.tools import archive, paper_tables
from forking import python
from project import Project

REFERENCE = ROOT / "results" / "reference"
ARCHIVES = sorted(REFERENCE.glob("*.tar.gz"))
#: What is drawn of all runs, for readers without Python.
DRAWN = sorted(path.relative_to(REFERENCE) for path in REFERENCE.glob("*/*.*"))


def test_the_archives_hold_runs_alone_and_all_is_small() -> None:
    assert ARCHIVES and len(DRAWN) > 20
    assert sum(path.stat().st_size for path in REFERENCE.rglob("*") if path.is_file()) < 20e6
    for path in ARCHIVES:
        with tarfile.open(path, "r:gz") as tar:
            names = tar.getnames()
        assert not [name for name in names if name.endswith((".pt", ".npy", ".npz"))]
        assert not [name for name in names if name.split("/")[2] in archive.OF_ALL]


def test_the_documentation_holds_the_tables_that_the_archives_give(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(paper_tables, "TITLES", {})
    experiment, _ = archive.unpacked(ARCHIVES, whole=True)
    names = list(create(read_json(experiment / ".frozen.json")["config"]).runs)
    made = [experiment / name / archive.MEASURED for name in names]
    command = [python(), SCRIPTS / "collect.py", "--spec", json.dumps({"runs": names}), "--measures", *made]
    subprocess.run([*command, "--output", experiment / archive.MEASURED], check=True, capture_output=True)
    for name in ("measures.csv", "runs.csv"):
        assert (experiment / "measures" / name).read_bytes() == (REFERENCE / "measures" / name).read_bytes()
    assert paper_tables.main("tables", [str(experiment)]) == 0
    accuracies, *others = capsys.readouterr().out.strip().split("\n\nFigure")
    reproduction = (ROOT / "docs" / "reproduction.md").read_text(encoding="utf-8")
    for table in (accuracies, *others):
        assert table.partition("\n\n")[2] in reproduction, "run results.py tables on the reference, and renew the page"
    assert accuracies.partition("\n\n")[2] in (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.mark.slow
def test_one_command_draws_the_reference_again_to_the_same_numbers(project: Project) -> None:
    done = project.python("workflow/scripts/results.py", "redraw", *map(str, ARCHIVES))
    assert done.returncode == 0, done.stdout + done.stderr
    made = project.folder / "results" / "cpu"
    assert {name for name in DRAWN if not (made / name).is_file()} == set()
    tables = [name for name in DRAWN if name.suffix == ".csv"]
    assert len(tables) >= 10
    for name in tables:
        # Sums may round otherwise on another processor.
        pd.testing.assert_frame_equal(
            pd.read_csv(made / name), pd.read_csv(REFERENCE / name), rtol=1e-9, obj=name.as_posix()
        )
    assert (made / "report.html").stat().st_size > 100_000
    verified = project.python("workflow/scripts/results.py", "verify", "results/cpu")
    assert verified.returncode == 0, verified.stdout
