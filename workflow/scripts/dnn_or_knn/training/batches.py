"""Which images make a batch, and how batches reach the device: drawn ahead by a thread, many steps at a time."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
import torch

from ..seeds import generator
from .augmentation import augment, draws

#: Steps whose batches are drawn and sent to the device together.
PLAN = 64


class Images(NamedTuple):
    """Images, uint8 (N, channels, size, size), and labels, int64 (N,), on one device."""

    images: torch.Tensor
    labels: torch.Tensor


@functools.lru_cache(maxsize=4)
def epoch_order(count: int, seed: int, epoch: int, buffer: int | None = None) -> np.ndarray:
    """Return the order of the training images in one epoch, int64 (count,), a function of (seed, epoch).

    Parameters
    ----------
    count: number of training images.
    buffer: None for a full shuffle. A number: the order in which a shuffle buffer of so many images gives out images
        that come in sequence, as tf.data's `shuffle` does: the buffer is filled, then a place is drawn, its image goes
        out and the next one takes its place; at the end of the epoch the buffer is emptied at random.
    """
    bits = generator(f"order/{epoch}", seed).bit_generator.random_raw(count)
    if buffer is None:
        return np.argsort(bits, kind="stable")
    waiting = list(range(min(buffer, count)))
    order = []
    for new, draw in zip(range(len(waiting), count), bits.tolist(), strict=False):
        place = draw % len(waiting)
        order.append(waiting[place])
        waiting[place] = new
    for draw in bits[len(order) :].tolist():
        place = draw % len(waiting)
        order.append(waiting[place])
        waiting[place] = waiting[-1]
        waiting.pop()
    return np.array(order, dtype=np.int64)


def batches(count: int, batch_size: int, first: int, steps: int, seed: int, buffer: int | None = None) -> np.ndarray:
    """Return which images make the batches of `steps` steps from step `first`, int64 (steps, batch_size).

    Batches are cut from the epochs' orders one after the other; a batch may span two epochs, so that all are full.
    """
    start, stop = first * batch_size, (first + steps) * batch_size
    parts = []
    for epoch in range(start // count, (stop - 1) // count + 1):
        order = epoch_order(count, seed, epoch, buffer)
        parts.append(order[max(start - epoch * count, 0) : stop - epoch * count])
    return np.concatenate(parts).reshape(steps, batch_size)


class Batches:
    """The batches of a run on the device: `next` is the planned batch at `slot`, augmented.

    `slot` lives on the device and is counted up there, so that a CUDA graph takes another batch at each replay.
    """

    def __init__(self, data: Images, training: Mapping[str, Any], seed: int) -> None:
        """
        Parameters
        ----------
        data: the training images and labels.
        training: the specification's part of that name.
        """
        self.data, self.training, self.seed = data, training, seed
        device, batch = data.labels.device, training["batch_size"]
        self.augments = bool(training["pad"] or training["flip"])
        self.slot = torch.zeros(1, dtype=torch.int64, device=device)
        self._plan = torch.zeros((PLAN, batch), dtype=torch.int64, device=device)
        self.offsets = torch.zeros((PLAN, batch, 2), dtype=torch.int64, device=device)
        self.flips = torch.zeros((PLAN, batch), dtype=torch.bool, device=device)
        self._loaded: int | None = None
        self._planner = ThreadPoolExecutor(1, thread_name_prefix="planner")
        self._drawing: tuple[int, Future[np.ndarray]] | None = None

    def go_to(self, step: int) -> None:
        """Have the batches of the steps around `step` on the device, and `slot` at it."""
        chunk, slot = divmod(step, PLAN)
        if self._loaded != chunk:
            self._load(chunk)
            self.slot.fill_(slot)

    def forget(self) -> None:
        """Have the next `go_to` set everything anew."""
        self._loaded = None

    def next(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the batch at `slot`: images uint8 (N, channels, size, size) and labels int64 (N,)."""
        chosen = self._plan.index_select(0, self.slot).view(-1)
        images, labels = self.data.images.index_select(0, chosen), self.data.labels.index_select(0, chosen)
        if self.augments:
            offsets = self.offsets.index_select(0, self.slot)[0]
            flips = self.flips.index_select(0, self.slot)[0] if self.training["flip"] else None
            images = augment(images, offsets, flips, pad=self.training["pad"])
        return images, labels

    def close(self) -> None:
        """Stop the thread that draws batches."""
        self._planner.shutdown(wait=True, cancel_futures=True)

    def _load(self, chunk: int) -> None:
        """Put the batches and the augmentation of steps chunk · PLAN … into place, and start drawing the next ones."""
        if self._drawing is None or self._drawing[0] != chunk:
            self._drawing = (chunk, self._planner.submit(self._draw, chunk))
        drawn = torch.from_numpy(self._drawing[1].result())
        if self._plan.device.type == "cuda":
            drawn = drawn.pin_memory()
        self._plan.copy_(drawn, non_blocking=True)
        if self.augments:
            # Steps follow one another in the draws, so that one call with a chunk's size gives what PLAN calls would.
            size = self._plan.numel()
            offsets, flips = draws(self.seed, chunk, size, pad=self.training["pad"], device=self._plan.device)
            self.offsets.copy_(offsets.view_as(self.offsets))
            self.flips.copy_(flips.view_as(self.flips))
        self._loaded = chunk
        self._drawing = (chunk + 1, self._planner.submit(self._draw, chunk + 1))

    def _draw(self, chunk: int) -> np.ndarray:
        buffer = self.training["shuffle_buffer"] if self.training["shuffle"] == "buffer" else None
        batch = self.training["batch_size"]
        return batches(len(self.data.labels), batch, chunk * PLAN, PLAN, self.seed, buffer)
