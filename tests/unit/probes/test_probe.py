"""The probe stage as a command: what it writes, that it resumes after a kill, and what it says of bad features."""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from conftest import SCRIPTS
from dnn_or_knn import numerics
from dnn_or_knn.features import dumps
from dnn_or_knn.probes import common
from dnn_or_knn.runtime import command_line, files, results, resume
from dnn_or_knn.runtime.errors import UserError

TRAIN, TEST, CLASSES, STEPS, LAYERS = 30, 12, 3, [0, 100], ["input", "embedding"]


def make_run(folder: Path, *, dimensions: int = 6) -> None:
    """Make a store, a label set, and the features of two steps and two layers."""
    random = np.random.default_rng(0)
    labels = {"train": random.integers(0, CLASSES, TRAIN), "test": random.integers(0, CLASSES, TEST)}
    labels["train"][:CLASSES] = np.arange(CLASSES)
    store = {f"{split}_labels": value for split, value in labels.items()}
    save(folder / "store", store, "store.json", dataset="toy", classes=CLASSES)
    save(folder / "labels", {"indices": np.arange(TRAIN), "labels": labels["train"]}, "labels.json", classes=CLASSES)
    features = {
        f"step{step:06d}_{layer}_{split}": random.normal(size=(len(labels[split]), dimensions)).astype(np.float32)
        for step in STEPS
        for layer in LAYERS
        for split in ("train", "test")
    }
    listed = [{"name": layer, "dimensions": dimensions} for layer in LAYERS]
    save(folder / "features/shard", features, "../shard.json", steps=STEPS, layers=listed)


def save(folder: Path, arrays: dict[str, np.ndarray], manifest: str, **facts: Any) -> None:
    results.write(Path(os.path.normpath(folder / manifest)), facts, files.write_arrays(folder, arrays))


def damage(folder: Path, name: str, value: float) -> None:
    """Put a value into one feature file, and its new digest into the manifest."""
    path = folder / "features/shard" / f"{name}.npy"
    features = files.read_npy(path)
    features[2, 1] = value
    files.write_npy(path, features)
    manifest = folder / "features/shard.json"
    results.write(manifest, files.read_json(manifest), sorted(path.parent.iterdir()))


def command(folder: Path, output: str = "knn", **changes: Any) -> list[str]:
    spec = {
        "kind": "knn",
        "module": "knn",
        "options": {"metric": "l2", "k_max": 4, "pca": None},
        "steps": STEPS,
        "layers": None,
        "seed": 0,
        "run": "toy/mlp/true-labels/seed0",
        **changes,
    }
    options = {
        "spec": json.dumps(spec),
        "store": folder / "store/store.json",
        "labels": folder / "labels/labels.json",
        "features": folder / "features/shard.json",
        "output": folder / f"{output}.json",
        "device": "cpu",
        "log": folder / f"{output}.log",
    }
    return [word for key, value in options.items() for word in (f"--{key}", str(value))]


@pytest.fixture(scope="module")
def script() -> ModuleType:
    """The stage as a module, so that most tests need no new process."""
    specification = importlib.util.spec_from_file_location("probe_script", SCRIPTS / "probe.py")
    assert specification and specification.loader
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


@pytest.fixture
def run(tmp_path: Path) -> Path:
    make_run(tmp_path)
    return tmp_path


def same_fits(run: Path, *outputs: str) -> None:
    one, other = ((run / f"{output}.json").read_text().replace(f"{output}/", "") for output in outputs)
    assert one == other


def parsed(script: ModuleType, words: list[str]) -> argparse.Namespace:
    return script.options().parse_args(words)


