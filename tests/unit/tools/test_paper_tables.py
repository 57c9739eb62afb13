"""The paper's tables in Markdown: what stands in each cell, over seeds, beside the published numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import published_tables
import pytest
from dnn_or_knn.measures import tables as tidy
from dnn_or_knn.runtime import files
from dnn_or_knn.runtime.errors import UserError
from dnn_or_knn.tools import paper_tables

CONFIG: dict[str, Any] = {
    "datasets": {"cifar10": {}, "mnist": {}},
    "architectures": {"lenet": {"title": "LeNet-5"}, "mlp640": {}, "wrn-28-10": {}},
    "figures": {
        "architecture": "wrn-28-10",
        "true_labels": "true-labels",
        "random_labels": "random-labels",
        "overfit_labels": "overfit",
    },
    "layer_input": "pixels",
}


@pytest.fixture(autouse=True)
def no_titles_are_left_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paper_tables, "TITLES", {})


def experiment(folder: Path, change: float | None = None) -> Path:
    """Write an experiment with the published curves; with `change`, a second seed whose accuracies lie that much lower."""
    made = published_tables.as_tables([published_tables.published(datasets=["mnist", "cifar10"])], noise=0.0)
    published_tables.write(folder / "measures", *made)
    if change is not None:
        measures, runs = tidy.read(folder / "measures"), tidy.read_runs(folder / "measures")
        other = measures.assign(seed=1, accuracy=measures.accuracy - change)
        both = pd.concat([measures, other], ignore_index=True)
        both.to_parquet(folder / "measures" / tidy.MEASURES)
        pd.concat([runs, runs.assign(seed=1, memorization_step=None)]).to_csv(
            folder / "measures" / tidy.RUNS, index=False
        )
    files.write_json(folder / "measures" / "measures.json", {})
    files.write_json(folder / "report.provenance.json", {"spec": {"config": CONFIG}})
    return folder


def test_cells_hold_the_last_step_in_the_papers_order(tmp_path: Path) -> None:
    e = paper_tables.read(experiment(tmp_path))
    table = paper_tables.accuracies(e)
    assert [row[:2] for row in table.rows[:3]] == [["MNIST", "WRN-28-10"], ["MNIST", "LeNet"], ["MNIST", "MLP-640"]]
    measures = tidy.read(tmp_path / "measures")
    cell = measures[
        (measures.dataset == "cifar10") & (measures.architecture == "lenet") & (measures.labels == "true-labels")
    ]
    cell = cell[(cell.split == "test") & (cell.layer == "embedding") & (cell.step == cell.step.max())]
    shown = [f"{100 * float(cell[cell.model == name].accuracy.iloc[0]):.2f} %" for name in ("dnn", "knn", "svm", "lr")]
    row = next(row for row in table.rows if row[:2] == ["CIFAR-10", "LeNet"])
    assert row[2:] == [*shown, "82 to 83.6 %", "83.49 %"]
    same, apart = (row for row in paper_tables.agreement(e).rows if row[:2] == ["CIFAR-10", "LeNet"])
    knn = cell[cell.model == "knn"].iloc[0]
    assert same[2:4] == ["P_SAME", f"{knn.p_same:.3f}"] and apart[2:4] == ["D_KL", f"{knn.d_kl:.3f}"]


def test_layers_stand_beside_the_authors_and_their_other_input_is_left_out(tmp_path: Path) -> None:
    made = {table.title: table for table in paper_tables.layers(paper_tables.read(experiment(tmp_path)))}
    table = made["Figure 4, MNIST, true labels, test accuracy by layer, in percent."]
    theirs = dict(zip(table.head, table.rows[0], strict=True))
    assert theirs["initial conv"] == "59.0" and theirs["embedding"] == "99.4"
    assert theirs.get("input", paper_tables.MISSING) == paper_tables.MISSING
    assert [row[0] for row in table.rows[1:]] == ["k-NN", "SVM", "LR"]
    random = made["Figure 4, MNIST, random labels, train accuracy by layer, in percent."]
    assert [row[0] for row in random.rows] == ["k-NN", "SVM", "LR"]


def test_memorization_stands_beside_the_papers(tmp_path: Path) -> None:
    e = paper_tables.read(experiment(tmp_path))
    rows = {tuple(row[:2]): row for row in paper_tables.memorization(e).rows}
    run = e.runs[(e.runs.dataset == "mnist") & (e.runs.labels == "overfit")].iloc[0]
    row = rows["MNIST", "WRN-28-10, overfit"]
    assert row[3] == f"{run.memorization_step:,.0f}" and row[-1] == "84.25 % at step 340"
    assert rows["MNIST", "WRN-28-10, random-labels"][-1] == paper_tables.MISSING


def test_several_seeds_give_the_mean_and_the_range_and_say_which_are_missing(tmp_path: Path) -> None:
    one = paper_tables.accuracies(paper_tables.read(experiment(tmp_path / "one")))
    two = paper_tables.read(experiment(tmp_path / "two", change=0.02))
    high = float(one.rows[0][2].removesuffix(" %"))
    found = paper_tables.accuracies(two).rows[0][2]
    assert found == f"{high - 1:.2f} % ({high - 2:.2f} % to {high:.2f} %)"
    assert all(row[3].endswith(", 1 without)") for row in paper_tables.memorization(two).rows)


def test_a_seed_that_did_not_learn_is_left_out_and_said_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one = paper_tables.accuracies(paper_tables.read(experiment(tmp_path / "one")))
    folder = experiment(tmp_path / "two", change=0.02)
    runs = tidy.read_runs(folder / "measures")
    dead = (runs.dataset == "mnist") & (runs.architecture == "lenet") & (runs.seed == 1)
    runs.assign(final_train_accuracy=runs.final_train_accuracy.mask(dead, 0.0975)).to_csv(
        folder / "measures" / tidy.RUNS, index=False
    )
    e = paper_tables.read(folder)
    table = paper_tables.accuracies(e)
    assert table.rows[1] == one.rows[1] and table.rows[0] != one.rows[0]
    told = "LeNet on MNIST (true-labels) with seed 1, right for 9.75 % of its training images at the end"
    assert paper_tables.left_out(e) == f"Left out, since the network did not learn: {told}."
    assert paper_tables.left_out(paper_tables.read(tmp_path / "one")) == ""
    assert paper_tables.main("tables", [str(folder)]) == 0
    before, _, after = capsys.readouterr().out.partition(f"|\n\n{paper_tables.left_out(e)}\n\n")
    assert before.startswith("Figure 1, at the last step.") and after.startswith("Figure 2 and D_KL")


def test_markdown_is_what_is_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = experiment(tmp_path)
    assert paper_tables.main("tables", [str(folder)]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("Figure 1, at the last step.\n\n| test accuracy |  | network | k-NN | SVM | LR |")
    lines = [line for line in printed.splitlines() if line.startswith("|")]
    assert lines[1] == "| --- | --- | --- | --- | --- | --- | --- | --- |"


def test_an_experiment_without_measures_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"has no measures/measures\.json; make it with snakemake"):
        paper_tables.read(tmp_path)
