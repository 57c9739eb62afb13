"""Extraction of features: against one image at a time, resumed, interrupted, short of memory, on bad input."""

from __future__ import annotations

import errno
import json
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import features as script
import numpy as np
import pytest
import torch
from conftest import SCRIPTS
from dnn_or_knn import numerics
from dnn_or_knn.features import extraction
from dnn_or_knn.networks.build import create
from dnn_or_knn.runtime import command_line, files, gpus, progress, results, resume
from dnn_or_knn.runtime.code_digest import code_digest
from dnn_or_knn.runtime.errors import Interrupted, UserError
from simulated_cuda import CUDA, simulated

WRN = {"module": "wrn", "depth": 10, "width": 1, "activation": "leaky_relu"}
STEPS = [0, 3, 6]
TRAIN, TEST, SIZE = 23, 9, 8


@pytest.fixture(autouse=True)
def _leave_signals_alone() -> Iterator[None]:
    handler = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, handler)


def make_inputs(folder: Path, network: dict = WRN, channels: int = 3, scale: int = 1) -> SimpleNamespace:
    """Write a store, a label set that takes its images out of order, and weights as training writes them."""
    random_numbers = np.random.default_rng(0)
    arrays = {
        f"{split}_images": random_numbers.integers(0, 256, (count * scale, channels, SIZE, SIZE), dtype=np.uint8)
        for split, count in (("train", TRAIN + 8), ("test", TEST))
    }
    indices = random_numbers.permutation(len(arrays["train_images"]))[: TRAIN * scale]
    for name, array in arrays.items():
        files.write_npy(folder / "store" / f"{name}.npy", array)
    facts = {"channels": channels, "size": SIZE, "classes": 4}
    files.write_json(folder / "store" / "store.json", {**facts, "files": files.listing(folder / "store")})
    files.write_npy(folder / "labels" / "indices.npy", indices)
    files.write_json(folder / "labels" / "labels.json", {"files": files.listing(folder / "labels")})
    models = {}
    for step in STEPS:
        model = models[step] = create(network, channels=channels, size=SIZE, classes=4, seed=step)
        generator = torch.Generator().manual_seed(step)
        with torch.no_grad():  # batch norm's statistics must count
            for name, tensor in model.state_dict().items():
                if "running" in name:
                    tensor += torch.rand(tensor.shape, generator=generator)
        save(folder, step, {"model": model.state_dict(), "step": step})
    manifest(folder)
    return SimpleNamespace(
        folder=folder, train=arrays["train_images"][indices], test=arrays["test_images"], models=models, network=network
    )


def save(folder: Path, step: int, content: object) -> None:
    (folder / "run" / "checkpoints").mkdir(parents=True, exist_ok=True)
    torch.save(content, folder / "run" / "checkpoints" / f"step{step:06d}.pt")


def manifest(folder: Path) -> None:
    """Write the training manifest of the weights that are there."""
    weights = sorted((folder / "run" / "checkpoints").iterdir())
    results.write(folder / "run" / "training.json", {}, weights)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    return make_inputs(tmp_path_factory.mktemp("inputs"))


@pytest.fixture
def inputs(made: SimpleNamespace, tmp_path: Path) -> SimpleNamespace:
    """The inputs, in a folder of the test's own."""
    folder = tmp_path / "own"
    shutil.copytree(made.folder, folder)
    return SimpleNamespace(**{**vars(made), "folder": folder})


def command(inputs: SimpleNamespace, out: Path, spec: dict | None = None, *more: str) -> list[str]:
    """Return the stage's command line."""
    values = {
        "run": "tiny/wrn-10-1/true-labels/seed0",
        "network": inputs.network,
        "precision": "float32",
        "batch_size": 1000,
        "compile": True,
        "layers": ["embedding"],
        "steps": STEPS,
        "input_layer": "pixels",
        **(spec or {}),
    }
    folder = inputs.folder
    words = ["--spec", json.dumps(values), "--store", folder / "store" / "store.json"]
    words += ["--labels", folder / "labels" / "labels.json", "--training", folder / "run" / "training.json"]
    words += ["--output", out / "features" / "shard.json", "--device", "cpu"]
    return [*map(str, words), *more]


def run(inputs: SimpleNamespace, out: Path, spec: dict | None = None, *more: str) -> int:
    """Run the stage in this process and return its exit status."""
    return command_line.run(script.main, script.options(), command(inputs, out, spec, *more))


def contents(out: Path) -> dict[str, bytes]:
    """Return every result of the stage but its provenance, byte for byte."""
    paths = [p for p in out.rglob("*") if p.is_file() and not p.name.endswith((".provenance.json", ".log"))]
    return {p.relative_to(out).as_posix(): p.read_bytes() for p in paths}