def test_the_command_fits_every_step_and_layer(run: Path) -> None:
    done = subprocess.run([sys.executable, SCRIPTS / "probe.py", *command(run)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    names = [f"step{step:06d}_{layer}" for step in STEPS for layer in LAYERS]
    manifest = files.read_json(run / "knn.json")
    assert list(manifest["fits"]) == sorted(names) and manifest["layers"] == LAYERS
    assert sorted(manifest["files"]) == sorted(f"knn/{name}.npz" for name in names)
    files.check(run, manifest["files"])
    assert "seconds" not in json.dumps(manifest)
    with np.load(run / "knn" / "step000100_embedding.npz") as arrays:
        assert arrays["train_neighbours"].shape == (TRAIN, 4) and arrays["test_distances"].shape == (TEST, 4)
    provenance = files.read_json(run / "knn.provenance.json")
    assert set(provenance["fit_seconds"]) == set(names) and provenance["fits_resumed"] == 0
    assert "knn fits 4/4 evaluations" in done.stderr and not (run / ".state/knn").exists()


def test_the_same_job_gives_the_same_bytes(run: Path, script: ModuleType) -> None:
    for output in ("one", "two"):
        script.main(parsed(script, command(run, output)))
        time.sleep(1.1)  # zip files note times to two seconds
    same_fits(run, "one", "two")
    assert files.listing(run / "one") == files.listing(run / "two")


@pytest.mark.parametrize(
    ("module", "options"),
    [
        ("knn", {"k_max": 4}),
        ("knn", {"k_max": 4, "metric": "l1", "pca": {"components": 3, "skip_layers": []}}),
        ("logistic", {}),
        ("logistic", {"penalty": "l1", "multiclass": "ovr"}),
        ("svm", {}),
        ("svm", {"loss": "hinge", "multiclass": "ovo"}),
    ],
)
def test_a_shard_of_one_step_gives_the_same_fits(
    run: Path, script: ModuleType, module: str, options: dict[str, Any]
) -> None:
    probe = {"kind": module, "module": module, "options": options}
    script.main(parsed(script, command(run, "all", **probe)))
    script.main(parsed(script, command(run, "some", steps=[100], layers=["embedding"], **probe)))
    name = "step000100_embedding.npz"
    some, every = (files.read_json(run / f"{output}.json")["files"] for output in ("some", "all"))
    assert list(some) == [f"some/{name}"] and some[f"some/{name}"] == every[f"all/{name}"]


def pieces(run: Path, script: ModuleType, count: int) -> list[str]:
    """Make the pieces of the k-NN search, each by a job, and return their manifests."""
    for piece in range(1, count + 1):
        options = {"metric": "l2", "k_max": 4, "pca": None, "piece": piece, "pieces": count}
        changes = {"module": "query_shards", "options": options}
        script.main(parsed(script, command(run, f"knn.{piece}of{count}", **changes)))
    return [str(run / f"knn.{piece}of{count}.json") for piece in range(1, count + 1)]


def join(run: Path, manifests: list[str], output: str = "knn") -> list[str]:
    """Return the command that puts pieces together."""
    words = command(run, output)
    place = words.index("--features") + 2
    return [*words[:place], *manifests, *words[place:]]


def test_a_search_in_pieces_gives_the_same_bytes(run: Path, script: ModuleType) -> None:
    script.main(parsed(script, command(run, "whole")))
    manifests = pieces(run, script, 4)
    shutil.rmtree(run / "features/shard")  # not read any more
    script.main(parsed(script, join(run, manifests)))
    same_fits(run, "knn", "whole")
    provenance = files.read_json(run / "knn.provenance.json")
    assert "pieces_code" in provenance and "pieces_code" not in files.read_json(run / "whole.provenance.json")
    assert provenance["pieces"] == 4 and files.read_json(run / "whole.provenance.json")["pieces"] == 1
    assert provenance["inputs"].keys() == files.read_json(run / "whole.provenance.json")["inputs"].keys()
    assert set(provenance["fit_seconds"]) == set(files.read_json(run / "whole.provenance.json")["fit_seconds"])


def test_what_a_killed_run_left_of_other_pieces_goes(run: Path, script: ModuleType) -> None:
    ours = pieces(run, script, 2)
    others = [run / "knn.2of3", run / "knn.2of3.json", run / "knn.2of3.provenance.json"]
    others += [run / ".state/knn.1of3", run / ".state/knn.3of3-features"]
    of_another = [run / "more.1of3", run / "knn.1of3.txt", run / "knn.x.json", run / ".state/more.1of3"]
    for path in (*others, *of_another):
        path.mkdir(parents=True)
    script.main(parsed(script, join(run, ours)))
    assert not any(path.exists() for path in others) and all(path.is_dir() for path in of_another)
    assert sorted(path.name for path in (run / ".state").iterdir()) == ["more.1of3"]
    assert all(Path(manifest).is_file() for manifest in ours), "Snakemake takes away what it knows of"
    script.main(parsed(script, command(run)))
    assert not any(Path(manifest).exists() for manifest in ours), "a search that is not cut has no pieces"


def test_a_damaged_or_missing_piece_is_one_sentence(run: Path, script: ModuleType) -> None:
    manifests = pieces(run, script, 3)
    with pytest.raises(UserError, match=r"2 pieces hold the neighbours of 20 train points, but there are 30"):
        script.main(parsed(script, join(run, manifests[:2])))
    file = run / "knn.2of3" / "step000000_input.npz"
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    with pytest.raises(UserError, match=r"knn.2of3/step000000_input.npz is damaged"):
        script.main(parsed(script, join(run, manifests)))


#: Runs the script with a probe whose third fit never ends.
DRIVER = """
import runpy, sys, time
script = sys.argv[0] = sys.argv.pop(1)
sys.path.insert(0, script.rpartition("/")[0])
from dnn_or_knn.probes import common
fit, calls = common.load("knn"), []
def slow(*args, **options):
    calls.append(1)
    if len(calls) == 3:
        time.sleep(600)
    return fit(*args, **options)
common.load = lambda module: slow
runpy.run_path(script, run_name="__main__")
"""


@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGKILL, -signal.SIGKILL), (signal.SIGTERM, command_line.EXIT_INTERRUPTED)]
)
def test_a_killed_job_resumes(run: Path, script: ModuleType, number: signal.Signals, status: int) -> None:
    job = subprocess.Popen([sys.executable, "-c", DRIVER, SCRIPTS / "probe.py", *command(run)], stderr=subprocess.PIPE)
    kept = run / ".state" / "knn"
    deadline = time.monotonic() + 300
    while len(list(kept.glob("step*.json"))) < 2 and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(0.2)
    os.kill(job.pid, number)
    job.communicate(timeout=600)
    assert job.returncode == status and not (run / "knn").exists() and not (run / "knn.json").exists()
    script.main(parsed(script, command(run)))
    assert files.read_json(run / "knn.provenance.json")["fits_resumed"] == 2
    script.main(parsed(script, command(run, "whole")))
    same_fits(run, "knn", "whole")


