"""What `make gpu-check` checks on a card: `CHECKS`, each of which yields the rows of its table, see `gpu_check.py`."""

from __future__ import annotations

import contextlib
import functools
import gc
import logging
import math
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from .. import numerics
from ..features import extraction
from ..networks.build import create
from ..networks.input import standardize
from ..probes import common as probes
from ..runtime import files, gpus, resume
from ..runtime.errors import UserError
from ..training.batches import Images
from ..training.step import COMPILE_STEPS, Trainer
from .gpu_check import Row, Skip, row

CPU = torch.device("cpu")
CLASSES = 10
#: The probes as configured by default. Their certificates hold to `TOLERANCE` of the optimum.
PROBES: dict[str, dict[str, Any]] = {"knn": {"k_max": 30}, "logistic": {}, "svm": {}}
TOLERANCE = 1e-6
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
LEASE = "import sys; from pathlib import Path; from dnn_or_knn.runtime import gpus; print(gpus.lease([sys.argv[1]], Path(sys.argv[2]), wait=0), flush=True); sys.stdin.read()"


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


NETWORKS: dict[str, dict[str, Any]] = {
    "mlp640": {"module": "mlp", "width": 640},
    "lenet": {"module": "lenet"},
    "wrn-10-1": {"module": "wrn", "depth": 10, "width": 1},
}
WRN_28_10: dict[str, Any] = {"module": "wrn", "depth": 28, "width": 10}


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


# The machine.


def architecture(card: Card) -> Iterator[Row]:
    """torch has code for the card."""
    capability, built = torch.cuda.get_device_capability(card.device), torch.cuda.get_arch_list()
    good = any(gpus.has_code_for(target, capability) for target in built)
    yield row("capability against the wheel", "{}.{}".format(*capability), ", ".join(built), good)


def compiler(card: Card) -> Iterator[Row]:
    """Triton can build its launchers: a C compiler, and Python's headers."""
    found = next(
        (path for name in (os.environ.get("CC", ""), "gcc", "clang", "cc") if (path := shutil.which(name))), None
    )
    yield row("C compiler", found or "none", "one", found is not None)
    folder = sysconfig.get_paths()["include"]
    if found is None:
        there = (Path(folder) / "Python.h").is_file()
        yield row("Python.h", f"{'lies' if there else 'missing'} in {folder}", "found", there)
        return
    command = [found, "-x", "c", "-fsyntax-only", f"-I{folder}", "-"]
    done = subprocess.run(command, input="#include <Python.h>\n", capture_output=True, text=True, timeout=60)
    yield row("Python.h", folder if done.returncode == 0 else f"missing in {folder}", "compiles", done.returncode == 0)


def lease(card: Card) -> Iterator[Row]:
    """Two processes never hold one card, and one that is killed gives it back."""
    name = os.environ.get("CUDA_VISIBLE_DEVICES", "0").replace(",", "-")
    scripts = Path(__file__).resolve().parents[2]
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        command = [sys.executable, "-c", LEASE, name, temporary]
        pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "cwd": scripts}
        with subprocess.Popen(command, **pipes) as other:
            try:
                assert other.stdout is not None
                theirs = other.stdout.readline().strip() == name
                refused = not _leases(name, folder)
            finally:
                other.kill()
        yield row(
            "lease: held by another process",
            "refused" if theirs and refused else "given",
            "refused",
            theirs and refused,
        )
        again = _leases(name, folder)
        yield row("lease: after that process was killed", "given" if again else "refused", "given", again)
        gpus.release(name, folder)


def _leases(name: str, folder: Path) -> bool:
    with contextlib.suppress(UserError):
        return gpus.lease([name], folder, wait=0) == name
    return False


def tf32(card: Card) -> Iterator[Row]:
    """Products and convolutions in float32 keep its digits: TF32 has 1e-3, float32 1e-6."""
    numerics.set_precision("float32", card.device)
    side = card.scale.side
    first, second = (torch.from_numpy(_normal(side, side, seed=seed)) for seed in (0, 1))
    pixels, kernel = first.view(-1, 16, 16, 16), second[:16, :144].reshape(16, 16, 3, 3)
    products: tuple[tuple[str, Callable[..., torch.Tensor], tuple[torch.Tensor, torch.Tensor]], ...] = (
        ("products", torch.matmul, (first, second)),
        ("convolutions", nn.functional.conv2d, (pixels, kernel)),
    )
    for name, operation, operands in products:
        exact = operation(*(operand.double() for operand in operands))
        made = operation(*(operand.to(card.device) for operand in operands)).cpu().double()
        error = float((made - exact).norm() / exact.norm())
        yield row(f"TF32 off: rounding of {name}", f"{error:.1e}", "< 1e-5", error < 1e-5)


