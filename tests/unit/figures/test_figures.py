"""The seven figures: what their artists show is their CSV, panels and colours are the paper's, gaps are said."""

from __future__ import annotations

import functools
import importlib
import json
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import synthetic
from conftest import SCRIPTS
from dnn_or_knn.figures import panels, style, training_curves, words
from dnn_or_knn.figures.table import COLUMNS, Layout, assemble, is_drawn
from dnn_or_knn.runtime import results
from dnn_or_knn.runtime.code_digest import code_digest
from dnn_or_knn.runtime.errors import UserError
from forking import python
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Text

THREE = ("mnist", "cifar10", "cifar100")
NUMBERS = range(1, 8)
#: Word of an axis → the column of the measures, and what it is multiplied with.
SOURCES = {"D_KL": ("d_kl", 100), "P_SAME": ("p_same", 1), "ccuracy": ("accuracy", 100)}
PANELS = {1: 9, 2: 9, 3: 3, 4: 6, 5: 9, 6: 9, 7: 6}


LABELS = {n: ["true-labels"] for n in NUMBERS} | {
    4: ["true-labels", "random-labels"],
    6: ["random-labels"],
    7: ["overfit"],
}


def specification(number: int, datasets: tuple[str, ...] = THREE, **more: Any) -> dict[str, Any]:
    """Return a figure's specification as the workflow makes it."""
    return {
        "figure": number,
        "architectures": ["mlp640", "lenet", "wrn-28-10"] if number < 4 else ["wrn-28-10"],
        "datasets": list(datasets),
        "labels": LABELS.get(number, []),
        "probes": ["knn", "svm", "lr"],
        "missing": [],
        "style": {"dpi": 60},
        **({"input_layer": "pixels", "published": []} if number == 4 else {}),
        **more,
    }


def layout(spec: dict[str, Any]) -> Layout:
    """Return a figure's layout."""
    return importlib.import_module(f"dnn_or_knn.figures.figure{spec['figure']}").layout(spec)


@functools.cache
def tables(**options: Any) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return made-up tables: three data sets and one seed if nothing else is asked for."""
    return synthetic.tables(**options)


def draw(number: int, made: tuple[pd.DataFrame, pd.DataFrame], spec: dict[str, Any]) -> tuple[Figure, pd.DataFrame]:
    """Return a figure and its table."""
    table = assemble(*made, layout(spec), spec)
    with style.applied(style.style(spec)):
        return panels.draw(layout(spec), table, spec, synthetic.probe_points()), table


@functools.cache
def drawn(number: int) -> tuple[Figure, pd.DataFrame]:
    """Return a figure of three data sets, and its table."""
    return draw(number, tables(), specification(number))


@functools.cache
def alone(number: int) -> tuple[Figure, pd.DataFrame]:
    """Return a figure of a single data set, and its table."""
    return draw(number, tables(datasets=("digits",)), specification(number, ("digits",)))


def by_gid(figure: Figure, gid: str) -> list[Any]:
    """Return the artists with a name."""
    return figure.findobj(lambda artist: artist.get_gid() == gid)


def axes_of(figure: Figure) -> list[Any]:
    """Return the axes of a figure's panels, the diagram excepted."""
    return [ax for ax in figure.axes if ax.get_gid() != "diagram"]


@pytest.mark.parametrize("number", NUMBERS)
def test_every_artist_shows_its_rows_of_the_table(number: int) -> None:
    figure, table = drawn(number)
    measures = tables()[0].set_index(["dataset", "architecture", "labels", "layer", "split", "model"]).sort_index()
    shown = table[is_drawn(table)]
    for (panel, series), rows in shown.groupby(["panel", "series"]):
        lines = [*by_gid(figure, f"{panel}/{series}/input"), *by_gid(figure, f"{panel}/{series}")]
        assert [x for line in lines for x in line.get_xdata()] == rows["x"].tolist()
        assert [y for line in lines for y in line.get_ydata()] == rows["y"].tolist()
        last = rows.iloc[-1]
        source, factor = next(value for word, value in SOURCES.items() if word in last["quantity"])
        here = measures.loc[tuple(last[["dataset", "architecture", "labels", "layer", "split", "model"]])]
        assert last["y"] == pytest.approx(here.sort_values("step")[source].iloc[-1] * factor)
    names = [str(artist.get_gid()).removesuffix("/input") for artist in figure.findobj() if artist.get_gid()]
    lines = {name for name in names if "/" in name and name.split("/")[0] in set(shown["panel"])}
    assert len(lines) == shown.groupby(["panel", "series"]).ngroups, "a line is drawn that is not in the table"


