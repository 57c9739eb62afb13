"""Stores: what is loaded, what is refused, what a download leaves behind."""

from __future__ import annotations

import contextlib
import gzip
import os
import pickle
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_torchvision as tiny
from dnn_or_knn.data import downloads
from dnn_or_knn.data.loaders import bundled, digits
from dnn_or_knn.data.loaders.common import Data, load, write_store
from dnn_or_knn.data.store import STORE_ARRAYS, load_store, load_true_labels
from dnn_or_knn.plan.registry import DATASETS
from dnn_or_knn.runtime import files, results
from dnn_or_knn.runtime.errors import UserError
from hypothesis import given, settings
from hypothesis import strategies as st

DIGITS = {"dataset": "digits", "loader": "digits", "channels": 1, "size": 8, "classes": 10}
REAL = os.environ.get("DNN_OR_KNN_DATA")
FAMILIES = ["mnist", "cifar10"]
SPECS: dict[str, dict[str, Any]] = {"mnist": tiny.MNIST, "cifar10": tiny.CIFAR10}
CONTENTS = {"mnist": tiny.mnist_files, "cifar10": tiny.cifar_files}
#: A file that torchvision reads, and the archive that it came from.
MEMBER = {"mnist": "MNIST/raw/train-images-idx3-ubyte", "cifar10": "cifar-10-batches-py/data_batch_2"}
ARCHIVE = {"mnist": "MNIST/raw/train-images-idx3-ubyte.gz", "cifar10": "cifar-10-python.tar.gz"}


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tiny.Server]:
    """Serve the archives of both families, and make torchvision's classes know them."""
    from torchvision import datasets as theirs

    for owner, names in (
        (theirs.MNIST, ("mirrors", "resources")),
        (theirs.CIFAR10, ("url", "tgz_md5", "train_list", "test_list", "meta")),
    ):
        for name in names:
            monkeypatch.setattr(owner, name, getattr(owner, name))
    (raw, packed), (_, tar) = tiny.mnist_files(), tiny.cifar_files()
    sums = {tiny.md5(data): tiny.md5(raw[name.removesuffix(".gz")]) for name, data in packed.items()}
    monkeypatch.setattr(downloads, "UNPACKED", sums)
    tiny.put(tmp_path / "served", packed | tar)
    started = tiny.Server(tmp_path / "served")
    tiny.replace_mnist(started.url)
    tiny.replace_cifar(started.url)
    yield started
    started.close()


@pytest.fixture
def root(tmp_path: Path, server: tiny.Server) -> Path:
    """Return a root with the whole unpacked files of both families, archives not beside them."""
    for contents in CONTENTS.values():
        tiny.put(tmp_path / "root", contents()[0])
    return tmp_path / "root"


def load_tiny(name: str, root: Path, *, download: bool = False) -> Data:
    return load(SPECS[name], root, download=download)


def refused(name: str, root: Path, *, download: bool = False) -> str:
    """Return the one sentence with which a load is refused."""
    with pytest.raises(UserError) as raised:
        load_tiny(name, root, download=download)
    sentence = str(raised.value)
    assert "\n" not in sentence
    assert str(root) in sentence
    return sentence


def assert_whole(name: str, data: Data) -> None:
    """Check that the data are the images and labels of the tiny files, channels first."""
    channels, size, seed = (1, 28, 0) if name == "mnist" else (3, 32, 2)
    np.testing.assert_array_equal(data.train_images, tiny.images(channels, size, tiny.TRAIN, seed))
    np.testing.assert_array_equal(data.test_images, tiny.images(channels, size, tiny.TEST, seed + 1))
    np.testing.assert_array_equal(data.train_labels, tiny.labels(tiny.TRAIN, seed))
    np.testing.assert_array_equal(data.test_labels, tiny.labels(tiny.TEST, seed + 1))
    assert {array.dtype for array in (data.train_images, data.test_images)} == {np.dtype(np.uint8)}
    assert {array.dtype for array in (data.train_labels, data.test_labels)} == {np.dtype(np.int64)}


