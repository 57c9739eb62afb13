"""A card under check: how much is computed on it, of which made-up data, and how time and memory are measured."""

from __future__ import annotations

import contextlib
import gc
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from .. import numerics
from ..runtime import gpus

CPU = torch.device("cpu")
CLASSES = 10
NETWORKS: dict[str, dict[str, Any]] = {
    "mlp640": {"module": "mlp", "width": 640},
    "lenet": {"module": "lenet"},
    "wrn-10-1": {"module": "wrn", "depth": 10, "width": 1},
}


@dataclass(frozen=True)
class Scale:
    """How much is computed: the defaults take two minutes on a card."""

    networks: Mapping[str, Mapping[str, Any]]
    #: pixels of a side, images, and of these at a time, of evaluations
    size: int = 32
    images: int = 3000
    evaluated: int = 1000
    #: points and dimensions of the probes
    points: int = 10_000
    dimensions: int = 640
    #: points of the k-NN that is compared bit by bit
    neighbours: int = 3000
    #: side of the products whose rounding is looked at
    side: int = 1024


@dataclass(frozen=True)
class Card:
    """The card that is checked, and how much is computed on it."""

    device: torch.device
    scale: Scale

    @staticmethod
    def leased() -> Card:
        """Lease a card. One that torch has no code for is one to check; that there is none raises `UserError`."""
        device = gpus.resolve("cuda", fault=lambda d: None if torch.cuda.is_available() else gpus.gpu_fault(d))
        return Card(device, Scale(NETWORKS))

    def described(self) -> str:
        """Return the card in one line."""
        facts = torch.cuda.get_device_properties(self.device)
        memory = f"{facts.total_memory / 2**30:.1f} GiB"
        return f"{facts.name}, {memory}, compute capability {facts.major}.{facts.minor}, torch {torch.__version__}"

    def has_bf16(self) -> bool:
        """Say whether products in bfloat16 are the card's own."""
        return numerics.set_precision("auto", self.device) == "bf16"

    def tidy(self) -> bool:
        """Undo what a check may have left, and say whether the device still answers."""
        torch.backends.cudnn.benchmark = torch.backends.cudnn.deterministic = False
        gc.collect()
        try:
            torch.cuda.set_sync_debug_mode("default")
            numerics.set_precision("float32", self.device)
            torch.cuda.synchronize(self.device)
            torch.cuda.empty_cache()
        except RuntimeError:
            return False
        return True


@contextlib.contextmanager
def capped(card: Card, limit: float) -> Iterator[None]:
    """Let torch have so many bytes of the card."""
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(card.device).total_memory
    torch.cuda.set_per_process_memory_fraction(min(1.0, limit / total), card.device)
    try:
        yield
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0, card.device)


def per_second(step: Callable[[], object], device: torch.device, seconds: float = 3.0) -> float:
    """Return how often `step` runs a second, after three times that do not count."""
    for _ in range(3):
        step()
    torch.cuda.synchronize(device)
    started, count = time.perf_counter(), 0
    while (passed := time.perf_counter() - started) < seconds:
        for _ in range(5):
            step()
        torch.cuda.synchronize(device)
        count += 5
    return count / passed


def timed(call: Callable[[], Any]) -> tuple[float, Any]:
    """Return the seconds that a call takes, and what it returns."""
    started = time.perf_counter()
    made = call()
    return time.perf_counter() - started, made


def kernel_seconds(call: Callable[[], object]) -> float:
    """Return the seconds in which a call has kernels (and copies) running on the device."""
    from torch.autograd import DeviceType
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CUDA]) as profiler:
        call()
        torch.cuda.synchronize()
    events = profiler.events() or []
    return sum(event.time_range.elapsed_us() for event in events if event.device_type == DeviceType.CUDA) / 1e6


def normal(*shape: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def pictures(count: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Return seeded images, uint8, and labels that can be learned from them."""
    rng = np.random.default_rng(0)
    labels = rng.integers(CLASSES, size=count)
    shapes = rng.integers(0, 200, size=(CLASSES, 3, size, size))
    return (shapes[labels] + rng.integers(0, 56, size=(count, 3, size, size))).astype(np.uint8), labels


def clusters(points: int, dimensions: int, spread: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return train features behind a ReLU with one centre a class, their labels, and a fifth as many test features."""
    rng = np.random.default_rng(1)
    labels = rng.integers(CLASSES, size=points + points // 5)
    centres = rng.normal(size=(CLASSES, dimensions))
    made = np.maximum(centres[labels] + spread * rng.normal(size=(len(labels), dimensions)), 0).astype(np.float32)
    return made[:points], labels[:points], made[points:]
