"""What a run has found so far: losses, accuracies, sessions; and its table, history.csv."""

from __future__ import annotations

import copy
import csv
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NoReturn

import torch

from ..runtime.errors import UserError
from .step import learning_rate

COLUMNS = ("step", "loss", "batch_accuracy", "learning_rate", "train_accuracy", "test_accuracy")


class Diverged(UserError):
    """The loss or a weight is no longer finite: trained again, the same would come."""


@dataclass
class History:
    """What a run has found so far, apart from weights: enough to continue it."""

    every: int
    rows: list[list[float]] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    right: int = 0
    last_loss: float | None = None
    read: int = 0
    evaluated: dict[int, list[float]] = field(default_factory=dict)
    sessions: list[dict[str, Any]] = field(default_factory=list)

    def add(self, found: Sequence[tuple[float, int]], training: Mapping[str, Any]) -> None:
        """Take in the losses and right answers of the next steps; a loss that is not finite raises `UserError`."""
        for loss, right in found:
            if not math.isfinite(loss):
                self._diverged(f"the loss became {loss}", learning_rate(training, self.read))
            self.read += 1
            self.losses.append(loss)
            self.right += right
            if self.read % self.every == 0 or self.read == training["steps"]:
                accuracy = self.right / (len(self.losses) * training["batch_size"])
                rate = learning_rate(training, self.read - 1)
                self.rows.append([self.read, math.fsum(self.losses) / len(self.losses), accuracy, rate])
                self.last_loss = loss
                self.losses, self.right = [], 0

    def check(self, weights: Mapping[str, torch.Tensor], rate: float) -> None:
        """Raise `UserError` if weights after the step that was read last are not finite."""
        for name, tensor in weights.items():
            if not bool(torch.isfinite(tensor).all()):
                self._diverged(f"{name} is no longer finite", rate, after=True)

    def copy(self) -> dict[str, Any]:
        """Return all of it as plain data of its own, to be written while the run goes on."""
        return copy.deepcopy(vars(self))

    def words(self, batch_size: int) -> str:
        """Return loss and train accuracy of the latest steps, in words; "" before the first."""
        if self.losses:
            loss, accuracy = self.losses[-1], self.right / (len(self.losses) * batch_size)
        elif self.rows:
            _, loss, accuracy, _ = self.rows[-1]
        else:
            return ""
        return f"loss {loss:.4f}, train accuracy {accuracy:.2%}"

    def _diverged(self, what: str, rate: float, *, after: bool = False) -> NoReturn:
        last = self.losses[-1] if self.losses else self.last_loss
        known = f"; the last finite loss was {last:.6g}, in step {self.read}" if last is not None else ""
        raise Diverged(
            f"training diverged: {what} in step {self.read if after else self.read + 1}, at learning rate {rate:g}{known};"
            " lower training.learning_rate, or check the data"
        )


def history_text(rows: Sequence[Sequence[float]], evaluated: Mapping[int, Sequence[float]]) -> str:
    """Return history.csv.

    Columns: step; the mean cross-entropy and the running accuracy of the batches since the row before (training mode,
    augmented, weights changing); the last learning rate; the network's train and test accuracy (evaluation mode, no
    augmentation) at evaluation steps without kept weights. Fields that do not apply are empty.
    """
    lines = {int(step): [repr(loss), repr(accuracy), f"{rate:.12g}", "", ""] for step, loss, accuracy, rate in rows}
    for step, found in evaluated.items():
        lines[step] = [*lines.get(step, ["", "", ""])[:3], *map(repr, found)]
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows([step, *lines[step]] for step in sorted(lines))
    return stream.getvalue()
