"""Snakemake's logger plugin `dnn-or-knn`: one line a job, and on a terminal one live line below.

The long form, Snakemake's own, comes with `--printshellcmds` (`-p`) or `--verbose`; the log in `.snakemake/log` always has it.
Nothing of the library is imported before an error has ended the run: a checkout elsewhere may bring its own.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
from typing import Any, TextIO

from snakemake.logging import ColorizingTextHandler
from snakemake_interface_logger_plugins.base import LogHandlerBase
from snakemake_interface_logger_plugins.common import LogEvent

from .board import Board, Job, duration
from .mistakes import sentence

#: Tells the stages' programs that their lines belong into their log files alone.
QUIET = "DNN_OR_KNN_QUIET"
#: Seconds between two looks at what runs.
REFRESH = 0.5
#: Beginnings of Snakemake's lines that say nothing about this run.
CHATTER = (
    "Using workflow specific profile",
    "Assuming unrestricted shared filesystem usage",
    "Config file ",
    "Building DAG of jobs",
    "Using shell:",
    "Select jobs to execute",
    "Conda environments: ignored",
    "Singularity containers: ignored",
    "Group jobs: inactive",
    "Removing output files of failed job",
    "Complete log(s):",
    "Will exit after finishing currently running jobs",
    "Exiting because a job execution failed",
    "This was a dry-run",
    "host: ",
    "Elapsed time: ",
    "Reasons:",
    "Shutting down, this might take some time",
)
#: What a failed job makes Snakemake say at the end, beside the job's own line.
AFTERWARDS = "At least one job did not complete successfully"


class LogHandler(LogHandlerBase):
    """Draws Snakemake's events."""

    def __post_init__(self) -> None:
        settings = self.common_settings
        self.stream: TextIO = sys.stdout if settings.stdout else sys.stderr
        self.long = bool(settings.printshellcmds or settings.verbose or settings.debug_dag)
        self.plain = ColorizingTextHandler(nocolor=settings.nocolor, stream=self.stream)
        self.colour = not self.plain.nocolor
        self.board = Board()
        self.output = threading.RLock()
        self.live = self.colour and not self.long and not settings.dryrun
        self.drawn = False
        self.counted = False
        self.done = threading.Event()
        if not self.long:
            os.environ[QUIET] = "1"
        if self.live:
            threading.Thread(target=self._refresh, daemon=True).start()

    # What Snakemake asks of a plugin.

    @property
    def writes_to_stream(self) -> bool:
        return True

    @property
    def writes_to_file(self) -> bool:
        return False

    @property
    def has_filter(self) -> bool:
        return False

    @property
    def has_formatter(self) -> bool:
        return False

    @property
    def needs_rulegraph(self) -> bool:
        return False

    def setFormatter(self, fmt: logging.Formatter | None) -> None:
        super().setFormatter(fmt)
        self.plain.setFormatter(fmt)

    def emit(self, record: logging.LogRecord) -> None:
        if self.long and not (record.levelno >= logging.ERROR and hasattr(record, "exception")):
            self.plain.emit(record)
            return
        with self.output:
            try:
                self._draw(record)
            except BrokenPipeError:
                pass
            except Exception:
                self.handleError(record)

    def close(self) -> None:
        if self.done.is_set():  # Snakemake closes it, and then the logging module
            return
        self.done.set()
        with self.output:
            self._erase()
            if not self.long and (self.board.done or self.board.failed) and self.board.total > 1:
                self._print(self.board.summary())
        super().close()

    # Events.

    def _draw(self, record: logging.LogRecord) -> None:
        events: dict[Any, Any] = {
            LogEvent.RUN_INFO: self._planned,
            LogEvent.JOB_INFO: self._started,
            LogEvent.JOB_FINISHED: self._finished,
            LogEvent.JOB_ERROR: self._failed,
            LogEvent.ERROR: self._error,
            LogEvent.GROUP_ERROR: self._message,
            None: self._message,
        }
        draw = events.get(getattr(record, "event", None))
        if draw is not None:
            draw(record)

    def _planned(self, record: Any) -> None:
        if self.counted:
            return
        self.counted = True
        self.board.plan(record.stats)
        if self.common_settings.dryrun:
            self._print(record.getMessage().rstrip())
            self._print("\nNothing ran. With -p: every job, why it would run, and its command.")

    def _started(self, record: Any) -> None:
        if not self.common_settings.dryrun:
            self.board.start(record.jobid, Job(record.rule_name, dict(record.wildcards), list(record.log)))

    def _finished(self, record: Any) -> None:
        job = self.board.finish(record.job_id)
        if job is None:
            return
        done = f"{self.board.done}/{self.board.total}"
        self._print(f"{self._mark('✓', 32, 'ok')} {done} {job.label} {duration(job.seconds)}")
        warnings = job.warnings()
        for line in warnings[:2]:
            self._print(f"  {self._mark('!', 33, '!')} {line}")
        if len(warnings) > 2:
            self._print(f"  {self._mark('!', 33, '!')} {len(warnings) - 2} more in {job.log}")

    def _failed(self, record: Any) -> None:
        job = self.board.fail(record.jobid)
        if job is None:
            return
        job.logs = list(record.log) or job.logs
        why = job.sentence()
        if record.rule_msg:  # a cluster's word
            why = f"{' '.join(record.rule_msg.split())} {why}"
        where = f"; log: {job.log}" if job.log else ""
        self._print(f"{self._mark('✗', 31, 'failed')} {job.label}: {why}{where}")

    def _error(self, record: Any) -> None:
        text = record.getMessage()
        if AFTERWARDS in text or "CalledProcessError" in text:  # the job's own line says it
            return
        said = sentence(record.exception, text, sys.argv[1:])
        self._print(f"{self._mark('error:', 31, 'error:')} {said}")

    def _message(self, record: logging.LogRecord) -> None:
        text = self.format(record).strip()
        if not text or text == "None" or text.startswith(CHATTER):
            return
        if record.levelno >= logging.ERROR and self.board.failed and AFTERWARDS in text:
            return
        if restarted := self.board.restarted(text):
            text = f"{restarted.label}: tried again"
        self._print(text)

    # The stream.

    def _mark(self, sign: str, colour: int, plain: str) -> str:
        try:
            sign.encode(self.stream.encoding or "ascii")
        except (UnicodeEncodeError, LookupError):
            sign = plain
        return f"\x1b[{colour}m{sign}\x1b[0m" if self.colour else sign

    def _print(self, text: str) -> None:
        self._erase()
        self.stream.write(text + "\n")
        self.stream.flush()

    def _erase(self) -> None:
        if self.drawn:
            self.stream.write("\x1b[2K\r")
            self.stream.flush()
            self.drawn = False

    def _refresh(self) -> None:
        while not self.done.wait(REFRESH):
            with self.output:
                line = self.board.line(time.monotonic())
                if not line:
                    continue
                try:
                    width = os.get_terminal_size(self.stream.fileno()).columns or 80
                except (OSError, ValueError):
                    width = 80
                # The cursor goes back to the line's begin, so that another line takes its place.
                self.stream.write(f"\x1b[2K{line[: width - 1]}\r")
                self.stream.flush()
                self.drawn = True
