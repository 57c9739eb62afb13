"""What is checked of training on a card: captured and compiled steps, going on from a snapshot, evaluation, speed."""

from __future__ import annotations

import contextlib
import logging
import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import nn

from .. import numerics
from ..networks.build import create
from ..networks.input import standardize
from ..training.batches import Images
from ..training.step import COMPILE_STEPS, Trainer
from .card import CLASSES, CPU, Card, capped, per_second, pictures
from .gpu_check import Row, Skip, row

#: How far rounding takes two devices apart in twenty steps at most, see `distance`. On a CPU, float32 and float64 are 2e-6 apart;
#: on images larger than of `STEP_SIZE` pixels a ReLU that rounding switches makes up to 4e-4 of it.
ROUNDING, STEP_SIZE = 1e-3, 8
TRAINING = {
    "batch_size": 20,
    "learning_rate": 0.01,
    "momentum": 0.9,
    "nesterov": True,
    "decay_at": [15],
    "decay_factor": 0.2,
    "weight_decay": 0.00078,
    "weight_decay_on": "weights",
    "pad": 2,
    "flip": True,
    "shuffle": "full",
    "shuffle_buffer": 200,
}
WRN_28_10: dict[str, Any] = {"module": "wrn", "depth": 28, "width": 10}
State = Mapping[str, torch.Tensor]


def captured(card: Card, name: str) -> Iterator[Row]:
    """The captured step is the CPU's, and evaluations between replays shift nothing."""
    with fallbacks() as said, trainers(card, name, card.device, CPU) as (there, here):
        start = here.weights()
        there.prepare(200)
        for step in range(20):
            there.advance()
            here.advance()
            if step == 9:
                accuracies = there.accuracy(there.batches.data, 100), here.accuracy(here.batches.data, 100)
        apart = distance(there.weights(), here.weights(), start)
        losses = np.array([[loss for loss, _ in one.read(wait=True)] for one in (there, here)])
        apart_losses = float(np.abs(losses[0] / losses[1] - 1).max())
    yield row(f"{name}: graph captured", "; ".join(said) or "yes", "yes", not said)
    yield row(f"{name}: twenty steps against the CPU", f"{apart:.1e}", f"< {ROUNDING:g}", apart < ROUNDING)
    yield row(f"{name}: their losses", f"{apart_losses:.1e}", f"< {ROUNDING:g}", apart_losses < ROUNDING)
    close = abs(accuracies[0] - accuracies[1]) <= 0.02
    yield row(f"{name}: accuracy between replays", f"{accuracies[0]:.3f}", f"{accuracies[1]:.3f} ± 0.02", close)


def replays(card: Card, name: str) -> Iterator[Row]:
    """No step waits for the device."""
    with trainers(card, name, card.device) as (trainer,):
        trainer.prepare(200)
        trainer.advance()
        torch.cuda.set_sync_debug_mode("error")
        try:
            for _ in range(128):
                trainer.advance()
                trainer.read()
        finally:
            torch.cuda.set_sync_debug_mode("default")
        trainer.read(wait=True)
    yield row(f"{name}: replays without a wait", "128", "128", True)


def continued(card: Card, name: str) -> Iterator[Row]:
    """A trainer that is restored goes on as the one that it was taken from."""
    with trainers(card, name, card.device, card.device) as (first, second):
        start = first.weights()
        first.prepare(200)
        for _ in range(20):
            first.advance()
        second.restore(first.snapshot())
        second.prepare(180)
        for _ in range(20):
            first.advance()
            second.advance()
        apart = distance(first.weights(), second.weights(), start)
        seen = second.step, len(second.read(wait=True))
    yield row(f"{name}: snapshot, restored, continued", f"{apart:.1e}", f"< {ROUNDING:g}", apart < ROUNDING)
    yield row(f"{name}: step and losses read then", "{}, {}".format(*seen), "40, 20", seen == (40, 20))


def compiled(card: Card) -> Iterator[Row]:
    """A deep network is compiled, without fallback, to the same steps."""
    from torch._dynamo.utils import counters

    name = list(card.scale.networks)[-1]
    torch.compiler.reset()
    counters.clear()
    with fallbacks() as said, trainers(card, name, card.device, CPU) as (there, here):
        start = here.weights()
        there.prepare(COMPILE_STEPS)
        for _ in range(20):
            there.advance()
            here.advance()
        apart = distance(there.weights(), here.weights(), start)
    graphs = counters["stats"]["unique_graphs"]
    yield row(
        f"{name}: compiled without fallback", "; ".join(said) or f"{graphs} graphs", "1 graph", not said and graphs == 1
    )
    yield row(f"{name}: compiled, against the CPU", f"{apart:.1e}", f"< {ROUNDING:g}", apart < ROUNDING)


@contextlib.contextmanager
def trainers(card: Card, name: str, *where: torch.device) -> Iterator[list[Trainer]]:
    """Yield trainers of the same few images on some numerics."""
    made = [_trainer(card.scale.networks[name], device, STEP_SIZE) for device in where]
    try:
        yield made
    finally:
        for trainer in made:
            trainer.close()