def slowly(model: torch.nn.Module, pixels: np.ndarray) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Return pooled features and logits of one image at a time, standardized by hand, in float64."""
    model = model.double().eval()
    features: dict[str, list[np.ndarray]] = {}
    logits = []
    for image in pixels.astype(np.float64):
        x = torch.from_numpy((image - image.mean()) / max(image.std(), image.size**-0.5))[None]
        with torch.no_grad():
            for name, value in model.activations(x).items():
                features.setdefault(name, []).append(value[0].numpy())
            logits.append(model(x)[0].numpy())
    model.float()
    return {name: np.stack(values) for name, values in features.items()}, np.stack(logits)


@pytest.mark.parametrize("batch_size", [1000, 7])
def test_every_layer_is_that_of_one_image_at_a_time(made, tmp_path, batch_size):
    assert run(made, tmp_path, {"layers": "hidden", "steps": [3], "batch_size": batch_size}) == 0
    assert run(made, tmp_path / "embedding", {"batch_size": batch_size}) == 0
    for split in ("train", "test"):
        pixels = getattr(made, split)
        expected, logits = slowly(made.models[3], pixels)
        written = {
            name: files.read_npy(tmp_path / f"features/shard/step000003_{name}_{split}.npy")
            for name in ("input", "initial_conv", "unit_1_1", "unit_2_1", "unit_3_1")
        }
        folder = tmp_path / "embedding"
        written["embedding"] = files.read_npy(folder / f"features/shard/step000003_embedding_{split}.npy")
        assert all(array.dtype == np.float32 for array in written.values())
        np.testing.assert_array_equal(written.pop("input"), (pixels.reshape(len(pixels), -1) / 255).astype(np.float32))
        assert written.keys() == expected.keys()
        for name, array in written.items():
            np.testing.assert_allclose(array, expected[name], rtol=1e-4, atol=1e-5, err_msg=name)
        found = files.read_npy(folder / f"logits/shard/step000003_{split}.npy")
        np.testing.assert_allclose(found, logits, rtol=1e-4, atol=1e-5)
        assert found.dtype == np.float32


def test_large_images_are_taken_in_the_batches_that_the_specification_names(made, tmp_path, monkeypatch):
    """What the layers make of a batch is the memory of an extraction from disk."""
    seen: list[int] = []
    of = extraction.forward_function

    def counted(*args: Any, **options: Any) -> Any:
        forward = of(*args, **options)
        return lambda images: (seen.append(len(images)), forward(images))[1]

    monkeypatch.setattr(extraction, "forward_function", counted)
    assert run(made, tmp_path / "few", {"steps": [3], "stream": True, "cpu_batch": 4}) == 0
    assert seen == [4] * 5 + [3] + [4] * 2 + [1]
    record = files.read_json(tmp_path / "few/features/shard.provenance.json")
    assert record["evaluations"]["3"]["batch_size"] == 4
    assert run(made, tmp_path / "asked", {"steps": [3], "stream": True, "batch_size": 4}) == 0
    assert contents(tmp_path / "few") == contents(tmp_path / "asked")


def test_manifest_says_what_was_written(made, tmp_path):
    assert run(made, tmp_path, {"layers": "hidden", "steps": [6], "input_layer": "mean"}) == 0
    facts = files.read_json(tmp_path / "features" / "shard.json")
    names = ["input", "initial_conv", "unit_1_1", "unit_2_1", "unit_3_1"]
    assert facts["layers"] == [{"name": n, "dimensions": d} for n, d in zip(names, [3, 16, 16, 32, 64], strict=True)]
    assert (facts["train"], facts["test"], facts["steps"]) == (TRAIN, TEST, [6])
    expected = [f"shard/step000006_{n}_{s}.npy" for n in names for s in ("train", "test")]
    expected += [f"../logits/shard/step000006_{s}.npy" for s in ("train", "test")]
    assert facts["files"] == files.listing(tmp_path / "features", expected)
    assert (
        len(list((tmp_path / "features/shard").iterdir())) == 10
        and len(list((tmp_path / "logits/shard").iterdir())) == 2
    )
    for layer in facts["layers"]:
        shape = files.read_npy(tmp_path / f"features/shard/step000006_{layer['name']}_train.npy").shape
        assert shape == (TRAIN, layer["dimensions"])
    means = files.read_npy(tmp_path / "features/shard/step000006_input_train.npy")
    np.testing.assert_allclose(means, made.train.mean((2, 3)) / 255, rtol=1e-6)
    assert not list(tmp_path.rglob(".state"))
    assert files.read_json(tmp_path / "features/shard.provenance.json")["precision"] == "float32"


@pytest.mark.parametrize("network", [{"module": "mlp", "width": 6}, {"module": "lenet", "embedding": 6}])
def test_other_networks_and_grey_images(tmp_path, network):
    inputs = make_inputs(tmp_path / "inputs", network, channels=1)
    names = [point.name for point in inputs.models[3].probe_points]
    assert run(inputs, tmp_path, {"layers": names, "steps": [3]}) == 0
    expected, logits = slowly(inputs.models[3], inputs.test)
    for name in names[1:]:
        found = files.read_npy(tmp_path / f"features/shard/step000003_{name}_test.npy")
        np.testing.assert_allclose(found, expected[name], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(
        files.read_npy(tmp_path / "logits/shard/step000003_test.npy"), logits, rtol=1e-4, atol=1e-5
    )


def test_results_do_not_depend_on_how_many_evaluations_a_job_covers(made, tmp_path):
    assert run(made, tmp_path / "all") == 0
    together = contents(tmp_path / "all")
    for step in STEPS:
        assert run(made, tmp_path / str(step), {"steps": [step]}) == 0
        alone = contents(tmp_path / str(step))
        arrays = [name for name in alone if name.endswith(".npy")]
        assert len(arrays) == 4
        assert all(alone[name] == together[name] for name in arrays)


@pytest.mark.parametrize("precision, tolerance", [("float64", 1e-6), ("bf16", 0.05)])
def test_other_precisions_write_float32_too(made, tmp_path, precision, tolerance):
    assert run(made, tmp_path, {"precision": precision, "steps": [3]}) == 0
    found = files.read_npy(tmp_path / "features/shard/step000003_embedding_train.npy")
    expected = slowly(made.models[3], made.train)[0]["embedding"]
    assert found.dtype == np.float32
    assert np.abs(found - expected).max() < tolerance * np.abs(expected).max()


def test_an_interrupted_job_goes_on_where_it_stopped(made, tmp_path, monkeypatch):
    assert run(made, tmp_path / "undisturbed") == 0
    load, loaded = extraction._load, []

    def stop_at_the_last(network: torch.nn.Module, content: object, job: extraction.Job, step: int) -> None:
        loaded.append(step)
        if step == STEPS[-1] and loaded.count(step) == 1:
            raise Interrupted("SIGTERM")
        load(network, content, job, step)

    monkeypatch.setattr(extraction, "_load", stop_at_the_last)
    assert run(made, tmp_path / "resumed") == command_line.EXIT_INTERRUPTED
    assert not (tmp_path / "resumed" / "features" / "shard").exists()
    assert run(made, tmp_path / "resumed") == 0
    # The first evaluation was on disk, the second was being written.
    assert loaded[:3] == STEPS and loaded[3:] in ([6], [3, 6])
    assert contents(tmp_path / "resumed") == contents(tmp_path / "undisturbed")


def leave_state(inputs: SimpleNamespace, out: Path, monkeypatch: pytest.MonkeyPatch, spec: dict | None = None) -> Path:
    """Run the stage up to the moment before it publishes; return its state folder."""
    with monkeypatch.context() as patch:
        patch.setattr(resume, "publish", lambda *_: (_ for _ in ()).throw(Interrupted("SIGTERM")))
        assert run(inputs, out, spec) == command_line.EXIT_INTERRUPTED
    (left,) = (out / "features" / ".state").iterdir()
    return left


def count_loads(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    load, loaded = extraction._load, []
    monkeypatch.setattr(extraction, "_load", lambda n, c, job, step: (loaded.append(step), load(n, c, job, step)))
    return loaded


def test_nothing_is_computed_again_once_it_is_finished(made, tmp_path, monkeypatch):
    leave_state(made, tmp_path, monkeypatch)
    loaded = count_loads(monkeypatch)
    assert run(made, tmp_path) == 0
    assert loaded == []
    assert files.read_json(tmp_path / "features/shard.provenance.json")["evaluations_resumed"] == 3


@pytest.mark.parametrize("damage", ["truncate", "flip", "remove", "record"])
def test_damaged_state_is_computed_again(made, tmp_path, monkeypatch, damage):
    assert run(made, tmp_path / "undisturbed") == 0
    left = leave_state(made, tmp_path / "damaged", monkeypatch)
    path = left / "kept" / "features" / "step000003_embedding_train.npy"
    if damage == "record":
        path = left / "step000003.json"
        path.write_text(path.read_text()[:50])
    elif damage == "remove":
        path.unlink()
    else:
        content = bytearray(path.read_bytes())
        content[-1] ^= 1
        path.write_bytes(content[:-9] if damage == "truncate" else content)
    loaded = count_loads(monkeypatch)
    assert run(made, tmp_path / "damaged") == 0
    assert loaded == [3]
    assert contents(tmp_path / "damaged") == contents(tmp_path / "undisturbed")


def code(*entries: str) -> dict:
    """Return what a specification says about its job's code."""
    return {"files": list(entries), "digest": code_digest(*entries)}