@pytest.mark.parametrize("number", NUMBERS)
def test_the_grid_is_the_papers(number: int) -> None:
    figure, table = drawn(number)
    assert len(axes_of(figure)) == PANELS[number] == table["panel"].nunique()
    columns = 2 if number == 4 else 3
    shapes = {ax.get_subplotspec().colspan.start for ax in axes_of(figure)}
    assert shapes == set(range(columns))
    titles = [ax.get_title() for ax in axes_of(figure)][:columns]
    assert titles == (["True labels", "Random labels"] if number == 4 else ["MNIST", "CIFAR-10", "CIFAR-100"])
    letters = [text.get_text() for ax in axes_of(figure) for text in ax.texts if text.get_text().startswith("(")]
    assert letters == [f"({'abcdefghi'[i]})" for i in range(PANELS[number])]
    assert len(figure.legends) == 1
    assert figure.get_figwidth() == 7.0


def visible_texts(figure: Figure) -> list[Any]:
    """Return every text that is drawn, tick labels outside the axes' limits left out."""
    ticks = {
        id(label) for ax in figure.findobj(Axes) for axis in (ax.xaxis, ax.yaxis) for label in axis.get_ticklabels()
    }
    found = [text for text in figure.findobj(Text) if id(text) not in ticks]
    for ax in (ax for ax in figure.findobj(Axes) if ax.axison):
        for axis in (axis for axis in (ax.xaxis, ax.yaxis) if axis.get_visible()):
            low, high = sorted(axis.get_view_interval())
            shown = [tick for tick in axis.get_major_ticks() if low <= tick.get_loc() <= high]
            found += [label for tick in shown for label in (tick.label1, tick.label2)]
    return [text for text in dict.fromkeys(found) if text.get_visible() and text.get_text().strip()]


def check_texts(figure: Figure) -> None:
    """Assert that no text of a figure lies on another or leaves the page."""
    with style.applied(style.style({})):
        figure.draw_without_rendering()
        boxes = [(text.get_text(), text.get_window_extent()) for text in visible_texts(figure)]
    assert len(boxes) > 10
    for i, (one, box) in enumerate(boxes):
        inside = box.x0 >= -1 and box.y0 >= -1 and box.x1 <= figure.bbox.x1 + 1 and box.y1 <= figure.bbox.y1 + 1
        assert inside, f"'{one}' leaves the page"
        for other, second in boxes[i + 1 :]:
            across = min(box.x1, second.x1) - max(box.x0, second.x0)
            along = min(box.y1, second.y1) - max(box.y0, second.y0)
            assert across < 1 or along < 1, f"'{one}' lies on '{other}'"


@pytest.mark.parametrize("number", NUMBERS)
@pytest.mark.parametrize("which", [drawn, alone])
def test_no_text_lies_on_another_and_none_is_cut(number: int, which: Any) -> None:
    check_texts(which(number)[0])


def test_rows_of_figures_1_and_2_are_wrn_lenet_mlp() -> None:
    for number in (1, 2):
        figure, table = drawn(number)
        assert table.groupby("panel")["architecture"].first().tolist() == [
            *["wrn-28-10"] * 3,
            *["lenet"] * 3,
            *["mlp640"] * 3,
        ]
        heads = [t.get_text() for ax in axes_of(figure) for t in ax.texts if t.get_rotation() == 270]
        assert heads == ["WRN-28-10", "LeNet", "MLP-640"]


def test_colours_and_dashes_follow_the_paper() -> None:
    figure, table = drawn(4)
    for (panel, series), rows in table[is_drawn(table)].groupby(["panel", "series"]):
        (line,) = by_gid(figure, f"{panel}/{series}")
        assert line.get_color() == style.COLOURS[rows["model"].iloc[0]]
        assert line.is_dashed() == (rows["split"].iloc[0] == "test")
    third, table = drawn(3)
    colours = {
        line.get_color() for ax in third.axes for line in ax.lines if str(line.get_gid()).startswith(ax_letter(ax))
    }
    assert len(colours) == 3 and not colours & set(style.COLOURS.values())
    fifth, table = drawn(5)
    assert by_gid(fifth, "a/DNN, test")[0].is_dashed() and not by_gid(fifth, "a/DNN, train")[0].is_dashed()
    assert not by_gid(fifth, "g/k-NN, test")[0].is_dashed()
    seventh, table = drawn(7)
    assert by_gid(seventh, "d/k-NN, test")[0].is_dashed() and not by_gid(seventh, "d/k-NN, train")[0].is_dashed()
    assert set(table.loc[is_drawn(table), "model"]) == {"dnn", "knn"}


