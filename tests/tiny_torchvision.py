"""A few images in the files of torchvision's MNIST and CIFAR10, and a local server to download them from.

torchvision's own classes do the reading; only their lists of files, checksums and addresses are replaced.
"""

from __future__ import annotations

import gzip
import hashlib
import http.server
import io
import pickle
import struct
import tarfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np

MNIST = {"dataset": "mnist", "loader": "torchvision", "class": "MNIST", "channels": 1, "size": 28, "classes": 10}
CIFAR10 = {"dataset": "cifar10", "loader": "torchvision", "class": "CIFAR10", "channels": 3, "size": 32, "classes": 10}
TRAIN, TEST = 30, 20


def md5(data: bytes) -> str:
    return hashlib.md5(data, usedforsecurity=False).hexdigest()


def images(channels: int, size: int, count: int, seed: int) -> np.ndarray:
    """Return uint8 images (count, channels, size, size)."""
    return np.random.default_rng(seed).integers(0, 256, (count, channels, size, size), dtype=np.uint8)


def labels(count: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed + 100).integers(0, 10, count)


def mnist_files() -> tuple[dict[str, bytes], dict[str, bytes]]:
    """Return MNIST's four raw files and their `.gz`, by path under the root."""
    raw = {}
    for name, count, seed in (("train", TRAIN, 0), ("t10k", TEST, 1)):
        pixels, digits = images(1, 28, count, seed), labels(count, seed)
        raw[f"MNIST/raw/{name}-images-idx3-ubyte"] = struct.pack(">4i", 2051, count, 28, 28) + pixels.tobytes()
        raw[f"MNIST/raw/{name}-labels-idx1-ubyte"] = struct.pack(">2i", 2049, count) + digits.astype(np.uint8).tobytes()
    return raw, {f"{name}.gz": gzip.compress(data, mtime=0) for name, data in raw.items()}


def cifar_files() -> tuple[dict[str, bytes], dict[str, bytes]]:
    """Return CIFAR10's batches (two of training) and their `.tar.gz`, by path under the root."""
    folder, half = "cifar-10-batches-py", TRAIN // 2
    pixels, classes = images(3, 32, TRAIN, 2).reshape(TRAIN, -1), labels(TRAIN, 2).tolist()
    batches = {
        "data_batch_1": {"data": pixels[:half], "labels": classes[:half]},
        "data_batch_2": {"data": pixels[half:], "labels": classes[half:]},
        "test_batch": {"data": images(3, 32, TEST, 3).reshape(TEST, -1), "labels": labels(TEST, 3).tolist()},
        "batches.meta": {"label_names": [f"class {c}" for c in range(10)]},
    }
    members = {f"{folder}/{name}": pickle.dumps(batch) for name, batch in batches.items()}
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, data in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
    return members, {"cifar-10-python.tar.gz": gzip.compress(buffer.getvalue(), mtime=0)}


def put(root: Path, contents: dict[str, bytes]) -> None:
    """Write files below a root."""
    for name, data in contents.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)


def replace_mnist(url: str) -> None:
    """Make torchvision's MNIST know the tiny files at `url` (undone by the caller, with `monkeypatch` or by ending)."""
    from torchvision import datasets

    packed = mnist_files()[1]
    datasets.MNIST.mirrors = [f"{url}/MNIST/raw/"]
    datasets.MNIST.resources = [(Path(name).name, md5(data)) for name, data in packed.items()]


def replace_cifar(url: str) -> None:
    """Make torchvision's CIFAR10 know the tiny files at `url`."""
    from torchvision import datasets

    members, packed = cifar_files()
    sums = {Path(name).name: md5(data) for name, data in members.items()}
    datasets.CIFAR10.url = f"{url}/cifar-10-python.tar.gz"
    datasets.CIFAR10.tgz_md5 = md5(*packed.values())
    datasets.CIFAR10.train_list = [[name, sums[name]] for name in ("data_batch_1", "data_batch_2")]
    datasets.CIFAR10.test_list = [["test_batch", sums["test_batch"]]]
    datasets.CIFAR10.meta = {"filename": "batches.meta", "key": "label_names", "md5": sums["batches.meta"]}


class Server:
    """Serves the files of a folder on 127.0.0.1; `cut` limits the bytes sent of each file, `hang` waits after them."""

    def __init__(self, folder: Path) -> None:
        self.requests: list[str] = []
        self.cut: int | None = None
        self.hang = threading.Event()
        self.sent = threading.Event()
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.requests.append(self.path)
                file = folder / self.path.lstrip("/")
                if not file.is_file():
                    self.send_error(404)
                    return
                data = file.read_bytes()
                self.send_response(200)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                try:
                    self.wfile.write(data[: outer.cut])
                    self.wfile.flush()
                    # torchvision asks twice: once for the redirects, whose body it leaves unread, then for the file.
                    if outer.hang.is_set() and outer.requests.count(self.path) > 1:
                        time.sleep(0.3)
                        outer.sent.set()
                        while outer.hang.is_set():
                            time.sleep(0.05)
                except OSError:
                    pass

            def log_message(self, *words: Any) -> None:
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    def close(self) -> None:
        """Stop answering: further connections are refused."""
        self.hang.clear()
        self.server.shutdown()
        self.server.server_close()
