"""The prepare stage as a command: by hand, with nothing to read, and killed in the middle of a download."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import tiny_torchvision as tiny
from conftest import SCRIPTS
from dnn_or_knn.data.store import STORE_ARRAYS, load_store
from dnn_or_knn.runtime import files
from forking import python

DIGITS = {"dataset": "digits", "loader": "digits", "channels": 1, "size": 8, "classes": 10}
#: Runs the script in a process whose torchvision knows the tiny files of a local server.
LOCAL = """
import sys
sys.path[:0] = [{scripts!r}, {tests!r}]
import prepare, tiny_torchvision
from dnn_or_knn.runtime import command_line
tiny_torchvision.replace_cifar({url!r})
sys.exit(command_line.run(prepare.main, prepare.options()))
"""


def words(spec: dict[str, Any], root: Path, store: Path, *more: str) -> list[str]:
    spec = {"stage": "prepare"} | spec
    return ["--spec", json.dumps(spec), "--root", str(root), "--output", str(store / "store.json"), *more]


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    script = [python(), str(SCRIPTS / "prepare.py")]
    return subprocess.run([*script, *arguments], capture_output=True, text=True, timeout=600, check=False)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tiny.Server]:
    tiny.put(tmp_path / "served", tiny.cifar_files()[1])
    started = tiny.Server(tmp_path / "served")
    yield started
    started.close()


def local(server: tiny.Server, *arguments: str) -> subprocess.Popen[str]:
    program = LOCAL.format(scripts=str(SCRIPTS), tests=str(Path(tiny.__file__).parent), url=server.url)
    return subprocess.Popen([sys.executable, "-c", program, *arguments], stderr=subprocess.PIPE, text=True)


def test_digits_by_hand(tmp_path: Path) -> None:
    store, log = tmp_path / "digits/store", tmp_path / "logs/prepare.log"
    done = command(*words(DIGITS, tmp_path / "nowhere", store, "--log", str(log)))
    assert done.returncode == 0, done.stderr
    assert "digits: 1438 training and 359 test images" in log.read_text()
    assert load_store(store / "store.json").train_images.shape == (1438, 1, 8, 8)
    assert sorted(path.name for path in store.iterdir()) == sorted(
        [*(f"{name}.npy" for name in STORE_ARRAYS), "store.json", "store.provenance.json"]
    )
    provenance = files.read_json(store / "store.provenance.json")
    assert provenance["results"] == {"store.json": files.sha256(store / "store.json")}
    assert "scikit-learn" in provenance["libraries"]
    assert not (tmp_path / "nowhere").exists()


def test_missing_files_are_one_sentence(tmp_path: Path) -> None:
    done = command(*words(tiny.MNIST, tmp_path / "nowhere", tmp_path / "store", "--no-download"))
    path = tmp_path / "nowhere/MNIST/raw/train-images-idx3-ubyte"
    assert done.returncode == 2
    assert done.stderr == (
        f"error: {path} is missing (expected MD5 6bbc9ace898e44ae57da46a324031adb, found neither it nor {path}.gz); turn on "
        "data.download (--download) to fetch it, or set data.root to a whole copy of torchvision's MNIST\n"
    )
    assert list(tmp_path.iterdir()) == []


def test_help_says_what_the_specification_holds() -> None:
    done = command("--help")
    assert done.returncode == 0
    assert all(word in done.stdout for word in ("--root", "--no-download", "split_seed", "Example:"))


@pytest.mark.parametrize("stop", ["kill", pytest.param("terminate", marks=pytest.mark.slow)])
def test_a_download_stopped_midway_is_recovered(stop: str, tmp_path: Path, server: tiny.Server) -> None:
    root, store = tmp_path / "root", tmp_path / "store"
    arguments = words(tiny.CIFAR10, root, store, "--download")
    archive = root / ".CIFAR10.download/cifar-10-python.tar.gz"
    server.cut = 70_000
    server.hang.set()
    process = local(server, *arguments)
    try:
        assert server.sent.wait(90), "the download has begun"
        deadline = time.monotonic() + 30
        while not (archive.exists() and archive.stat().st_size) and time.monotonic() < deadline:
            time.sleep(0.05)
        getattr(process, stop)()
        said = process.communicate(timeout=600)[1]
    finally:
        process.kill()
    assert process.returncode == (-9 if stop == "kill" else 75), said
    assert 0 < archive.stat().st_size < len(tiny.cifar_files()[1]["cifar-10-python.tar.gz"]), "half an archive stayed"
    assert not store.exists()
    server.cut = None
    server.hang.clear()
    again = local(server, *arguments)
    said = again.communicate(timeout=600)[1]
    assert again.returncode == 0, said
    assert load_store(store / "store.json").train_images.shape == (tiny.TRAIN, 3, 32, 32)
    assert sorted(path.name for path in root.iterdir()) == ["cifar-10-batches-py", "cifar-10-python.tar.gz"]