def ax_letter(ax: Any) -> str:
    """Return the beginning of the names of a panel's curves."""
    return next(text.get_text()[1:-1] for text in ax.texts if text.get_text().startswith("(")) + "/"


@pytest.mark.parametrize("number", [6, 7])
def test_memorization_lines_run_through_all_rows(number: int) -> None:
    figure, table = drawn(number)
    kind = {6: "random-labels", 7: "overfit"}[number]
    runs = tables()[1].set_index(["dataset", "labels", "architecture"])["memorization_step"]
    for ax in axes_of(figure):
        dataset = THREE[ax.get_subplotspec().colspan.start]
        (line,) = [line for line in ax.lines if line.get_gid() == "memorization"]
        assert set(line.get_xdata()) == {runs[dataset, kind, "wrn-28-10"]} and line.is_dashed()
    assert (table["series"] == "memorization").sum() == PANELS[number]
    assert not by_gid(drawn(5)[0], "memorization")


def test_a_run_that_never_memorized_is_said_so() -> None:
    measures, runs = tables()
    runs = runs.assign(memorization_step=runs["memorization_step"].where(runs["dataset"] != "cifar100"))
    figure, table = draw(6, (measures, runs), specification(6))
    assert [text.axes.get_title() for text in by_gid(figure, "not memorized")] == ["CIFAR-100"]
    assert len(by_gid(figure, "memorization")) == 6
    assert table.loc[table["note"] == "not memorized", "dataset"].tolist() == ["cifar100"] * 3


@pytest.mark.parametrize("number", NUMBERS)
def test_one_data_set_shrinks_the_grid(number: int) -> None:
    figure, _ = alone(number)
    grid = {
        (ax.get_subplotspec().rowspan.start, ax.get_subplotspec().colspan.start): ax.get_title()
        for ax in axes_of(figure)
    }
    expected: dict[int, dict[tuple[int, int], str]] = {
        1: {(0, 0): "Digits, WRN-28-10", (0, 1): "Digits, LeNet", (0, 2): "Digits, MLP-640"},
        3: {(0, 0): "Digits"},
        4: {(0, 0): "True labels", (0, 1): "Random labels"},
        5: {(0, 0): "Digits", (1, 0): "", (2, 0): ""},
        7: {(0, 0): "Digits", (1, 0): ""},
    }
    expected |= {2: expected[1], 6: expected[5]}
    assert grid == expected[number]
    assert figure.legends[0].get_window_extent().width <= figure.bbox.width


@pytest.mark.parametrize("number", [1, 6])
def test_several_seeds_are_mean_and_band(number: int) -> None:
    made = tables(datasets=("digits",), seeds=3)
    spec = specification(number, ("digits",))
    figure, table = draw(number, made, spec)
    for (panel, series), rows in table[is_drawn(table)].groupby(["panel", "series"]):
        (line,) = by_gid(figure, f"{panel}/{series}")
        np.testing.assert_allclose(line.get_ydata(), rows.groupby("x")["y"].mean())
        (band,) = by_gid(figure, f"{panel}/{series}/band")
        np.testing.assert_allclose(band.get_paths()[0].vertices[:, 1].max(), rows["y"].max())
    assert sorted(table.loc[is_drawn(table), "seed"].unique()) == [0, 1, 2]
    assert "mean over 3 seeds; bands: from the smallest to the largest" in words.notes(table)
    assert "smallest to largest, 3 seeds" in [text.get_text() for text in figure.legends[0].get_texts()]


def test_curves_of_fewer_seeds_than_others_are_not_said_to_have_more() -> None:
    measures, runs = tables(seeds=3)
    count = {"mnist": 3, "cifar10": 2, "cifar100": 1}
    made = measures[measures["seed"] < measures["dataset"].map(count)], runs[runs["seed"] < runs["dataset"].map(count)]
    figure, table = draw(6, made, specification(6, tuple(count)))
    assert "mean over 1 to 3 seeds; bands: from the smallest to the largest" in words.notes(table)
    assert "smallest to largest, 2 to 3 seeds" in [text.get_text() for text in figure.legends[0].get_texts()]
    for (panel, series), rows in table[is_drawn(table)].groupby(["panel", "series"]):
        assert bool(by_gid(figure, f"{panel}/{series}/band")) == (rows["dataset"].iloc[0] != "cifar100")


