"""Data sets of one's own: folders of pictures, .npz files, torchvision's classes, entries in the configuration."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from dnn_or_knn.data.loaders.common import load, write_store
from dnn_or_knn.data.streaming import Streamed
from dnn_or_knn.features import extraction
from dnn_or_knn.plan import datasets, runs
from dnn_or_knn.plan.configuration import load_overlays
from dnn_or_knn.plan.specifications import Jobs
from dnn_or_knn.runtime import files
from dnn_or_knn.runtime.errors import UserError
from PIL import Image
from snakemake.utils import update_config

CLASSES = ["ant", "bee", "cat"]


def paint(folder: Path, count: int, size: tuple[int, int] = (12, 12), seed: int = 0) -> None:
    """Write `count` seeded RGB pictures of each class."""
    random = np.random.default_rng(seed)
    for name in CLASSES:
        (folder / name).mkdir(parents=True)
        for number in range(count):
            pixels = random.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{number:03d}.png")


def spec(root: Path, **changes: Any) -> dict[str, Any]:
    told = {"dataset": "mine", "loader": "folder", "root": str(root), "size": 12, "channels": 3, "classes": 3}
    return told | {"test_fraction": 0.25, "split_seed": 0} | changes


def stored(tmp_path: Path, told: dict[str, Any]) -> dict[str, np.ndarray]:
    """Prepare a data set and return its store's arrays."""
    data = load(told, tmp_path, download=False)
    facts, paths = write_store(tmp_path / "store", told, data)
    assert facts["train"] == len(data.train_labels) and facts["test"] == len(data.test_labels)
    return {path.stem: files.read_npy(path) for path in paths}


def test_train_and_test_folders_are_read_as_they_are(tmp_path: Path) -> None:
    paint(tmp_path / "root/train", 4)
    paint(tmp_path / "root/val", 2, seed=1)
    (tmp_path / "root/train/.cache").mkdir()
    (tmp_path / "root/train/ant/notes.txt").write_text("no picture")
    arrays = stored(tmp_path, spec(tmp_path / "root"))
    assert arrays["train_labels"].tolist() == [0] * 4 + [1] * 4 + [2] * 4
    assert arrays["test_images"].shape == (6, 3, 12, 12) and arrays["test_images"].dtype == np.uint8
    with Image.open(tmp_path / "root/train/bee/001.png") as picture:
        assert (arrays["train_images"][5] == np.asarray(picture).transpose(2, 0, 1)).all()


def test_a_folder_without_test_pictures_is_split_once(tmp_path: Path) -> None:
    paint(tmp_path / "root", 8)
    arrays = stored(tmp_path, spec(tmp_path / "root"))
    assert np.bincount(arrays["test_labels"]).tolist() == [2, 2, 2]
    assert np.bincount(arrays["train_labels"]).tolist() == [6, 6, 6]
    other = stored(tmp_path, spec(tmp_path / "root", split_seed=1))
    assert (other["test_images"] != arrays["test_images"]).any()


def test_pictures_of_any_size_are_resized_and_cut_as_torchvision_does(tmp_path: Path) -> None:
    from torchvision import transforms

    paint(tmp_path / "root", 4, size=(40, 28))
    arrays = stored(tmp_path, spec(tmp_path / "root", size=16, resize=20))
    theirs = transforms.Compose([transforms.Resize(20), transforms.CenterCrop(16), transforms.PILToTensor()])
    with Image.open(tmp_path / "root/ant/000.png") as picture:
        expected = theirs(picture.convert("RGB")).numpy()
    assert any((image == expected).all() for image in [*arrays["train_images"], *arrays["test_images"]])


def test_grey_pictures_have_one_channel(tmp_path: Path) -> None:
    paint(tmp_path / "root", 4)
    arrays = stored(tmp_path, spec(tmp_path / "root", channels=1))
    assert arrays["train_images"].shape == (9, 1, 12, 12)


def test_a_damaged_picture_is_named_and_leaves_no_store(tmp_path: Path) -> None:
    paint(tmp_path / "root", 4)
    picture = tmp_path / "root/cat/003.png"
    picture.write_bytes(picture.read_bytes()[:60])
    with pytest.raises(UserError, match=r"cat/003\.png is no picture"):
        stored(tmp_path, spec(tmp_path / "root"))
    assert not list((tmp_path / "store").glob("*.npy"))