@pytest.mark.parametrize("change", ["spec", "code", "weights"])
def test_state_of_another_job_is_never_resumed(inputs, tmp_path, monkeypatch, change):
    spec = {"layers": "hidden", "input_layer": "pixels", "code": code("features.py")}
    left = leave_state(inputs, tmp_path, monkeypatch, spec)
    if change == "weights":
        save(inputs.folder, 3, {"model": inputs.models[6].state_dict(), "step": 3})
        manifest(inputs.folder)
    else:
        spec |= (
            {"input_layer": "mean"} if change == "spec" else {"code": code("features.py", "dnn_or_knn/networks/wrn.py")}
        )
    loaded = count_loads(monkeypatch)
    assert run(inputs, tmp_path, spec) == 0
    assert loaded == STEPS and not left.exists()


@pytest.mark.parametrize(
    ("seed", "kills"), [(0, 1), *(pytest.param(seed, 3, marks=pytest.mark.slow) for seed in (1, 2, 3))]
)
def test_killed_at_random_moments_it_ends_with_the_same_bytes(tmp_path, seed, kills):
    inputs = make_inputs(tmp_path / "inputs", {**WRN, "width": 2}, scale=40)
    started = time.monotonic()
    assert run(inputs, tmp_path / "undisturbed") == 0
    longest = time.monotonic() - started
    chance, done, attempt, imports = random.Random(seed), 0, 0, 0.0
    while done < kills:
        out = tmp_path / f"attempt{attempt}"
        started = time.monotonic()
        state = out / "features" / ".state"
        resumes = state.exists()
        words = [sys.executable, str(SCRIPTS / "features.py"), *command(inputs, out)]
        with subprocess.Popen(words, stderr=subprocess.DEVNULL) as child:
            while not state.exists() and child.poll() is None:
                time.sleep(0.01)  # imports are over once the state's folder is there
            imports = imports if resumes else time.monotonic() - started
            time.sleep(chance.uniform(0, longest) + resumes * imports)
            child.kill()
        assert child.returncode in (-signal.SIGKILL, 0)
        done += child.returncode == -signal.SIGKILL
        if child.returncode == 0:  # it was faster: what it left must be right, and the next one begins anew
            assert contents(out) == contents(tmp_path / "undisturbed")
            attempt += 1
    assert run(inputs, tmp_path / f"attempt{attempt}") == 0
    assert contents(tmp_path / f"attempt{attempt}") == contents(tmp_path / "undisturbed")


