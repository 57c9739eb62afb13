"""A training run that cannot be lost: checkpoints, evaluations, states on disk, a history and a live line.

What a step computes, and how it is made fast, is in `step.py`.
"""

from __future__ import annotations

import hashlib
import io
import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple, NoReturn

import torch

from ..runtime import files
from ..runtime.command_line import EXIT_INTERRUPTED
from ..runtime.errors import Interrupted
from ..runtime.progress import Live
from ..runtime.resume import State
from ..runtime.signals import StopRequests, stop_requests
from .batches import Images
from .history import Diverged, History, history_text
from .step import Trainer, learning_rate

log = logging.getLogger("dnn_or_knn")
#: A history has about this many rows.
HISTORY_ROWS = 500
#: A step that took so many seconds is saved at once: a stop request inside the next one then finds its state on disk.
LONG_STEP = 10.0


class Outcome(NamedTuple):
    """What a run made."""

    checkpoints: list[str]
    #: name → {"bytes", "sha256"} of the checkpoints, as they were written
    digests: dict[str, dict[str, Any]]
    history: str
    final_loss: float
    sessions: list[dict[str, Any]]


def checkpoint_name(step: int) -> str:
    """Return the file name of a checkpoint."""
    return f"step{step:06d}.pt"


def run(
    trainer: Trainer,
    data: Images,
    test: Images,
    saved: State,
    *,
    checkpoints: Sequence[int],
    accuracy_at: Sequence[int] = (),
    save_every: float = 60.0,
) -> Outcome:
    """Train to the last step, from the state folder's newest state if it holds one.

    Weights of the checkpoint steps are written to the state folder's `kept` as they come, at each step of
    `accuracy_at` the network's accuracy on `data` (the training images) and `test` is taken, and a state is saved every
    `save_every` seconds. Writing is a thread's work.

    Raises
    ------
    UserError: the loss or a weight is no longer finite (step, learning rate and last finite loss are named), now or when the
        same was tried before, or the disk is full; the latest state stays as it is.
    Interrupted: SIGTERM or SIGINT; the state is saved.
    """
    diverged = saved.folder / "diverged"
    if diverged.is_file():  # a cluster's profile tries every job that failed again
        raise Diverged(f"{diverged.read_text(encoding='utf-8')}; to try the same again, delete {saved.folder}")
    job = _Run(trainer, data, test, saved, sorted(checkpoints), sorted(accuracy_at), save_every)
    try:
        return job.run()
    except Diverged as error:
        files.write_text(diverged, str(error))
        raise
    finally:
        job.close()


