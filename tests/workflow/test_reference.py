"""The reference results: whole, and drawn again from their archive by one command, to the same numbers."""

from __future__ import annotations

import tarfile
from pathlib import Path

import pandas as pd
import pytest
from conftest import ROOT
from dnn_or_knn.tools import paper_tables
from project import Project

REFERENCE = ROOT / "results" / "reference"
ARCHIVE = REFERENCE / "cpu.tar.gz"
#: What lies beside the archive, for readers without Python: the archive's own files.
COPIES = sorted(
    path for path in REFERENCE.rglob("*") if path.suffix in (".png", ".csv", ".md") and path.name != "README.md"
)


def test_the_copies_are_the_archives_files_and_all_is_small() -> None:
    assert sum(path.stat().st_size for path in REFERENCE.rglob("*") if path.is_file()) < 20e6
    with tarfile.open(ARCHIVE, "r:gz") as tar:
        names = set(tar.getnames())
        assert COPIES and not [name for name in names if name.endswith((".pt", ".npy", ".npz"))]
        for path in COPIES:
            file = tar.extractfile(f"results/cpu/{path.relative_to(REFERENCE).as_posix()}")
            assert file is not None and file.read() == path.read_bytes(), path


def test_the_documentation_holds_the_tables_that_the_archive_gives(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(paper_tables, "TITLES", {})
    with tarfile.open(ARCHIVE, "r:gz") as tar:
        wanted = [m for m in tar.getmembers() if m.name.startswith("results/cpu/measures/") or "/report.p" in m.name]
        tar.extractall(tmp_path, wanted, filter="data")
    assert paper_tables.main("tables", [str(tmp_path / "results" / "cpu")]) == 0
    accuracies, *others = capsys.readouterr().out.strip().split("\n\nFigure")
    reproduction = (ROOT / "docs" / "reproduction.md").read_text(encoding="utf-8")
    for table in (accuracies, *others):
        assert table.partition("\n\n")[2] in reproduction, "run results.py tables on the reference, and renew the page"
    assert accuracies.partition("\n\n")[2] in (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.mark.slow
def test_one_command_draws_the_reference_again_to_the_same_numbers(project: Project) -> None:
    done = project.python("workflow/scripts/results.py", "redraw", str(ARCHIVE))
    assert done.returncode == 0, done.stdout + done.stderr
    made = project.folder / "results" / "cpu"
    with tarfile.open(ARCHIVE, "r:gz") as tar:
        tables = [
            name for name in tar.getnames() if Path(name).parent.name in ("figures", "claims") and name.endswith(".csv")
        ]
        assert len(tables) >= 10
        for name in tables:
            file = tar.extractfile(name)
            assert file is not None
            # Sums may round otherwise on another processor.
            pd.testing.assert_frame_equal(pd.read_csv(project.folder / name), pd.read_csv(file), rtol=1e-9, obj=name)
    assert (made / "report.html").stat().st_size > 100_000
    verified = project.python("workflow/scripts/results.py", "verify", "results/cpu")
    assert verified.returncode == 0, verified.stdout