def test_sigterm_stops_the_job_before_its_end(tmp_path):
    inputs = make_inputs(tmp_path / "inputs", {**WRN, "width": 4}, scale=2000)
    words = [sys.executable, str(SCRIPTS / "features.py"), *command(inputs, tmp_path / "out")]
    child = subprocess.Popen(words, stderr=subprocess.PIPE, text=True)
    while not (tmp_path / "out" / "features" / ".state").exists():
        assert child.poll() is None
        time.sleep(0.01)
    time.sleep(0.3)
    child.terminate()
    _, errors = child.communicate(timeout=600)
    assert child.returncode == command_line.EXIT_INTERRUPTED, errors
    assert "run again to resume" in errors
    assert not (tmp_path / "out" / "features" / "shard").exists()


def test_two_processes_do_not_extract_the_same_shard(made, tmp_path, capsys):
    with resume.opened(resume.beside(tmp_path / "features" / "shard.json"), "another's"):
        assert "is in use by another process" in refused(made, tmp_path, capsys)
    assert run(made, tmp_path) == 0


# Memory.


def short_of_memory(*_: object, **__: object) -> None:
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")


@pytest.mark.parametrize("batch_size", [1000, 7])
def test_too_little_memory_is_one_sentence_and_no_smaller_batch(made, tmp_path, monkeypatch, capsys, batch_size):
    """A smaller batch would be other bits than the run's other evaluations."""
    monkeypatch.setattr(type(made.models[0]), "embed", short_of_memory)
    sentence = refused(made, tmp_path, capsys, {"batch_size": batch_size})
    assert f"batches of {min(batch_size, extraction.CPU_BATCH)}; free memory" in sentence
    assert "jobs.evaluation_batch" in sentence


