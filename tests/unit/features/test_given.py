"""Features that were computed elsewhere: taken over bit for bit, refused in one sentence, planned, probed, measured."""

from __future__ import annotations

import dataclasses
import json
import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import own_features as toy
import pandas as pd
import pytest
from dnn_or_knn.data import arrays
from dnn_or_knn.plan import datasets, runs
from dnn_or_knn.plan.configuration import load_overlays
from dnn_or_knn.plan.specifications import Jobs
from dnn_or_knn.runtime.errors import UserError
from dnn_or_knn.runtime.files import write_json
from dnn_or_knn.tools import disk, verify
from own_features import CLASSES, TEST, TRAIN, drawn, npy, npz, plan

TAKEN = ("prepare", "labels", "import_features", "given_features")
RUN = Path("results/given/mine/mine/true-labels/seed0")


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


# What is read.


@pytest.mark.parametrize("write", [npz, npy])
@pytest.mark.parametrize("kind", ["<f2", "<f4", "<f8", ">f4"])
@pytest.mark.parametrize("order", "CF")
def test_a_table_is_taken_over_row_by_row(
    write: Any, kind: str, order: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(arrays, "ROWS", 7)
    monkeypatch.setattr(arrays, "BYTES", 64)
    values = np.random.default_rng(0).normal(size=(23, 4)).astype(kind)
    path = Path(write(tmp_path / "a.npz", train_features=np.asarray(values, order=order)))  # type: ignore[call-overload]
    arrays.write(arrays.table(path, "train_features", 23), tmp_path / "made.npy")
    np.save(tmp_path / "wanted.npy", values.astype(np.float32))
    assert (tmp_path / "made.npy").read_bytes() == (tmp_path / "wanted.npy").read_bytes()


def change(name: str, value: Any) -> Any:
    """Return what makes another array of one, or leaves it out."""
    return lambda given: {**given, name: value(given[name])} if value else {k: v for k, v in given.items() if k != name}


def put(row: int, column: int, value: float) -> Any:
    def at(array: np.ndarray) -> np.ndarray:
        made = array.astype(np.float64)
        made[row, column] = value
        return made

    return at


def first(value: int) -> Any:
    return lambda labels: np.concatenate([[value], labels[1:]])


@pytest.mark.parametrize("write", [npz, npy])
@pytest.mark.parametrize(
    ("change", "said"),
    [
        (change("test_features", None), "mine.*has no array 'test_features' .did you mean 'train_features'.*add it"),
        (change("train_features", put(3, 2, np.nan)), "'train_features' has nan in row 3, column 2, which is not finite"),
        (change("test_features", put(1, 0, np.inf)), "'test_features' has inf in row 1, column 0, which is not finite"),
        (change("train_features", put(0, 1, 1e300)), "has 1e.300 in row 0, column 1, which is too large for float32"),
        (change("train_features", lambda x: x.astype(int)), "'train_features' is int64; convert it to float16, float32 or"),
        (change("train_features", lambda x: x.astype(complex)), "'train_features' is complex128; convert it"),
        (change("train_features", lambda x: x[..., None]), r"has the shape \(60, 5, 1\); make it a table"),
        (change("train_features", lambda x: x[:, :0]), r"has the shape \(60, 0\); make it a table"),
        (change("test_features", lambda x: x[1:]), "'test_features' has 29 rows, but there are 30 test labels"),
        (change("test_features", lambda x: x[:, 1:]), "has 5 train features and 4 test features an image"),
        (change("train_labels", None), "mine.* has test_labels alone; give train_labels and test_labels, or neither"),
        (change("test_logits", None), "mine.* has train_logits alone; give train_logits and test_logits, or neither"),
        (change("train_logits", lambda x: x[:, 1:]), "'train_logits' has 2 columns, but there are 3 classes"),
        (change("train_logits", lambda x: x[1:]), "'train_logits' has 59 rows, but there are 60 train labels"),
        (change("test_logits", put(2, 1, np.nan)), "'test_logits' has nan in row 2, column 1"),
        (change("train_labels", lambda y: y.astype(float)), "'train_labels' is float64 .60,.; labels are whole numbers"),
        (change("train_labels", lambda y: np.eye(3, dtype=int)[y]), r"'train_labels' is int64 \(60, 3\); labels are whole"),
        (change("train_labels", first(-1)), "'train_labels' has -1 in row 0; number the classes from 0 on"),
        (change("test_labels", first(10**9)), "'test_labels' has 1000000000 in row 0; number the classes from 0 on"),
        (change("test_labels", lambda y: y[:0]), "'test_labels' is empty; give a label for each row"),
        (change("train_labels", lambda y: y.astype(object)), "'train_labels' holds Python objects, a pickle, and was not read"),
        (change("train_features", lambda x: x.astype(object)), "'train_features' holds Python objects, a pickle"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_one_sentence(write: Any, change: Any, said: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=said) as error:
        toy.make(plan({"mine": {"features": write(tmp_path / "mine.npz", **change(drawn()))}}), *TAKEN)
    assert "\n" not in str(error.value) and "mine.npz" in str(error.value)
    assert not list(RUN.rglob("steps*.json")), "nothing was taken over"


class Evil:
    """Leaves a file behind where it is unpickled."""

    def __reduce__(self) -> Any:
        return Path.touch, (Path("run-by-a-pickle"),)


def test_no_pickle_is_ever_loaded(tmp_path: Path) -> None:
    folder = Path(npy(tmp_path / "mine", **drawn()))
    (folder / "train_features.npy").write_bytes(pickle.dumps(Evil()))
    with pytest.raises(UserError, match=r"'train_features' cannot be read .*save it again with numpy"):
        plan({"mine": {"features": str(folder)}})
    given = drawn() | {"train_labels": np.array([Evil()] * TRAIN, dtype=object)}
    with pytest.raises(UserError, match=r"'train_labels' holds Python objects, a pickle, and was not read"):
        plan({"mine": {"features": npz(tmp_path / "mine.npz", **given)}})
    assert not Path("run-by-a-pickle").exists()


def test_damaged_files_are_one_sentence(tmp_path: Path) -> None:
    path = Path(npz(tmp_path / "mine.npz", **drawn()))
    whole = path.read_bytes()
    path.write_bytes(whole[:500])
    with pytest.raises(UserError, match=r"subjects.mine.features.0.embedding: .*mine.npz is no .npz file"):
        plan({"mine": {"features": str(path)}})
    at = whole.index(drawn()["test_features"].tobytes())
    path.write_bytes(whole[:at] + b"\x00\x01\x02\x03" + whole[at + 4 :])
    with pytest.raises(UserError, match=r"'test_features' cannot be read .*CRC"):
        toy.make(plan({"mine": {"features": str(path)}}), *TAKEN)
    folder = Path(npy(tmp_path / "mine", **drawn()))
    file = folder / "test_features.npy"
    file.write_bytes(file.read_bytes()[:-8])
    with pytest.raises(UserError, match=r"'test_features' cannot be read .it ends early"):
        toy.make(plan({"mine": {"features": str(folder)}}), *TAKEN)
    with pytest.raises(UserError, match=r"test_features.npy is a single array; give an .npz file"):
        plan({"mine": {"features": str(file)}})


@pytest.mark.parametrize("head", [b"{'descr': '<f4', ", b"  x\n y"])
def test_a_damaged_head_is_one_sentence(head: bytes, tmp_path: Path) -> None:
    folder = Path(npy(tmp_path / "mine", **drawn()))
    (folder / "train_features.npy").write_bytes(b"\x93NUMPY\x01\x00" + len(head).to_bytes(2, "little") + head)
    with pytest.raises(UserError, match=r"mine: 'train_features' cannot be read .*save it again with numpy"):
        arrays.find(folder, "train_features")


def test_what_is_no_array_of_a_zip_file_is_one_sentence(tmp_path: Path) -> None:
    path = Path(npz(tmp_path / "mine.npz", **drawn()))
    whole = bytearray(path.read_bytes())
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("train_features", "no array")
    with pytest.raises(UserError, match=r"mine.npz has no array 'train_features'"):
        arrays.find(path, "train_features")
    for head, flags in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        whole[whole.index(head) + flags] |= 1
    path.write_bytes(whole)
    with pytest.raises(UserError, match=r"'train_features' cannot be read .*encrypted"):
        arrays.find(path, "train_features")
    with pytest.raises(
        UserError, match=r"inside cannot be read .Not a directory.; make it readable or correct the path"
    ):
        arrays.find(path / "inside", "train_features")


def test_other_rows_and_other_labels_than_the_data_sets_are_one_sentence(tmp_path: Path) -> None:
    one, other = drawn(), drawn(1)
    other["test_labels"] = np.roll(other["test_labels"], 1)
    row = int(np.flatnonzero(other["test_labels"] != one["test_labels"])[0])
    subjects = {
        name: {"features": npz(tmp_path / f"{name}.npz", **given), "dataset": "mine"}
        for name, given in (("one", one), ("other", other))
    }
    with pytest.raises(
        UserError, match=rf"other.npz: 'test_labels' has . in row {row}, where the data set has .; bring"
    ):
        toy.make(plan(subjects), *TAKEN)


def test_a_layer_of_another_width_at_another_step_is_one_sentence(tmp_path: Path) -> None:
    files = {step: npz(tmp_path / f"{step}.npz", **drawn(width=4 + step)) for step in (0, 1)}
    with pytest.raises(UserError, match=r"1.npz has 5 features an image, and embedding had 4 at an earlier step"):
        toy.make(plan({"mine": {"features": files}}), *TAKEN)


# In the plan.


def test_one_file_layers_and_steps_are_spelled_out(tmp_path: Path) -> None:
    a, b = (npz(tmp_path / f"{name}.npz", **drawn(seed)) for seed, name in enumerate("ab"))
    forms = {
        "one": a,
        "layers": {"block.1": b, "embedding": a},
        "steps": {0: a, 1000: b},
        "both": {0: a, 1000: {"block.1": b, "embedding": a}},
    }
    jobs = plan({name: {"features": form, "dataset": "mine"} for name, form in forms.items()})
    found = {run.architecture: run for run in jobs.experiment.runs.values()}
    assert found["one"].given == {0: {"embedding": a}} and found["one"].layers == "embedding"
    assert found["layers"].given == {0: forms["layers"]} and found["layers"].layers == "all"
    assert found["steps"].given == {0: {"embedding": a}, 1000: {"embedding": b}}
    shards = {name: [shard.name for shard in jobs.experiment.shards(run)] for name, run in found.items()}
    assert shards["layers"] == ["steps000000-000000", "layers000000"]
    assert shards["both"] == ["steps000000-001000", "layers001000"]
    rules = {task.rule for task in jobs.tasks}
    assert {"prepare", "import_features", "given_features"} <= rules
    assert rules.isdisjoint({"train", "import_weights", "features"})
    assert set(jobs.given().split("|")) == set(forms) and jobs.imported() == jobs.trained() == "(?!)"
    again = Jobs(runs.create(json.loads(json.dumps(jobs.config))))
    assert [task.spec for task in again.tasks] == [task.spec for task in jobs.tasks], "what the head froze"


def test_a_changed_array_makes_what_reads_it_stale_and_nothing_else(tmp_path: Path) -> None:
    for write, path in ((npz, "{}.npz"), (npy, "{}")):
        files = {step: write(tmp_path / path.format(step), **drawn(step)) for step in (0, 10)}
        shards = {"shards": {"evaluations": 1}}
        before = {task.manifest: task.spec for task in plan({"mine": {"features": files}}, **shards).tasks}
        write(tmp_path / path.format(10), **drawn(11))
        datasets.fingerprint.cache_clear()
        after = {task.manifest: task.spec for task in plan({"mine": {"features": files}}, **shards).tasks}
        changed = {name for name in before if before[name] != after[name]}
        run = RUN.relative_to("results/given").as_posix()
        assert changed == {f"{run}/training", f"{run}/features/steps000010-000010"}


@pytest.mark.parametrize(
    ("subject", "said"),
    [
        ({"features": "no.npz"}, "config: subjects.mine.features.0.embedding: no.npz is not there; correct the path"),
        ({"features": {}}, "subjects.mine.features is empty"),
        ({"features": 3}, "subjects.mine.features is 3, not a text or keys with values"),
        ({"features": {"block": "a.npz"}}, "has no 'embedding' at step 0.*known: block.*add it"),
        ({"features": {"embeding": "a.npz"}}, "has no 'embedding' at step 0.*did you mean 'embeding'"),
        ({"features": {0: "a.npz", "embedding": "a.npz", 5: {"embedding": "a.npz"}}}, "steps and layers in one mapping"),
        ({"features": {0: {"embedding": 3}}}, "subjects.mine.features has 3 at embedding; write step"),
        ({"features": {0: "a.npz", 7: "a.npz", "00": "a.npz"}}, "features has the step 0 twice, as '0' and as '00'; keep one"),
        ({"features": {0: 4}}, "subjects.mine.features has 4 at 0; write a file"),
        ({"features": {0: {"a": "a.npz", "b": "a.npz", "embedding": "a.npz"}, 5: {"b": "a.npz", "a": "a.npz", "embedding": "a.npz"}}},
         "subjects.mine.features has b before a at one step, and after it at another; write the layers of each step in"),
        ({"features": {"../x": "a.npz", "embedding": "a.npz"}}, "a layer '../x'; use letters"),
        ({"features": "a.npz", "network": "torchvision:resnet18"}, "has features and network; give features alone"),
        ({"features": "a.npz", "checkpoints": {0: "a.pt"}}, "has features and checkpoints"),
        ({"features": "bare.npz"}, "bare.npz has no train_labels and test_labels, and 'mine' is not under datasets"),
        ({"features": "bare.npz", "dataset": "digit"}, "'digit' is not under datasets .did you mean 'digits'"),
        ({"features": "a.npz", "dataset": "mnist"}, "the dataset 'mnist', which is not under datasets; add it there"),
        ({"features": {0: "a.npz", 5: "bare.npz"}}, "has logits, but none in bare.npz; give them at all steps or at none"),
        ({"features": "a.npz", "labls": "x"}, "unknown key 'labls'.*did you mean 'labels'"),
        ({"dataset": "digits"}, "subjects.mine lacks the key 'network'; add it, or give features alone"),
    ],
)  # fmt: skip
def test_a_bad_subject_is_one_sentence(subject: dict[str, Any], said: str) -> None:
    npz(Path("a.npz"), **drawn())
    npz(Path("bare.npz"), **drawn(logits=False, labels=False))
    with pytest.raises(UserError, match=said) as error:
        plan({"mine": subject}, datasets={"digits": {}})
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("subject", "said"),
    [({"featurs": "a.npz"}, "unknown key 'featurs'.*did you mean 'features'"), ({"features": ["a.npz"]}, "subjects.mine.features is")],
)  # fmt: skip
def test_a_bad_subject_is_told_where_no_data_set_comes_of_it(subject: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        plan({"mine": subject})


def test_more_neighbours_than_rows_and_fewer_classes_than_labels_are_refused() -> None:
    mine = {"mine": {"features": npz(Path("a.npz"), **drawn())}}
    with pytest.raises(UserError, match=r"probes.knn wants 60 neighbours, but mine/.* has 60 training images"):
        plan(mine, probes={"knn": {"k_max": 60}})
    with pytest.raises(UserError, match=r"datasets.mine.classes is 2, but a label is 2; raise it to 3"):
        plan(mine, datasets={"mine": {"loader": "features", "root": "a.npz", "classes": 2}})


def test_a_network_cannot_be_trained_on_a_data_set_without_images() -> None:
    block = {"architectures": ["mlp8"], "datasets": ["mine"], "labels": "true-labels", "steps": 3, "evaluate_every": 3}
    changes: dict[str, Any] = {"architectures": {"mlp8": {}}, "runs": [block | {"training": {"batch_size": 5}}]}
    with pytest.raises(UserError, match=r"mine/mlp8/true-labels/seed0 needs images, but datasets.mine has the labels"):
        plan({"mine": {"features": npz(Path("a.npz"), **drawn())}}, **changes)


def test_a_measure_is_made_of_the_runs_that_have_what_it_reads() -> None:
    with_logits = {"features": npz(Path("a.npz"), **drawn()), "dataset": "mine"}
    without = {"features": npz(Path("b.npz"), **drawn(1, logits=False)), "dataset": "mine"}
    jobs = plan({"one": with_logits, "other": without}, measures={"examples": True})
    measured = [task.wildcards["architecture"] for task in jobs.tasks if task.rule == "measure_outputs"]
    assert measured == ["one"]
    for name, of, lacked in (("examples", without, "logits"), ("geometry", with_logits, "weights"), ("rewind", with_logits, "weights")):  # fmt: skip
        with pytest.raises(UserError, match=rf"measures.{name} is true, but all runs are of features alone.*{lacked}"):
            plan({"one": of}, measures={name: True})


def test_given_features_stay_and_are_counted() -> None:
    jobs = plan({"mine": {"features": {0: npz(Path("a.npz"), **drawn()), 7: {"block": "a.npz", "embedding": "a.npz"}}}})
    (run,) = jobs.experiment.runs.values()
    assert jobs.config["keep"]["features"] == "until-probed"
    assert jobs.readers({**vars(run), "shard": "steps000000-000007", "seed": "0"}) == ""
    entry = datasets.entry(jobs.config, "mine")
    found = disk.needs(run, jobs.config["probes"], entry, disk.images_of(run, Path(jobs.results), entry))
    assert found["features"] == (TRAIN + TEST) * 4 * toy.WIDTH * 3 and found["weights"] == 0
    assert found["logits"] == (TRAIN + TEST) * 4 * CLASSES * 2
    fewer = dataclasses.replace(run, subset={"count": 9, "draw": "balanced"})
    assert disk.needs(fewer, jobs.config["probes"], entry, (TRAIN, TEST))["logits"] == (9 + TEST) * 4 * CLASSES * 2
    toy.make(jobs, *TAKEN)
    disk.release(jobs.experiment)
    assert (RUN / "features/layers000007/step000007_block_train.npy").is_file()


def test_disk_asks_to_release_what_can_be_released(capsys: pytest.CaptureFixture[str]) -> None:
    npz(Path("a.npz"), **drawn())
    jobs = plan({"mine": {"features": {0: "a.npz", 7: {"block": "a.npz", "embedding": "a.npz"}}}})
    toy.make(jobs, *TAKEN)
    write_json(Path("given.yaml"), jobs.config)
    words = ["--configfile", "given.yaml"]
    assert disk.main("disk", words) == 0
    said = capsys.readouterr().out
    assert "Features of 2 shards lie on disk now" in said and "Those of 2 were given and stay" in said
    assert "--release" not in said and "released" not in said, "there is nothing that could be"
    dropped = RUN.with_name("seed1") / "features/steps000000-000000"
    dropped.mkdir(parents=True)
    assert disk.main("disk", words) == 0
    said = capsys.readouterr().out
    assert "Features of 3 shards" in said and "Those of 2 were given" in said and "given.yaml --release" in said
    assert disk.main("disk", [*words, "--release"]) == 0
    said = capsys.readouterr().out
    assert not dropped.exists() and "Features of 2 shards" in said and "--release" not in said


# What comes of it.


def test_what_is_taken_over_is_what_was_given() -> None:
    given = {0: drawn(), 10: drawn(1)}
    files = {step: npz(Path(f"{step}.npz"), **values) for step, values in given.items()}
    hidden = drawn(2, width=9, logits=False, labels=False)
    layers = {"block": npy(Path("block"), **hidden), "embedding": files[10]}
    jobs = plan({"mine": {"features": {0: files[0], 10: layers}}})
    toy.make(jobs, *TAKEN)
    for split in ("train", "test"):
        for step, values in given.items():
            shard = f"steps000000-000010/step{step:06d}"
            assert np.array_equal(np.load(RUN / f"features/{shard}_embedding_{split}.npy"), values[f"{split}_features"])
            assert np.array_equal(np.load(RUN / f"logits/{shard}_{split}.npy"), values[f"{split}_logits"])
        made = np.load(RUN / f"features/layers000010/step000010_block_{split}.npy")
        assert np.array_equal(made, hidden[f"{split}_features"])
        stored = np.load(Path("results/given/mine/store") / f"{split}_labels.npy")
        assert np.array_equal(stored, given[0][f"{split}_labels"])
    training = json.loads((RUN / "training.json").read_text())
    assert [(p["name"], p["dimensions"]) for p in training["probe_points"]] == [("block", 9), ("embedding", toy.WIDTH)]
    assert list(verify.problems(Path("results/given"))) == []


@pytest.mark.parametrize("logits", [True, False])
def test_layers_stand_in_the_networks_order_where_steps_have_some_of_them(logits: bool) -> None:
    """Not in that of their first appearance, which has the second block before the first."""
    a = npz(Path("a.npz"), **drawn(logits=logits))
    some = {"block2": a, "embedding": a}
    jobs = plan({"mine": {"features": {0: some, 7: {"embedding": a, "block1": a, "block2": a, "block3": a}}}})
    toy.make(jobs, *TAKEN, "probe", "measures")
    names = ["block1", "block2", "block3", "embedding"]
    table = pd.read_parquet(RUN / "measures/measures.parquet")
    places = table[["layer", "layer_index"]].drop_duplicates().sort_values("layer_index")
    assert list(places.layer) == names and list(places.layer_index) == [0, 1, 2, 3]
    assert set(table[table.layer == "block2"].step) == {0, 7}
    assert [point["name"] for point in json.loads((RUN / "training.json").read_text())["probe_points"]] == names
    # Where the order of appearance is the network's, nothing is told, and nothing becomes stale.
    other = plan({"mine": {"features": {0: {"block1": a, **some}, 7: {"block1": a, "block2": a, "block3": a, **some}}}})
    told = [[json.loads(task.spec) for task in of.tasks if task.rule == "measures"] for of in (jobs, other)]
    assert ["layers" in spec for specs in told for spec in specs] == [True, False]


def test_without_logits_accuracies_are_measured_and_nothing_else() -> None:
    """They are those that are measured with logits; what compares with a network is missing, and the claims say so."""
    values = drawn()
    both = {
        "with": {"features": npz(Path("a.npz"), **values), "dataset": "mine"},
        "without": {"features": npz(Path("b.npz"), **{k: v for k, v in values.items() if "logits" not in k}), "dataset": "mine"},
    }  # fmt: skip
    jobs = plan(both)
    toy.make(jobs, *TAKEN, "probe", "measures", "collect", "claims")
    table = pd.read_parquet("results/given/measures/measures.parquet")
    keys = ["step", "layer", "split", "model"]
    one, other = (table[table.architecture == name].set_index(keys) for name in both)
    assert set(one.index.get_level_values("model")) == {"dnn", "knn", "svm", "lr"}
    probes = one.drop("dnn", level="model")
    assert list(other.index) == list(probes.index)
    same = ["count", "accuracy", "accuracy_decision", "accuracy_probability", "generalization_gap", "converged", "gap"]
    pd.testing.assert_frame_equal(other[same], probes[same])
    assert other[["p_same", "d_kl", "d_kl_column"]].isna().all().all()
    assert probes[["p_same", "d_kl", "d_kl_column"]].notna().all().all()
    lines = pd.read_csv("results/given/measures/runs.csv").set_index("architecture")
    assert lines.loc["without", ["memorization_step", "final_train_accuracy"]].isna().all()
    assert lines.loc["with", "final_train_accuracy"] > 0.5 and lines.loc["without", "last_step"] == 0
    claims = json.loads(Path("results/given/claims/claims.json").read_text())["claims"]
    notes = {effect["note"] for effect in claims[0]["effects"] if effect["cell"] == "mine, without"}
    assert notes == {
        "mine/without/true-labels seed 0 has features without logits, and no network's answers to compare with"
    }
    assert list(verify.problems(Path("results/given"))) == []


def test_nothing_of_this_is_in_the_paper() -> None:
    jobs = Jobs(runs.create(load_overlays()))
    assert not [task for task in jobs.tasks if task.rule.endswith(("import_features", "given_features"))]
    specs = [json.loads(task.spec) for task in jobs.tasks if task.rule == "measures"]
    assert all("alone" not in spec and "dnn_or_knn/measures/alone.py" not in spec["code"]["files"] for spec in specs)
