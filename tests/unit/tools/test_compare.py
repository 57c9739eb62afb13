"""Two experiments side by side: what is in one alone, what differs, and what is missing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import published_tables
import pytest
from dnn_or_knn.runtime import files
from dnn_or_knn.runtime.errors import UserError
from dnn_or_knn.tools import compare

CLAIMS = {"one_run": False, "deciding": 4, "title": "Depth"}


def experiment(folder: Path, datasets: list[str], verdict: str, config: dict[str, Any]) -> Path:
    """Write an experiment whose curves are the published ones."""
    made = published_tables.as_tables([published_tables.published(datasets=datasets)], noise=0.0)
    (folder / "measures").mkdir(parents=True)
    published_tables.write(folder / "measures", *made)
    (folder / "claims").mkdir()
    supported = 4 if verdict == "supported" else 1
    files.write_json(
        folder / "claims" / "claims.json",
        {"claims": [{**CLAIMS, "claim": 1, "verdict": verdict, "supported": supported}]},
    )
    whole = {"config": {"experiment": folder.name, "device": folder.name, **config}}
    files.write_json(folder / "report.provenance.json", {"spec": whole})
    return folder


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    config = {"training": {"batch_size": 200, "flip": True}, "seeds": [0]}
    changed = {"training": {"batch_size": 100, "flip": None}, "seeds": [0]}
    return (
        experiment(tmp_path / "a", ["mnist"], "supported", config),
        experiment(tmp_path / "b", ["mnist", "cifar10"], "inconclusive", changed),
    )


def test_rows_are_paired_and_what_differs_is_told(pair: tuple[Path, Path]) -> None:
    accuracies, endings, verdicts, configuration = compare.tables(*map(compare.read, pair))
    by_run = dict(zip((row[0] for row in accuracies.rows), accuracies.rows, strict=True))
    runs = compare.read(pair[0]).runs
    run = runs[(runs.dataset == "mnist") & (runs.labels == "true-labels")].iloc[0]
    name = f"mnist {run.architecture} true-labels seed0"
    shown = f"{100 * run.final_test_accuracy:.2f} %"
    assert by_run[name][3:5] == [shown, shown]
    alone = next(row for name, row in by_run.items() if name.startswith("cifar10"))
    assert alone[1] == compare.MISSING and alone[2] != compare.MISSING
    assert [not row[0].startswith("mnist") for row in accuracies.rows] == accuracies.differs
    probes = {tuple(row[:2]): row for row in endings.rows}
    assert {row[1] for row in endings.rows} == {"knn", "svm", "lr"}
    row = probes[name, "knn"]
    assert row[2] == row[3] and row[2].endswith(" %") and row[4] == row[5] != compare.MISSING
    assert verdicts.rows == [["1. Depth", "supported (4 of 4)", "inconclusive (1 of 4)"]] and verdicts.differs == [True]
    assert configuration.rows == [["training.batch_size", "200", "100"], ["training.flip", "true", "null"]]


def test_the_end_is_the_last_step_of_each_run(pair: tuple[Path, Path]) -> None:
    one = compare.read(pair[0])
    table = one.measures
    chosen = table[
        (table.split == "test")
        & (table.layer == "embedding")
        & (table.model == "knn")
        & (table.labels == "true-labels")
    ]
    last = chosen[chosen.architecture == chosen.architecture.iloc[0]].sort_values("step").iloc[-1]
    _, endings, *_ = compare.tables(one, one)
    run = f"mnist {last.architecture} true-labels seed0"
    assert [row[4] for row in endings.rows if row[:2] == [run, "knn"]] == [f"{last.d_kl:.4f}"]
    assert not any(endings.differs)


def test_the_terminal_and_the_page_show_the_same(pair: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    assert compare.main("compare", [str(path) for path in pair]) == 0
    said = capsys.readouterr().out
    page = (pair[0].parent / "a-beside-b.html").read_text()
    assert "*  1. Depth  supported (4 of 4)  inconclusive (1 of 4)" in said and "a-beside-b.html" in said
    for table in compare.tables(*map(compare.read, pair)):
        for row in table.rows:
            assert all(cell.replace("'", "&#39;") in page and cell in said for cell in row)
    assert page.count("<h2") == 4 and "http" not in page.split("</style>")[1]


def test_results_that_are_not_there_are_named(pair: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"none has no measures/measures\.json; make it"):
        compare.main("compare", [str(pair[0]), str(tmp_path / "none")])
    (pair[1] / "report.provenance.json").unlink()
    with pytest.raises(UserError, match=r"neither report\.provenance\.json nor"):
        compare.main("compare", [str(path) for path in pair])
    assert not list(tmp_path.glob("*.html"))


def test_experiments_of_one_name_are_told_by_their_folders(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folders = [
        str(experiment(tmp_path / where / "demo", ["mnist"], "supported", {"seeds": [0]}))
        for where in ("before", "after")
    ]
    assert compare.main("compare", folders) == 0
    shown = capsys.readouterr().out
    assert all(f"test {folder}" in shown for folder in folders)
    assert (tmp_path / "before" / "demo-beside-demo.html").is_file()