def state(root: Path) -> dict[str, tuple[int, bytes]]:
    """Return every file below a root with its time and content."""
    return {str(p): (p.stat().st_mtime_ns, p.read_bytes()) for p in root.rglob("*") if p.is_file()}


# Stores, written and read.


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("digits") / "store"
    results.write(folder / "store.json", *write_store(folder, DIGITS, load(DIGITS, folder, download=False)))
    return folder


@pytest.fixture
def copy(store: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(store, tmp_path / "store"))


def test_a_store_reads_back_as_written(store: Path) -> None:
    data, read = load(DIGITS, store, download=False), load_store(store / "store.json")
    for name in STORE_ARRAYS:
        np.testing.assert_array_equal(getattr(read, name), getattr(data, name))
        assert not getattr(read, name).flags.writeable or name.endswith("labels")
    assert (read.dataset, read.channels, read.size, read.classes) == ("digits", 1, 8, 10)
    assert read.class_names == tuple("0123456789")
    for ours, theirs in zip(load_true_labels(store / "store.json"), (data.train_labels, data.test_labels), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_the_manifest_holds_counts_and_digests(store: Path) -> None:
    manifest = files.read_json(store / "store.json")
    assert (manifest["train"], manifest["test"]) == (1438, 359)
    assert manifest["files"] == files.listing(store, [f"{name}.npy" for name in STORE_ARRAYS])
    assert manifest["origin"]["sha256"] == digits.DIGITS_SHA256


def test_two_preparations_give_equal_bytes(store: Path, tmp_path: Path) -> None:
    results.write(tmp_path / "store.json", *write_store(tmp_path, DIGITS, load(DIGITS, tmp_path, download=False)))
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == {p.name: p.read_bytes() for p in store.iterdir()}


def test_a_truncated_store_is_refused(copy: Path) -> None:
    path = copy / "train_images.npy"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(UserError, match=r"train_images\.npy is damaged: 92159 bytes instead of 92160"):
        load_store(copy / "store.json")


@pytest.mark.parametrize("name", STORE_ARRAYS)
def test_one_altered_bit_of_a_store_is_refused(copy: Path, name: str) -> None:
    path = copy / f"{name}.npy"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(UserError, match=f"{name}.npy is damaged: its SHA-256"):
        load_store(copy / "store.json")


def test_a_store_without_manifest_is_refused(copy: Path) -> None:
    (copy / "store.json").write_text("[]")
    with pytest.raises(UserError, match="no manifest"):
        load_store(copy / "store.json")
    (copy / "store.json").unlink()
    with pytest.raises(UserError, match=r"store\.json is missing"):
        load_store(copy / "store.json")


def test_a_store_that_cannot_be_finished_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = load(DIGITS, tmp_path, download=False)
    write = files.write_npy

    def full(path: Path, array: np.ndarray) -> None:
        if path.name == "test_labels.npy":
            raise UserError("disk full")
        write(path, array)

    monkeypatch.setattr(files, "write_npy", full)
    with pytest.raises(UserError, match="disk full"):
        write_store(tmp_path / "store", DIGITS, data)
    assert list((tmp_path / "store").iterdir()) == []


# Digits.


def test_digits_are_scaled_over_the_byte_and_split_once(store: Path) -> None:
    from sklearn.datasets import load_digits

    read, bundle = load_store(store / "store.json"), load_digits()
    known = {
        (image.tobytes(), label): position
        for position, (image, label) in enumerate(
            zip(np.floor((255 * bundle.images + 8) / 16).astype(np.uint8), bundle.target, strict=True)
        )
    }
    parts = [
        [known[image.tobytes(), label] for image, label in zip(images, labels, strict=True)]
        for images, labels in ((read.train_images, read.train_labels), (read.test_images, read.test_labels))
    ]
    assert sorted(parts[0] + parts[1]) == list(range(1797))
    assert all(part == sorted(part) for part in parts)
    assert (read.train_images.min(), read.train_images.max()) == (0, 255)
    assert len(np.unique(read.train_images)) == 17


def test_the_split_of_digits_is_the_one_of_always(store: Path) -> None:
    """Results are comparable only while the split stays: a NumPy that draws otherwise shows here."""
    manifest = files.read_json(store / "store.json")
    assert manifest["files"]["test_labels.npy"]["sha256"].startswith("132b785fc4a25ac7")
    assert manifest["files"]["train_images.npy"]["sha256"].startswith("b819a45d9f5a400a")


def test_altered_digits_are_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import sklearn.datasets

    bundle = sklearn.datasets.load_digits()
    bundle.images[0, 0, 0] += 1
    monkeypatch.setattr(sklearn.datasets, "load_digits", lambda: bundle)
    with pytest.raises(UserError, match="expected SHA-256 65e5b46"):
        load(DIGITS, tmp_path, download=False)


FASHION = {"dataset": "fashion14"} | {key: value for key, value in DATASETS["fashion14"].items() if key != "options"}


def test_the_bundled_fashion_images_are_those_of_always(tmp_path: Path) -> None:
    data = load(FASHION, tmp_path, download=False)
    assert data.train_images.shape == (2000, 1, 14, 14) and data.test_images.shape == (1000, 1, 14, 14)
    assert set(np.unique(data.train_labels)) == set(range(10)) == set(np.unique(data.test_labels))
    assert (data.class_names[0], data.class_names[9], data.train_labels[0]) == ("T-shirt/top", "Ankle boot", 9)
    assert (data.train_images.min(), data.train_images.max()) == (0, 255)


@pytest.mark.parametrize("change", ["altered", "missing"])
def test_altered_bundled_images_are_refused(change: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = tmp_path / FASHION["file"]
    if change == "altered":
        path.parent.mkdir()
        path.write_bytes((bundled.RESOURCES / FASHION["file"]).read_bytes()[:-1])
    monkeypatch.setattr(bundled, "RESOURCES", tmp_path)
    with pytest.raises(UserError, match=r"should have SHA-256 b3beb8ea.*restore it with git"):
        load(FASHION, tmp_path, download=False)


@settings(deadline=None, max_examples=60)
@given(
    counts=st.lists(st.integers(8, 60), min_size=2, max_size=6),
    fraction=st.floats(0.15, 0.85),
    seed=st.integers(0, 2**32),
)
def test_a_split_gives_each_class_its_share(counts: list[int], fraction: float, seed: int) -> None:
    labels = np.random.default_rng(0).permutation(np.repeat(np.arange(len(counts)), counts))
    mask = digits.stratified_split(labels, fraction, seed)
    assert mask.sum() == round(len(labels) * fraction)
    share = np.bincount(labels[mask], minlength=len(counts)) - np.array(counts) * mask.sum() / len(labels)
    assert np.abs(share).max() < 1
    np.testing.assert_array_equal(mask, digits.stratified_split(labels, fraction, seed))


def test_another_seed_is_another_split() -> None:
    labels = np.arange(200) % 10
    assert (digits.stratified_split(labels, 0.2, 0) != digits.stratified_split(labels, 0.2, 1)).any()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"test_fraction": 0}, "test_fraction is 0"),
        ({"test_fraction": "0.2"}, "test_fraction is '0.2'"),
        ({"test_fraction": 0.001}, "leaves a class without"),
        ({"split_seed": -1}, "split_seed is -1"),
        ({"loader": "digit"}, "did you mean 'digits'"),
        ({"size": 9}, r"says uint8 \(N, 1, 9, 9\)"),
        ({"classes": 9}, "labels go from 0 to 9"),
    ],
)
def test_a_bad_specification_is_refused(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message):
        load(DIGITS | changes, tmp_path, download=False)