def test_fits_that_did_not_converge_are_flagged() -> None:
    made = tables(datasets=("digits",), unconverged=True)
    figure, table = draw(6, made, specification(6, ("digits",)))
    failed = table[(table["converged"] == False) & (table["panel"] == "b")]  # noqa: E712 (objects)
    (hollow,) = by_gid(figure, "b/SVM, train/not converged")
    assert hollow.get_xdata().tolist() == failed["x"].tolist() and len(failed) > 5
    assert "fit not converged" in [text.get_text() for text in figure.legends[0].get_texts()]
    assert "Hollow markers" in words.notes(table)


def test_missing_runs_are_named_where_they_would_be() -> None:
    measures, runs = tables()
    gone = "cifar10/wrn-28-10/random-labels"
    measures = measures[~((measures["dataset"] == "cifar10") & (measures["labels"] == "random-labels"))]
    spec = specification(6, missing=[gone])
    figure, table = draw(6, (measures, runs), spec)
    texts = by_gid(figure, "message")
    assert [text.get_text() for text in texts] == ["not configured:\ncifar10 / wrn-28-10 /\nrandom-labels"] * 3
    assert table.loc[table["series"] == "missing", "panel"].tolist() == ["b", "e", "h"]
    assert set(table.loc[table["series"] == "missing", "note"]) == {f"not configured: {gone}"}
    assert len(by_gid(figure, "a/DNN, train")) == 1 and gone in words.notes(table)
    lowest = next(ax for ax in axes_of(figure) if "Test $D" in ax.get_ylabel())
    assert lowest.get_xlabel() == "Training step"


def test_a_seed_that_did_not_learn_is_left_out_and_named() -> None:
    measures, runs = synthetic.tables(seeds=3)
    dead = (runs.dataset == "cifar10") & (runs.architecture == "lenet") & (runs.seed == 2)
    spec = specification(1)
    whole = assemble(measures, runs, layout(spec), spec)
    table = assemble(
        measures,
        runs.assign(final_train_accuracy=runs.final_train_accuracy.mask(dead, 0.1)),
        layout(spec),
        spec,
    )
    absent = table[table["series"] == "missing"]
    note = "cifar10/lenet/true-labels/seed2, which did not learn"
    assert list(absent["note"]) == [note] and list(absent["seed"]) == [2]
    of = (whole["dataset"] == "cifar10") & (whole["architecture"] == "lenet")
    panel = absent["panel"].iloc[0]
    drawn = table[is_drawn(table)]
    assert len(drawn) == len(whole[~(of & (whole["seed"] == 2))]) and set(drawn[drawn["panel"] == panel]["seed"]) == {
        0,
        1,
    }
    assert f"Missing: {note}." in words.notes(table) and "2 to 3 seeds" in words.notes(table)
    spec = specification(6)  # of other runs
    table = assemble(measures, runs, layout(spec), spec)
    assert not (table["series"] == "missing").any()


def test_a_probe_that_is_missing_is_in_the_table() -> None:
    measures, runs = tables()
    spec = specification(2)
    figure, table = draw(2, (measures[measures["model"] != "lr"], runs), spec)
    notes = table.loc[table["series"] == "missing", "note"]
    assert len(notes) == 9 and notes.iloc[0] == "LR, test of mnist/wrn-28-10/true-labels"
    assert len(by_gid(figure, "a/k-NN, test")) == 1 and not by_gid(figure, "a/LR, test")


def test_figure_4_shows_the_layers_in_order_and_the_network() -> None:
    published = [
        {"dataset": "mnist", "architecture": "wrn-28-10", "layer": "unit_1_2", "accuracy": 93.73},
        {"dataset": "mnist", "architecture": "lenet", "layer": "embedding", "accuracy": 99.06},
        {"dataset": "cifar10", "architecture": "wrn-28-10", "layer": "embedding", "accuracy": 95.2},
    ]
    figure, table = draw(4, tables(), specification(4, published=published))
    lowest = axes_of(figure)[-2]
    assert tuple(label.get_text() for label in lowest.get_xticklabels()) == synthetic.LAYERS
    assert all(label.get_rotation() == 90 for label in lowest.get_xticklabels())
    assert by_gid(figure, "a/k-NN, train")[0].get_xdata().tolist() == list(range(1, 15))
    assert by_gid(figure, "a/k-NN, train/input")[0].get_xdata().tolist() == [0]
    (points,) = by_gid(figure, "a/published")
    assert (points.get_xdata().tolist(), points.get_ydata().tolist()) == ([3.0], [93.73])
    assert by_gid(figure, "c/published") and not by_gid(figure, "b/published") and not by_gid(figure, "e/published")
    assert (table["series"] == "published").sum() == 2
    (diagram,) = by_gid(figure, "diagram")
    texts = [text.get_text() for text in diagram.texts]
    assert [text for text in texts if text in synthetic.LAYERS] == list(synthetic.LAYERS)
    assert texts.count("640") == 5 and "(g)" in texts and "block 3" in texts