# Training.


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
    data = Images(*(torch.from_numpy(array).to(device) for array in _pictures(400, size)))
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


State = Mapping[str, torch.Tensor]


def distance(one: State, two: State, start: State) -> float:
    """Return how far apart two states of a network are, over how far the second is from the start; NaN counts as infinite."""
    apart, way = (
        math.sqrt(sum(float((a[k].double() - b[k].double()).square().sum()) for k in a if a[k].is_floating_point()))
        for a, b in ((one, two), (two, start))
    )
    found = apart / max(way, 1e-12)
    return math.inf if math.isnan(found) else found


# Memory, and features.


def features(card: Card) -> Iterator[Row]:
    """Features extracted again are the same bits, also after memory ran out; training's evaluation halves its batch then."""
    network = card.scale.networks[list(card.scale.networks)[-1]]
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(card.device)
        before = torch.cuda.memory_allocated(card.device)
        first = _digest(card, network, folder / "first")
        most = torch.cuda.max_memory_allocated(card.device)
        second = _digest(card, network, folder / "second")
        yield row("extraction again", second[:12], first[:12], first == second)
        with capped(card, before + 0.6 * (most - before)):
            try:
                third = _digest(card, network, folder / "third")
            except (RuntimeError, MemoryError) as error:
                if not numerics.is_out_of_memory(error):
                    raise
                third = "refused"
        yield row("extraction, memory capped", third[:12], f"{first[:12]} or refused", third in (first, "refused"))
        third = _digest(card, network, folder / "third")
        yield row("extraction, going on after that", third[:12], first[:12], third == first)


def halved(card: Card) -> Iterator[Row]:
    """Training's evaluation of a batch that does not fit halves it, and finds the same."""
    network = card.scale.networks[list(card.scale.networks)[-1]]
    trainer = _trainer(network, card.device, card.scale.size)
    data = Images(*(torch.from_numpy(array).to(card.device) for array in _pictures(card.scale.images, card.scale.size)))
    whole = trainer.accuracy(
        data, card.scale.evaluated
    )  # cuDNN tries its algorithms, some of which take far more memory
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