class _Run:
    """The moving parts of one call of `run`."""

    def __init__(
        self,
        trainer: Trainer,
        data: Images,
        test: Images,
        saved: State,
        checkpoints: list[int],
        accuracy_at: list[int],
        save_every: float,
    ) -> None:
        self.trainer, self.data, self.test, self.saved = trainer, data, test, saved
        self.checkpoints, self.accuracy_at, self.save_every = set(checkpoints), set(accuracy_at), save_every
        self.steps: int = trainer.training["steps"]
        self.history = History(every=max(1, self.steps // HISTORY_ROWS))
        self.kept: dict[str, dict[str, Any]] = {}
        self.submitted: set[str] = set()
        self.writer = ThreadPoolExecutor(1, thread_name_prefix="writer")
        self.writing: deque[Future[None]] = deque()
        self.collecting = threading.Lock()
        self.saved_at = self.stepped_at = time.monotonic()
        self.first = 0
        self.on_disk: tuple[int, int] | None = None

    def close(self) -> None:
        self.writer.shutdown(wait=True, cancel_futures=True)
        self.trainer.close()

    def run(self) -> Outcome:
        trainer = self.trainer
        self._resume()
        session: dict[str, Any] = {
            "from": trainer.step,
            "device": str(trainer.device),
            "threads": torch.get_num_threads(),
        }
        self.history.sessions.append(session)
        with stop_requests(self._stop_late) as requests, Live(self.steps, trainer.training["batch_size"]) as live:
            trainer.prepare(self.steps - trainer.step)
            started, self.first = time.monotonic(), trainer.step
            live.start(trainer.step)
            while True:
                self._at_step(requests)
                if trainer.step >= self.steps:
                    break
                self.stepped_at = time.monotonic()
                trainer.advance()
                with trainer.lock:  # what was read is in the history before another thread can save them
                    found = trainer.read()
                    self.history.add(found, trainer.training)
                if found:
                    self._collect(limit=2)
                live.update(trainer.step, self._words)
            seconds = time.monotonic() - started
            session["seconds"] = round(seconds, 3)
            session["images_per_second"] = round(
                (trainer.step - self.first) * trainer.training["batch_size"] / max(seconds, 1e-9), 1
            )
            self._save()
            self._collect(limit=0)
            self._stop_if_asked(requests)
        return self._outcome()

    def _words(self) -> str:
        training = self.trainer.training
        rate = f"learning rate {learning_rate(training, self.trainer.step - 1):g}"
        return ", ".join(filter(None, [self.history.words(training["batch_size"]), rate]))

    def _at_step(self, requests: StopRequests) -> None:
        """Do what is due between two steps: checkpoint, stop, evaluation, state."""
        step, name = self.trainer.step, checkpoint_name(self.trainer.step)
        if step in self.checkpoints and name not in self.submitted:
            self._keep(name)
        self._stop_if_asked(requests)
        if step in self.accuracy_at and step not in self.history.evaluated:
            self._evaluate(lambda: self._stop_if_asked(requests))
        now = time.monotonic()
        long_step = step > self.first and now - self.stepped_at >= LONG_STEP
        if (long_step or now - self.saved_at >= self.save_every) and step < self.steps:
            self._save()

    # Stopping and continuing.

    def _stop_if_asked(self, requests: StopRequests) -> None:
        if requests.name is None:
            return
        if not requests.take():
            threading.Event().wait()  # the other thread saves and ends the process
        self._save()
        self._collect(limit=0)
        raise Interrupted(f"{requests.name} at step {self.trainer.step} of {self.steps}, state saved")

    def _stop_late(self, name: str) -> NoReturn:
        """Save the last whole step and end the process, while the main thread is inside a step that takes long."""
        try:
            if self.trainer.lock.acquire(timeout=2):
                self._collect(limit=0)
                if self.on_disk != self._progress():
                    self._save(copy=False)
                    self._collect(limit=0)
                log.error(
                    "stopped: %s at step %d of %d, state saved; run again to resume",
                    name,
                    self.trainer.step,
                    self.steps,
                )
            else:  # steps are being compiled or captured: nothing was trained since the state on disk
                log.error("stopped: %s; run again to resume", name)
        except BaseException as error:
            log.error("stopped: %s; the state could not be saved: %s; the one before it will be resumed", name, error)
        finally:
            logging.shutdown()
            os._exit(EXIT_INTERRUPTED)

    def _save(self, *, copy: bool = True) -> None:
        """Take a state and hand it to the writer, after the checkpoints that it refers to. See `Trainer.snapshot`."""
        trainer = self.trainer
        with trainer.lock:
            self.history.add(trainer.read(wait=True), trainer.training)
            snapshot, history = trainer.snapshot(copy=copy), self.history
            history.sessions[-1]["to"] = trainer.step
            snapshot["history"] = history.copy()
        progress = self._progress()
        self._submit(lambda: self._write_state(snapshot, progress))
        self.saved_at = time.monotonic()

    def _write_state(self, snapshot: dict[str, Any], progress: tuple[int, int]) -> None:
        self.saved.save(lambda file: torch.save({**snapshot, "kept": self.kept}, file))
        self.on_disk = progress

    def _progress(self) -> tuple[int, int]:
        """Return what a state holds, in short: steps and evaluations done."""
        return self.trainer.step, len(self.history.evaluated)

    def _resume(self) -> None:
        payload = self.saved.load()
        if payload is None:
            return
        try:
            self._take(torch.load(io.BytesIO(payload), weights_only=True, map_location="cpu"))
        except _Unusable as error:
            log.warning(
                "the state in %s cannot be continued (%s); starting from the beginning", self.saved.folder, error
            )
            self.saved.restart()

    def _take(self, state: dict[str, Any]) -> None:
        for name, facts in state["kept"].items():
            path = self.saved.kept / name
            if not path.is_file() or path.stat().st_size != facts["bytes"]:
                raise _Unusable(f"{path} is missing or damaged")
        self.trainer.restore(state)
        self.kept, self.submitted = dict(state["kept"]), set(state["kept"])
        for key, value in state["history"].items():
            setattr(self.history, key, value)
        self.on_disk = self._progress()
        log.info("resuming at step %d of %d", self.trainer.step, self.steps)

    # Writing.

    def _submit(self, work: Callable[[], None]) -> None:
        self._collect(limit=1)
        self.writing.append(self.writer.submit(work))

    def _collect(self, *, limit: int) -> None:
        """Wait until at most `limit` writes are unfinished; what went wrong in a finished one is raised here."""
        with self.collecting:
            while self.writing and (len(self.writing) > limit or self.writing[0].done()):
                self.writing.popleft().result()

    def _keep(self, name: str) -> None:
        trainer = self.trainer
        with trainer.lock:
            self.history.add(trainer.read(wait=True), trainer.training)
        weights, step = trainer.weights(), trainer.step
        self.history.check(weights, learning_rate(trainer.training, max(step - 1, 0)))

        def write() -> None:
            content = to_bytes(weights, step)
            with files.atomic(self.saved.kept / name) as temporary:
                temporary.write_bytes(content)
            self.kept[name] = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}

        self._submit(write)
        self.submitted.add(name)

    def _evaluate(self, between: Callable[[], None]) -> None:
        found = [self.trainer.accuracy(part, between=between) for part in (self.data, self.test)]
        with self.trainer.lock:
            self.history.evaluated[self.trainer.step] = found

    def _outcome(self) -> Outcome:
        names = [checkpoint_name(step) for step in sorted(self.checkpoints) if step <= self.steps]
        rows = self.history.rows
        return Outcome(
            checkpoints=names,
            digests={name: self.kept[name] for name in names},
            history=history_text(rows, self.history.evaluated),
            final_loss=rows[-1][1],
            sessions=self.history.sessions,
        )


class _Unusable(Exception):
    """A state that is whole but cannot be continued."""


def to_bytes(weights: Mapping[str, torch.Tensor], step: int) -> bytes:
    """Return a checkpoint's bytes: made in memory and with contiguous tensors, so that they depend neither on a file's name
    nor on the layout in use."""
    stream = io.BytesIO()
    torch.save({"model": {name: tensor.contiguous() for name, tensor in weights.items()}, "step": step}, stream)
    return stream.getvalue()