def test_figure_4_has_one_axis_for_panels_of_different_layers() -> None:
    """As where images of other sizes go through other stages: each point stands above its layer's name, in the network's order."""
    measures, runs = tables()
    lacking = {"mnist": "unit_1_2", "cifar10": "unit_3_1"}
    kept = measures[measures["layer"] != measures["dataset"].map(lacking)].copy()
    for name, layer in lacking.items():
        after = (kept["dataset"] == name) & (kept["layer_index"] > synthetic.LAYERS.index(layer))
        kept.loc[after, "layer_index"] -= 1
    shuffled = kept.sample(frac=1, random_state=0).drop_duplicates(
        ["dataset", "architecture", "labels", "seed", "step", "layer", "split", "model"]
    )
    figure, table = draw(4, (shuffled, runs), specification(4))
    shown = table[is_drawn(table)]
    lowest = axes_of(figure)[-2]
    assert tuple(label.get_text() for label in lowest.get_xticklabels()) == synthetic.LAYERS
    names = dict(enumerate(synthetic.LAYERS))
    assert (shown["x"].map(names) == shown["layer"]).all()
    assert by_gid(figure, "a/k-NN, train")[0].get_xdata().tolist() == [
        n for n in range(1, 15) if names[n] != "unit_1_2"
    ]


def test_figure_4_does_not_count_pixels_where_the_probes_see_means() -> None:
    for spec, shown in ((specification(4), "pixels"), (specification(4, input_layer="mean"), "means")):
        figure, _ = draw(4, tables(), spec)
        (diagram,) = by_gid(figure, "diagram")
        texts = [text.get_text() for text in diagram.texts]
        assert bool(by_gid(figure, "a/k-NN, train/input")) == (shown == "pixels"), "pixels alone stand apart"
        assert shown in texts and ("pixels" in texts) != ("means" in texts) and "3,072" not in texts, "data sets differ"


def test_figure_4_takes_the_right_sides_own_label_set() -> None:
    _, table = draw(4, tables(), specification(4, labels=["true-labels", "overfit"]))
    assert set(table["labels"]) == {"true-labels", "overfit"}


def test_an_early_point_that_dwarfs_the_rest_is_cut_off_and_said() -> None:
    measures = tables()[0].copy()
    first = (measures["step"] == 0) & (measures["model"] == "svm") & (measures["split"] == "test")
    measures.loc[first & (measures["labels"] == "true-labels"), "d_kl"] = 40.0
    figure, table = draw(5, (measures, tables()[1]), specification(5))
    tops = {ax_letter(ax)[0]: ax.get_ylim()[1] for ax in axes_of(figure)}
    assert tops["d"] == tops["g"] < 200 and table["y"].max() == 4000
    assert {ax_letter(text.axes)[0] for text in by_gid(figure, "off scale")} >= {"g", "h", "i"}


def test_figure_3_compares_networks_of_very_different_schedules_by_the_share_of_their_steps() -> None:
    """Else the curve of 2,000 steps beside one of 50,000 is a vertical line."""
    measures, runs = tables()
    measures = measures.assign(step=measures["step"] * np.where(measures["architecture"] == "mlp640", 25, 1))
    made, table = draw(3, (measures, runs), specification(3))
    assert {ax.get_xlabel() for ax in axes_of(made)} == {"Share of the training steps (%)"}
    assert table["x"].max() == measures["step"].max(), "the CSV holds the steps"
    for panel in "abc":
        for series in ("WRN-28-10", "LeNet", "MLP-640"):
            steps = table[(table["panel"] == panel) & (table["series"] == series)]["x"]
            (line,) = by_gid(made, f"{panel}/{series}")
            assert np.allclose(line.get_xdata(), 100 * steps / steps.max()) and steps.max() > 0
    assert {ax.get_xlabel() for ax in axes_of(drawn(3)[0])} == {"Training step"}
    assert {ax.get_xlabel() for ax in axes_of(draw(1, (measures, runs), specification(1))[0])} <= {"Training step", ""}