def _digest(card: Card, network: Mapping[str, Any], folder: Path) -> str:
    """Extract the features of two evaluations and return the digest of their listing."""
    scale = card.scale
    built = create(network, channels=3, size=scale.size, classes=CLASSES)
    weights = folder / "checkpoints"
    weights.mkdir(parents=True, exist_ok=True)
    for step in (0, 1):
        torch.save({"model": built.state_dict(), "step": step}, weights / f"step{step:06d}.pt")
    pixels, _ = _pictures(scale.images, scale.size)
    splits = {"train": pixels[scale.images // 3 :], "test": pixels[: scale.images // 3]}
    precision = numerics.set_precision("auto", card.device)
    spec = {"batch_size": scale.evaluated, "compile": False}
    with resume.opened(folder / "state", "gpu-check") as state:
        job = extraction.Job(
            run="gpu-check",
            network=built,
            points=extraction.select(built, ["embedding"]),
            input_layer="pixels",
            steps=[0, 1],
            splits=splits,
            how=extraction.arithmetic(built, splits, spec, kept=2, device=card.device, precision=precision),
            checkpoints=weights,
            listing=files.listing(weights),
            state=state,
        )
        return files.digest(extraction.extract(job, device=card.device)["files"])


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


# Probes.


def neighbours(card: Card) -> Iterator[Row]:
    """The k-NN finds the CPU's neighbours at the CPU's distances, bit for bit, of spread and of collapsed classes."""
    for kind, spread in (("spread", 1.0), ("collapsed", 1e-5)):
        for metric in ("l2", "l1", "cosine"):
            task = _task(card.scale.neighbours, 100, spread)
            here, there = (fit("knn", task, device, metric=metric).arrays for device in ("cpu", card.device.type))
            same = {name: bool(np.array_equal(here[name], there[name])) for name in here}
            differing = ", ".join(name for name in same if not same[name])
            yield row(f"k-NN, {kind} classes, {metric}", differing or "the CPU's bits", "the CPU's bits", not differing)


def probe(card: Card, kind: str) -> Iterator[Row]:
    """A probe holds its certificate on the card, and is faster there than on the CPU."""
    task = _task(card.scale.points, card.scale.dimensions, 1.0)
    fit(kind, _task(200, 8, 1.0), card.device.type)  # starts the libraries
    slow, here = timed(lambda: fit(kind, task, "cpu"))
    fast, there = timed(lambda: fit(kind, task, card.device.type))
    if kind == "knn":
        same = all(np.array_equal(here.arrays[name], there.arrays[name]) for name in here.arrays)
        yield row("knn: result", "the CPU's bits" if same else "differs", "the CPU's bits", same)
    else:
        gap, apart = there.report["gap"], above(kind, task, there) / above(kind, task, here) - 1
        yield row(f"{kind}: gap", f"{gap:.1e}", f"≤ {TOLERANCE:g}", there.report["converged"] and gap <= TOLERANCE)
        yield row(f"{kind}: objective over the CPU's", f"{apart:+.1e}", f"≤ {TOLERANCE:g}", abs(apart) <= TOLERANCE)
    yield row(f"{kind}: seconds", f"{fast:.2f}", f"≤ {slow:.2f}, the CPU's", fast <= slow)
    busy = kernel_seconds(lambda: fit(kind, task, card.device.type)) / fast
    yield row(f"{kind}: share of busy kernels", f"{busy:.0%}", "some", busy > 0)


def float64(card: Card) -> Iterator[Row]:
    """Fits compute in float64, which many cards have at a 64th of their speed."""
    there, here = gpus.float64_rate(card.device), gpus.float64_rate(CPU)
    yield row("float64 products, GFLOP/s", f"{there / 1e9:.0f}", f"≥ {here / 1e9:.0f}, the CPU's", there >= here)


def fit(kind: str, task: tuple[np.ndarray, ...], device: str, **options: Any) -> probes.ProbeResult:
    """Return a probe's result on made-up features."""
    train, labels, test = task
    options = {**PROBES[kind], **options}
    return probes.load(kind)(train, labels, test, classes=CLASSES, options=options, seed=0, device=device)


def above(kind: str, task: tuple[np.ndarray, ...], result: probes.ProbeResult) -> float:
    """Return the objective of a linear probe's weights, in float64 by NumPy: what no device can have rounded wrong."""
    train, labels, _ = task
    weights, intercepts = result.arrays["coefficients"], result.arrays["intercepts"]
    values = train.astype(np.float64) @ weights.T + intercepts
    right = labels[:, None] == np.arange(CLASSES)
    if kind == "logistic":
        top = values.max(1)
        losses = top + np.log(np.exp(values - top[:, None]).sum(1)) - values[right]
        return float(0.5 * (weights**2).sum() + losses.sum())
    margins = np.maximum(0.0, 1 - np.where(right, 1.0, -1.0) * values)
    return float(0.5 * ((weights**2).sum() + (intercepts**2).sum()) + (margins**2).sum())


# Speed.


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
    images, labels = (torch.from_numpy(array).to(card.device) for array in _pictures(batch, 32))

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


# Made-up data.


def _normal(*shape: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def _pictures(count: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Return seeded images, uint8, and labels that can be learned from them."""
    rng = np.random.default_rng(0)
    labels = rng.integers(CLASSES, size=count)
    shapes = rng.integers(0, 200, size=(CLASSES, 3, size, size))
    return (shapes[labels] + rng.integers(0, 56, size=(count, 3, size, size))).astype(np.uint8), labels


def _task(points: int, dimensions: int, spread: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return train features behind a ReLU with one centre a class, their labels, and a fifth as many test features."""
    rng = np.random.default_rng(1)
    labels = rng.integers(CLASSES, size=points + points // 5)
    centres = rng.normal(size=(CLASSES, dimensions))
    made = np.maximum(centres[labels] + spread * rng.normal(size=(len(labels), dimensions)), 0).astype(np.float32)
    return made[:points], labels[:points], made[points:]


Check = Callable[[Card], Iterator[Row]]
#: The checks by name, the machine's first.
CHECKS: dict[str, Check] = {
    "architecture": architecture,
    "compiler": compiler,
    "lease": lease,
    "tf32": tf32,
    **{
        f"{check.__name__} {name}": functools.partial(check, name=name)
        for name in NETWORKS
        for check in (captured, replays, continued)
    },
    "compiled": compiled,
    "features": features,
    "halved": halved,
    "neighbours": neighbours,
    "float64": float64,
    **{f"probe {kind}": functools.partial(probe, kind=kind) for kind in PROBES},
    "throughput": throughput,
}
