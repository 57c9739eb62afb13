"""How far a long job is: a rate and the time left, in the log or on one live line."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from .command_line import QUIET

log = logging.getLogger("dnn_or_knn")


class Progress:
    """A line about a long job at sensible intervals: done of total, rate, time left."""

    def __init__(self, what: str, total: int, unit: str = "", interval: float = 10.0) -> None:
        self.what, self.total, self.unit, self.interval = what, total, unit, interval
        self.started = self.last = time.monotonic()
        self.first: int | None = None

    def update(self, done: int, note: str = "", *, force: bool = False) -> None:
        """Report that `done` of the total are done, if the interval has passed, or `force`."""
        now = time.monotonic()
        if self.first is None:
            self.first = done
        if not force and now - self.last < self.interval:
            return
        self.last = now
        rate = (done - self.first) / max(now - self.started, 1e-9)
        left = f"{(self.total - done) / rate:.0f} s left" if rate > 0 else "time left unknown"
        log.info(
            "%s %d/%d %s, %.3g/s, %s%s", self.what, done, self.total, self.unit, rate, left, f", {note}" if note else ""
        )


class Live:
    """What people see of a run: on a terminal one line that is kept up to date, elsewhere a plain line now and then.

    Plain lines come after 5 seconds, then twice as late each time, up to once a minute. With a terminal they go to the log
    file alone.
    """

    def __init__(self, steps: int, batch_size: int, stream: Any = None) -> None:
        self.steps, self.batch_size, self.stream = steps, batch_size, stream if stream is not None else sys.stderr
        self.terminal = bool(self.stream.isatty()) and QUIET not in os.environ
        self.first = 0
        self.started = self.drawn = self.logged = time.monotonic()
        self.interval = 5.0
        self.recent: deque[tuple[float, int]] = deque(maxlen=20)

    def __enter__(self) -> Live:
        return self

    def __exit__(self, *_error: object) -> None:
        if self.terminal:
            self.stream.write("\x1b[2K\r")
            self.stream.flush()

    def start(self, step: int) -> None:
        """Begin to count: `step` steps are done."""
        self.first = step
        self.started = self.drawn = self.logged = time.monotonic()
        self.recent.append((self.started, step))

    def update(self, step: int, note: Callable[[], str]) -> None:
        """Show where the run is, if it is time to; `note` says more in words."""
        now = time.monotonic()
        if now - self.drawn < (0.2 if self.terminal else 1.0) and step < self.steps:
            return
        self.drawn = now
        self.recent.append((now, step))
        text = self.text(step, note())
        if self.terminal:
            width = _columns(self.stream)
            # The cursor goes back to the line's begin, so that another line takes its place.
            self.stream.write(f"\x1b[2K{text[: width - 1]}\r")
            self.stream.flush()
        if now - self.logged >= self.interval or step == self.steps:
            self.logged = now
            self.interval = min(2 * self.interval, 60.0)
            log.log(logging.DEBUG if self.terminal else logging.INFO, "%s", text)

    def text(self, step: int, note: str) -> str:
        """Return the line."""
        (then, before), (now, _) = self.recent[0], self.recent[-1]
        speed = (step - before) / max(now - then, 1e-9)
        parts = [f"step {step}/{self.steps}", f"{speed * self.batch_size:.0f} images/s"]
        parts.append(note)
        if step < self.steps and speed > 0:
            parts.append(f"{_duration((self.steps - step) / speed)} left")
        return ", ".join(parts)


def _columns(stream: Any) -> int:
    with contextlib.suppress(OSError, ValueError, AttributeError):
        return os.get_terminal_size(stream.fileno()).columns or 120
    return 120


def _duration(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60:02d} min"