def test_a_specification_without_a_key_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no 'classes'"):
        load({key: value for key, value in DIGITS.items() if key != "classes"}, tmp_path, download=False)


# torchvision's files: whole copies in every form.


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("form", ["unpacked", "packed", "both"])
def test_every_whole_copy_gives_the_same_data(name: str, form: str, tmp_path: Path, server: tiny.Server) -> None:
    members, packed = CONTENTS[name]()
    root = tmp_path / "root"
    tiny.put(root, {"unpacked": members, "packed": packed, "both": members | packed}[form])
    before = state(root)
    data = load_tiny(name, root)
    assert_whole(name, data)
    assert data.origin["files"] == {path: tiny.md5(content) for path, content in members.items()}
    assert data.origin["archives"] == {path: tiny.md5(content) for path, content in packed.items()}
    assert state(root) == before
    assert server.requests == []


@pytest.mark.parametrize("name", FAMILIES)
def test_a_whole_copy_is_not_downloaded_again(name: str, root: Path, server: tiny.Server) -> None:
    before = state(root)
    assert_whole(name, load_tiny(name, root, download=True))
    assert state(root) == before
    assert server.requests == []


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("given", ["root", "~/root"])
def test_a_root_may_be_relative_or_at_home(
    name: str, given: str, root: Path, server: tiny.Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(root.parent)
    monkeypatch.setenv("HOME", str(root.parent))
    assert_whole(name, load_tiny(name, Path(given)))
    (root / MEMBER[name]).unlink()
    tiny.put(root, CONTENTS[name]()[1])
    (root / ARCHIVE["mnist"]).write_bytes(b"half")
    assert_whole(name, load_tiny(name, Path(given), download=True))


@contextlib.contextmanager
def nobody() -> Iterator[None]:
    """Lose the right to write everywhere that root has."""
    root = os.geteuid() == 0
    if root:
        os.seteuid(65534)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)