def test_other_errors_are_not_taken_for_a_lack_of_memory(made, tmp_path, monkeypatch, capsys):
    def mistake(*_: object) -> None:
        raise RuntimeError("shape mismatch")

    monkeypatch.setattr(type(made.models[0]), "embed", mistake)
    assert run(made, tmp_path) == 1
    assert "RuntimeError: shape mismatch" in capsys.readouterr().err


# Bad input.


def refused(inputs: SimpleNamespace, out: Path, capsys: pytest.CaptureFixture, spec: dict | None = None) -> str:
    """Run the stage, which must fail with one sentence and leave no result; return the sentence."""
    assert run(inputs, out, spec) == command_line.EXIT_USER_ERROR
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert not (out / "features" / "shard").exists() and not (out / "logits").exists()
    return errors[0]


def test_features_that_are_not_finite_are_named(inputs, tmp_path, capsys):
    model = create(WRN, channels=3, size=SIZE, classes=4, seed=3)
    with torch.no_grad():
        model.units["unit_2_1"].conv2.weight[0] = float("nan")
    save(inputs.folder, 3, {"model": model.state_dict(), "step": 3})
    manifest(inputs.folder)
    sentence = refused(inputs, tmp_path, capsys, {"layers": "hidden"})
    for word in ("tiny/wrn-10-1/true-labels/seed0", "unit_2_1", "step 3", "train"):
        assert word in sentence


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_one_value_that_is_not_finite_is_found_wherever_it_is(value):
    good, bad = torch.randn(40, 33), torch.randn(40, 33)
    assert extraction.first_non_finite({"good": good, "bad": bad}) is None
    for place in range(0, bad.numel(), 7):
        broken = bad.clone()
        broken.view(-1)[place] = value
        assert extraction.first_non_finite({"good": good, "bad": broken}) == "bad"


def test_infinite_logits_are_named(inputs, tmp_path, capsys):
    model = create(WRN, channels=3, size=SIZE, classes=4, seed=3)
    with torch.no_grad():
        model.classifier.bias[1] = float("inf")
    save(inputs.folder, 3, {"model": model.state_dict(), "step": 3})
    manifest(inputs.folder)
    assert "logits" in refused(inputs, tmp_path, capsys)


@pytest.mark.parametrize(
    "path", ["run/checkpoints/step000003.pt", "store/train_images.npy", "store/test_images.npy", "labels/indices.npy"]
)
def test_damaged_inputs_are_named(inputs, tmp_path, capsys, path):
    content = bytearray((inputs.folder / path).read_bytes())
    content[-200 if path.endswith(".pt") else -1] ^= 1
    (inputs.folder / path).write_bytes(content)
    sentence = refused(inputs, tmp_path, capsys)
    assert path in sentence and "damaged" in sentence


def test_weights_that_were_not_kept_are_named(inputs, tmp_path, capsys):
    assert "step 4, only of [0, 3, 6]" in refused(inputs, tmp_path, capsys, {"steps": [0, 4]})


class Bomb:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.marker,)


def test_a_pickle_in_place_of_weights_is_not_executed(inputs, tmp_path, capsys):
    marker = tmp_path / "executed"
    save(inputs.folder, 3, {"model": Bomb(marker), "step": 3})
    manifest(inputs.folder)
    assert "step000003.pt holds something else than weights" in refused(inputs, tmp_path, capsys)
    assert not marker.exists()
    torch.load(inputs.folder / "run" / "checkpoints" / "step000003.pt", weights_only=False)
    assert marker.exists(), "the file would have done it"


def test_weights_of_another_network_are_refused(inputs, tmp_path, capsys):
    sentence = refused(inputs, tmp_path, capsys, {"network": {**WRN, "width": 2}})
    assert "step000000.pt" in sentence and "another network" in sentence


@pytest.mark.parametrize("content", [{"model": {}, "step": 4}, {"step": 3}, [1]])
def test_a_file_that_is_no_checkpoint_of_its_step_is_refused(inputs, tmp_path, capsys, content):
    save(inputs.folder, 3, content)
    manifest(inputs.folder)
    assert "step 3" in refused(inputs, tmp_path, capsys)


@pytest.mark.parametrize(
    "spec, words",
    [
        ({"layers": ["embeding"]}, ["'embeding'", "did you mean 'embedding'"]),
        ({"layers": "all"}, ["'all'", "hidden"]),
        ({"layers": "hidden", "input_layer": "median"}, ["'median'", "pixels or mean"]),
        ({"precision": "half"}, ["'half'", "bf16"]),
    ],
)
def test_bad_values_are_named(made, tmp_path, capsys, spec, words):
    sentence = refused(made, tmp_path, capsys, spec)
    assert all(word in sentence for word in words)