@pytest.mark.parametrize("number", NUMBERS)
def test_words_say_what_is_shown(number: int) -> None:
    spec = specification(number)
    table = assemble(*tables(), layout(spec), spec)
    alt, caption = words.describe(layout(spec), table), words.caption(layout(spec), table, ())
    assert len(caption) > 80 and caption.endswith(".")
    assert all(f"({letter}) " in alt for letter in table["panel"].unique()) and "$" not in alt + caption
    last = table[is_drawn(table) & (table["panel"] == "a")].iloc[-1]
    said = f"{last['y']:.3g}" if last["y"] >= 0.095 else f"{last['y']:.2f}"
    assert f"{said}{'.' if number not in (6, 7) else ';'}" in alt


def test_a_change_of_one_figure_makes_only_that_one_stale() -> None:
    modules = {number: f"dnn_or_knn/figures/figure{number}.py" for number in NUMBERS}
    digests = {number: code_digest("figure.py", path) for number, path in modules.items()}
    assert len(set(digests.values())) == 7
    for number, path in modules.items():
        source = (SCRIPTS / path).read_text()
        others = [f"figure{other}" for other in NUMBERS if other != number]
        assert not any(f"import {other}" in source or f".{other} import" in source for other in others)


# The scripts.


def command(script: str, spec: dict[str, Any], *arguments: object) -> subprocess.CompletedProcess:
    """Run a stage script."""
    words = [python(), str(SCRIPTS / script), "--spec", json.dumps(spec), *map(str, arguments)]
    return subprocess.run(words, capture_output=True, text=True, timeout=600)


def test_the_script_writes_the_same_files_every_time(tmp_path: Path) -> None:
    folder = synthetic.write(tmp_path / "measures", datasets=("digits",))
    training = tmp_path / "training.json"
    training.write_text(json.dumps({"probe_points": synthetic.probe_points()}))
    spec = specification(4, ("digits",))
    for name in ("a", "b"):
        done = command(
            "figure.py",
            spec,
            "--measures",
            folder / "measures.json",
            "--training",
            training,
            "--output",
            tmp_path / name / "figure4.json",
        )
        assert done.returncode == 0, done.stderr
    kinds = ("csv", "json", "pdf", "png", "provenance.json")
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == [f"figure4.{kind}" for kind in kinds]
    for kind in kinds[:-1]:
        one, other = (tmp_path / name / f"figure4.{kind}" for name in ("a", "b"))
        assert one.read_bytes() == other.read_bytes(), kind
    manifest = json.loads((tmp_path / "a/figure4.json").read_text())
    assert (
        manifest["panels"] == 2
        and manifest["missing"] == []
        and set(manifest["files"]) == {*("figure4.csv", "figure4.pdf", "figure4.png")}
    )
    table = assemble(*synthetic.tables(datasets=("digits",)), layout(spec), spec)
    written = pd.read_csv(tmp_path / "a/figure4.csv")
    assert list(written.columns) == COLUMNS
    assert written["y"].tolist() == table["y"].tolist() and written["layer"].tolist() == table["layer"].tolist()


def test_the_script_draws_what_is_missing_and_takes_no_training(tmp_path: Path) -> None:
    folder = synthetic.write(tmp_path / "measures", datasets=("digits",), labels=("true-labels",))
    spec = specification(7, ("digits",), missing=["digits/wrn-28-10/overfit"])
    done = command(
        "figure.py", spec, "--measures", folder / "measures.json", "--training", "--output", tmp_path / "figure7.json"
    )
    assert done.returncode == 0, done.stderr
    written = pd.read_csv(tmp_path / "figure7.csv")
    assert set(written["note"]) == {"not configured: digits/wrn-28-10/overfit"} and written["y"].isna().all()
    manifest = json.loads((tmp_path / "figure7.json").read_text())
    assert "digits/wrn-28-10/overfit" in manifest["alt"] and manifest["missing"]
    assert (tmp_path / "figure7.pdf").read_bytes().startswith(b"%PDF")