@pytest.fixture
def readonly() -> Iterator[Path]:
    """Return a folder that others can reach, to be made read-only by the test."""
    folder = Path(tempfile.mkdtemp(prefix="readonly-"))
    yield folder
    for path in [folder, *folder.rglob("*")]:
        path.chmod(0o755)
    shutil.rmtree(folder)


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("form", ["unpacked", "packed"])
def test_a_read_only_root_is_enough(name: str, form: str, readonly: Path, server: tiny.Server) -> None:
    tiny.put(readonly, dict(zip(("unpacked", "packed"), CONTENTS[name](), strict=True))[form])
    for path in [*readonly.rglob("*"), readonly]:
        path.chmod(0o555)
    with nobody():
        with pytest.raises(PermissionError):
            (readonly / "probe").touch()
        assert_whole(name, load_tiny(name, readonly, download=True))


@pytest.mark.parametrize("name", FAMILIES)
def test_a_download_into_a_read_only_root_is_one_sentence(name: str, readonly: Path, server: tiny.Server) -> None:
    readonly.chmod(0o555)
    with nobody():
        assert "cannot take the download" in refused(name, readonly, download=True)
    assert list(readonly.iterdir()) == []


def test_a_file_that_cannot_be_read_is_one_sentence(readonly: Path, server: tiny.Server) -> None:
    tiny.put(readonly, tiny.mnist_files()[0])
    readonly.chmod(0o755)
    for path in readonly.rglob("*"):
        path.chmod(0o755)
    (readonly / MEMBER["mnist"]).chmod(0o000)
    with nobody():
        assert f"{MEMBER['mnist']} could not be read or written: Permission denied" in refused("mnist", readonly)


def test_the_old_processed_files_of_mnist_are_not_read(root: Path) -> None:
    """torchvision would load these, unchecked, in place of the raw files."""
    import torch

    for name, count in (("training.pt", tiny.TRAIN), ("test.pt", tiny.TEST)):
        (root / "MNIST/processed").mkdir(exist_ok=True)
        torch.save(
            (torch.zeros(count, 28, 28, dtype=torch.uint8), torch.zeros(count).long()), root / "MNIST/processed" / name
        )
    assert_whole("mnist", load_tiny("mnist", root))


# torchvision's files: faults.


@pytest.mark.parametrize("name", FAMILIES)
def test_a_missing_file_is_named(name: str, root: Path, server: tiny.Server) -> None:
    (root / MEMBER[name]).unlink()
    sentence = refused(name, root)
    assert f"{root / MEMBER[name]} is missing (expected MD5 " in sentence
    assert str(root / ARCHIVE[name]) in sentence
    assert "turn on data.download" in sentence
    assert server.requests == []


