"""The frame of `make gpu-check`: checks run in a process of their own, a table, a status.

A check is a function of a card that yields rows. One that raises, ends its process or does not end is a failed row, and
the next one is checked: after a fault of the device, in a fresh process. Tracebacks go to the log file.
"""

from __future__ import annotations

import logging
import multiprocessing
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

from ..runtime.command_line import EXIT_USER_ERROR
from ..runtime.errors import UserError

log = logging.getLogger("dnn_or_knn")
#: Seconds after which a check is taken for one that does not end.
LIMIT = 300.0
OK, FAILED, SKIPPED = "ok", "failed", "skipped"
#: What a working process says: its card, a row, the name of a check that is done, and that there is no card.
CARD, ROW, DONE, NONE = "card", "row", "done", "none"
Say = Callable[[str, Any], None]


class Row(NamedTuple):
    """One line of the table; `measured` is the reason where a check was skipped or raised."""

    check: str
    measured: str
    wanted: str
    result: str


class Skip(Exception):
    """A check, or what is left of it, cannot be made on this card; the reason in one sentence."""


def row(check: str, measured: str, wanted: str, good: bool) -> Row:
    """Return a row of what was measured."""
    return Row(check, measured, wanted, OK if good else FAILED)


def sentence(error: BaseException) -> str:
    """Return the first line of an error's text."""
    return (str(error).strip() or repr(error)).splitlines()[0][:200]


def attempt(name: str, check: Callable[[Any], Iterable[Row]], card: Any) -> Iterator[Row]:
    """Yield a check's rows; an exception becomes the last of them, with its traceback in the log."""
    try:
        yield from check(card)
    except Skip as reason:
        yield Row(name, sentence(reason), "", SKIPPED)
    except Exception as error:
        log.error("%s\n%s", name, traceback.format_exc())
        yield Row(name, sentence(error), "no error", FAILED)


def check_all(names: Iterable[str], checks: Mapping[str, Callable[[Any], Iterable[Row]]], card: Any, say: Say) -> None:
    """Make some checks one after the other and say their rows; end early where the device no longer answers."""
    for name in names:
        for found in attempt(name, checks[name], card):
            say(ROW, found)
        answers = card.tidy()
        say(DONE, name)
        if not answers:
            log.error("the device no longer answers after %s; the next checks get a fresh process", name)
            return


def start_log(path: Path) -> None:
    """Write what is logged, and torch's warnings, to a file, and nothing of it to the terminal."""
    file = logging.FileHandler(path, mode="a", encoding="utf-8")
    file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    log.setLevel(logging.DEBUG)
    logging.captureWarnings(True)
    for logger in (log, logging.getLogger("py.warnings")):
        logger.propagate = False
        logger.addHandler(file)


def work(names: list[str], path: Path, channel: Connection) -> None:
    """Lease a card and make some checks; a process's whole life."""
    start_log(path)
    from .card import Card
    from .card_checks import CHECKS

    def say(kind: str, what: Any) -> None:
        channel.send((kind, what))

    try:
        card = Card.leased()
    except UserError as error:
        say(NONE, sentence(error))
        return
    say(CARD, card.described())
    check_all(names, CHECKS, card, say)


def supervise(
    names: Iterable[str],
    target: Callable[..., None],
    show: Say,
    *args: Any,
    limit: float = LIMIT,
    method: str = "spawn",
) -> list[Row] | None:
    """Let processes make all checks, and return their rows, or None where there is no card.

    Parameters
    ----------
    target: called as ``target(names, *args, channel)`` in a process of its own, like `work`.
    show: told of each card and row as it comes.
    limit: seconds without a word after which a process is killed.
    """
    todo, rows = list(names), []
    context: Any = multiprocessing.get_context(method)
    while todo:
        ours, theirs = context.Pipe(duplex=False)
        process = context.Process(target=target, args=(todo, *args, theirs), daemon=True)
        process.start()
        theirs.close()
        before, fault = len(todo), f"no word for {limit:g} s"
        try:
            while todo and ours.poll(limit):
                kind, what = ours.recv()
                if kind == NONE:
                    show(kind, what)
                    return None
                if kind == DONE:
                    todo.remove(what)
                    continue
                if kind == ROW:
                    rows.append(what)
                show(kind, what)
        except EOFError:
            process.join()
            fault = f"its process ended with status {process.exitcode}"
            if process.exitcode == 0 and len(todo) < before:  # it gave up a device that no longer answers
                continue
        finally:
            process.kill()
            process.join()
        if todo:
            rows.append(Row(todo.pop(0), fault, "no error", FAILED))
            show(ROW, rows[-1])
    return rows


def show(kind: str, what: Any) -> None:
    """Print a card with the table's head, or a row of the table."""
    if kind == NONE:
        print(f"nothing was checked: {what}", flush=True)
        return
    if kind == CARD:
        print(what)
        what = Row("check", "measured", "wanted", "")
    print(f"{what.check:48}  {what.result:7}  {what.measured:44}  {what.wanted}".rstrip(), flush=True)


def main(names: list[str], path: Path) -> int:
    """Check a card, print the table, and return the status: 0 nothing failed, 1 something did, 2 there is no card."""
    started = time.monotonic()
    rows = supervise(names, work, show, path)
    if rows is None:
        return EXIT_USER_ERROR
    counts = [sum(one.result == result for one in rows) for result in (OK, FAILED, SKIPPED)]
    print("{} ok, {} failed, {} skipped".format(*counts), f"in {time.monotonic() - started:.0f} s; tracebacks: {path}")
    return 1 if counts[1] else 0