def test_labels_of_another_store_are_refused(inputs, tmp_path, capsys):
    files.write_npy(inputs.folder / "labels" / "indices.npy", np.array([0, 31]))
    files.write_json(
        inputs.folder / "labels" / "labels.json", {"files": files.listing(inputs.folder / "labels", ["indices.npy"])}
    )
    assert "does not have" in refused(inputs, tmp_path, capsys)


def test_a_full_disk_is_one_sentence(made, tmp_path, capsys, monkeypatch):
    save_array, calls = np.save, []

    def full(file: object, array: np.ndarray, **options: bool) -> None:
        calls.append(array)
        if len(calls) == 6:
            raise OSError(errno.ENOSPC, "No space left on device")
        save_array(file, array, **options)

    monkeypatch.setattr(np, "save", full)
    assert "No space left" in refused(made, tmp_path, capsys)
    assert run(made, tmp_path) == 0  # with space again, from the evaluation that is whole
    assert files.read_json(tmp_path / "features/shard.provenance.json")["evaluations_resumed"] == 1


def test_publishing_copies_where_it_cannot_link(made, tmp_path, monkeypatch):
    assert run(made, tmp_path / "linked") == 0

    def no_link(*_: object) -> None:
        raise OSError(errno.EXDEV, "Invalid cross-device link")

    monkeypatch.setattr(files.os, "link", no_link)
    (tmp_path / "copied" / "features" / ".shard.1-a.part").mkdir(parents=True)  # of a job that was killed
    assert run(made, tmp_path / "copied") == 0
    assert contents(tmp_path / "copied") == contents(tmp_path / "linked")
    assert not (tmp_path / "copied" / "features" / ".shard.1-a.part").exists()


def test_a_gpu_that_is_asked_for_and_missing_stops_the_stage(made, tmp_path, capsys):
    if torch.cuda.is_available() or gpus.nvidia_smi():
        pytest.skip("this machine has a GPU")
    assert run(made, tmp_path, None, "--device", "cuda") == command_line.EXIT_USER_ERROR
    assert "sees no GPU" in capsys.readouterr().err


def test_progress_counts_images(made, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(progress.Progress.__init__, "__defaults__", ("", 0.0))
    assert run(made, tmp_path) == 0
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("features ")]
    assert f"features {3 * (TRAIN + TEST)}/{3 * (TRAIN + TEST)} images" in lines[-1]
    assert "step 6" in lines[-1]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize(("precision", "tolerance"), [("float32", 1e-3), ("tf32", 1e-2), ("bf16", 5e-2)])
def test_features_on_a_gpu_are_those_of_the_cpu(made, tmp_path, monkeypatch, precision, tolerance, compiled):
    if compiled:
        monkeypatch.setattr(extraction, "COMPILE_FROM", 0.0)
    assert run(made, tmp_path / "cpu") == 0
    assert run(made, tmp_path / "gpu", {"precision": precision}, "--device", "cuda") == 0
    for step in STEPS:
        for name in ("features/shard/step{:06d}_embedding_test.npy", "logits/shard/step{:06d}_test.npy"):
            first, second = (files.read_npy(tmp_path / which / name.format(step)) for which in ("cpu", "gpu"))
            assert second.dtype == np.float32
            np.testing.assert_allclose(second, first, rtol=tolerance, atol=tolerance * np.abs(first).max())


