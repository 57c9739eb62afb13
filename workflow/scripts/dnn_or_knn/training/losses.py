"""Losses and right answers on their way from the device to the host, without waiting for either."""

from __future__ import annotations

from collections import deque

import torch

from .batches import PLAN

#: Steps between two transfers of losses from a GPU; a divisor of PLAN.
READ_EVERY = 16


class Losses:
    """The loss and the number of right answers of each step: written on the device, read on the host in order."""

    def __init__(self, device: torch.device, dtype: torch.dtype) -> None:
        self.device = device
        self.losses = torch.zeros(PLAN, dtype=dtype, device=device)
        self.correct = torch.zeros(PLAN, dtype=torch.int64, device=device)
        self._sent = 0
        self._arriving: deque[tuple[torch.cuda.Event | None, torch.Tensor, torch.Tensor]] = deque()

    def put(self, slot: torch.Tensor, loss: torch.Tensor, correct: torch.Tensor) -> None:
        """Write down a step's values at its slot; work for the device alone."""
        self.losses.index_copy_(0, slot, loss.view(1))
        self.correct.index_copy_(0, slot, correct.view(1))

    def count(self, step: int) -> None:
        """`step` steps are done: send their losses, from a GPU with those of other steps."""
        if self.device.type != "cuda" or step % READ_EVERY == 0:
            self._send(step)

    def read(self, step: int, *, wait: bool) -> list[tuple[float, int]]:
        """Return (loss, right answers) of each step that has not been read yet, in order.

        Without `wait`, only what has arrived from the device; with it, of all `step` steps.
        """
        if wait:
            self._send(step)
        found: list[tuple[float, int]] = []
        while self._arriving:
            event, losses, correct = self._arriving[0]
            if event is not None:
                if not wait and not event.query():
                    break
                event.synchronize()
            self._arriving.popleft()
            found += zip(losses.tolist(), correct.tolist(), strict=True)
        return found

    def go_to(self, step: int) -> None:
        """Continue from `step` steps, whose losses were read before."""
        self._sent = step
        self._arriving.clear()

    def _send(self, step: int) -> None:
        """Start copying the losses that have not been read to the host; they must all be of the loaded plan."""
        if self._sent == step:
            return
        last = (step - 1) % PLAN + 1
        part = slice(last - (step - self._sent), last)
        event = None
        losses, correct = self.losses[part], self.correct[part]
        if self.device.type == "cuda":
            losses, correct = (
                torch.empty(t.shape, dtype=t.dtype, pin_memory=True).copy_(t, non_blocking=True)
                for t in (losses, correct)
            )
            event = torch.cuda.Event(blocking=True)
            event.record(torch.cuda.current_stream(self.device))
        else:
            losses, correct = losses.clone(), correct.clone()
        self._arriving.append((event, losses, correct))
        self._sent = step