def test_sets_of_other_classes_and_empty_folders_are_refused(tmp_path: Path) -> None:
    paint(tmp_path / "root/train", 2)
    paint(tmp_path / "root/test", 2)
    (tmp_path / "root/test/cat").rename(tmp_path / "root/test/dog")
    with pytest.raises(UserError, match=r"other classes \(cat, dog\)"):
        load(spec(tmp_path / "root"), tmp_path, download=False)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="one folder of pictures a class"):
        load(spec(tmp_path / "empty"), tmp_path, download=False)


def test_pictures_of_16_bits_bombs_and_broken_links_are_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paint(tmp_path / "root", 4)
    picture = tmp_path / "root/cat/003.png"
    Image.fromarray(np.full((12, 12), 3000, np.uint16)).save(picture)
    with pytest.raises(UserError, match=r"cat/003\.png has more than 8 bits"):
        stored(tmp_path, spec(tmp_path / "root"))
    picture.unlink()
    with monkeypatch.context() as patch:
        patch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
        with pytest.raises(UserError, match=r"is no picture that can be decoded"):
            stored(tmp_path, spec(tmp_path / "root"))
    picture.symlink_to(tmp_path / "nowhere")
    with pytest.raises(UserError, match=r"cat/003\.png cannot be read"):
        stored(tmp_path, spec(tmp_path / "root"))


@pytest.mark.parametrize("order", ["NHW", "NHWC", "NCHW"])
@pytest.mark.parametrize("keras", [False, True])
def test_an_npz_may_have_its_axes_in_any_order(order: str, keras: bool, tmp_path: Path) -> None:
    channels = 1 if order == "NHW" else 3
    images = np.random.default_rng(0).integers(0, 256, (7, channels, 9, 9), dtype=np.uint8)
    saved = {"NHW": images[:, 0], "NHWC": images.transpose(0, 2, 3, 1), "NCHW": images}[order]
    names = (
        ("x_train", "y_train", "x_test", "y_test")
        if keras
        else ("train_images", "train_labels", "test_images", "test_labels")
    )
    labels = np.arange(7)[:, None] % 3
    np.savez(tmp_path / "a.npz", **dict(zip(names, (saved, labels, saved[:2], labels[:2]), strict=True)))
    told = {
        "dataset": "mine",
        "loader": "npz",
        "root": str(tmp_path / "a.npz"),
        "size": 9,
        "channels": channels,
        "classes": 3,
    }
    data = load(told, tmp_path, download=False)
    assert (data.train_images == images).all() and data.train_labels.tolist() == (np.arange(7) % 3).tolist()
    assert data.class_names == ["0", "1", "2"] and len(data.test_images) == 2


def test_an_npz_that_lacks_an_array_or_holds_a_pickle_is_one_sentence(tmp_path: Path) -> None:
    told = {"dataset": "mine", "loader": "npz", "root": str(tmp_path / "a.npz"), "size": 9, "channels": 1, "classes": 3}
    with pytest.raises(UserError, match=r"a\.npz is missing"):
        load(told, tmp_path, download=False)
    (tmp_path / "a.npz").write_bytes(b"")
    with pytest.raises(UserError, match=r"no \.npz file of plain arrays"):
        load(told, tmp_path, download=False)
    with open(tmp_path / "a.npz", "wb") as file:
        np.save(file, np.zeros(3))
    with pytest.raises(UserError, match=r"no \.npz file of plain arrays"):
        load(told, tmp_path, download=False)
    np.savez(tmp_path / "a.npz", train_images=np.zeros((2, 9, 9), np.uint8))
    with pytest.raises(UserError, match="no array 'train_labels'"):
        load(told, tmp_path, download=False)
    np.savez(tmp_path / "a.npz", train_images=np.array([{}], dtype=object))
    with pytest.raises(UserError, match=r"no \.npz file of plain arrays"):
        load(told, tmp_path, download=False)


# In the configuration.