@pytest.mark.parametrize("layers", [["embedding"], "hidden"])
@pytest.mark.parametrize(("precision", "tolerance"), [("float32", 1e-5), ("bf16", 5e-2), ("float64", 1e-6)])
def test_features_on_a_simulated_gpu_are_those_of_the_cpu(made, tmp_path, monkeypatch, precision, tolerance, layers):
    spec = {"precision": "float64" if precision == "float64" else "float32", "layers": layers}
    assert run(made, tmp_path / "cpu", spec) == 0
    monkeypatch.setattr(gpus, "resolve", lambda _: CUDA)
    monkeypatch.setattr(torch.cuda.amp.common, "amp_definitely_not_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: True)
    with simulated() as device:
        assert run(made, tmp_path / "gpu", spec | {"precision": precision, "batch_size": 7}) == 0
    listing = files.read_json(tmp_path / "cpu" / "features" / "shard.json")["files"]
    for name in listing:
        first, second = (files.read_npy(tmp_path / which / "features" / name) for which in ("cpu", "gpu"))
        assert second.dtype == np.float32
        np.testing.assert_allclose(second, first, rtol=tolerance, atol=tolerance * np.abs(first).max())
        if precision == "bf16" and "_input_" not in name:
            assert not np.allclose(second, first, rtol=1e-4)  # it was bf16
    # There go the network, the images and each evaluation's weights; back come its arrays, and whether they are finite.
    there = len(made.models[0].state_dict()) * (1 + len(STEPS)) + 2
    back = sum("_input_" not in name for name in listing) + 2 * len(STEPS)
    assert device.waits == {"copy": there + back}


# The same arithmetic for all evaluations of a run.


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> list[dict]:
    """A simulated GPU, whose compiled functions are the plain ones; what was compiled, and how."""
    compiled: list[dict] = []
    monkeypatch.setattr(gpus, "resolve", lambda _: CUDA)
    monkeypatch.setattr(numerics, "compiled", lambda forward, *_, **options: compiled.append(options) or forward)
    monkeypatch.setattr(extraction, "_flop", lambda *_: 1.0)
    monkeypatch.setattr(extraction, "COMPILE_FROM", len(STEPS) * (TRAIN + TEST))
    return compiled


def recorded(out: Path) -> dict[str, dict]:
    return files.read_json(out / "features" / "shard.provenance.json")["evaluations"]


@pytest.mark.parametrize("steps", [[0], STEPS[1:], STEPS])
@pytest.mark.parametrize("layers", [["embedding"], "hidden"])
def test_the_run_and_not_the_shard_decides_what_is_compiled(made, tmp_path, gpu, monkeypatch, steps, layers):
    spec = {"steps": steps, "layers": layers, "batch_size": 7}
    for name, changed, floor, compiled in (
        ("long", {}, extraction.COMPILE_FROM, True),
        ("short", {}, extraction.COMPILE_FROM + 1, False),
        ("no compiler", {"compile": False}, extraction.COMPILE_FROM, False),
    ):
        monkeypatch.setattr(extraction, "COMPILE_FROM", floor)
        with simulated():
            assert run(made, tmp_path / name, spec | changed) == 0
        how = {"device": "cuda", "precision": "float32", "batch_size": 7, "compiled": compiled}
        assert recorded(tmp_path / name) == {str(step): how for step in steps}
    assert gpu == [{"same_bits": True}]


def test_a_gpu_takes_the_batch_of_the_specification_or_none(made, tmp_path, gpu, monkeypatch, capsys):
    seen: list[int] = []
    embed = type(made.models[0]).embed

    def narrow(self: torch.nn.Module, x: torch.Tensor) -> torch.Tensor:
        seen.append(len(x))
        return embed(self, x) if len(x) <= limit else short_of_memory()

    monkeypatch.setattr(type(made.models[0]), "embed", narrow)
    for limit, status in ((7, 0), (6, command_line.EXIT_USER_ERROR)):
        seen.clear()
        with simulated():
            assert run(made, tmp_path / str(limit), {"batch_size": 7}) == status
        assert set(seen) == {7}
    assert "the cuda's memory cannot hold" in capsys.readouterr().err


def test_a_shard_that_goes_on_computes_as_it_began(made, tmp_path, gpu, monkeypatch):
    """Or its last evaluations would be other bits than those of a job that was not interrupted."""
    write, written = extraction._write, []

    def interrupted(job: extraction.Job, step: int, arrays: dict[str, np.ndarray]) -> dict[str, Any]:
        written.append(step)
        if written == STEPS[:2]:
            raise UserError("the disk is full")
        return write(job, step, arrays)

    monkeypatch.setattr(extraction, "_write", interrupted)
    with simulated():
        assert run(made, tmp_path) != 0
        assert run(made, tmp_path) == 0
    assert written[:2] == STEPS[:2] and sorted(written[-2:]) == STEPS[1:]
    assert gpu == [{"same_bits": True}] * 2


def test_an_evaluation_that_was_computed_otherwise_is_not_gone_on_from(made, tmp_path, gpu, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(gpus, "resolve", lambda _: torch.device("cpu"))
        leave_state(made, tmp_path, monkeypatch)
    loaded = count_loads(monkeypatch)
    with simulated():
        assert run(made, tmp_path) == 0
    assert loaded == STEPS and {how["device"] for how in recorded(tmp_path).values()} == {"cuda"}


def another(out: Path, name: str = "another") -> list[str]:
    """Return the arguments that make a shard of its own beside the first."""
    return ["--output", str(out / "features" / f"{name}.json")]


@pytest.mark.parametrize("layers", [["embedding"], "hidden"])
def test_shards_of_one_run_are_not_mixed_from_two_devices(made, tmp_path, gpu, monkeypatch, capsys, layers):
    spec = {"steps": [6], "layers": layers}
    with monkeypatch.context() as patch:
        patch.setattr(gpus, "resolve", lambda _: torch.device("cpu"))
        assert run(made, tmp_path, {"steps": [0, 3]}) == 0
    capsys.readouterr()
    loaded = count_loads(monkeypatch)
    with simulated():
        assert run(made, tmp_path, spec, *another(tmp_path)) == command_line.EXIT_USER_ERROR
    (sentence,) = (line for line in capsys.readouterr().err.splitlines() if line.startswith("error: "))
    for word in ("shard.provenance.json has features of step 0", "device cpu", "device cuda", "delete"):
        assert word in sentence
    assert loaded == [] and not (tmp_path / "features" / "another.json").exists()
    files.remove(tmp_path / "features")
    with simulated():
        assert run(made, tmp_path, spec, *another(tmp_path)) == 0


@pytest.mark.parametrize("change", ["batch", "code", "weights"])
def test_shards_that_are_to_be_made_anew_count_for_nothing(inputs, tmp_path, gpu, change):
    spec = {"code": code("features.py"), "steps": [0]}
    with simulated():
        assert run(inputs, tmp_path, spec) == 0
    if change == "weights":
        save(inputs.folder, 3, {"model": inputs.models[6].state_dict(), "step": 3})
        save(inputs.folder, 9, {"model": inputs.models[6].state_dict(), "step": 9})
        manifest(inputs.folder)
    elif change == "code":
        spec |= {"compile": False, "code": code("features.py", "dnn_or_knn/networks/wrn.py")}
    else:
        spec |= {"batch_size": 7}
    with simulated():
        assert run(inputs, tmp_path, spec | {"steps": [6]}, *another(tmp_path)) == 0


def test_of_two_shards_that_are_made_at_a_time_one_sees_the_other(made, tmp_path, gpu, monkeypatch, capsys):
    extract = extraction.extract

    def meanwhile(job: extraction.Job, **options: Any) -> dict[str, Any]:
        with monkeypatch.context() as patch:
            patch.setattr(extraction, "extract", extract)
            patch.setattr(gpus, "resolve", lambda _: torch.device("cpu"))
            assert run(made, tmp_path, {"steps": [6]}, *another(tmp_path)) == 0
        return extract(job, **options)

    monkeypatch.setattr(extraction, "extract", meanwhile)
    with simulated():
        assert run(made, tmp_path, {"steps": [0]}) == command_line.EXIT_USER_ERROR
    assert "another.provenance.json has features of step 6" in capsys.readouterr().err


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_features_extracted_again_on_a_gpu_are_the_same_bits(made, tmp_path, precision):
    for again in ("first", "second"):
        assert run(made, tmp_path / again, {"precision": precision}, "--device", "cuda") == 0
    assert contents(tmp_path / "first") == contents(tmp_path / "second")


def test_the_work_of_a_forward_pass_is_counted(made):
    network = create({"module": "mlp", "width": 6}, channels=3, size=SIZE, classes=4).eval()
    assert extraction._flop(network, made.train) == 2 * (3 * SIZE * SIZE * 6 + 6 * 4)


def test_weights_that_do_not_fit_into_memory_are_not_called_damaged(made, tmp_path, monkeypatch, capsys):
    def full(*_: object, **__: object) -> None:
        raise RuntimeError("[enforce fail at alloc_cpu.cpp:121] DefaultCPUAllocator: can't allocate memory")

    monkeypatch.setattr(torch, "load", full)
    assert "memory" in (said := refused(made, tmp_path, capsys)) and "something else" not in said


@pytest.mark.parametrize("layers", [["embedding"], "hidden"])
@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_the_features_of_every_shard_compile_as_one_graph(made, layers, precision):
    """What torch.compile makes of a forward pass, but for the kernels, which it would write for a GPU."""
    network, device = made.models[3].eval(), torch.device("cpu")
    names = [point.name for point in extraction.select(network, layers) if point.name != "input"]
    plain = extraction.forward_function(network, names, device=device, precision=precision)
    compiled = torch.compile(plain, dynamic=False, fullgraph=True, backend="aot_eager")
    with torch.no_grad():
        for batch in (torch.from_numpy(made.train), torch.from_numpy(made.test)):
            for name, features in plain(batch).items():
                torch.testing.assert_close(compiled(batch)[name], features, rtol=1e-2, atol=1e-2)
    torch.compiler.reset()
