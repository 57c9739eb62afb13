"""State folders: what survives kills, full disks, truncation and changed specifications; stop requests."""

from __future__ import annotations

import errno
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import SCRIPTS
from dnn_or_knn.runtime import files, resume, signals
from dnn_or_knn.runtime.errors import UserError

KEY = "a" * 64


def payloads(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("state-*"))


def test_the_newest_state_is_loaded_and_two_are_kept(tmp_path):
    with resume.opened(tmp_path / "s", KEY) as saved:
        assert saved.load() is None
        for number in range(5):
            saved.save(b"payload %d" % number)
        assert saved.load() == b"payload 4"
        assert payloads(saved.folder) == ["state-00000003", "state-00000004"]
    with resume.opened(tmp_path / "s", KEY) as saved:
        assert saved.load() == b"payload 4"
        saved.save(b"payload 5")
        assert saved.load() == b"payload 5"


@pytest.mark.parametrize("damage", ["truncated", "empty", "flipped", "no header"])
def test_a_damaged_state_is_detected_and_the_one_before_it_used(tmp_path, caplog, monkeypatch, damage):
    with resume.opened(tmp_path, KEY) as saved:
        saved.save(b"first" * 100)
        saved.save(b"second" * 100)
        newest = saved.folder / payloads(saved.folder)[-1]
        content = newest.read_bytes()
        damaged = {
            "truncated": content[:-7],
            "empty": b"",
            "flipped": content[:-7] + bytes([content[-7] ^ 1]) + content[-6:],
            "no header": os.urandom(300),
        }
        newest.write_bytes(damaged[damage])
    monkeypatch.setattr(resume.log, "propagate", True)
    with resume.opened(tmp_path, KEY) as saved, caplog.at_level("WARNING", "dnn_or_knn"):
        assert saved.load() == b"first" * 100
        assert "is damaged" in caplog.text and newest.name in caplog.text
        assert not newest.exists()
        saved.save(b"third")
        assert saved.load() == b"third"


def test_a_state_may_be_written_piece_by_piece(tmp_path):
    with resume.opened(tmp_path, KEY) as saved:
        saved.save(lambda file: [file.write(b"piece %d" % number) for number in range(3)])
        assert saved.load() == b"piece 0piece 1piece 2"


def test_every_state_damaged_means_from_the_beginning(tmp_path):
    with resume.opened(tmp_path, KEY) as saved:
        saved.save(b"first")
        (saved.folder / payloads(saved.folder)[0]).write_bytes(b"x")
        assert saved.load() is None


@pytest.mark.parametrize("damage", ["nothing", "key", "truncated", "flipped", "file gone", "record", "no record"])
def test_a_finished_part_is_taken_over_only_if_it_is_whole(tmp_path, caplog, monkeypatch, damage):
    monkeypatch.setattr(resume.log, "propagate", True)
    with resume.opened(tmp_path, KEY) as saved:
        files.write_text(saved.kept / "a/b.npy", "made")
        made = saved.finish("part", ["a/b.npy"], key="features", how="slowly")
        assert saved.finished("another", "features") is None
    file, record = tmp_path / "kept/a/b.npy", tmp_path / "part.json"
    damages = {
        "truncated": lambda: file.write_text("mad"),
        "flipped": lambda: file.write_text("mede"),
        "file gone": file.unlink,
        "record": lambda: record.write_text(record.read_text()[:20]),
        "no record": lambda: record.write_text("[]"),
    }
    damages.get(damage, lambda: None)()
    with resume.opened(tmp_path, KEY) as saved, caplog.at_level("WARNING", "dnn_or_knn"):
        found = saved.finished("part", "other features" if damage == "key" else "features")
        assert found == (made if damage == "nothing" else None)
    assert ("the finished part part is damaged" in caplog.text) is (damage in damages)
    with resume.opened(tmp_path, "b" * 64) as saved:
        assert saved.finished("part", "features") is None


def test_a_state_of_another_key_is_removed_not_resumed(tmp_path):
    with resume.opened(tmp_path, KEY) as saved:
        saved.save(b"old")
        saved.kept.mkdir()
        (saved.kept / "part.pt").write_bytes(b"old")
    with resume.opened(tmp_path, "b" * 64) as saved:
        assert saved.load() is None
        assert sorted(entry.name for entry in tmp_path.iterdir()) == ["key", "lock"]
    with resume.opened(tmp_path, KEY) as saved:
        assert saved.load() is None


def test_a_state_file_carried_in_from_another_job_is_refused(tmp_path):
    with resume.opened(tmp_path / "one", "b" * 64) as one:
        one.save(b"foreign")
    with resume.opened(tmp_path / "two", KEY) as two:
        (tmp_path / "one" / "state-00000000").rename(two.folder / "state-00000000")
        assert two.load() is None


def test_temporary_files_of_killed_processes_are_swept(tmp_path):
    with resume.opened(tmp_path, KEY) as saved:
        saved.save(b"good")
        saved.kept.mkdir()
    for folder in (tmp_path, tmp_path / "kept"):
        (folder / ".state-00000001.1-abc.part").write_bytes(b"half")
    with resume.opened(tmp_path, KEY) as saved:
        assert not list(tmp_path.rglob("*.part"))
        assert saved.load() == b"good"


def test_a_full_disk_is_one_sentence_and_leaves_the_last_state_whole(tmp_path, monkeypatch):
    with resume.opened(tmp_path, KEY) as saved:
        saved.save(b"good")
        before = sorted(tmp_path.iterdir())

        def full(*_args: object, **_options: object) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(files, "_flush", full)
        with pytest.raises(
            UserError, match=r"state-00000001 could not be written: No space left on device; free space"
        ):
            saved.save(b"new")
        monkeypatch.undo()
        assert sorted(tmp_path.iterdir()) == before
        assert saved.load() == b"good"