def jobs(block: dict[str, Any], **more: Any) -> Jobs:
    """Return the jobs of a tiny experiment on the data sets of a block."""
    config = load_overlays()
    dropped = dict.fromkeys(("mnist", "cifar10", "cifar100"))
    run = {
        "architectures": ["lenet"],
        "datasets": list(block),
        "labels": "true-labels",
        "steps": 4,
        "evaluate_every": 2,
    }
    given = {"datasets": dropped | block, "runs": [run], "figures": {"architecture": "lenet"}} | more
    update_config(config, {"training": {"batch_size": 2}, "probes": {"knn": {"k": 3, "k_max": 3}}})
    update_config(config, given)
    return Jobs(runs.create(config))


def told(made: Jobs, rule: str) -> dict[str, Any]:
    return next(json.loads(task.spec) for task in made.tasks if task.rule == rule)


def test_a_folder_is_an_entry_of_the_configuration(tmp_path: Path) -> None:
    paint(tmp_path / "root", 8)
    block = {"loader": "folder", "root": str(tmp_path / "root"), "size": 12, "title": "Mine"}
    made = jobs({"mine": block | {"mean": [0.5, 0.4, 0.3], "std": [0.2, 0.2, 0.2]}})
    prepared = told(made, "prepare")
    assert {key: prepared[key] for key in ("loader", "channels", "size", "classes")} == {
        "loader": "folder",
        "channels": 3,
        "size": 12,
        "classes": 3,
    }
    assert not {"title", "mean", "std"} & set(prepared)
    assert told(made, "figure")["titles"] == {"mine": "Mine"}
    network = told(made, "train")["network"]
    assert (
        network["module"] == "normalized"
        and network["mean"] == [0.5, 0.4, 0.3]
        and network["network"]["module"] == "lenet"
    )
    assert told(made, "train")["code"]["files"][1:] == [
        "dnn_or_knn/networks/normalized.py",
        "dnn_or_knn/networks/lenet.py",
    ]
    assert "stream" not in told(made, "train")
    store = load(prepared, tmp_path, download=False)
    assert len(store.train_labels) == 18 or len(store.train_labels) == 19
    (tmp_path / "root/ant/more.png").write_bytes(b"x")
    datasets.fingerprint.cache_clear()
    assert told(jobs({"mine": block}), "prepare")["fingerprint"] != prepared["fingerprint"]


def test_another_npz_of_one_size_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, found = tmp_path / "a.npz", set()
    for read in (10**9, 0):
        monkeypatch.setattr(datasets, "READ", read)
        for content in (b"one", b"two"):
            file.write_bytes(content)
            os.utime(file, (content[0], content[0]))
            datasets.fingerprint.cache_clear()
            found.add(datasets.fingerprint(str(file)))
    assert len(found) == 4


def test_linked_folders_are_seen_and_neither_loops_nor_broken_links_stop_it(tmp_path: Path) -> None:
    paint(tmp_path / "there", 2)
    (tmp_path / "root").mkdir()
    (tmp_path / "root/ant").symlink_to(tmp_path / "there/ant")
    (tmp_path / "there/ant/up").symlink_to(tmp_path / "root")
    (tmp_path / "root/.#gone").symlink_to(tmp_path / "nowhere")
    found = set()
    for number in range(2):
        (tmp_path / f"there/ant/{number}.png").write_bytes(b"x")
        datasets.fingerprint.cache_clear()
        found.add(datasets.fingerprint(str(tmp_path / "root")))
    assert len(found) == 2


def test_large_images_stay_on_disk(tmp_path: Path) -> None:
    paint(tmp_path / "root", 2)
    block = {"loader": "folder", "root": str(tmp_path / "root"), "size": 65}
    made = jobs({"mine": block}, measures={"rewind": True})
    for rule in ("train", "features", "measure_weights"):
        spec = told(made, rule)
        assert spec["stream"] is True and "dnn_or_knn/data/streaming.py" in spec["code"]["files"]
    run = {
        "architectures": ["lenet"],
        "datasets": ["mine"],
        "labels": "a",
        "steps": 4,
        "evaluate_every": 2,
        "layers": "all",
    }
    with pytest.raises(UserError, match="layer_input: mean"):
        jobs({"mine": block}, runs=[run])


