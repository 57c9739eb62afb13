"""What runs, what is done, how fast, and how long the rest will take."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, field

#: Wildcards in the order in which a job is named.
NAMED = ("probe", "figure", "dataset", "architecture", "labels", "seed", "shard", "piece")
#: A line of a stage's log: date, time, level, what it says.
LINE = re.compile(r"^(?P<time>\d{4}-\d\d-\d\d \d\d:\d\d:\d\d),\d+ (?P<level>[A-Z]+) (?P<text>.*)$", re.MULTILINE)
IMAGES = re.compile(r"([\d.e+]+) images/s|\d+ images, ([\d.e+]+)/s")
FITS = re.compile(r"fits \d+/\d+ \w+, ([\d.e+]+)/s")
RESTARTED = re.compile(r"^Trying to restart job (\d+)\.$")
#: Seconds by which a node's clock may go behind.
SLACK = 5
#: Bytes at the end of a log that are looked at.
TAIL = 20_000


@dataclass
class Job:
    """One job: what it works on, and since when."""

    rule: str
    wildcards: dict[str, str]
    logs: list[str] = field(default_factory=list)
    began: float = field(default_factory=time.monotonic)
    seconds: float = 0.0

    def __post_init__(self) -> None:
        # The log may still hold what a former try wrote.
        self.since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(time.time() - SLACK))

    @property
    def label(self) -> str:
        """The rule and what it works on, such as ``train mnist lenet true-labels seed0``."""
        names = [name for name in NAMED if name in self.wildcards]
        names += [name for name in self.wildcards if name not in NAMED]
        return " ".join(
            [self.rule, *(f"seed{self.wildcards[n]}" if n == "seed" else str(self.wildcards[n]) for n in names)]
        )

    @property
    def log(self) -> str:
        """The file that says more, or ""."""
        return self.logs[0] if self.logs else ""

    def said(self) -> str:
        """Return the end of what this try has written into its log."""
        try:
            with open(self.log, "rb") as file:
                size = file.seek(0, os.SEEK_END)
                file.seek(max(0, size - TAIL))
                text = file.read().decode("utf-8", errors="replace")
        except OSError:
            return ""
        first = next((line for line in LINE.finditer(text) if line["time"] >= self.since), None)
        return text[first.start() :] if first else ""

    def sentence(self) -> str:
        """Return why the job failed, in one line."""
        text = self.said()
        errors = [line for line in LINE.finditer(text) if line["level"] == "ERROR"]
        if not errors:
            return "it ended without a word (killed, or out of memory?)"
        if errors[-1]["text"].startswith("Traceback"):
            return text.rstrip().rsplit("\n", 1)[-1]
        return errors[-1]["text"].removeprefix("error: ")

    def warnings(self) -> list[str]:
        """Return the warnings that the job wrote."""
        return [line["text"] for line in LINE.finditer(self.said()) if line["level"] == "WARNING"]

    def rates(self) -> tuple[float, float]:
        """Return images and fits per second, as the job's log last had them; 0.0 for what it does not do."""
        text = self.said()
        return _last(IMAGES, text), _last(FITS, text)


def _last(pattern: re.Pattern[str], text: str) -> float:
    found = [next(filter(None, match.groups())) for match in pattern.finditer(text)]
    return float(found[-1]) if found else 0.0


class Board:
    """All jobs of one run of Snakemake."""

    def __init__(self) -> None:
        self.counts: dict[str, int] = {}  #: rule → jobs planned
        self.total = self.done = 0
        self.running: dict[int, Job] = {}
        self.ended: dict[int, Job] = {}
        self.failed: dict[int, Job] = {}
        self.spent: dict[str, list[float]] = {}  #: rule → seconds of each finished job
        self.began = time.monotonic()

    def plan(self, counts: Mapping[str, int]) -> None:
        """Take note of how many jobs there are, by rule and in "total"."""
        self.counts = {rule: count for rule, count in counts.items() if rule != "total"}
        self.total = sum(self.counts.values())
        self.began = time.monotonic()

    def start(self, number: int, job: Job) -> None:
        """A job starts, or starts again."""
        self.failed.pop(number, None)
        self.running[number] = job

    def finish(self, number: int) -> Job | None:
        """A job is done: return it with its seconds, or None if its start was not told."""
        job = self._end(number)
        if job is not None:
            self.done += 1
            self.spent.setdefault(job.rule, []).append(job.seconds)
        return job

    def fail(self, number: int) -> Job | None:
        """A job failed: return it, or None if that is known."""
        job = self._end(number)
        if job is not None:
            self.failed[number] = job
        return job

    def _end(self, number: int) -> Job | None:
        job = self.running.pop(number, None)
        if job is not None:
            job.seconds = time.monotonic() - job.began
            self.ended[number] = job
        return job

    def restarted(self, text: str) -> Job | None:
        """Return the job that one of Snakemake's lines says is tried again."""
        found = RESTARTED.match(text)
        return self.ended.get(int(found[1])) if found else None

    def left(self, now: float) -> float | None:
        """Return the seconds that the rest takes, going by the mean of each rule's jobs so far; None if nothing is known."""
        everything = [seconds for spent in self.spent.values() for seconds in spent]
        elapsed = now - self.began
        if not everything or elapsed <= 0:
            return None
        mean = sum(everything) / len(everything)
        work = 0.0
        for rule, count in self.counts.items():
            spent = self.spent.get(rule, [])
            each = sum(spent) / len(spent) if spent else mean
            begun = [now - job.began for job in self.running.values() if job.rule == rule]
            work += each * max(count - len(spent) - len(begun), 0) + sum(max(each - age, 0.0) for age in begun)
        busy = sum(everything) + sum(now - job.began for job in self.running.values())
        return work / max(busy / elapsed, 1.0)

    def line(self, now: float) -> str:
        """Return the live line: jobs running, images/s or fits/s, time left of the whole; "" while none runs."""
        if not self.running:
            return ""
        jobs = list(self.running.values())
        images, fits = (sum(rates) for rates in zip(*(job.rates() for job in jobs), strict=True))
        left = self.left(now)
        parts = [f"{self.done}/{self.total} done"]
        parts += [f"about {duration(left)} left"] if left is not None else []
        parts += [f"{images:.0f} images/s"] if images else []
        parts += [f"{fits:.3g} fits/s"] if fits else []
        # What does not fit on the line is cut.
        return ", ".join([*parts, f"{len(jobs)} running: {'; '.join(job.label for job in jobs)}"])

    def summary(self) -> str:
        """Return the line at the end."""
        seconds = duration(time.monotonic() - self.began)
        undone = self.total - self.done - len(self.failed)
        if not self.failed and not undone:
            return f"{self.done} jobs in {seconds}"
        return f"{self.done} of {self.total} jobs in {seconds}; {len(self.failed)} failed, {undone} not run"


def duration(seconds: float) -> str:
    """Return a duration in words: ``14.4 s``, ``12 min``, ``3 h 05 min``."""
    if seconds < 100:
        return f"{seconds:.1f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60:02d} min"