def test_the_script_refuses_bad_input_in_one_sentence(
    tmp_path: Path,
) -> None:
    script = importlib.import_module("figure")
    for spec, sentence in ((specification(9), "1 to 7"), (specification(1), "measures.parquet is missing")):
        args = script.options().parse_args(
            [
                "--spec",
                json.dumps(spec),
                "--measures",
                str(tmp_path / "measures.json"),
                "--output",
                str(tmp_path / "out/figure.json"),
            ]
        )
        with pytest.raises(UserError, match=sentence):
            script.main(args)
    assert not (tmp_path / "out").exists()


# The training curves.


def histories(folder: Path, runs: list[str], steps: int = 450) -> dict[str, Path]:
    """Write made-up histories and return their paths."""
    step = np.arange(1, steps + 1)
    table = pd.DataFrame(
        {
            "step": step,
            "loss": 2.0 / step,
            "batch_accuracy": 1 - 1 / step,
            "learning_rate": np.where(step <= 200, 0.1, 0.02),
            "train_accuracy": "",
            "test_accuracy": "",
        }
    )
    for run in runs:
        (folder / run).mkdir(parents=True)
        table.to_csv(folder / run / "history.csv", index=False)
        results.write(folder / run / "training.json", {}, [folder / run / "history.csv"])
    return {run: folder / run / "history.csv" for run in runs}


@pytest.mark.parametrize("losses", [(0.98, 2.6), (0.02, 3.0), (0.4, 2.4), (0.9, 1.1), (1e-5, 3.0), (0.6, 2.4)])
def test_a_loss_axis_has_three_labels_and_not_too_many(losses: tuple[float, float], tmp_path: Path) -> None:
    runs = ["digits/lenet/true-labels/seed0"]
    (path,) = histories(tmp_path, runs).values()
    history = pd.read_csv(path)
    history["loss"] = np.geomspace(*losses, len(history))
    history.to_csv(path, index=False)
    with style.applied(style.style({})):
        drawn = training_curves.draw(training_curves.data({runs[0]: path}), runs, {})
    axis = next(ax for ax in drawn.axes if ax.get_yscale() == "log")
    low, high = axis.get_ylim()
    assert 3 <= sum(low <= tick <= high for tick in axis.get_yticks()) <= 9


def test_training_curves_are_means_over_windows(tmp_path: Path) -> None:
    runs = [f"digits/{name}/seed0" for name in ("lenet/true-labels", "wrn-10-2/true-labels", "wrn-10-2/overfit")]
    table = training_curves.data(histories(tmp_path, runs))
    loss = table[(table["panel"] == "a") & (table["quantity"] == training_curves.LOSS)]
    assert len(loss) == 90 <= training_curves.POINTS and loss["x"].tolist() == list(range(5, 451, 5))
    assert loss["y"].iloc[0] == pytest.approx((2 + 1 + 2 / 3 + 2 / 4 + 2 / 5) / 5)
    assert table.loc[table["quantity"] == training_curves.DECAY, ["x", "y"]].drop_duplicates().to_numpy().tolist() == [
        [201, 0.02]
    ]
    with style.applied(style.style({})):
        figure = training_curves.draw(table, runs, {})
    (line,) = by_gid(figure, f"a/{training_curves.LOSS}")
    assert line.get_ydata().tolist() == loss["y"].tolist()
    assert [ax.get_title() for ax in figure.axes if ax.get_title()] == [
        *("LeNet, true labels", "WRN-10-2, true labels", "WRN-10-2, overfit")
    ]
    assert len(by_gid(figure, "decay")) == 3
    check_texts(figure)


def test_training_curves_of_data_sets_stand_in_columns() -> None:
    runs = [
        f"{d}/{k}/seed{s}"
        for d in ("mnist", "cifar10")
        for k in ("lenet/true-labels", "wrn-10-2/overfit")
        for s in (0, 1)
    ]
    places = training_curves.places(runs)
    assert [(p.letter, p.row, p.column, p.dataset, p.architecture) for p in places] == [
        ("a", 0, 0, "mnist", "lenet"),
        ("b", 0, 1, "cifar10", "lenet"),
        ("c", 1, 0, "mnist", "wrn-10-2"),
        ("d", 1, 1, "cifar10", "wrn-10-2"),
    ]
    with pytest.raises(UserError, match="names no run"):
        training_curves.places(["mnist/lenet"])