@pytest.mark.parametrize(("size", "batch"), [(64, None), (65, 96), (128, 25), (224, 8), (900, 1)])
def test_a_cpu_evaluates_fewer_images_where_they_are_large(tmp_path: Path, size: int, batch: int | None) -> None:
    """So that what the layers make of a batch has no more numbers than it has of small ones, whose batches stay as they were."""
    paint(tmp_path / "root", 2)
    made = jobs({"mine": {"loader": "folder", "root": str(tmp_path / "root"), "size": size}}, measures={"rewind": True})
    for rule in ("features", "measure_weights"):
        spec = told(made, rule)
        assert spec.get("cpu_batch") == batch
        wanted = min(batch or extraction.CPU_BATCH, 100)
        assert extraction.batch_of(spec, torch.device("cpu")) == wanted
        assert extraction.batch_of(spec | {"batch_size": 1}, torch.device("cpu")) == 1
        assert extraction.batch_of(spec, torch.device("cuda")) == made.config["jobs"]["evaluation_batch"]
    assert "cpu_batch" not in told(made, "train"), "training takes the batch that the configuration names"


def test_torchvisions_classes_take_one_line() -> None:
    made = jobs(
        {
            "fashion": {"loader": "torchvision", "class": "FashionMNIST"},
            "kmnist": {"loader": "torchvision", "class": "KMNIST"},
        }
    )
    specs = [json.loads(task.spec) for task in made.tasks if task.rule == "prepare"]
    assert [(spec["dataset"], spec["class"], spec["channels"], spec["size"], spec["classes"]) for spec in specs] == [
        ("fashion", "FashionMNIST", 1, 28, 10),
        ("kmnist", "KMNIST", 1, 28, 10),
    ]


@pytest.mark.parametrize(
    ("block", "said"),
    [
        ({"mine": {"loader": "foldr"}}, "did you mean 'folder'"),
        ({"mine": {"loader": "folder", "size": 8}}, "lacks the key 'root'"),
        ({"mine": {"loader": "folder", "root": "/no/such/place", "size": 8}}, "cannot be read"),
        ({"mine": {"loader": "folder", "root": "$NO_SUCH_PLACE_HERE/a", "size": 8}}, "stands for nothing here"),
        ({"mine": {"loader": "torchvision", "class": "SVHN"}}, "class is 'SVHN'"),
        ({"mine": {"loader": "npz", "root": "a.npz", "size": 8, "classes": 3, "colour": 1}}, "unknown key 'colour'"),
        ({"digits": {"loader": "npz", "root": "a.npz", "size": 8, "classes": 3}}, "give it another name"),
        ({"../../evil": {"loader": "npz", "root": "a.npz", "size": 8, "classes": 3}}, "the name '../../evil'"),
        ({"mine": {"loader": "folder", "root": "/no", "size": 8, "resize": 7}}, "resize is 7, less than its size"),
        ({"digits": {"mean": [0.5]}}, "one of mean and std"),
        ({"digits": {"mean": [0.5, 0.5], "std": [1.0, 1.0]}}, "has 2 numbers, but the images 1 channels"),
        ({"digits": {"mean": [0.5], "std": [0]}}, "not above 0"),
        ({"mine": {}}, "not in the registry"),
    ],
)
def test_a_bad_entry_is_one_sentence(block: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        jobs(block)


# Images that stay on disk.


def test_streamed_images_are_those_of_the_store(tmp_path: Path) -> None:
    images = np.random.default_rng(1).integers(0, 256, (150, 3, 5, 5), dtype=np.uint8)
    files.write_npy(tmp_path / "a.npy", images)
    chosen = np.array([3, 149, 0, 77, 77])
    whole = Streamed(files.read_npy(tmp_path / "a.npy", mmap=True))
    some = Streamed(files.read_npy(tmp_path / "a.npy", mmap=True), chosen)
    assert len(whole) == 150 and len(some) == 5 and some.shape == (5, 3, 5, 5)
    assert (whole[10:90].numpy() == images[10:90]).all() and (some[:1].numpy() == images[3:4]).all()
    assert (some.on(torch.device("cpu")).index_select(0, torch.tensor([4, 0])).numpy() == images[[77, 3]]).all()
    assert (whole.sum(axis=(2, 3), dtype=np.int64) == images.sum(axis=(2, 3), dtype=np.int64)).all()