def _trainer(network: Mapping[str, Any], device: torch.device, size: int, **changes: Any) -> Trainer:
    training = {**TRAINING, **changes}
    precision = numerics.set_precision(training.get("precision", "float32"), device)
    data = Images(*(torch.from_numpy(array).to(device) for array in pictures(400, size)))
    built = create(network, channels=3, size=size, classes=CLASSES, seed=3)
    return Trainer(built, training, data, seed=3, device=device, precision=precision)


@contextlib.contextmanager
def fallbacks() -> Iterator[list[str]]:
    """Yield the list of the pipeline's warnings: no graph, no compiled code, a smaller batch."""
    said: list[str] = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: said.append(record.getMessage())  # type: ignore[method-assign]
    logger = logging.getLogger("dnn_or_knn")
    logger.addHandler(handler)
    try:
        yield said
    finally:
        logger.removeHandler(handler)


def distance(one: State, two: State, start: State) -> float:
    """Return how far apart two states of a network are, over how far the second is from the start; NaN counts as infinite."""
    apart, way = (
        math.sqrt(sum(float((a[k].double() - b[k].double()).square().sum()) for k in a if a[k].is_floating_point()))
        for a, b in ((one, two), (two, start))
    )
    found = apart / max(way, 1e-12)
    return math.inf if math.isnan(found) else found


def halved(card: Card) -> Iterator[Row]:
    """Training's evaluation of a batch that does not fit halves it, and finds the same."""
    network = card.scale.networks[list(card.scale.networks)[-1]]
    trainer = _trainer(network, card.device, card.scale.size)
    data = Images(*(torch.from_numpy(array).to(card.device) for array in pictures(card.scale.images, card.scale.size)))
    # cuDNN tries its algorithms here, some of which take far more memory.
    whole = trainer.accuracy(data, card.scale.evaluated)
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats(card.device)
    before = torch.cuda.memory_allocated(card.device)
    trainer.accuracy(data, card.scale.evaluated)
    most = torch.cuda.max_memory_allocated(card.device)
    # It also takes one that needs less memory where there is less: too little for the activations alone must be left.
    with fallbacks() as said, capped(card, before + 0.25 * (most - before)):
        part = trainer.accuracy(data, card.scale.evaluated)
    trainer.close()
    yield row("evaluation, memory capped: its batch", said[0][:44] if said else "as before", "halved", bool(said))
    yield row("evaluation, memory capped: accuracy", f"{part:.4f}", f"{whole:.4f} ± 0.002", abs(part - whole) <= 0.002)


def throughput(card: Card) -> Iterator[Row]:
    """Training of WRN-28-10 against an eager float32 loop, and against the card's own rate of bfloat16 products."""
    batch = 200
    eager = eager_rate(card, batch)
    torch.cuda.empty_cache()
    with fallbacks() as said:
        ours = our_rate(card, batch)
    has_bf16 = card.has_bf16()
    wanted, name = (3 if has_bf16 else 1), "WRN-28-10"
    yield row(f"{name}: fast path", "; ".join(said) or "no fallback", "no fallback", not said)
    measured = f"{ours / eager:.2f} × ({ours:,.0f} images/s)"
    yield row(f"{name} over an eager float32 loop", measured, f"≥ {wanted} ×", ours / eager >= wanted)
    if not has_bf16:
        raise Skip("no bfloat16 on this card, so no share of its rate")
    rate = product_rate(card.device)
    share = ours * training_flop() / rate
    yield row(
        f"{name}: share of the bf16 product rate", f"{share:.0%} of {rate / 1e12:.0f} TFLOP/s", "≥ 40%", share >= 0.4
    )


def eager_rate(card: Card, batch: int) -> float:
    """Return the images per second of the plainest loop: float32, no augmentation, images on the device."""
    numerics.set_precision("float32", card.device)
    network = create(WRN_28_10, channels=3, size=32, classes=CLASSES).to(card.device).train()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01, momentum=0.9, nesterov=True, weight_decay=0.00078)
    images, labels = (torch.from_numpy(array).to(card.device) for array in pictures(batch, 32))

    def step() -> None:
        optimizer.zero_grad()
        nn.functional.cross_entropy(network(standardize(images)), labels).backward()
        optimizer.step()

    return batch * per_second(step, card.device)


def our_rate(card: Card, batch: int) -> float:
    """Return the images per second of the pipeline's training."""
    trainer = _trainer(WRN_28_10, card.device, 32, batch_size=batch, precision="auto")
    try:
        trainer.prepare(COMPILE_STEPS)
        return batch * per_second(trainer.advance, card.device)
    finally:
        trainer.close()


def training_flop() -> float:
    """Return the floating-point operations of one image's forward and backward pass through WRN-28-10."""
    from torch.utils.flop_counter import FlopCounterMode

    network = create(WRN_28_10, channels=3, size=32, classes=CLASSES)
    with FlopCounterMode(display=False) as counter:
        network(torch.zeros((2, 3, 32, 32))).sum().backward()
    return counter.get_total_flops() / 2


def product_rate(device: torch.device, side: int = 8192) -> float:
    """Return the floating-point operations per second of large products in bfloat16."""
    one = torch.ones((side, side), dtype=torch.bfloat16, device=device)
    made = torch.empty_like(one)
    return 2 * side**3 * per_second(lambda: torch.mm(one, one, out=made), device, seconds=1.0)
