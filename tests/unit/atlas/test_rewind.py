"""Layers set back: the rows, their accuracies by a loop over networks built by hand, and the groups of layers."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import SCRIPTS
from dnn_or_knn.atlas import rewind, tables
from dnn_or_knn.atlas.common import Part
from dnn_or_knn.measures.bootstrap import draw_counts, smoothed
from dnn_or_knn.networks.build import create
from dnn_or_knn.networks.input import standardize
from dnn_or_knn.runtime import files
from dnn_or_knn.runtime.results import write as listed
from forking import python

SIZE, CLASSES, STEPS = 8, 4, [0, 5, 20]
WRN: dict[str, Any] = {"module": "wrn", "depth": 10, "width": 1}
MLP: dict[str, Any] = {"module": "mlp", "width": 16}
DRAW = {"replicates": 6, "seed": 0}


def built(network: dict[str, Any], seed: int = 0) -> Any:
    return create(network, channels=1, size=SIZE, classes=CLASSES, seed=seed).eval()


def made(folder: Path, network: dict[str, Any], *, relabel: bool = True) -> Part:
    """Write a store, labels and the weights of three steps, which are three random networks with statistics of their own."""
    rng = np.random.default_rng(0)
    arrays = {
        f"{split}_images": rng.integers(0, 255, (count, 1, SIZE, SIZE), dtype=np.uint8)
        for split, count in (("train", 250), ("test", 90))
    }
    arrays |= {f"{split}_labels": rng.integers(0, CLASSES, count) for split, count in (("train", 250), ("test", 90))}
    facts = {"dataset": "toy", "channels": 1, "size": SIZE, "classes": CLASSES, "class_names": list("abcd")}
    listed(folder / "store/store.json", facts, files.write_arrays(folder / "store", arrays))
    indices = np.sort(rng.permutation(250)[:200])
    labels = arrays["train_labels"][indices]
    if relabel:
        labels = np.where(rng.random(200) < 0.7, rng.integers(0, CLASSES, 200), labels)
    label_set = files.write_arrays(folder / "labels", {"indices": indices, "labels": labels})
    listed(folder / "labels/labels.json", {"classes": CLASSES}, label_set)
    kept = []
    for step in STEPS:
        path = folder / f"run/checkpoints/step{step:06d}.pt"
        path.parent.mkdir(parents=True, exist_ok=True)
        weights = built(network, seed=step).state_dict()
        generator = torch.Generator().manual_seed(step)
        for name in weights:
            if name.endswith(("running_mean", "running_var")):
                weights[name] = torch.rand(weights[name].shape, generator=generator) + 0.5
        torch.save({"model": weights, "step": step}, path)
        kept.append(path)
    listed(folder / "run/training.json", {}, kept)
    spec = {
        "run": {"dataset": "toy", "architecture": "x", "labels": "random", "seed": 0},
        "shards": [],
        "probes": {},
        "knn": None,
    }
    spec |= {"network": network, "precision": "float32", "batch_size": 64, "steps": STEPS, "bootstrap": DRAW}
    manifests = (folder / name for name in ("store/store.json", "labels/labels.json", "run/training.json"))
    return Part(spec, *manifests, {}, "cpu")


def table(part: Part) -> pd.DataFrame:
    return pd.DataFrame({name: list(column) for name, column in rewind.measure(part).items()})


def right(part: Part, network: Any, split: str) -> np.ndarray:
    """Return which images a network gets right, one image at a time."""
    images = np.load(part.store.with_name(f"{split}_images.npy"))
    images = images[part.label_set.indices] if split == "train" else images
    with torch.no_grad():
        logits = [network(standardize(torch.from_numpy(image[None]), torch.float32))[0].numpy() for image in images]
    return np.array([row.argmax() for row in logits]) == part.given[split]


@pytest.fixture(scope="module")
def part(tmp_path_factory: pytest.TempPathFactory) -> Part:
    return made(tmp_path_factory.mktemp("wrn"), WRN)


@pytest.fixture(scope="module")
def rewound(part: Part) -> pd.DataFrame:
    return table(part)


LAYERS = ["initial_conv", "unit_1_1", "unit_2_1", "unit_3_1", "bn", "classifier"]
GROUPS = {"last stage": LAYERS[3:], "before it": LAYERS[:3], "all": LAYERS}


def test_a_row_is_a_layer_or_a_group_and_an_earlier_step(rewound: pd.DataFrame) -> None:
    expected = [(name, step) for name in [*LAYERS, *GROUPS] for step in STEPS[:-1]] + [("all", 20)]
    assert list(zip(rewound.layer, rewound.step, strict=True)) == expected
    assert set(rewound.test_count) == {90} and (rewound.own_count + rewound.relabelled_count == 200).all()


def test_each_accuracy_is_that_of_a_network_put_together_by_hand(part: Part, rewound: pd.DataFrame) -> None:
    own = part.given["train"] == part.true["train"]
    draws = draw_counts(200, 6, seed=0, split="train")
    kept = {step: torch.load(part.checkpoint(step), weights_only=True)["model"] for step in STEPS}
    for row in rewound.to_dict("records"):
        network = built(WRN)
        network.load_state_dict(kept[20])
        for name in GROUPS.get(row["layer"], [row["layer"]]):
            module = dict(network.named_children()).get(name) or network.units[name]
            prefix = f"units.{name}." if name.startswith("unit") else f"{name}."
            found = {
                key.removeprefix(prefix): value for key, value in kept[row["step"]].items() if key.startswith(prefix)
            }
            module.load_state_dict(found)
        train, test = right(part, network, "train"), right(part, network, "test")
        assert (row["test"], row["own"], row["relabelled"]) == pytest.approx(
            (test.mean(), train[own].mean(), train[~own].mean())
        )
        drawn = np.array([np.repeat(train[~own], draw[~own]).mean() for draw in draws])
        replicates = smoothed(drawn, (~own).sum(), f"rewind/{row['step']}/{row['layer']}/relabelled")
        assert row["relabelled_replicates"] == pytest.approx(replicates) and len(row["own_replicates"]) == 6


def test_the_whole_network_set_back_is_that_of_the_step(part: Part, rewound: pd.DataFrame) -> None:
    whole = rewound[rewound.layer == "all"].set_index("step")
    for step in STEPS:
        network = built(WRN)
        network.load_state_dict(torch.load(part.checkpoint(step), weights_only=True)["model"])
        assert whole.test[step] == pytest.approx(right(part, network, "test").mean())
    assert len(set(rewound.test)) > 5, "else all networks were one"


def test_a_network_without_blocks_has_no_last_stage_and_true_labels_no_relabelled_images(tmp_path: Path) -> None:
    found = table(made(tmp_path, MLP, relabel=False))
    assert list(dict.fromkeys(found.layer)) == ["hidden", "classifier", "all"]
    assert found.relabelled.isna().all() and not found.relabelled_count.any() and found.own.notna().all()


def test_a_single_kept_step_has_the_network_as_it_is(tmp_path: Path) -> None:
    part = made(tmp_path, MLP)
    part.spec["steps"] = [20]
    assert list(table(part).layer) == ["all"]


@pytest.mark.parametrize(
    ("network", "last"),
    [
        (WRN | {"depth": 16}, ["unit_3_1", "unit_3_2", "bn", "classifier"]),
        ({"module": "lenet", "embedding": 8}, ["conv2", "hidden", "classifier"]),
        (MLP, None),
    ],
)
def test_the_last_stage_is_the_last_block_and_all_that_follows(network: dict[str, Any], last: list[str] | None) -> None:
    one = built(network)
    layers = rewind.layers_of(one)
    assert rewind.groups(one, layers).get("last stage") == last
    # Every entry of the weights belongs to just one layer.
    for name in one.state_dict():
        assert sum(name.startswith(prefix) for prefix in layers.values()) == 1, name


def test_the_layers_of_a_wrapped_network_are_those_inside() -> None:
    wrapped = torch.nn.Module()
    wrapped.model = built(WRN)
    layers = rewind.layers_of(wrapped)
    assert list(layers) == LAYERS and layers["unit_1_1"] == "model.units.unit_1_1."


def test_the_stage_writes_the_table(tmp_path: Path) -> None:
    part = made(tmp_path, WRN)
    output = tmp_path / "run/measures/rewind/run.json"
    words = [
        "--store",
        part.store,
        "--labels",
        part.labels,
        "--training",
        part.training,
        "--output",
        output,
        "--device",
        "cpu",
    ]
    spec = {**part.spec, "measure": "rewind", "module": "rewind"}
    line = [python(), str(SCRIPTS / "measure.py"), "--spec", json.dumps(spec), *map(str, words)]
    done = subprocess.run(line, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    written = tables.read(output.with_suffix(".parquet"))
    assert len(written) == files.read_json(output)["rows"] == 19
    assert written.test.to_numpy() == pytest.approx(table(part).test.to_numpy())