@pytest.mark.parametrize("change", ["features", "options", "file"])
def test_what_was_finished_is_used_only_if_nothing_changed(
    run: Path, script: ModuleType, change: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(files, "place", stop)
        with pytest.raises(KeyboardInterrupt):
            script.main(parsed(script, command(run)))
    assert not (run / "knn").exists()
    changes: dict[str, Any] = {}
    if change == "features":
        damage(run, "step000000_input_test", 9.0)
    if change == "options":
        changes["options"] = {"metric": "l1", "k_max": 4, "pca": None}
    if change == "file":
        (run / ".state/knn/kept/step000000_input.npz").write_bytes(b"half")
    script.main(parsed(script, command(run, **changes)))
    resumed = {"features": 3, "options": 0, "file": 3}[change]
    assert files.read_json(run / "knn.provenance.json")["fits_resumed"] == resumed
    script.main(parsed(script, command(run, "whole", **changes)))
    same_fits(run, "knn", "whole")


def test_two_processes_do_not_make_the_same_fits(run: Path, script: ModuleType) -> None:
    with (
        resume.opened(resume.beside(run / "knn.json"), "another's"),
        pytest.raises(UserError, match=r"\.state/knn is in use by another process \(\d+\); wait for it"),
    ):
        script.main(parsed(script, command(run)))
    assert not (run / "knn").exists()


def test_pca_leaves_the_layers_that_it_is_to_skip(run: Path, script: ModuleType) -> None:
    options = {"metric": "l1", "k_max": 2, "pca": {"components": 2, "skip_layers": ["input"]}}
    script.main(parsed(script, command(run, options=options)))
    with np.load(run / "knn/step000000_embedding.npz") as reduced, np.load(run / "knn/step000000_input.npz") as whole:
        assert reduced["pca_basis"].shape == (6, 2) and "pca_basis" not in whole


def test_a_fit_that_missed_its_tolerance_is_reported(
    run: Path, script: ModuleType, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fit(*_: object, seed: int, **__: object) -> common.ProbeResult:
        return common.ProbeResult({"weights": np.full(2, seed)}, {"converged": False, "gap": 0.5, "seconds": 3.0})

    monkeypatch.setattr(common, "load", lambda module: fit)
    with caplog.at_level("WARNING", "dnn_or_knn"):
        script.main(parsed(script, command(run, steps=[100], layers=["input"], seed=5)))
    assert files.read_json(run / "knn.json")["fits"] == {"step000100_input": {"converged": False, "gap": 0.5}}
    assert files.read_json(run / "knn.provenance.json")["fit_seconds"] == {"step000100_input": 3.0}
    assert "toy/mlp/true-labels/seed0, step 100, input: the knn fit did not reach its tolerance" in caplog.text


@pytest.mark.parametrize("same", [True, False])
def test_features_that_were_released_are_made_again_or_the_job_stops(
    run: Path, script: ModuleType, monkeypatch: pytest.MonkeyPatch, same: bool
) -> None:
    script.main(parsed(script, command(run, "before")))
    (run / "features/shard").rename(run / "aside")
    (run / "checkpoints").mkdir()

    def extract(args: argparse.Namespace) -> None:
        assert args.spec == {"precision": "auto", "batch_size": 7} and args.device == "cpu"
        assert args.training == run / "training.json" and not args.readers
        shutil.copytree(run / "aside", args.output.with_suffix(""))
        manifest = files.read_json(run / "features/shard.json")
        if not same:
            manifest["files"]["shard/step000000_input_test.npy"]["sha256"] = "0" * 64
        files.write_json(args.output, manifest)
        torch.backends.cuda.matmul.allow_tf32 = True  # as at `precision: tf32`

    monkeypatch.setattr(importlib.import_module("dnn_or_knn.features.job"), "run", extract)
    job = parsed(script, [*command(run), "--extraction", '{"precision": "auto", "batch_size": 7}'])
    if same:
        script.main(job)
        same_fits(run, "knn", "before")
        assert files.read_json(run / "knn.provenance.json")["features_extracted_again"]
        assert not torch.backends.cuda.matmul.allow_tf32
    else:
        with pytest.raises(UserError, match=r"extracted again are not those that .*shard\.json lists"):
            script.main(job)
        numerics.set_precision("float32", torch.device("cpu"))
        assert not (run / "knn.json").exists()
    assert not (run / "features/shard").exists() and not list((run / ".state").glob("*-features"))


def test_features_released_and_weights_gone_is_one_sentence(run: Path, script: ModuleType) -> None:
    shutil.rmtree(run / "features/shard")
    with pytest.raises(UserError, match=r"is gone too; delete .*training\.json and run again to train anew"):
        script.main(parsed(script, [*command(run), "--extraction", '{"run": "toy"}']))


def test_given_features_that_are_gone_are_one_sentence(run: Path, script: ModuleType) -> None:
    """There is no extraction of them, and no weights: what takes them over has to run again."""
    shutil.rmtree(run / "features/shard")
    with pytest.raises(UserError, match=r"features/shard is gone; delete \S+features/shard\.json and run again"):
        script.main(parsed(script, [*command(run), "--extraction", "{}"]))


def test_the_last_probe_lets_the_features_go(run: Path, script: ModuleType) -> None:
    dumps.await_readers(run / "features/shard.json", ["knn", "svm"])
    # A probe that is new since then reads them too.
    for probe, there in (("knn", True), ("new", True), ("svm", False)):
        script.main(parsed(script, [*command(run, probe), "--reader", probe]))
        assert (run / "features/shard").exists() == there
    assert not dumps.marks_of(run / "features/shard.json").exists()


@pytest.mark.parametrize(
    ("prepare", "changes", "words"),
    [
        (lambda run: damage(run, "step000100_input_train", np.nan), {}, "seed0, step 100, input: 1 train features are"),
        (lambda run: (run / "features/shard/step000000_input_test.npy").write_bytes(b"x"), {}, "is damaged: 1 bytes"),
        (lambda run: (run / "features/shard/step000000_input_test.npy").unlink(), {}, "is missing though its manifest"),
        (lambda run: (run / "features/shard.json").unlink(), {}, "shard.json is missing"),
        (lambda run: None, {"steps": [7]}, "step000007_input_train.npy is not in its manifest"),
        (lambda run: None, {"module": "nearest"}, "there is no probe module 'nearest'"),
        (lambda run: None, {"options": {"k_max": 30}}, "step 0, input: 30 neighbours besides the point itself need"),
    ],
)
def test_bad_input_is_one_sentence_and_leaves_nothing(
    run: Path, script: ModuleType, prepare: Any, changes: dict[str, Any], words: str
) -> None:
    prepare(run)
    with pytest.raises(UserError, match=words) as caught:
        script.main(parsed(script, command(run, **changes)))
    assert "\n" not in str(caught.value)
    assert not (run / "knn").exists() and not (run / "knn.json").exists() and not list(run.glob(".knn*"))