def test_a_file_size_limit_leaves_the_last_state_whole(tmp_path):
    """The kernel itself cuts the write off in the middle, in a process whose files may have 100 kB."""
    code = f"""
import sys; sys.path.insert(0, {str(SCRIPTS)!r})
from dnn_or_knn.runtime import resume
from dnn_or_knn.runtime.errors import UserError
with resume.opened({str(tmp_path)!r}, {KEY!r}) as saved:
    saved.save(b"good" * 1000)
    try:
        import torch
        saved.save(lambda file: torch.save({{"weights": torch.zeros(100_000)}}, file))
    except UserError as error:
        print(error)
    assert saved.load() == b"good" * 1000
"""

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, preexec_fn=limit, check=True)
    assert "could not be written: File too large" in done.stdout
    assert not list(tmp_path.glob(".*.part"))


def test_two_processes_never_share_a_folder(tmp_path):
    code = f"""
import sys, time; sys.path.insert(0, {str(SCRIPTS)!r})
from dnn_or_knn.runtime import resume
with resume.opened({str(tmp_path)!r}, {KEY!r}):
    print("open", flush=True)
    time.sleep(600)
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        try:
            assert other.stdout.readline() == "open\n"
            with (
                pytest.raises(UserError, match=rf"in use by another process \({other.pid}\); wait"),
                resume.opened(tmp_path, KEY),
            ):
                pass
        finally:
            other.kill()  # -9: the lock ends with the process
        other.wait()
        with resume.opened(tmp_path, KEY) as saved:
            saved.save(b"mine")


def test_a_folder_that_cannot_be_made_is_one_sentence(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises((UserError, NotADirectoryError)), resume.opened(tmp_path / "file" / "s", KEY):
        pass


def test_clearing_removes_the_folder_and_an_empty_parent(tmp_path):
    with resume.opened(tmp_path / ".state" / "train", KEY) as saved:
        saved.save(b"x")
        saved.clear()
    assert list(tmp_path.iterdir()) == []
    (tmp_path / ".state" / "features").mkdir(parents=True)
    with resume.opened(tmp_path / ".state" / "train", KEY) as saved:
        saved.clear()
    assert [entry.name for entry in (tmp_path / ".state").iterdir()] == ["features"]


def test_publishing_keeps_the_originals_and_replaces_what_was_there(tmp_path):
    kept, target = tmp_path / "kept", tmp_path / "run" / "checkpoints"
    kept.mkdir()
    for name in "abc":
        (kept / name).write_text(name)
    target.mkdir(parents=True)
    (target / "stale").write_text("stale")
    (target.parent / ".checkpoints.1-abc.part").mkdir()
    resume.publish(kept, ["a", "c"], target)
    assert {path.name: path.read_text() for path in target.iterdir()} == {"a": "a", "c": "c"}
    assert [path.name for path in target.parent.iterdir()] == ["checkpoints"]
    assert sorted(path.name for path in kept.iterdir()) == ["a", "b", "c"]


@pytest.mark.parametrize("number", sorted(files.UNSUPPORTED))
def test_a_file_system_without_locks_is_warned_of(tmp_path, monkeypatch, caplog, number):
    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(resume.fcntl, "flock", refuse)
    with caplog.at_level("WARNING", "dnn_or_knn"), resume.opened(tmp_path / "state", "k") as saved:
        saved.save(b"1")
        assert saved.load() == b"1"
    assert "without locks" in caplog.text


def test_publishing_across_file_systems_copies(tmp_path, monkeypatch):
    def across(*_paths: object) -> None:
        raise OSError(errno.EXDEV, "cross-device link")

    monkeypatch.setattr(os, "link", across)
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "a").write_text("a")
    resume.publish(tmp_path / "kept", ["a"], tmp_path / "out")
    assert (tmp_path / "out" / "a").read_text() == "a"


def test_a_stop_request_is_noted_not_raised():
    former = signal.getsignal(signal.SIGTERM)
    with signals.stop_requests() as requests:
        assert requests.name is None
        os.kill(os.getpid(), signal.SIGTERM)
        deadline = time.monotonic() + 5
        while requests.name is None and time.monotonic() < deadline:
            time.sleep(0.001)
        assert requests.name == "SIGTERM"
        assert requests.take() and not requests.take()
    assert signal.getsignal(signal.SIGTERM) is former
    assert signal.set_wakeup_fd(-1) == -1


def test_a_main_thread_that_does_not_answer_is_answered_for(tmp_path):
    """A step that never reaches Python again: the thread beside it does the saving, and ends the process."""
    code = f"""
import ctypes, os, signal, sys, threading
sys.path.insert(0, {str(SCRIPTS)!r})
from dnn_or_knn.runtime import signals
def late(name):
    open({str(tmp_path / "late")!r}, "w").write(name)
    os._exit(75)
with signals.stop_requests(late, grace=0.1):
    threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGTERM)).start()
    ctypes.CDLL(None).sleep(600) and ctypes.CDLL(None).sleep(600)
"""
    done = subprocess.run([sys.executable, "-c", code], timeout=1000)  # less than the two sleeps
    assert done.returncode == 75
    assert (tmp_path / "late").read_text() == "SIGTERM"


def test_an_answered_request_is_not_answered_twice(tmp_path):
    called: list[str] = []
    with signals.stop_requests(called.append, grace=0.05) as requests:  # type: ignore[arg-type]
        os.kill(os.getpid(), signal.SIGTERM)
        while requests.name is None:
            time.sleep(0.001)
        assert requests.take()
        time.sleep(0.2)
    assert called == []
