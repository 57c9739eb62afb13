"""The measures and collect stages as commands, on a tiny run made by hand."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from conftest import SCRIPTS
from dnn_or_knn.measures import tables
from dnn_or_knn.runtime import files
from dnn_or_knn.runtime.results import write as listed
from forking import python

TRAIN, TEST, CLASSES, STEPS = 60, 40, 4, [0, 10, 20]
PROBES = {
    "knn": {"kind": "knn", "k": 5, "k_sweep": [1, 3]},
    "svm": {"kind": "svm", "predict": "decision"},
    "lr": {"kind": "logistic", "predict": "probability"},
}


def spec(**changes: Any) -> dict[str, Any]:
    """Return the specification of the run that `results` makes."""
    shards = [
        {"name": "steps000000-000010", "steps": [0, 10], "layers": ["embedding"]},
        {"name": "steps000020-000020", "steps": [20], "layers": ["embedding"]},
        {"name": "layers000020", "steps": [20], "layers": None},
    ]
    run = {"dataset": "toy", "architecture": "mlp4", "labels": "true-labels", "seed": 0}
    rest = {"bootstrap": {"replicates": 7, "seed": 0}, "memorized": 0.9995, "nearly_memorized": 0.9}
    return {"run": run, "shards": shards, "probes": PROBES, **rest, **changes}


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """Make a store, a label set and a run with logits and probe outputs; the network learns with the steps."""
    rng = np.random.default_rng(0)
    labels = {"train": rng.integers(0, CLASSES, TRAIN), "test": rng.integers(0, CLASSES, TEST)}
    arrays = {f"{split}_labels": value for split, value in labels.items()}
    _manifest(tmp_path / "toy/store", "store.json", arrays, dataset="toy", classes=CLASSES)
    chosen = {"indices": np.arange(TRAIN), "labels": labels["train"]}
    _manifest(tmp_path / "toy/labels/true-labels/seed0", "labels.json", chosen, classes=CLASSES)
    run = tmp_path / "toy/mlp4/true-labels/seed0"
    for shard in spec()["shards"]:
        layers = shard["layers"] or ["input", "initial_conv"]
        logits = {}
        for step in shard["steps"]:
            noise = {0: 9.0, 10: 1.0, 20: 0.01}[step]
            for split, truth in labels.items():
                values = np.eye(CLASSES)[truth] + noise * rng.normal(size=(len(truth), CLASSES))
                logits[f"step{step:06d}_{split}"] = values.astype(np.float32) * 5
        made = []
        if layers == ["embedding"]:
            made = files.write_arrays(run / "logits" / shard["name"], logits)
        facts = {"layers": [{"name": n, "dimensions": 4} for n in layers]}
        listed(run / "features" / f"{shard['name']}.json", facts, made)
        _fits(run, shard, layers, rng)
    lines = ["step,loss,train_accuracy,test_accuracy", "0,1.4,0.25,0.25", "5,1.0,,", "15,0.5,1.0,0.5"]
    (run / "history.csv").write_text("\n".join(lines) + "\n")
    listed(run / "training.json", {}, [run / "history.csv"])
    return tmp_path


def _fits(run: Path, shard: dict[str, Any], layers: list[str], rng: np.random.Generator) -> None:
    for probe, options in PROBES.items():
        folder = run / "probes" / probe / shard["name"]
        folder.mkdir(parents=True)
        for step in shard["steps"]:
            for layer in layers:
                arrays: dict[str, np.ndarray] = {}
                for split, count in (("train", TRAIN), ("test", TEST)):
                    if options["kind"] == "knn":
                        arrays[f"{split}_neighbours"] = rng.integers(0, TRAIN, (count, 5)).astype(np.int32)
                        arrays[f"{split}_distances"] = np.sort(rng.random((count, 5)))
                    else:
                        arrays[f"{split}_probabilities"] = rng.dirichlet(np.ones(CLASSES), count).astype(np.float32)
                        arrays[f"{split}_decision"] = rng.integers(0, CLASSES, count).astype(np.int16)
                np.savez(folder / f"step{step:06d}_{layer}.npz", **arrays)
        reports = {
            f"step{s:06d}_{layer}": {"converged": probe != "svm", "gap": 0.5}
            for s in shard["steps"]
            for layer in layers
        }
        listed(run / "probes" / probe / f"{shard['name']}.json", {"fits": reports}, sorted(folder.iterdir()))


def _manifest(folder: Path, name: str, arrays: dict[str, np.ndarray], **facts: Any) -> None:
    listed(folder / name, facts, files.write_arrays(folder, arrays))


def command(script: str, *words: str | Path, **values: Any) -> subprocess.CompletedProcess[str]:
    line = [python(), str(SCRIPTS / script), "--spec", json.dumps(values), *map(str, words)]
    return subprocess.run(line, capture_output=True, text=True)


def measure(results: Path, output: Path | None = None, **changes: Any) -> subprocess.CompletedProcess[str]:
    run = results / "toy/mlp4/true-labels/seed0"
    return command(
        "measures.py",
        *(
            "--store",
            results / "toy/store/store.json",
            "--labels",
            results / "toy/labels/true-labels/seed0/labels.json",
        ),
        *("--training", run / "training.json", "--output", (output or run / "measures") / "measures.json"),
        **spec(**changes),
    )


def collect(results: Path, run: str) -> subprocess.CompletedProcess[str]:
    made = results / run / "measures" / "measures.json"
    return command("collect.py", "--measures", made, "--output", results / "measures" / "measures.json", runs=[run])


def test_table_of_a_run_and_of_the_experiment(results):
    done = measure(results)
    assert done.returncode == 0, done.stderr
    folder = results / "toy/mlp4/true-labels/seed0/measures"
    table, replicates = tables.read(folder), tables.read_replicates(folder)
    assert list(table.columns) == tables.COLUMNS
    models = ["dnn", "knn", "knn-k1", "knn-k3", "lr", "svm"]
    assert sorted(table[table.layer == "embedding"].model.unique()) == models
    # 3 evaluations of the embedding with the network, 2 other layers without it, two splits of each
    assert len(table) == 3 * 6 * 2 + 2 * 5 * 2
    assert not table.duplicated(tables.KEYS).any()
    assert table.set_index("layer").layer_index.to_dict() == {"input": 0, "initial_conv": 1, "embedding": 2}
    assert {name: values.shape for name, values in replicates.items()} == dict.fromkeys(
        tables.REPLICATED, (len(table), 7)
    )
    sampled = replicates["accuracy"] * table["count"].to_numpy()[:, None]
    assert (sampled % 1 > 0).all()  # `smoothed`: not a whole number of samples
    _check_rows(results, table, replicates)

    collected = collect(results, "toy/mlp4/true-labels/seed0")
    assert collected.returncode == 0, collected.stderr
    pd.testing.assert_frame_equal(tables.read(results / "measures"), table)
    csv = pd.read_csv(results / "measures/measures.csv")
    np.testing.assert_allclose(csv.d_kl, table.d_kl)
    run = tables.read_runs(results / "measures").iloc[0]
    # Step 15 kept no weights: its accuracy is known from the training's history alone.
    assert (run.memorization_step, run.step_90, run.last_step, run.classes) == (15, 15, 20, CLASSES)
    assert (run.train_count, run.test_count, run.final_train_accuracy) == (TRAIN, TEST, 1.0)


def _check_rows(results: Path, table: pd.DataFrame, replicates: dict[str, np.ndarray]) -> None:
    """Recompute some rows from the files that they come from."""
    run = results / "toy/mlp4/true-labels/seed0"
    truth = {
        "train": np.load(results / "toy/store/train_labels.npy"),
        "test": np.load(results / "toy/store/test_labels.npy"),
    }
    for row in table[(table.step == 20) & (table.layer == "embedding")].itertuples():
        answer = np.load(run / f"logits/steps000020-000020/step000020_{row.split}.npy").argmax(axis=1)
        if row.model == "dnn":
            assert row.accuracy == (answer == truth[row.split]).mean() and np.isnan(row.p_same)
            continue
        with np.load(run / f"probes/{row.model.split('-')[0]}/steps000020-000020/step000020_embedding.npz") as arrays:
            if row.model.startswith("knn"):
                k = int(row.model[5:] or 5)
                votes = truth["train"][arrays[f"{row.split}_neighbours"][:, :k]]
                label = np.array([np.bincount(v, minlength=CLASSES).argmax() for v in votes])
            elif row.model == "svm":
                label = arrays[f"{row.split}_decision"]
            else:
                label = arrays[f"{row.split}_probabilities"].argmax(axis=1)
        assert row.accuracy == pytest.approx((label == truth[row.split]).mean())
        assert row.p_same == pytest.approx((label == answer).mean())
        assert row.converged == (row.model != "svm") and row.gap == 0.5
        assert abs(replicates["p_same"][row.Index].mean() - row.p_same) < 0.2
    gaps = table.groupby(["step", "layer", "model"]).generalization_gap.nunique()
    assert (gaps == 1).all()


def test_the_same_input_gives_the_same_bytes(results):
    for name in ("a", "b"):
        assert measure(results, results / name).returncode == 0
    for name in ("measures.json", "measures.parquet", "measures.csv", "replicates.parquet"):
        assert (results / "a" / name).read_bytes() == (results / "b" / name).read_bytes(), name


def _shorten_logits(run: Path) -> str:
    files.write_npy(run / "logits/steps000020-000020/step000020_test.npy", np.zeros((TEST - 1, CLASSES), np.float32))
    manifest = run / "features/steps000020-000020.json"
    listed(manifest, files.read_json(manifest), sorted((run / "logits/steps000020-000020").iterdir()))
    return "40 labels"


def _alter_probe(run: Path) -> str:
    path = run / "probes/svm/steps000000-000010/step000010_embedding.npz"
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    return "step000010_embedding.npz is damaged"


def _lose_logits(run: Path) -> str:
    (run / "logits/steps000000-000010/step000000_train.npy").unlink()
    return "step000000_train.npy is missing"


@pytest.mark.parametrize("damage", [_shorten_logits, _alter_probe, _lose_logits])
def test_damaged_input_is_one_sentence_and_leaves_nothing(results, damage):
    run = results / "toy/mlp4/true-labels/seed0"
    expected = damage(run)
    done = measure(results)
    assert done.returncode == 2 and expected in done.stderr and "Traceback" not in done.stderr
    assert not (run / "measures").exists()


def test_votes_by_similarity_are_read_off_for_each_k(results):
    vote = {"kind": "knn", "k": 5, "k_sweep": [3], "vote": {"weights": "softmax", "temperature": 0.2}}
    assert measure(results, probes={"knn": vote}).returncode == 0
    table = tables.read(results / "toy/mlp4/true-labels/seed0/measures").query("step == 0 and split == 'test'")
    with np.load(
        results / "toy/mlp4/true-labels/seed0/probes/knn/steps000000-000010/step000000_embedding.npz"
    ) as arrays:
        neighbours, distances = arrays["test_neighbours"], arrays["test_distances"]
    truth = {split: np.load(results / f"toy/store/{split}_labels.npy") for split in ("train", "test")}
    for model, k in (("knn", 5), ("knn-k3", 3)):
        one_hot = np.eye(CLASSES)[truth["train"][neighbours[:, :k]]]
        answers = (np.exp(-distances[:, :k, None] / 0.2) * one_hot).sum(axis=1).argmax(axis=1)
        measured = table.loc[table.model == model, "accuracy"].item()
        assert measured == pytest.approx(np.mean(answers == truth["test"]))


def test_more_neighbours_than_kept_is_refused(results):
    done = measure(results, probes={"knn": {"kind": "knn", "k": 5, "k_sweep": [9]}})
    assert done.returncode == 2 and "k = 9" in done.stderr and "k_max" in done.stderr


def test_collect_refuses_anothers_tables(results):
    assert measure(results).returncode == 0
    (results / "toy/mlp4/true-labels/seed0").rename(results / "toy/mlp4/true-labels/seed1")
    done = collect(results, "toy/mlp4/true-labels/seed1")
    assert done.returncode == 2 and "toy/mlp4/true-labels/seed0" in done.stderr
    assert not (results / "measures").exists()
