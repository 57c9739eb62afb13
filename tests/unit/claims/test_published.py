"""The published numbers, the table beside the paper, and the authors' values in figure 4."""

from __future__ import annotations

import functools
import json
import subprocess
from typing import Any

import numpy as np
import pandas as pd
import pytest
import synthetic
from conftest import ROOT
from dnn_or_knn.claims.published import COLUMNS, compare, row
from dnn_or_knn.figures import style
from dnn_or_knn.measures import tables
from dnn_or_knn.plan.configuration import load_overlays, resolve
from dnn_or_knn.plan.runs import create as create_runs
from dnn_or_knn.plan.runs import network
from dnn_or_knn.plan.specifications import Jobs, published
from dnn_or_knn.runtime import files, results
from forking import python

LABELS = {"true": "true-labels", "random": "random-labels", "overfit": "overfit"}
THREE = {"mnist", "cifar10", "cifar100"}


@functools.cache
def made(**options: Any) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return made-up tables of WRN-28-10, LeNet and MLP-640 on MNIST alone."""
    return synthetic.tables(datasets=("mnist",), **options)


def compared(measures: pd.DataFrame, runs: pd.DataFrame, knn: str | None = "knn") -> pd.DataFrame:
    return pd.DataFrame(compare(published(), LABELS, knn, measures, runs), columns=COLUMNS)


def test_published_numbers_name_what_the_paper_configuration_trains():
    config = resolve(load_overlays(ROOT / "config.yaml"))
    for block in published().values():
        for entry in block:
            assert entry["dataset"] in config["datasets"] and entry["architecture"] in config["architectures"]


@pytest.mark.parametrize(
    "entry", published()["layer_test_accuracy"], ids=lambda e: f"{e['dataset']}-{e['architecture']}"
)
def test_published_layers_are_the_networks_probe_points(entry):
    from dnn_or_knn.networks.build import create

    config = resolve(load_overlays(ROOT / "config.yaml"))
    spec = network(config, entry["architecture"])
    built = create(spec, channels=1 if entry["dataset"] == "mnist" else 3, size=28, classes=10)
    assert [point.name for point in built.probe_points] == entry["layers"]
    assert len(entry["code"]) == len(entry["layers"])


def test_a_seed_that_did_not_learn_is_no_part_of_the_mean():
    measures, runs = synthetic.tables(seeds=2)
    dead = (runs.architecture == "lenet") & (runs.seed == 1)
    runs = runs.assign(final_train_accuracy=runs.final_train_accuracy.mask(dead, 0.005))
    with_both = compared(*synthetic.tables(seeds=2)).set_index(COLUMNS[:4]).here
    alone = compared(measures[measures.seed == 0], runs[runs.seed == 0]).set_index(COLUMNS[:4]).here
    found = compared(measures, runs).set_index(COLUMNS[:4]).here
    lenet = found.index.get_level_values("architecture") == "lenet"
    assert lenet.any() and found[lenet].equals(alone[lenet]) and not found[lenet].equals(with_both[lenet])
    assert found[~lenet].equals(with_both[~lenet])


def test_every_number_is_compared_once_and_intervals_are_in_order():
    table = compared(*made())
    assert len(table) == 9 + 3 + 2 * 3 + 5 + 3 * 15 + 3 * 6
    assert not table.duplicated(["what", "dataset", "architecture", "layer"]).any()
    ends = [entry["paper"] for block in published().values() for entry in block if "paper" in entry]
    assert all(low <= high for low, high in ends)


def test_differences_are_those_of_the_measures():
    measures, runs = made()
    table = compared(measures, runs)
    assert set(table.dropna(subset=["here"]).dataset) == {"mnist"}
    last = measures[(measures.labels == "true-labels") & (measures.step == 1000) & (measures.split == "test")]
    network = last[(last.model == "dnn") & (last.architecture == "wrn-28-10")].accuracy.item() * 100
    row = table[table.what.str.startswith("final test") & (table.architecture == "wrn-28-10")].iloc[0]
    assert row.here == pytest.approx(network) and row.here_minus_code == pytest.approx(network - 99.31)
    assert row.paper == "99.3–99.5" and row.authors_code == 99.31
    nearest = min(max(network, 99.3), 99.5)
    assert row.here_minus_paper == pytest.approx(network - nearest)
    layers = table[(table.dataset == "mnist") & (table.architecture == "wrn-28-10") & table.what.str.contains("layer")]
    knn = last[(last.model == "knn") & (last.architecture == "wrn-28-10")].set_index("layer").accuracy
    assert list(layers.here) == pytest.approx([knn[layer] * 100 for layer in layers.layer])
    assert list(layers.here_minus_code) == pytest.approx(list(layers.here - layers.authors_code))
    memorized = table[table.what.str.startswith("memorization") & (table.dataset == "mnist")].iloc[0]
    assert (memorized.paper, memorized.here, memorized.here_minus_paper) == ("340", 340, 0)
    random = table[table.what.str.contains("random labels") & table.what.str.startswith("test")]
    assert list(random.paper) == ["10", "10", "1"] and random.here.notna().sum() == 1


@pytest.mark.parametrize(("here", "outside"), [(99.0, -0.3), (99.4, 0.0), (99.9, 0.4)])
def test_a_difference_to_an_interval_counts_from_its_nearer_end(here, outside):
    place = {"dataset": "mnist", "architecture": "wrn-28-10"}
    found = row("accuracy", place, "", {"paper": [99.3, 99.5]}, here)
    assert found["here_minus_paper"] == pytest.approx(outside) and found["here_minus_code"] is None


def test_several_seeds_are_averaged():
    measures, runs = made(seeds=3)
    last = measures[(measures.labels == "true-labels") & (measures.step == 1000) & (measures.split == "test")]
    accuracy = last[(last.model == "dnn") & (last.architecture == "lenet")].accuracy
    row = compared(measures, runs).query("architecture == 'lenet' and dataset == 'mnist'").iloc[0]
    assert len(accuracy) == 3 and row.here == pytest.approx(accuracy.mean() * 100)


def test_what_was_not_run_or_memorized_is_empty():
    measures, runs = made(labels=("true-labels",))
    table = compared(measures, runs, knn=None)
    with_a_number = table.dropna(subset=["here"])
    assert set(with_a_number.what) == {"final test accuracy of the network, %"} and len(with_a_number) == 3
    late = made()[1].assign(memorization_step=pd.array([pd.NA] * len(made()[1]), "Int64"))
    rows = compared(made()[0], late)
    assert rows[rows.what.str.contains("memorization")].here.isna().all()


def test_the_command_writes_the_table_and_its_manifest(tmp_path):
    measures, runs = made()
    folder = tmp_path / "measures"
    folder.mkdir()
    written = tables.write(folder, tables.frame(measures.to_dict("records")), empty(len(measures)))
    runs.to_csv(folder / tables.RUNS, index=False)
    manifest = folder / "measures.json"
    results.write(manifest, {}, [*written, folder / tables.RUNS])
    spec = {"published": published(), "labels": LABELS, "knn": "knn"}
    script = ROOT / "workflow" / "scripts" / "published.py"
    line = [python(), script, "--spec", json.dumps(spec), "--measures", manifest]
    line += ["--output", tmp_path / "claims" / "published.json"]
    done = subprocess.run([str(word) for word in line], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    manifest = files.read_json(tmp_path / "claims" / "published.json")
    files.check(tmp_path / "claims", manifest["files"])
    table = pd.read_csv(tmp_path / "claims" / "published.csv")
    known = [row for row in manifest["rows"] if row["here"] is not None]
    assert len(manifest["rows"]) == len(table) and len(known) == table.here.notna().sum() > 15


def empty(rows: int) -> dict[str, np.ndarray]:
    return {name: np.zeros((rows, 2)) for name in tables.REPLICATED}


# Figure 4, as the workflow specifies it.


def of_figure_4(*, architecture: str = "wrn-28-10", **overlay: Any) -> dict[str, Any]:
    config = load_overlays(ROOT / "config.yaml") | overlay
    config["figures"] = {**config["figures"], "architecture": architecture}
    return json.loads(Jobs(create_runs(config)).figure({"figure": "4"}))


def test_figure_4_draws_the_authors_fifteen_values_where_data_set_and_network_match():
    from dnn_or_knn.figures import figure4, panels, words
    from dnn_or_knn.figures.table import assemble

    spec = of_figure_4()
    assert {(v["dataset"], v["architecture"]) for v in spec["published"]} == {(d, "wrn-28-10") for d in THREE}
    layout = figure4.layout(spec)
    table = assemble(*made(), layout, spec)
    with style.applied(style.style(spec)):
        figure = panels.draw(layout, table, spec, synthetic.probe_points())
    (points,) = figure.findobj(lambda artist: artist.get_gid() == "a/published")
    entry = published()["layer_test_accuracy"][0]
    assert (entry["dataset"], entry["architecture"], len(entry["code"])) == ("mnist", "wrn-28-10", 15)
    assert list(points.get_xdata()) == list(range(15)) and list(points.get_ydata()) == entry["code"]
    for letter in "bcdef":
        assert not figure.findobj(lambda artist, name=letter: artist.get_gid() == f"{name}/published")
    assert words.PUBLISHED in words.caption(layout, table, set())


def test_figure_4_of_another_network_says_nothing_of_the_authors():
    from dnn_or_knn.figures import figure4, words
    from dnn_or_knn.figures.table import assemble

    spec = of_figure_4(architecture="mlp640")
    layout = figure4.layout(spec)
    assert spec["published"] == []
    assert words.PUBLISHED not in words.caption(layout, assemble(*made(), layout, spec), set())
