"""Label sets: uniform, fixed, balanced; and the stage that writes them."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import SCRIPTS
from dnn_or_knn.data import label_sets
from dnn_or_knn.data.store import LABELS_ARRAYS, load_labels, load_true_labels
from dnn_or_knn.runtime import files, results
from dnn_or_knn.runtime.errors import UserError
from forking import python
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

SPEC: dict[str, Any] = {"labels": "some", "randomize": False, "subset": None, "seed": 0}
RANDOM_GOLDEN = [4, 5, 6, 7, 5, 4, 2, 4, 5, 6, 7, 0, 7, 7, 6, 5, 5, 3, 0, 7]
BALANCED_GOLDEN = [9, 11, 22, 24, 35, 36, 40, 50, 62, 63, 78, 94, 97]
SEEDS = st.integers(0, 2**40)


def truth(counts: list[int]) -> np.ndarray:
    """Return labels with the given number of each class, mixed."""
    return np.random.default_rng(7).permutation(np.repeat(np.arange(len(counts)), counts)).astype(np.int64)


def draw(labels: np.ndarray, **changes: Any) -> tuple[np.ndarray, np.ndarray]:
    values = {"dataset": "toy", "randomize": False, "subset": None, "seed": 0} | changes
    return label_sets.draw(labels, int(labels.max()) + 1, **values)


def test_true_labels_are_all_of_them_in_order() -> None:
    labels = truth([20, 30, 10])
    indices, drawn = draw(labels, seed=3)
    np.testing.assert_array_equal(indices, np.arange(60))
    np.testing.assert_array_equal(drawn, labels)
    assert indices.dtype == drawn.dtype == np.int64


# Random labels.


@settings(deadline=None, max_examples=40)
@given(classes=st.integers(2, 100), seed=SEEDS)
def test_random_labels_are_uniform_whatever_the_true_ones(classes: int, seed: int) -> None:
    drawn = label_sets.random_labels(200 * classes, classes, "toy", seed)
    counts = np.bincount(drawn, minlength=classes)
    assert len(counts) == classes
    # 40 examples at most; one uniform draw in a hundred million is less even than this.
    assert chisquare(counts).pvalue > 1e-8


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_random_labels_do_not_know_the_true_ones(seed: int) -> None:
    """Every pair (true, random) is equally likely, and so is every pair of neighbours: i.i.d."""
    labels = np.repeat(np.arange(10), 5000)
    _, drawn = draw(labels, randomize=True, seed=seed)
    for left, right in ((labels, drawn), (drawn[:-1], drawn[1:])):
        pairs = np.bincount(left * 10 + right, minlength=100)
        assert chisquare(pairs.reshape(10, 10), axis=1).pvalue.min() > 1e-6
    assert np.mean(drawn == labels) == pytest.approx(0.1, abs=5 * np.sqrt(0.09 / 50000))


@settings(deadline=None, max_examples=40)
@given(one=SEEDS, other=SEEDS)
def test_a_seed_fixes_its_labels_and_no_other_seed_has_them(one: int, other: int) -> None:
    assume(one != other)
    labels = truth([50, 50, 50, 50])
    _, first = draw(labels, randomize=True, seed=one)
    np.testing.assert_array_equal(first, draw(labels, randomize=True, seed=one)[1])
    assert (first != draw(labels, randomize=True, seed=other)[1]).any()
    assert (first != draw(labels, randomize=True, seed=one, dataset="another")[1]).any()


def test_the_draws_are_the_ones_of_always() -> None:
    """Results are comparable only while a seed means the same labels: a NumPy that draws otherwise shows here."""
    assert label_sets.random_labels(20, 10, "cifar10", 0).tolist() == RANDOM_GOLDEN
    labels = np.arange(100) % 10
    subset = {"draw": "balanced", "count": 13}
    assert label_sets.choose(labels, 10, subset, "cifar10", 0).tolist() == BALANCED_GOLDEN


@settings(deadline=None, max_examples=40)
@given(seed=SEEDS, count=st.integers(1, 120), how=st.sampled_from(["first", "balanced"]))
def test_an_image_has_the_same_random_label_in_a_subset(seed: int, count: int, how: str) -> None:
    labels = truth([40, 40, 40])
    _, everywhere = draw(labels, randomize=True, seed=seed)
    indices, drawn = draw(labels, randomize=True, seed=seed, subset={"draw": how, "count": count})
    np.testing.assert_array_equal(drawn, everywhere[indices])
    np.testing.assert_array_equal(indices, draw(labels, seed=seed, subset={"draw": how, "count": count})[0])


def test_random_labels_leave_the_true_ones_alone() -> None:
    labels = truth([30, 30])
    before = labels.copy()
    draw(labels, randomize=True, subset={"draw": "balanced", "count": 11})
    np.testing.assert_array_equal(labels, before)


# Subsets.


@settings(deadline=None, max_examples=30)
@given(count=st.integers(1, 60))
def test_first_takes_the_first(count: int) -> None:
    labels = truth([20, 30, 10])
    indices, drawn = draw(labels, subset={"draw": "first", "count": count}, seed=count)
    np.testing.assert_array_equal(indices, np.arange(count))
    np.testing.assert_array_equal(drawn, labels[:count])


@settings(deadline=None, max_examples=100)
@given(counts=st.lists(st.integers(1, 12), min_size=2, max_size=8), seed=SEEDS, data=st.data())
def test_balanced_counts_differ_by_at_most_one(counts: list[int], seed: int, data: st.DataObject) -> None:
    labels, fewest = truth(counts), min(counts)
    most = len(counts) * fewest + sum(count > fewest for count in counts)
    count = data.draw(st.integers(1, most))
    indices, drawn = draw(labels, subset={"draw": "balanced", "count": count}, seed=seed)
    per_class = np.bincount(drawn, minlength=len(counts))
    assert len(indices) == count
    assert per_class.max() - per_class.min() <= 1
    assert (np.diff(indices) > 0).all()
    np.testing.assert_array_equal(drawn, labels[indices])
    if most < len(labels):
        with pytest.raises(UserError, match=f"a balanced draw of {most} at most"):
            draw(labels, subset={"draw": "balanced", "count": most + 1}, seed=seed)


def test_a_balanced_draw_takes_every_image_equally_often() -> None:
    labels = truth([8, 8, 8])
    taken = np.zeros(24)
    for seed in range(600):
        taken[draw(labels, subset={"draw": "balanced", "count": 10}, seed=seed)[0]] += 1
    # Each is taken with probability 10/24: 250 of 600, ± 12 (standard deviation).
    assert np.abs(taken - 250).max() < 60


def test_another_seed_is_another_balanced_draw() -> None:
    labels = truth([50, 50])
    draws = {tuple(draw(labels, subset={"draw": "balanced", "count": 20}, seed=seed)[0]) for seed in range(20)}
    assert len(draws) == 20


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"subset": {"draw": "first", "count": 61}}, "subset.count is 61, but toy has only 60 training images; lower"),
        ({"subset": {"draw": "balanced", "count": 61}}, "toy has only 60 training images"),
        ({"subset": {"draw": "balanced", "count": 40}}, "only 10 training images of class 2, .* of 32 at most"),
        ({"subset": {"draw": "first", "count": 0}}, "subset.count is 0"),
        ({"subset": {"draw": "first", "count": 2.5}}, r"subset.count is 2\.5"),
        ({"subset": {"draw": "last", "count": 5}}, "subset.draw is 'last'"),
        ({"subset": {"count": 5}}, "subset is {'count': 5}"),
        ({"subset": 5}, "subset is 5"),
        ({"seed": -1}, "seed is -1"),
        ({"seed": True}, "seed is True"),
        ({"randomize": "yes"}, "randomize is 'yes'"),
    ],
)
def test_what_cannot_be_is_one_sentence_and_writes_nothing(
    changes: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=message) as raised:
        label_sets.write_labels(tmp_path / "labels", SPEC | changes, truth([20, 30, 10]), 3, "toy")
    assert "\n" not in str(raised.value)
    assert not (tmp_path / "labels").exists()


@pytest.mark.parametrize("key", SPEC)
def test_a_specification_without_a_key_is_refused(key: str, tmp_path: Path) -> None:
    spec = {name: value for name, value in SPEC.items() if name != key}
    with pytest.raises(UserError, match=f"no '{key}'"):
        label_sets.write_labels(tmp_path, spec, truth([5, 5]), 2, "toy")


# Written, read, and as a command.


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """Make a store of 60 training and 30 test images."""
    folder, rng = tmp_path / "store", np.random.default_rng(0)
    arrays = {"train_labels": truth([20, 20, 20]), "test_labels": truth([10, 10, 10])}
    for split, count in (("train", 60), ("test", 30)):
        arrays[f"{split}_images"] = rng.integers(0, 256, (count, 1, 4, 4), dtype=np.uint8)
    for name, array in arrays.items():
        files.write_npy(folder / f"{name}.npy", array)
    facts = {"dataset": "toy", "channels": 1, "size": 4, "classes": 3, "class_names": list("abc")}
    files.write_json(folder / "store.json", facts | {"train": 60, "test": 30, "files": files.listing(folder)})
    return folder


def command(store: Path, output: Path, **changes: Any) -> subprocess.CompletedProcess[str]:
    spec = json.dumps({"stage": "labels"} | SPEC | changes)
    words = [
        "--store",
        str(store / "store.json"),
        "--output",
        str(output / "labels.json"),
        "--spec",
        spec,
        "--log",
        str(output.parent / "labels.log"),
    ]
    return subprocess.run(
        [python(), str(SCRIPTS / "labels.py"), *words], capture_output=True, text=True, timeout=600, check=False
    )


def test_the_command_writes_what_reads_back(store: Path, tmp_path: Path) -> None:
    before = {path: path.read_bytes() for path in store.iterdir()}
    subset = {"draw": "balanced", "count": 31}
    for name in ("one", "two"):
        done = command(store, tmp_path / name / "labels", randomize=True, subset=subset, seed=5)
        assert done.returncode == 0, done.stderr
    folder = tmp_path / "one/labels"
    read, true_labels = load_labels(folder / "labels.json"), load_true_labels(store / "store.json")[0]
    indices, labels = draw(true_labels, randomize=True, subset=subset, seed=5)
    np.testing.assert_array_equal(read.indices, indices)
    np.testing.assert_array_equal(read.labels, labels)
    kept = float(np.mean(labels == true_labels[indices]))
    assert read.classes == 3
    assert read.facts == {
        "labels": "some",
        "dataset": "toy",
        "seed": 5,
        "count": 31,
        "randomized": True,
        "subset": subset,
        "kept_true_fraction": kept,
        "classes": 3,
    }
    for name in ("indices.npy", "labels.npy", "labels.json"):
        assert (folder / name).read_bytes() == (tmp_path / "two/labels" / name).read_bytes()
    provenance = files.read_json(folder / "labels.provenance.json")
    assert provenance["inputs"] == {os.path.relpath(store / "store.json", folder): files.sha256(store / "store.json")}
    assert provenance["results"] == {"labels.json": files.sha256(folder / "labels.json")}
    assert {path: path.read_bytes() for path in store.iterdir()} == before, "test labels stay true"


def test_the_command_refuses_in_one_sentence(store: Path, tmp_path: Path) -> None:
    done = command(store, tmp_path / "out/labels", subset={"draw": "first", "count": 61})
    assert done.returncode == 2
    assert done.stderr == ("error: subset.count is 61, but toy has only 60 training images; lower it to 60 or fewer\n")
    assert not (tmp_path / "out/labels").exists()


def test_the_command_refuses_a_damaged_store(store: Path, tmp_path: Path) -> None:
    data = bytearray((store / "train_labels.npy").read_bytes())
    data[-8] ^= 1
    (store / "train_labels.npy").write_bytes(data)
    done = command(store, tmp_path / "out/labels")
    assert done.returncode == 2
    assert "train_labels.npy is damaged" in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("name", LABELS_ARRAYS)
def test_an_altered_label_set_is_refused(name: str, store: Path, tmp_path: Path) -> None:
    true_labels, _ = load_true_labels(store / "store.json")
    made = label_sets.write_labels(tmp_path / "labels", SPEC, true_labels, 3, "toy")
    results.write(tmp_path / "labels" / "labels.json", *made)
    path = tmp_path / "labels" / f"{name}.npy"
    data = bytearray(path.read_bytes())
    data[-8] ^= 1
    path.write_bytes(data)
    with pytest.raises(UserError, match=f"{name}.npy is damaged"):
        load_labels(tmp_path / "labels" / "labels.json")
