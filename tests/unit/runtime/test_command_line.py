"""What every stage's command line does with bad input, faults and signals."""

from __future__ import annotations

import json
import os
import platform
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import SCRIPTS
from dnn_or_knn.plan.configuration import load_overlays
from dnn_or_knn.plan.runs import create
from dnn_or_knn.plan.specifications import Jobs
from dnn_or_knn.runtime import command_line

PROGRAM = """
import os, signal, sys, time
signal.signal(signal.SIGINT, signal.default_int_handler)  # where the tests run in a shell's background it is ignored
from dnn_or_knn.runtime import command_line
from dnn_or_knn.runtime.errors import UserError
def main(args):
    what = args.spec["what"]
    if what == "bad": raise UserError("x is 1; make it 2")
    if what == "fault": raise ZeroDivisionError("ours")
    if what == "wait":
        print("ready", flush=True); time.sleep(3600)
    if what == "threads":
        import torch
        print(os.environ["OMP_NUM_THREADS"], torch.get_num_threads())
    if what == "cycle":
        class Told:
            def __del__(self): print("collected")
        Told.itself = Told()
    if what == "bindings":
        import torchvision
    if what == "memory":
        def resident(): return int(open("/proc/self/statm").read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        before = resident()
        arrays = [b"x" * (size << 20) for size in (24, 24, 24, 24, 64)]
        held = resident() - before
        del arrays
        print(held >> 20, (resident() - before) >> 20)
sys.exit(command_line.run(main, command_line.parser("A stage.")))
"""


def start(what: str, log: Path, *more: str, **spec: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", PROGRAM, "--spec", json.dumps({"what": what, **spec}), "--log", str(log), *more]
    return subprocess.Popen(command, cwd=SCRIPTS, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_bad_input_is_one_sentence_and_the_traceback_goes_to_the_log(tmp_path: Path) -> None:
    child = start("bad", tmp_path / "log")
    _, error = child.communicate()
    assert child.returncode == 2
    assert error == "error: x is 1; make it 2\n"
    assert "Traceback" in (tmp_path / "log").read_text()


def test_a_fault_of_ours_shows_its_traceback_in_both(tmp_path: Path) -> None:
    child = start("fault", tmp_path / "log")
    _, error = child.communicate()
    assert child.returncode == 1
    assert "ZeroDivisionError: ours" in error and "ZeroDivisionError: ours" in (tmp_path / "log").read_text()


def test_sigterm_ends_a_job_with_its_own_status(tmp_path: Path) -> None:
    child = start("wait", tmp_path / "log")
    assert child.stdout is not None and child.stdout.readline() == "ready\n"
    child.terminate()
    _, error = child.communicate(timeout=600)
    assert child.returncode == 75
    assert error == "stopped: SIGTERM; run again to resume\n"


def test_threads_are_pinned(tmp_path: Path) -> None:
    out, _ = start("threads", tmp_path / "log", "--threads", "2").communicate()
    assert out == "2 2\n"


def test_code_edited_after_planning_stops_the_job(tmp_path: Path) -> None:
    child = start("ok", tmp_path / "log", code={"files": ["dnn_or_knn/runtime/errors.py"], "digest": "0" * 64})
    _, error = child.communicate()
    assert child.returncode == 2 and "changed after Snakemake started" in error


@pytest.mark.parametrize("spec", ["{", "nowhere.json", "[1]"])
def test_a_wrong_specification_is_refused(spec: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, "--spec", spec], cwd=SCRIPTS, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and done.stderr.startswith("error: argument --spec")


def test_a_job_that_ends_does_not_look_through_all_that_it_imported(tmp_path: Path) -> None:
    output, error = start("cycle", tmp_path / "log").communicate()
    assert (output, error.startswith("done in")) == ("", True)


def test_a_job_that_ends_is_not_told_of_leaks_by_the_libraries_that_it_imported(tmp_path: Path) -> None:
    """torchvision imports Triton, whose bindings count what is left of theirs."""
    _, error = start("bindings", tmp_path / "log").communicate()
    assert error.startswith("done in") and error.count("\n") == 1, error


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="it is glibc that is told")
def test_freed_memory_is_kept_for_the_next_arrays_unless_they_are_large(tmp_path: Path) -> None:
    output, _ = start("memory", tmp_path / "log").communicate()
    held, kept = map(int, output.split())
    assert held > 150
    assert 90 < kept < 110


@pytest.mark.parametrize("program", sorted(command_line.KEYS))
def test_a_specification_that_lacks_keys_names_them_all_and_help_describes_each(program: str, tmp_path: Path) -> None:
    words = [sys.executable, str(SCRIPTS / program)]
    wide = {**os.environ, "COLUMNS": "1000"}
    helped = subprocess.run([*words, "--help"], capture_output=True, text=True, check=True, env=wide).stdout
    usage, described = helped.split("\n\n", 1)
    for key in command_line.KEYS[program]:
        assert re.search(rf"\b{key}\b", described.split("\noptions:")[0]), key
    required = re.findall(r"(?<!\[)(--[\w-]+) [A-Z_]+", usage)
    given = [word for name in set(required) - {"--spec"} for word in (name, str(tmp_path / "x"))]
    done = subprocess.run([*words, *given, "--spec", "{}"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 2 and done.stderr.count("\n") == 1, done.stderr
    assert all(f"'{key}'" in done.stderr for key in command_line.KEYS[program])
    assert list(tmp_path.iterdir()) == []


def test_every_stages_keys_are_among_those_that_the_workflow_gives() -> None:
    config = load_overlays(SCRIPTS.parents[1] / "tests" / "workflow" / "tiny.yaml")
    given = {"choices": {"hinge": {"probes": {"svm": {"loss": "hinge"}}}}}
    for task in Jobs(create(config | given)).tasks:
        spec = json.loads(task.spec)
        program = spec["code"]["files"][0]
        assert set(command_line.KEYS[program]) <= spec.keys()


def test_an_interrupt_by_keyboard_is_named(tmp_path: Path) -> None:
    child = start("wait", tmp_path / "log")
    assert child.stdout is not None and child.stdout.readline() == "ready\n"
    child.send_signal(signal.SIGINT)
    _, error = child.communicate()
    assert child.returncode == 75 and error == "stopped: interrupted; run again to resume\n"
