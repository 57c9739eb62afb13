"""What the logger plugin makes of Snakemake's events, and the board behind it."""

from __future__ import annotations

import io
import logging
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from conftest import ROOT
from snakemake.logging import DefaultFormatter
from snakemake_interface_logger_plugins.common import LogEvent

sys.path.insert(0, str(ROOT / "workflow" / "plugins"))
from snakemake_logger_plugin_dnn_or_knn import QUIET, LogHandler
from snakemake_logger_plugin_dnn_or_knn.board import Board, Job, duration
from snakemake_logger_plugin_dnn_or_knn.mistakes import TARGETS, sentence, values

WHERE = {"dataset": "mnist", "architecture": "lenet", "labels": "true-labels", "seed": "0"}
#: Times after and before those of any job here.
STAMP, BEFORE = "2999-01-01 10:00:00,000", "2001-01-01 10:00:00,000"


class Stream(io.StringIO):
    """A stream that is a terminal, or none."""

    encoding = "utf-8"

    def __init__(self, terminal: bool) -> None:
        super().__init__()
        self.terminal = terminal

    def isatty(self) -> bool:
        return self.terminal


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return a function that makes a handler and its stream."""
    monkeypatch.setenv(QUIET, "")
    monkeypatch.setenv("TERM", "xterm")

    def make(*, terminal: bool = False, **settings: Any) -> tuple[LogHandler, Stream]:
        stream = Stream(terminal)
        monkeypatch.setattr(sys, "stderr", stream)
        monkeypatch.setattr(sys, "stdout", stream)
        plain = {"printshellcmds": False, "verbose": False, "debug_dag": False, "dryrun": False, "stdout": False}
        handler = LogHandler(SimpleNamespace(**{**plain, "nocolor": False, **settings}), None)
        handler.setFormatter(DefaultFormatter())
        return handler, stream

    return make


def record(event: LogEvent | None, message: str = "", level: int = logging.INFO, **fields: Any) -> logging.LogRecord:
    made = logging.LogRecord("snakemake", level, "", 0, message, None, None)
    made.__dict__.update({"event": event, **fields})
    return made


def start(number: int, rule: str, log: Path | None = None, **wildcards: str) -> logging.LogRecord:
    return record(
        LogEvent.JOB_INFO,
        jobid=number,
        rule_name=rule,
        wildcards=wildcards,
        log=[str(log)] if log else [],
        rule_msg=None,
    )


def test_a_finished_job_is_one_line_with_its_place_and_its_warnings(shown: Any, tmp_path: Path) -> None:
    handler, stream = shown()
    log = tmp_path / "log"
    log.write_text(f"{BEFORE} WARNING of an earlier run\n")
    handler.emit(record(LogEvent.RUN_INFO, "Job stats", stats={"probe": 2, "all": 1, "total": 3}))
    handler.emit(record(None, "Using shell: /usr/bin/bash"))
    handler.emit(start(7, "probe", log, **WHERE, probe="knn", shard="steps0-9"))
    log.write_text(log.read_text() + f"{STAMP} WARNING computing on the CPU\n{STAMP} INFO done\n")
    handler.emit(record(LogEvent.JOB_FINISHED, job_id=7))
    handler.emit(record(LogEvent.PROGRESS, done=1, total=3))
    line, warning = stream.getvalue().splitlines()
    assert line.startswith("✓ 1/3 probe knn mnist lenet true-labels seed0 steps0-9 ") and line.endswith(" s")
    assert warning == "  ! computing on the CPU"
    assert "\x1b" not in stream.getvalue()
    handler.close()


def test_a_failed_job_is_its_sentence_and_where_its_log_lies_once(shown: Any, tmp_path: Path) -> None:
    handler, stream = shown()
    log = tmp_path / "log"
    handler.emit(record(LogEvent.RUN_INFO, "Job stats", stats={"train": 3, "total": 3}))
    handler.emit(start(1, "train", log, **WHERE))
    log.write_text(f"{STAMP} DEBUG Traceback (most recent call last):\n  …\n{STAMP} ERROR error: x is 1; make it 2\n")
    for _ in range(2):
        handler.emit(record(LogEvent.JOB_ERROR, level=logging.ERROR, jobid=1, log=[str(log)], rule_msg=None))
    shell = (
        "RuleException:\nCalledProcessError in file …, line 34:\nCommand 'set -e …' returned non-zero exit status 2."
    )
    handler.emit(record(LogEvent.ERROR, shell, logging.ERROR, exception="RuleException"))
    handler.emit(record(None, "Elapsed time: 0:00:26.804286"))
    handler.emit(record(None, "Exiting because a job execution failed. Look below", logging.ERROR))
    text = "WorkflowError:\nAt least one job did not complete successfully."
    handler.emit(record(LogEvent.ERROR, text, logging.ERROR, exception="WorkflowError"))
    handler.close()
    handler.close()
    first, last = stream.getvalue().splitlines()
    assert first == f"✗ train mnist lenet true-labels seed0: x is 1; make it 2; log: {log}"
    assert last.startswith("0 of 3 jobs in ") and last.endswith("; 1 failed, 2 not run")


def test_a_fault_of_a_program_ends_in_its_last_line_and_a_silent_death_is_said(tmp_path: Path) -> None:
    log = tmp_path / "log"
    job = Job("train", WHERE, [str(log)])
    assert "ended without a word" in job.sentence()
    log.write_text(f"{STAMP} ERROR Traceback (most recent call last):\n  File …\nKeyError: 'a'\n")
    assert job.sentence() == "KeyError: 'a'"


def test_on_a_terminal_lines_are_coloured_and_the_long_form_is_snakemakes(shown: Any) -> None:
    handler, stream = shown(terminal=True)
    handler.emit(record(LogEvent.RUN_INFO, "Job stats", stats={"all": 1, "total": 1}))
    handler.emit(start(1, "all"))
    handler.emit(record(LogEvent.JOB_FINISHED, job_id=1))
    assert "\x1b[32m✓\x1b[0m 1/1 all" in stream.getvalue()
    handler.close()
    handler, stream = shown(printshellcmds=True)
    handler.emit(record(None, "Building DAG of jobs..."))
    assert stream.getvalue() == "Building DAG of jobs...\n"
    handler.close()


def test_the_live_line_says_rates_and_the_time_left(tmp_path: Path) -> None:
    board, logs = Board(), [tmp_path / name for name in "ab"]
    board.plan({"train": 2, "probe": 2, "total": 4})
    board.began = 0.0
    assert board.line(0.0) == "" and board.left(5.0) is None
    board.spent = {"train": [10.0]}
    board.done = 1
    board.start(2, Job("train", WHERE, [str(logs[0])], began=10.0))
    board.start(3, Job("probe", WHERE | {"probe": "knn"}, [str(logs[1])], began=10.0))
    logs[0].write_text(f"{STAMP} INFO step 10/20, 400 images/s\n{STAMP} INFO step 20/20, 512 images/s, loss 1\n")
    logs[1].write_text(f"{STAMP} INFO knn fits 3/4 evaluations, 0.25/s, 4 s left\n")
    # 5 s are left of each running job and 10 s of the last; 20 job seconds were spent in 15 s.
    assert board.left(15.0) == pytest.approx(20 / (20 / 15))
    assert board.line(15.0) == (
        "1/4 done, about 15.0 s left, 512 images/s, 0.25 fits/s, 2 running: train mnist lenet true-labels seed0; "
        "probe knn mnist lenet true-labels seed0"
    )
    logs[0].write_text(f"{STAMP} INFO features 10/50 images, 2e+03/s, 1 s left\n")
    assert "2000 images/s" in board.line(15.0)


def test_durations_read_well() -> None:
    assert [duration(s) for s in (14.42, 720, 11100)] == ["14.4 s", "12 min", "3 h 05 min"]


def test_a_mistake_is_its_sentence_alone() -> None:
    text = 'WorkflowError in file "/a/Snakefile", line 39:\nconfig: no\n  File "/a/Snakefile", line 39, in <module>'
    assert sentence("WorkflowError", text, []) == "config: no"
    text = "MissingRuleException:\nNo rule to produce results/x (if you use input functions make sure that …)."
    assert sentence("MissingRuleException", text, []).startswith("no rule makes results/x; check")
    fault = "Traceback (most recent call last):\n  File …\nKeyError: 1"
    assert sentence("KeyError", fault, []) == fault


def test_a_misspelt_target_names_the_valid_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(TARGETS, "all claims figure6")
    said = sentence(
        "MissingRuleException",
        "MissingRuleException:\nNo rule to produce figur6 (if you use input functions make sure …).",
        [],
    )
    assert said == "there is no target 'figur6' (did you mean figure6?); there are: all, claims, figure6"


def test_what_the_command_line_gives_wrongly_is_said_with_the_right_form() -> None:
    text = "Traceback …, in parse_config\nValueError: …"
    assert sentence("ValueError", text, ["-n", "--config", "seed=1", "seeds"]).startswith("--config has 'seeds'")
    text = "Traceback …, in _get_overwrite_config\nFileNotFoundError: …"
    assert "no configuration file nix.yaml" in sentence("FileNotFoundError", text, ["--configfile", "nix.yaml"])
    assert "stands before" in sentence("FileNotFoundError", text, ["--configfile", "config.yaml", "claims"])
    assert values(["--configfile=a", "b", "-n", "c", "--configfile", "d"], "--configfile") == ["a", "b", "d"]