@pytest.mark.parametrize("datasets", [["digits"], ["mnist", "cifar10", "cifar100"]])
def test_columns_of_training_curves_are_evenly_spaced_also_with_a_short_row(
    tmp_path: Path, datasets: list[str]
) -> None:
    kinds = ["lenet/true-labels", "mlp640/true-labels", "wrn-10-2/true-labels", "wrn-10-2/overfit"]
    runs = [f"{dataset}/{kind}/seed0" for dataset in datasets for kind in kinds]
    runs = [run for run in runs if run != "cifar100/mlp640/true-labels/seed0"]
    with style.applied(style.style({})):
        figure = training_curves.draw(training_curves.data(histories(tmp_path, runs)), runs, {})
        figure.canvas.draw()
    lefts = sorted({round(ax.get_position().x0, 3) for ax in figure.axes})
    assert len(lefts) == 3 and lefts[1] - lefts[0] == pytest.approx(lefts[2] - lefts[1], abs=0.01)
    labelled = [ax for ax in figure.axes if ax.get_ylabel() == training_curves.LOSS]
    assert len(labelled) == len({ax.get_subplotspec().rowspan.start for ax in figure.axes})


def test_a_column_of_training_curves_has_its_title_also_where_the_first_row_lacks_it(tmp_path: Path) -> None:
    runs = [f"{d}/{kind}/seed0" for d in ("mnist", "cifar10") for kind in ("mlp640/true-labels", "lenet/true-labels")]
    runs.remove("cifar10/mlp640/true-labels/seed0")
    with style.applied(style.style({})):
        figure = training_curves.draw(training_curves.data(histories(tmp_path, runs)), runs, {})
    assert [ax.get_title() for ax in figure.axes if ax.get_title()] == ["MNIST", "CIFAR-10"]


def test_the_training_curves_script(tmp_path: Path) -> None:
    runs = ["digits/lenet/true-labels/seed0"]
    histories(tmp_path, runs)
    done = command(
        "training_curves.py",
        {"runs": runs},
        "--training",
        tmp_path / runs[0] / "training.json",
        "--output",
        tmp_path / "figures/training.json",
    )
    assert done.returncode == 0, done.stderr
    assert "(a) Digits, LeNet, true labels: loss" in json.loads((tmp_path / "figures/training.json").read_text())["alt"]
    (tmp_path / runs[0] / "history.csv").write_text("step,loss\n")
    done = command(
        "training_curves.py",
        {"runs": runs},
        "--training",
        tmp_path / runs[0] / "training.json",
        "--output",
        tmp_path / "figures/training.json",
    )
    assert done.returncode == 2 and "history.csv is damaged" in done.stderr
    (tmp_path / runs[0] / "history.csv").unlink()
    with pytest.raises(UserError, match=r"history\.csv is missing"):
        training_curves.data({run: tmp_path / run / "history.csv" for run in runs})


@pytest.mark.parametrize("number", NUMBERS)
def test_captions_speak_of_what_is_drawn_and_of_nothing_else(number: int) -> None:
    figure, table = drawn(number)
    gids = {str(artist.get_gid()) for artist in figure.findobj()}
    caption = words.caption(layout(specification(number)), table, gids)
    assert (words.INSETS in caption) == ("inset" in gids)
    assert (words.MEMORIZATION in caption) == (number in (6, 7))
    assert words.CUT not in caption and words.PUBLISHED not in caption
    assert not ("inset" in gids and number == 4)


def test_differences_of_one_image_are_not_enlarged() -> None:
    measures, runs = tables(datasets=("digits",))
    close = measures.copy()
    close.loc[close["split"] == "test", "accuracy"] = 0.9 * (1 - np.exp(-close["step"] / 20))
    close.loc[(close["split"] == "test") & (close["model"] == "lr"), "accuracy"] += 0.01
    for images, opens in ((10_000, True), (100, False)):
        figure, _ = draw(1, (close.assign(count=images), runs), specification(1, ("digits",)))
        assert bool(by_gid(figure, "inset")) is opens


def test_the_end_of_an_overfit_run_is_enlarged_where_its_divergences_lie_on_each_other() -> None:
    measures, runs = tables(datasets=("digits",))
    close = measures.copy()
    overfit = close["labels"] == "overfit"
    late = overfit & (close["model"] == "knn") & (close["step"] > close.loc[overfit, "step"].max() / 4)
    close.loc[late, "d_kl"] = close["d_kl"].max() * 0.001 * (1 + (close.loc[late, "split"] == "test"))
    figure, _ = draw(7, (close, runs), specification(7, ("digits",)))
    assert len(by_gid(figure, "inset")) == 1