@pytest.mark.parametrize("name", FAMILIES)
def test_a_missing_root_is_named(name: str, tmp_path: Path, server: tiny.Server) -> None:
    assert "is missing" in refused(name, tmp_path / "nowhere")
    assert not (tmp_path / "nowhere").exists()


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("which", [MEMBER, ARCHIVE], ids=["member", "archive"])
@pytest.mark.parametrize("beside", [True, False], ids=["both forms", "one form"])
def test_a_truncated_file_is_named(
    name: str, which: dict[str, str], beside: bool, tmp_path: Path, server: tiny.Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    members, packed = CONTENTS[name]()
    root, bad = tmp_path / "root", which[name]
    tiny.put(root, members | packed if beside else members if which is MEMBER else packed)
    content = (members | packed)[bad]
    (root / bad).write_bytes(content[:-7])
    sums = tiny.md5(content), tiny.md5(content[:-7])
    assert f"{root / bad} is corrupt: expected MD5 {sums[0]}, found {sums[1]}" in refused(name, root)
    monkeypatch.setitem(downloads.SIZES, sums[0], len(content))
    expected = f"expected {len(content)} bytes (MD5 {sums[0]}), found {len(content) - 7} bytes"
    assert f"{root / bad} is truncated: {expected}" in refused(name, root)


@pytest.mark.parametrize("name", FAMILIES)
@settings(deadline=None, max_examples=15)
@given(data=st.data())
def test_any_altered_byte_is_found(name: str, data: st.DataObject) -> None:
    members, _ = CONTENTS[name]()
    path = data.draw(st.sampled_from(sorted(members)))
    position = data.draw(st.integers(0, len(members[path]) - 1))
    content = bytearray(members[path])
    content[position] ^= data.draw(st.integers(1, 255))
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "file"
        file.write_bytes(content)
        assert "is corrupt: expected MD5" in (downloads._differs(file, tiny.md5(members[path])) or "")


def test_nothing_is_unpickled_before_it_is_checked(root: Path, tmp_path: Path) -> None:
    marker = tmp_path / "unpickled"

    class Bomb:
        def __reduce__(self) -> tuple[Any, tuple[Path]]:
            return Path.touch, (marker,)

    bomb = pickle.dumps(Bomb())
    for name in tiny.cifar_files()[0]:
        content = (root / name).read_bytes()
        (root / name).write_bytes(bomb)
        assert f"{root / name} is corrupt" in refused("cifar10", root)
        (root / name).write_bytes(content)
    assert not marker.exists()
    pickle.loads(bomb)
    assert marker.exists(), "the bomb would have gone off"


def test_unpacked_files_without_a_known_checksum_are_held_against_their_head(
    root: Path, server: tiny.Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As Fashion-MNIST's and KMNIST's are, unless their archives lie beside them."""
    monkeypatch.setattr(downloads, "UNPACKED", {})
    assert_whole("mnist", load_tiny("mnist", root))
    members, packed = tiny.mnist_files()
    file, content = root / MEMBER["mnist"], members[MEMBER["mnist"]]
    for wrong, word in (
        (content[:-1], "truncated"),
        (content + b"x", "corrupt"),
        (b"PK" + content[2:], "corrupt"),
        (b"", "corrupt"),
    ):
        file.write_bytes(wrong)
        assert f"{MEMBER['mnist']} is {word}" in refused("mnist", root)
    file.write_bytes(content)
    tiny.put(root, packed)
    assert_whole("mnist", load_tiny("mnist", root))
    (root / MEMBER["mnist"]).write_bytes(members[MEMBER["mnist"]][:-1])
    assert f"{MEMBER['mnist']} is corrupt" in refused("mnist", root)


def test_an_archive_that_holds_something_else_is_refused(
    tmp_path: Path, server: tiny.Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    packed = tiny.mnist_files()[1]
    tiny.put(tmp_path / "root", packed)
    monkeypatch.setitem(downloads.UNPACKED, tiny.md5(packed[ARCHIVE["mnist"]]), "0" * 32)
    assert f"{ARCHIVE['mnist']} holds another {MEMBER['mnist']}" in refused("mnist", tmp_path / "root")


def test_a_folder_in_place_of_a_file_is_named(root: Path) -> None:
    (root / MEMBER["cifar10"]).unlink()
    (root / MEMBER["cifar10"]).mkdir()
    assert f"{root / MEMBER['cifar10']} is not a file" in refused("cifar10", root)


@pytest.mark.parametrize(
    ("name", "message"),
    [("MNISTT", "did you mean 'MNIST'"), ("SVHN", "laid out neither"), ("QMNIST", "laid out neither")],
)
def test_other_classes_are_refused(name: str, message: str, root: Path) -> None:
    with pytest.raises(UserError, match=message):
        load(tiny.MNIST | {"class": name}, root, download=False)


def test_the_checksums_of_unpacked_files_cover_torchvisions_list() -> None:
    from torchvision import datasets as theirs

    assert set(downloads.UNPACKED) == {md5 for _, md5 in theirs.MNIST.resources}
    known = [
        archive for name in ("MNIST", "CIFAR10", "CIFAR100") for archive in downloads.archives(getattr(theirs, name))
    ]
    assert set(downloads.SIZES) == {md5 for a in known for md5 in (a.md5, *a.members.values())}
    assert [len(downloads.archives(getattr(theirs, name))) for name in ("FashionMNIST", "KMNIST")] == [4, 4]


# Downloads, from a local server.


@pytest.mark.parametrize("name", FAMILIES)
def test_a_download_fills_an_empty_root(name: str, tmp_path: Path, server: tiny.Server) -> None:
    root = tmp_path / "new/root"
    assert_whole(name, load_tiny(name, root, download=True))
    members, packed = CONTENTS[name]()
    assert {p.relative_to(root).as_posix(): p.read_bytes() for p in root.rglob("*") if p.is_file()} == members | packed
    assert not list(root.glob(".*"))
    asked = len(server.requests)
    assert_whole(name, load_tiny(name, root))
    assert len(server.requests) == asked


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("which", [MEMBER, ARCHIVE], ids=["member", "archive"])
def test_what_torchvision_left_half_done_is_replaced(
    name: str, which: dict[str, str], tmp_path: Path, server: tiny.Server
) -> None:
    """torchvision downloads and unpacks at the final place; stopped there, it leaves half a file."""
    members, packed = CONTENTS[name]()
    root = tmp_path / "root"
    tiny.put(root, packed | (members if which is MEMBER else {}))
    half = (members | packed)[which[name]]
    (root / which[name]).write_bytes(half[: len(half) // 2])
    assert "is corrupt" in refused(name, root)
    assert_whole(name, load_tiny(name, root, download=True))
    assert (root / which[name]).read_bytes() == half
    if which is MEMBER:
        assert server.requests == [], "the whole archive is there: nothing to fetch"


@pytest.mark.parametrize("name", FAMILIES)
def test_a_connection_that_breaks_is_one_sentence_and_recovered(name: str, tmp_path: Path, server: tiny.Server) -> None:
    root = tmp_path / "root"
    server.cut = 100
    assert "could not be downloaded" in refused(name, root, download=True)
    assert "is missing" in refused(name, root), "no half file at the final place"
    server.cut = None
    assert_whole(name, load_tiny(name, root, download=True))


@pytest.mark.parametrize("name", FAMILIES)
def test_no_network_is_one_sentence(name: str, tmp_path: Path, server: tiny.Server) -> None:
    server.close()
    sentence = refused(name, tmp_path / "root", download=True)
    assert "could not be downloaded" in sentence
    assert "Connection refused" in sentence
    assert "check the network" in sentence


def test_another_file_than_torchvisions_is_refused(tmp_path: Path, server: tiny.Server) -> None:
    other = tmp_path / "served" / ARCHIVE["mnist"]
    other.write_bytes(gzip.compress(b"something else"))
    assert "File not found or corrupted" in refused("mnist", tmp_path / "root", download=True)


def test_a_leftover_staging_folder_is_not_trusted(tmp_path: Path, server: tiny.Server) -> None:
    """A kill while unpacking leaves half a raw file there, which torchvision's MNIST would take as it is."""
    members, packed = tiny.mnist_files()
    staging = tmp_path / "root/.MNIST.download"
    tiny.put(staging, packed | {name: content[:-9] for name, content in members.items()})
    assert_whole("mnist", load_tiny("mnist", tmp_path / "root", download=True))
    assert server.requests == [], "its whole archives serve"
    assert not staging.exists()


def test_a_whole_archive_of_the_root_goes_before_a_leftover_half(tmp_path: Path, server: tiny.Server) -> None:
    root, packed = tmp_path / "root", tiny.mnist_files()[1]
    tiny.put(root, packed | {MEMBER["mnist"]: b"half"})
    tiny.put(root / ".MNIST.download", {ARCHIVE["mnist"]: packed[ARCHIVE["mnist"]][:50]})
    assert_whole("mnist", load_tiny("mnist", root, download=True))
    assert server.requests == []


def test_a_link_left_in_the_staging_folder_is_not_written_through(tmp_path: Path, server: tiny.Server) -> None:
    root, precious = tmp_path / "root", tmp_path / "precious"
    precious.write_bytes(b"not to be overwritten")
    link = root / ".MNIST.download" / ARCHIVE["mnist"]
    link.parent.mkdir(parents=True)
    link.symlink_to(precious)
    assert_whole("mnist", load_tiny("mnist", root, download=True))
    assert precious.read_bytes() == b"not to be overwritten"


# The real files.

real = pytest.mark.skipif(not REAL, reason="DNN_OR_KNN_DATA does not point to a folder with torchvision's files")
REAL_SPECS = {
    "mnist": (tiny.MNIST, (60000, 10000), (5421, 6742)),
    "cifar10": (tiny.CIFAR10, (50000, 10000), (5000, 5000)),
    "cifar100": (
        tiny.CIFAR10 | {"dataset": "cifar100", "class": "CIFAR100", "classes": 100},
        (50000, 10000),
        (500, 500),
    ),
}


@real
@pytest.mark.parametrize("name", REAL_SPECS)
def test_real_data(name: str, tmp_path: Path) -> None:
    spec, counts, (fewest, most) = REAL_SPECS[name]
    made = write_store(tmp_path, spec, load(spec, Path(str(REAL)), download=False))
    results.write(tmp_path / "store.json", *made)
    read = load_store(tmp_path / "store.json")
    assert (len(read.train_images), len(read.test_images)) == counts
    per_class = np.bincount(read.train_labels, minlength=spec["classes"])
    assert (per_class.min(), per_class.max(), len(per_class)) == (fewest, most, spec["classes"])
    groups: dict[bytes, list[int]] = {}
    for position, image in enumerate(read.train_images):
        groups.setdefault(image.tobytes(), []).append(position)
    twins = [group for group in groups.values() if len(group) > 1]
    unequal = [group for group in twins if len(set(read.train_labels[group])) > 1]
    assert (len(twins), len(unequal)) == ((14, 9) if name == "cifar100" else (0, 0))
    assert all(len(group) == 2 for group in twins)


@real
def test_real_raw_mnist_without_archives_is_checked(tmp_path: Path) -> None:
    raw = Path(str(REAL)) / "MNIST/raw"
    (tmp_path / "MNIST/raw").mkdir(parents=True)
    for file in raw.glob("*-ubyte"):
        (tmp_path / "MNIST/raw" / file.name).symlink_to(file.resolve())
    whole = load(tiny.MNIST, tmp_path, download=False)
    assert whole.origin == load(tiny.MNIST, Path(str(REAL)), download=False).origin
    bad = tmp_path / "MNIST/raw/t10k-labels-idx1-ubyte"
    content = bytearray(bad.read_bytes())
    content[-1] ^= 1
    bad.unlink()
    bad.write_bytes(content)
    with pytest.raises(UserError, match="t10k-labels-idx1-ubyte is corrupt: expected MD5 27ae3e4e"):
        load(tiny.MNIST, tmp_path, download=False)
