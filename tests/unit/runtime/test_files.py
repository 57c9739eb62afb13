"""Files are whole or not there; damage is named."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import SCRIPTS
from dnn_or_knn.runtime import files
from dnn_or_knn.runtime.errors import UserError
from hypothesis import given
from hypothesis import strategies as st

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda children: st.lists(children, max_size=3) | st.dictionaries(st.text(), children, max_size=3),
    max_leaves=8,
)


def test_an_error_leaves_the_old_file_and_no_temporary(tmp_path: Path) -> None:
    target = tmp_path / "a.txt"
    target.write_text("old")
    with pytest.raises(RuntimeError), files.atomic(target) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_a_folder_is_replaced_as_a_whole(tmp_path: Path) -> None:
    target = tmp_path / "folder"
    (target / "deep").mkdir(parents=True)
    (target / "deep" / "old").write_text("1")
    with files.atomic(target) as temporary:
        (temporary / "sub").mkdir(parents=True)
        (temporary / "sub" / "new").write_text("2")
    assert [path.name for path in target.rglob("*")] == ["sub", "new"]


@pytest.mark.parametrize("number", sorted(files.DISK_ERRORS))
def test_a_disk_that_refuses_is_one_sentence(tmp_path: Path, number: int) -> None:
    with (
        pytest.raises(UserError, match=r"could not be written: .*; (free space or permissions|see to that disk)"),
        files.atomic(tmp_path / "x"),
    ):
        raise OSError(number, os.strerror(number))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("number", sorted(files.UNSUPPORTED))
@pytest.mark.parametrize("function", ["fsync", "link"])
def test_a_file_system_without_fsync_or_second_names_will_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, function: str
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, function, refuse)
    files.write_text(tmp_path / "a", "text")
    files.place(tmp_path / "a", tmp_path / "b")
    with files.atomic(tmp_path / "folder") as temporary:
        (temporary / "deep").mkdir(parents=True)
        (temporary / "deep" / "c").write_text("text")
    assert {path.read_text() for path in tmp_path.rglob("*") if path.is_file()} == {"text"}
    assert not list(tmp_path.rglob(".*"))


def test_a_disk_that_fails_in_fsync_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(UserError, match="could not be written: Input/output error"):
        files.write_text(tmp_path / "a", "text")
    assert not list(tmp_path.iterdir())


def test_a_short_write_on_a_full_disk_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """NumPy's tofile and torch.save say nothing of the disk, and name no errno."""
    for free, expected in ((4096, UserError), (2**40, OSError)):
        monkeypatch.setattr(files.shutil, "disk_usage", lambda folder, free=free: SimpleNamespace(free=free))
        with pytest.raises(expected), files.atomic(tmp_path / "a.npy") as temporary:
            temporary.write_bytes(b"half")
            raise OSError("1438 requested and 496 written")
        assert not list(tmp_path.iterdir())


@given(dates=st.lists(st.integers(-5, 5), min_size=1, max_size=6))
def test_dates_in_the_future_come_back_in_their_order(dates: list[int]) -> None:
    with tempfile.TemporaryDirectory() as name:
        paths = [Path(name) / str(number) for number in range(len(dates))]
        now = time.time()
        for path, date in zip(paths, dates, strict=True):
            path.touch()
            os.utime(path, (now + 1000 * date - 500,) * 2)
        moved = files.bring_dates_back(name)
        after = [path.stat().st_mtime for path in paths]
    assert moved == sum(date > 0 for date in dates)
    assert max(after) <= time.time()
    for one, old in zip(after, dates, strict=True):
        for two, other in zip(after, dates, strict=True):
            assert (one < two) == (old < other)


def test_killed_in_the_middle_leaves_the_old_file(tmp_path: Path) -> None:
    target = tmp_path / "big.bin"
    target.write_bytes(b"old")
    code = (
        "import sys, pathlib; from dnn_or_knn.runtime import files\n"
        f"with files.atomic({str(target)!r}) as t, open(t, 'wb') as f:\n"
        "    print('open', flush=True)\n"
        "    while True: f.write(bytes(1 << 16)); f.flush()\n"
    )
    child = subprocess.Popen([sys.executable, "-c", code], cwd=SCRIPTS, stdout=subprocess.PIPE)
    assert child.stdout is not None and child.stdout.readline() == b"open\n"
    time.sleep(0.05)
    child.send_signal(signal.SIGKILL)
    child.wait()
    assert target.read_bytes() == b"old"
    (leftover,) = set(tmp_path.iterdir()) - {target}
    alive = tmp_path / leftover.name.replace(f"-{child.pid}-", f"-{os.getppid()}-")
    elsewhere = tmp_path / f".big.bin.another-{child.pid}-0123.part"
    for path in (alive, elsewhere):
        path.touch()
    files.write_text(target, "new")
    assert set(tmp_path.iterdir()) == {alive, elsewhere, target}, "what the killed process left is gone, nothing else"


@given(JSON)
def test_canonical_text_is_one_per_value(value: object) -> None:
    import json

    text = files.canonical(value)
    assert json.loads(text) == value
    assert files.canonical(json.loads(text)) == text


@given(st.dictionaries(st.text(), st.integers(), min_size=2, max_size=5))
def test_the_order_of_keys_does_not_count(value: dict[str, int]) -> None:
    assert files.digest(value) == files.digest(dict(reversed(value.items())))


def test_swapped_values_are_told_apart() -> None:
    assert files.digest({"seed": 1, "run": 2}) != files.digest({"seed": 2, "run": 1})


def test_arrays_come_back_and_pickles_are_refused(tmp_path: Path) -> None:
    files.write_npy(tmp_path / "a.npy", np.arange(6).reshape(2, 3))
    assert (files.read_npy(tmp_path / "a.npy") == [[0, 1, 2], [3, 4, 5]]).all()
    np.save(tmp_path / "evil.npy", np.array([{"x": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(UserError, match="is damaged"):
        files.read_npy(tmp_path / "evil.npy")
    with pytest.raises(UserError, match="is missing"):
        files.read_npy(tmp_path / "none.npy")


def test_a_mapped_array_is_read_only_or_its_changes_stay_here(tmp_path: Path) -> None:
    """Of a writable map the system wants as much free memory as the file has: images on disk may be more than that."""
    files.write_npy(tmp_path / "a.npy", np.arange(3))
    assert not files.read_npy(tmp_path / "a.npy", mmap=True).flags.writeable
    private = files.read_npy(tmp_path / "a.npy", mmap=True, private=True)
    private[0] = 7
    assert isinstance(private, np.memmap) and files.read_npy(tmp_path / "a.npy").tolist() == [0, 1, 2]


@pytest.mark.parametrize("number", [errno.EACCES, errno.ESTALE])
def test_an_array_that_cannot_be_read_is_not_called_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(np, "load", refuse)
    with pytest.raises(UserError, match=r"a\.npy could not be read: .*, then run again") as caught:
        files.read_npy(tmp_path / "a.npy")
    assert "delete" not in str(caught.value)


def test_a_manifest_names_what_changed(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("one")
    (tmp_path / "b").write_text("two")
    listing = files.listing(tmp_path)
    files.check(tmp_path, listing)
    (tmp_path / "b").write_text("twO")
    with pytest.raises(UserError, match=r"b is damaged: its SHA-256"):
        files.check(tmp_path, listing)
    (tmp_path / "b").write_text("tw")
    with pytest.raises(UserError, match=r"b is damaged: 2 bytes instead of 3"):
        files.check(tmp_path, listing)
    (tmp_path / "b").unlink()
    with pytest.raises(UserError, match=r"b is missing"):
        files.check(tmp_path, listing)
