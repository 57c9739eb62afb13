"""The figures of the measures beside the paper's: what they show, in which order, and what they say."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pandas as pd
import pytest
from conftest import SCRIPTS
from dnn_or_knn.atlas import tables
from dnn_or_knn.data.store import Store
from dnn_or_knn.figures import beside, depth, extremes, geometry, rewinding, style
from dnn_or_knn.runtime import files, results
from forking import python
from matplotlib.figure import Figure

NAMES = ["input", "conv", "unit", "embedding", "output"]
KINDS = [
    ("digits", "wrn-10-1", "true-labels"),
    ("digits", "wrn-10-1", "random-labels"),
    ("digits", "mlp8", "true-labels"),
]


def images(seeds: int = 1) -> pd.DataFrame:
    """Return a made-up table of images: the WRN is probed at four layers, the MLP at one."""
    pieces = []
    for kind in KINDS:
        for seed in range(seeds):
            rng = np.random.default_rng([len(kind[1]), len(kind[2]), seed])
            for split, count in (("train", 60), ("test", 40)):
                layers = 4 if kind[1].startswith("wrn") else 1
                found = rng.integers(0, layers + 1, count)
                names = np.array(NAMES if layers == 4 else NAMES[-2:])
                label = rng.integers(0, 10, count)
                drawn = rng.integers(0, 10, count) if kind[2] == "random-labels" and split == "train" else label
                columns = {"image": rng.permutation(count), "label": drawn, "true_label": label, "answer": label}
                columns |= {"right": rng.random(count) < 0.7, "layers": layers, "prediction_depth": found}
                columns |= {"depth": found / layers, "depth_layer": names[found], "confidence": rng.random(count)}
                pieces.append(
                    pd.DataFrame({**dict(zip(beside.KIND, kind, strict=True)), "seed": seed, "split": split, **columns})
                )
    return pd.concat(pieces, ignore_index=True)


def layers(seeds: int = 1) -> pd.DataFrame:
    """Return a made-up table of geometry: embeddings at four steps, and one hidden layer at the last."""
    rows = []
    for kind in KINDS:
        for seed in range(seeds):
            for step, layer in [
                (0, "embedding"),
                (10, "embedding"),
                (20, "embedding"),
                (40, "embedding"),
                (40, "unit"),
            ]:
                row = {**dict(zip(beside.KIND, kind, strict=True)), "seed": seed, "step": step, "layer": layer}
                rows.append(row | dict.fromkeys(geometry.QUANTITIES, 1.0 + step + seed))
    return pd.DataFrame(rows)


def rewound(seeds: int = 1) -> pd.DataFrame:
    """Return a made-up table of layers set back: of the run with true labels no image is relabelled."""
    rows = []
    for kind in KINDS[:2]:
        for seed in range(seeds):
            for place, layer in enumerate(("conv", "unit", "classifier", "last stage", "before it", "all")):
                for step in (0, 10, 20) if layer == "all" else (0, 10):
                    row = {**dict(zip(beside.KIND, kind, strict=True)), "seed": seed, "layer": layer, "step": step}
                    value = 0.1 * place + 0.01 * step + 0.02 * seed
                    relabelled = value if kind[2] == "random-labels" else np.nan
                    rows.append(row | {"own": value, "relabelled": relabelled, "test": value / 2})
    return pd.DataFrame(rows)


def store(channels: int = 1) -> Store:
    pixels = np.random.default_rng(0).integers(0, 255, (60, channels, 8, 8), dtype=np.uint8)
    labels = np.zeros(60, np.int64)
    names = (*(f"class {number}" for number in range(9)), "a very long name")
    return Store("digits", pixels, labels, pixels, labels, channels, 8, 10, names)


def drawn(module: ModuleType, table: pd.DataFrame, channels: int = 1) -> tuple[pd.DataFrame, Figure]:
    stores = {"digits": store(channels)}
    shown = module.shown(table, {}, stores)
    with style.applied(style.style({})):
        return shown, module.draw(shown, {}, stores)


def texts(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.findobj(lambda artist: hasattr(artist, "get_text"))]


@pytest.mark.parametrize("seeds", [1, 2])
def test_depths_are_counted_in_each_group_of_each_run_of_several_layers(seeds: int) -> None:
    table = images(seeds)
    shown, figure = drawn(depth, table)
    assert beside.kinds(shown) == KINDS[:2], "in the table's order, without the network of one layer"
    for (*kind, group), rows in shown.groupby([*beside.KIND, "group"]):
        assert rows.share.sum() == pytest.approx(1)
        of = beside.of_kind(table, kind)
        right = {"train": of.split == "train", "test, right": (of.split == "test") & of.right}.get(
            str(group), (of.split == "test") & ~of.right
        )
        for row in rows.itertuples():
            assert row.images == (of[right].prediction_depth == row.prediction_depth).sum()
    titles = [ax.get_title() for ax in figure.axes]
    assert titles == ["Digits, WRN-10-1, true labels", "Digits, WRN-10-1, random labels"]
    assert [label.get_text() for label in figure.axes[0].get_xticklabels()] == NAMES
    said = "One seed." if seeds == 1 else "2 seeds, taken together."
    assert said in depth.caption(shown) and "random labels: train 0." in depth.alt(shown)


def test_without_hidden_layers_the_depths_say_so() -> None:
    shown, figure = drawn(depth, images().query("architecture == 'mlp8'"))
    assert shown.empty and any("No run is probed at three layers" in text for text in texts(figure))
    assert depth.alt(shown) == "Empty." and depth.caption(shown)


@pytest.mark.parametrize("seeds", [1, 2])
def test_geometry_shows_the_embedding_after_step_0_as_a_share_of_the_training(seeds: int) -> None:
    shown, figure = drawn(geometry, layers(seeds))
    assert sorted(set(shown.share)) == [0.25, 0.5, 1.0] and len(shown) == 9 * seeds
    assert len(figure.axes) == len(geometry.QUANTITIES)
    first = figure.axes[0]
    assert [line.get_gid() for line in first.lines] == [f"{a}/{labels}/intrinsic_dimension" for _, a, labels in KINDS]
    assert list(first.lines[0].get_ydata()) == pytest.approx(
        [11 + (seeds - 1) / 2, 21 + (seeds - 1) / 2, 41 + (seeds - 1) / 2]
    )
    assert figure.axes[1].get_yscale() == "log"
    assert "intrinsic_dimension 11" in geometry.alt(shown) or seeds == 2
    assert geometry.caption(shown).endswith("One seed." if seeds == 1 else "2 seeds, taken together.")


def test_an_experiment_without_training_has_no_course() -> None:
    shown, figure = drawn(geometry, layers().query("step == 0"))
    assert shown.empty and any("No run was evaluated after step 0" in text for text in texts(figure))
    assert geometry.caption(shown) and geometry.alt(shown)


def test_a_quantity_that_is_nowhere_defined_has_no_curve() -> None:
    table = layers().assign(nc3=np.nan)
    _, figure = drawn(geometry, table)
    assert not figure.axes[3].lines and len(figure.axes[0].lines) == 3


@pytest.mark.parametrize("channels", [1, 3])
def test_extremes_are_the_shallowest_and_the_deepest_train_images(channels: int) -> None:
    table = images(2)
    shown, figure = drawn(extremes, table, channels)
    assert set(shown.seed) == {0}
    for kind in KINDS:
        of = beside.of_kind(table[(table.split == "train") & (table.seed == 0)], kind)
        rows = beside.of_kind(shown, kind)
        expected = of.sort_values(["prediction_depth", "confidence"], ascending=[True, False]).image.head(6)
        assert list(rows[rows.side == "shallowest"].image) == list(expected)
        expected = of.sort_values(["prediction_depth", "confidence"], ascending=[False, True]).image.head(6)
        assert list(rows[rows.side == "deepest"].image) == list(expected)
    assert len(figure.axes) == 3 * 12
    pixels = np.asarray(figure.axes[0].get_images()[0].get_array())
    own = store(channels).train_images[shown.image.iloc[0]]
    assert np.array_equal(pixels, own[0] if channels == 1 else np.moveaxis(own, 0, -1))
    other = shown[shown.label != shown.true_label]
    assert len(other) and set(other.labels) == {"random-labels"}
    colours = {ax.get_title(): ax.title.get_color() for ax in figure.axes[12:24]}
    assert "#c62f24" in colours.values() and {ax.title.get_color() for ax in figure.axes[:12]} == {"#000000"}
    assert not [text for text in texts(figure) if "a very long name" in text]
    assert "Images with their labels." in extremes.alt(shown) and "First seed" in extremes.caption(shown)


@pytest.mark.parametrize("seeds", [1, 2])
def test_heat_maps_show_every_layer_and_step_of_every_run(seeds: int) -> None:
    shown, figure = drawn(rewinding, rewound(seeds))
    maps = {ax: ax.collections[0] for ax in figure.axes if ax.collections and ax.get_title()}
    assert [mesh.get_gid() for mesh in maps.values()] == ["own", "test", "own", "relabelled", "test"]
    first = next(iter(maps))
    assert [label.get_text() for label in first.get_yticklabels()][-3:] == list(rewinding.GROUPS)
    grid = np.ma.filled(next(iter(maps.values())).get_array().astype(float), np.nan).reshape(6, 3)
    assert (
        grid[2, 1] == pytest.approx(100 * (0.3 + (seeds - 1) * 0.01))
        and np.isnan(grid[2, 2])
        and np.isfinite(grid[5]).all()
    )
    assert "no such images" in texts(figure) and first.get_ylim() == (6, 0)
    assert rewinding.caption(shown).endswith("One seed." if seeds == 1 else "Means over 2 seeds.")
    assert "least with conv" in rewinding.alt(shown)


def test_fewer_images_than_places_are_all_shown() -> None:
    table = images().groupby([*beside.KIND, "split"]).head(4)
    shown, _ = drawn(extremes, table)
    assert set(shown.groupby([*beside.KIND, "side"]).size()) == {4}


def test_the_stage_draws_the_same_bytes_twice(tmp_path: Path) -> None:
    made: dict[str, Any] = {}
    measure = tmp_path / "measures" / "geometry"
    tables.write(measure.with_suffix(".parquet"), {name: column.to_numpy() for name, column in layers().items()})
    results.write(measure.with_suffix(".json"), {}, [measure.with_suffix(".parquet")])
    for number in range(2):
        output = tmp_path / str(number) / "geometry.json"
        spec = {"figure": "geometry", "measure": "geometry", "datasets": [], "titles": {"mlp8": "Small"}}
        words = ["--measure", measure.with_suffix(".json"), "--output", output]
        line = [python(), str(SCRIPTS / "beside_figure.py"), "--spec", json.dumps(spec), *map(str, words)]
        done = subprocess.run(line, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        made[str(number)] = files.read_json(output)
    assert made["0"] == made["1"] and set(made["0"]["files"]) == {"geometry.pdf", "geometry.png", "geometry.csv"}
    assert "Small, true labels" in made["0"]["alt"]
