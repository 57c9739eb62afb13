"""`make gpu-check` on the simulated device: all checks that it can bear pass, and each fails where what it checks is broken.

Simulated are the forward pass, batches, updates, losses, waits, memory, extraction and probes. Gradients come from the same network
on the CPU, a captured graph is the step itself. Stand-ins are seconds, rates of products and kernels; compilation runs on the CPU.
"""

from __future__ import annotations

import contextlib
import copy
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from conftest import SCRIPTS
from dnn_or_knn import numerics
from dnn_or_knn.features import extraction
from dnn_or_knn.networks.input import standardize
from dnn_or_knn.probes import common, knn
from dnn_or_knn.runtime import gpus
from dnn_or_knn.tools import card_checks, gpu_check, training_checks
from dnn_or_knn.tools.card import Card, Scale, kernel_seconds
from dnn_or_knn.tools.card_checks import CHECKS
from dnn_or_knn.tools.gpu_check import FAILED, OK, SKIPPED, Row
from dnn_or_knn.training.batches import Batches
from dnn_or_knn.training.losses import Losses
from dnn_or_knn.training.step import Trainer
from simulated_cuda import CPU, CUDA, CudaTensor, Event, simulated

torch.set_num_threads(1)
SMALL = Scale(
    {
        "mlp640": {"module": "mlp", "width": 16},
        "lenet": {"module": "lenet", "embedding": 32},
        "wrn-10-1": {"module": "wrn", "depth": 10, "width": 1},
    },
    size=8,
    images=150,
    evaluated=60,
    points=300,
    dimensions=12,
    neighbours=200,
    side=192,
)
#: Checks of what the simulated device has not; they have tests of their own below.
NOT_SIMULATED = {"compiled", "throughput"}
MEMORY = 2**33


@pytest.fixture
def card(monkeypatch: pytest.MonkeyPatch) -> Iterator[Card]:
    shadows: dict[Trainer, torch.nn.Module] = {}
    make, gradients = Trainer.__init__, Trainer._gradients

    def made(trainer: Trainer, network: torch.nn.Module, *args: Any, **options: Any) -> None:
        shadows[trainer] = copy.deepcopy(network)
        make(trainer, network, *args, **options)

    def backward(trainer: Trainer) -> tuple[torch.Tensor, torch.Tensor]:
        """Make a step's forward pass on the device, and its backward pass on the CPU."""
        if trainer.device.type != "cuda":
            return gradients(trainer)
        batch, labels = trainer.batches.next()
        shadow = shadows[trainer]
        with torch.no_grad():
            for here, there in zip(shadow.parameters(), trainer.network.parameters(), strict=True):
                here.copy_(there.held)
            logits = trainer._logits(batch)
        loss = torch.nn.functional.cross_entropy(shadow(standardize(batch.held)), labels.held)
        found = torch.autograd.grad(loss, list(shadow.parameters()))
        for there, gradient in zip(trainer.network.parameters(), found, strict=True):
            there.grad = CudaTensor(torch.empty_like(there.held).copy_(gradient))  # in the layout of the weights
        return torch.nn.functional.cross_entropy(logits, labels), (logits.argmax(1) == labels).sum()

    def capture(trainer: Trainer) -> bool:
        trainer._graph = SimpleNamespace(replay=lambda: trainer._update(*trainer._gradients()))
        return True

    for name, stand_in in (("__init__", made), ("_gradients", backward), ("_capture", capture)):
        monkeypatch.setattr(Trainer, name, stand_in)
    with simulated() as device:
        facts = SimpleNamespace(name="simulated", total_memory=MEMORY, major=9, minor=0)

        def fraction(part: float, _: object) -> None:
            device.limit = part * MEMORY if part < 1 else float("inf")

        for name, stand_in in {
            "Event": Event,
            "current_stream": lambda *_: None,
            "synchronize": lambda *_: None,
            "empty_cache": lambda: None,
            "set_sync_debug_mode": lambda mode: setattr(device, "forbidden", mode == "error"),
            "reset_peak_memory_stats": lambda *_: setattr(device, "largest", 0),
            "memory_allocated": lambda *_: 0,
            "max_memory_allocated": lambda *_: device.largest,
            "set_per_process_memory_fraction": fraction,
            "get_device_properties": lambda *_: facts,
            "get_device_capability": lambda *_: (9, 0),
            "is_bf16_supported": lambda **_: False,
        }.items():
            monkeypatch.setattr(torch.cuda, name, stand_in)
        seconds = iter([2.0, 1.0])  # the CPU's, then the device's
        monkeypatch.setattr(card_checks, "timed", lambda call: (next(seconds), call()))
        monkeypatch.setattr(card_checks, "kernel_seconds", lambda call: 0.5)
        monkeypatch.setattr(gpus, "float64_rate", lambda device: 2e9 if device.type == "cuda" else 1e9)
        yield Card(CUDA, SMALL)


def rows_of(card: Card, *names: str) -> list[Row]:
    """Return the rows of some checks as the program makes them."""
    rows: list[Row] = []
    gpu_check.check_all(names, CHECKS, card, lambda kind, what: rows.append(what) if kind == gpu_check.ROW else None)
    return rows


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.slow) if name.endswith("wrn-10-1") else name
        for name in sorted(CHECKS.keys() - NOT_SIMULATED)
    ],
)
def test_a_card_that_is_right_passes(card: Card, name: str) -> None:
    rows = rows_of(card, name)
    assert rows and {row.result for row in rows} == {OK}, rows


# Each check sees its fault.


def no_graph(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Trainer, "_capture", lambda _: logging.getLogger("dnn_or_knn").warning("no CUDA graph (fault)"))


def wrong_gradients(patch: pytest.MonkeyPatch) -> None:
    gradients = Trainer._gradients

    def scaled(trainer: Trainer) -> Any:
        made = gradients(trainer)
        if trainer.device.type == "cuda":
            for parameter in trainer.network.parameters():
                parameter.grad = parameter.grad * 1.5
        return made

    patch.setattr(Trainer, "_gradients", scaled)


def evaluation_that_moves_on(patch: pytest.MonkeyPatch) -> None:
    accuracy = Trainer.accuracy

    def moved(trainer: Trainer, *args: Any) -> float:
        trainer.batches.slot += trainer.device.type == "cuda"
        return accuracy(trainer, *args)

    patch.setattr(Trainer, "accuracy", moved)


def wrong_accuracy(patch: pytest.MonkeyPatch) -> None:
    accuracy = Trainer.accuracy
    patch.setattr(Trainer, "accuracy", lambda trainer, *args: accuracy(trainer, *args) + 0.1 * (trainer.device == CUDA))


def wrong_losses(patch: pytest.MonkeyPatch) -> None:
    put = Losses.put
    patch.setattr(
        Losses,
        "put",
        lambda self, slot, loss, right: put(self, slot, loss * 1.01 if loss.device == CUDA else loss, right),
    )


def step_that_waits(patch: pytest.MonkeyPatch) -> None:
    following = Batches.next

    def looked_at(batches: Batches) -> Any:
        batch, labels = following(batches)
        assert int(labels.max()) < 10
        return batch, labels

    patch.setattr(Batches, "next", looked_at)


def momentum_forgotten(patch: pytest.MonkeyPatch) -> None:
    restore = Trainer.restore

    def forgetful(trainer: Trainer, snapshot: dict[str, Any]) -> None:
        restore(trainer, snapshot | {"momentum": {k: torch.zeros_like(v) for k, v in snapshot["momentum"].items()}})

    patch.setattr(Trainer, "restore", forgetful)


def step_forgotten(patch: pytest.MonkeyPatch) -> None:
    restore = Trainer.restore
    patch.setattr(Trainer, "restore", lambda trainer, snapshot: restore(trainer, snapshot | {"step": 19}))


def tf32_products(patch: pytest.MonkeyPatch, name: str = "matmul", place: Any = torch) -> None:
    real = getattr(place, name)

    def rounded(*operands: torch.Tensor) -> torch.Tensor:
        if isinstance(operands[0], CudaTensor):
            operands = tuple(CudaTensor((o.held.view(torch.int32) & ~0x1FFF).view(torch.float32)) for o in operands)
        return real(*operands)

    patch.setattr(place, name, rounded)


def features_by_chance(patch: pytest.MonkeyPatch) -> None:
    finite, rng = extraction.first_non_finite, np.random.default_rng(0)

    def shaken(outputs: dict[str, torch.Tensor]) -> Any:
        for output in outputs.values():
            output += float(rng.normal())
        return finite(outputs)

    patch.setattr(extraction, "first_non_finite", shaken)


def other_bits_where_memory_is_full(patch: pytest.MonkeyPatch) -> None:
    evaluate, extract = extraction.evaluate, extraction.extract

    def lenient(forward: Any, images: Any, widths: Any, *args: Any, **options: Any) -> Any:
        try:
            return evaluate(forward, images, widths, *args, **options)
        except torch.OutOfMemoryError:
            return {name: torch.zeros(len(images), width) for name, width in widths.items()}

    def spacious(job: Any, *, device: torch.device) -> Any:
        with pytest.MonkeyPatch.context() as inner:  # the weights fit
            inner.setattr(extraction, "evaluate", lenient)
            return extract(job, device=device)

    patch.setattr(extraction, "extract", spacious)


def full_memory_that_is_not_known(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(numerics, "is_out_of_memory", lambda _: False)


def changed_search(change: Callable[[Any], None]) -> Callable[[pytest.MonkeyPatch], None]:
    def fault(patch: pytest.MonkeyPatch) -> None:
        searches = knn.searches

        def changed(*args: Any, device: str, **options: Any) -> Any:
            both = searches(*args, device=device, **options)
            if device == "cuda":
                change(both[0])
            return both

        patch.setattr(knn, "searches", changed)

    return fault


def swap(found: Any) -> None:
    found.neighbours[0, :2] = found.neighbours[0, 1::-1].copy()


def shake(found: Any) -> None:
    found.distances[-1, -1] = np.nextafter(found.distances[-1, -1], np.inf)


def changed_result(change: Callable[[common.ProbeResult], None]) -> Callable[[pytest.MonkeyPatch], None]:
    def fault(patch: pytest.MonkeyPatch) -> None:
        fit = card_checks.fit

        def changed(kind: str, task: Any, device: str, **options: Any) -> common.ProbeResult:
            result = fit(kind, task, device, **options)
            if device == "cuda":
                change(result)
            return result

        patch.setattr(card_checks, "fit", changed)

    return fault


def weights_off(result: common.ProbeResult) -> None:
    result.arrays["coefficients"] = result.arrays["coefficients"] * 1.1


def slow_card(patch: pytest.MonkeyPatch) -> None:
    seconds = iter([1.0, 2.0])
    patch.setattr(card_checks, "timed", lambda call: (next(seconds), call()))


def lease_of_everybody(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(gpus, "lease", lambda names, folder, wait: names[0])


def lease_of_nobody(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(gpus, "_try_lease", lambda *_: False)


#: check, row that must fail, fault
FAULTS: list[tuple[str, str, Callable[[pytest.MonkeyPatch], object]]] = [
    (
        "architecture",
        "capability",
        lambda patch: patch.setattr(torch.cuda, "get_arch_list", lambda: ["sm_75", "sm_100"]),
    ),
    ("compiler", "C compiler", lambda patch: patch.setattr(card_checks.shutil, "which", lambda _: None)),
    (
        "compiler",
        "Python.h",
        lambda patch: patch.setattr(card_checks.sysconfig, "get_paths", lambda: {"include": "/no"}),
    ),
    ("lease", "lease: held", lease_of_everybody),
    ("lease", "lease: after", lease_of_nobody),
    ("tf32", "TF32 off: rounding of products", tf32_products),
    (
        "tf32",
        "TF32 off: rounding of convolutions",
        lambda patch: tf32_products(patch, "conv2d", torch.nn.functional),
    ),
    ("captured mlp640", "mlp640: graph", no_graph),
    ("captured lenet", "lenet: twenty", wrong_gradients),
    ("captured wrn-10-1", "wrn-10-1: twenty", evaluation_that_moves_on),
    ("captured mlp640", "mlp640: accuracy", wrong_accuracy),
    ("captured mlp640", "mlp640: their losses", wrong_losses),
    ("replays mlp640", "replays mlp640", step_that_waits),
    ("continued mlp640", "mlp640: snapshot", momentum_forgotten),
    ("continued mlp640", "mlp640: step and", step_forgotten),
    ("features", "extraction again", features_by_chance),
    ("features", "extraction, memory capped", other_bits_where_memory_is_full),
    ("features", "features", full_memory_that_is_not_known),
    ("halved", "halved", full_memory_that_is_not_known),
    (
        "halved",
        "evaluation, memory capped: its",
        lambda p: p.setattr(torch.cuda, "set_per_process_memory_fraction", lambda *_: 0),
    ),
    ("neighbours", "k-NN, collapsed classes, cosine", changed_search(swap)),
    ("neighbours", "k-NN, spread classes, l1", changed_search(shake)),
    ("probe knn", "knn: result", changed_search(shake)),
    ("probe logistic", "logistic: objective", changed_result(weights_off)),
    ("probe svm", "svm: objective", changed_result(weights_off)),
    ("probe logistic", "logistic: gap", changed_result(lambda result: result.report.update(gap=1e-5))),
    ("probe svm", "svm: gap", changed_result(lambda result: result.report.update(converged=False))),
    ("probe svm", "svm: seconds", slow_card),
    ("probe knn", "knn: share", lambda patch: patch.setattr(card_checks, "kernel_seconds", lambda _: 0.0)),
    (
        "float64",
        "float64",
        lambda patch: patch.setattr(gpus, "float64_rate", lambda d: 1e9 if d.type == "cuda" else 2e9),
    ),
]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "row", "fault"), FAULTS, ids=[f"{name}-{row}" for name, row, _ in FAULTS])
def test_each_check_fails_where_what_it_checks_is_broken(
    card: Card, monkeypatch: pytest.MonkeyPatch, name: str, row: str, fault: Callable[[pytest.MonkeyPatch], object]
) -> None:
    fault(monkeypatch)
    assert [found for found in rows_of(card, name) if found.check.startswith(row) and found.result == FAILED]


def test_every_check_has_a_fault() -> None:
    kinds = {name.split(" mlp")[0].split(" lenet")[0].split(" wrn")[0] for name in CHECKS}
    tested = {name.split(" mlp")[0].split(" lenet")[0].split(" wrn")[0] for name, _, _ in FAULTS}
    assert kinds == tested | NOT_SIMULATED


def test_one_fault_stops_no_other_check_and_its_traceback_is_logged(card, monkeypatch, caplog) -> None:
    monkeypatch.setattr(logging.getLogger("dnn_or_knn"), "propagate", True)

    def broken(*_: object) -> None:
        raise ValueError("a fault\nwith more lines")

    monkeypatch.setattr(training_checks, "pictures", broken)
    rows = rows_of(card, "captured mlp640", "architecture")
    assert [(row.check, row.measured, row.result) for row in rows] == [
        ("captured mlp640", "a fault", FAILED),
        ("capability against the wheel", "9.0", OK),
    ]
    assert "Traceback" in caplog.text and "with more lines" in caplog.text


def test_a_device_that_no_longer_answers_ends_its_process(card, monkeypatch) -> None:
    def lost(*_: object) -> None:
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    monkeypatch.setattr(torch.cuda, "synchronize", lost)
    assert [row.check for row in rows_of(card, "architecture", "tf32")] == ["capability against the wheel"]


def test_training_lets_cudnn_time_every_algorithm(card: Card) -> None:
    with training_checks.trainers(card, "lenet", CUDA) as (trainer,):
        trainer.prepare(200)
    assert torch.backends.cudnn.benchmark and torch.backends.cudnn.benchmark_limit == 0


# What is not simulated.


def compiling(trainer: Trainer, steps: int) -> None:
    trainer._logits = torch.compile(trainer._plain_logits, dynamic=False, backend="aot_eager")


def complaining(trainer: Trainer, steps: int) -> None:
    compiling(trainer, steps)
    logging.getLogger("dnn_or_knn").warning("torch.compile failed (fault); going on without it")


@pytest.mark.parametrize(("prepare", "good"), [(compiling, True), (complaining, False), (None, False)])
def test_compilation_is_seen(monkeypatch, prepare, good) -> None:
    """On the CPU, where nothing is compiled unless a test says so."""
    if prepare:
        monkeypatch.setattr(Trainer, "prepare", prepare)
    rows = list(training_checks.compiled(Card(CPU, SMALL)))
    torch.compiler.reset()
    assert [row.result for row in rows] == [OK if good else FAILED, OK]


@pytest.mark.parametrize(
    ("eager", "ours", "rate", "bf16", "expected"),
    [
        (1000, 3100, 200e12, True, [OK, OK, OK]),
        (1000, 2900, 100e12, True, [OK, FAILED, OK]),
        (1000, 3100, 400e12, True, [OK, OK, FAILED]),
        (1000, 1100, 1.0, False, [OK, OK, SKIPPED]),
        (1000, 900, 1.0, False, [OK, FAILED, SKIPPED]),
    ],
)
def test_speed_is_judged(monkeypatch, eager, ours, rate, bf16, expected) -> None:
    monkeypatch.setattr(training_checks, "eager_rate", lambda *_: eager)
    monkeypatch.setattr(training_checks, "our_rate", lambda *_: ours)
    monkeypatch.setattr(training_checks, "product_rate", lambda *_: rate)
    monkeypatch.setattr(training_checks, "training_flop", lambda: 31.5e9)
    monkeypatch.setattr(Card, "has_bf16", lambda _: bf16)
    rows = list(gpu_check.attempt("throughput", training_checks.throughput, Card(CPU, SMALL)))
    assert [row.result for row in rows] == expected


def test_the_loops_whose_speed_is_compared_run(monkeypatch) -> None:
    monkeypatch.setattr(training_checks, "WRN_28_10", {"module": "wrn", "depth": 10, "width": 1})
    monkeypatch.setattr(training_checks, "per_second", lambda step, *_: [step() for _ in range(2)] and 5.0)
    cpu = Card(CPU, SMALL)
    assert training_checks.eager_rate(cpu, 4) == training_checks.our_rate(cpu, 4) == 20.0
    assert 1e7 < training_checks.training_flop() < 1e9


def test_the_time_of_kernels_is_their_sum(monkeypatch) -> None:
    kinds = torch.autograd.DeviceType
    events = [
        SimpleNamespace(device_type=kind, time_range=SimpleNamespace(elapsed_us=lambda: 250_000.0))
        for kind in (kinds.CUDA, kinds.CPU, kinds.CUDA)
    ]
    profiler = contextlib.nullcontext(SimpleNamespace(events=lambda: events))
    monkeypatch.setattr(torch.profiler, "profile", lambda activities: profiler)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda *_: None)
    assert kernel_seconds(lambda: None) == 0.5


def test_a_slow_float64_is_said(monkeypatch, caplog) -> None:
    monkeypatch.setattr(logging.getLogger("dnn_or_knn"), "propagate", True)
    for there, said in ((2e9, False), (0.5e9, True)):
        caplog.clear()
        monkeypatch.setattr(gpus, "float64_rate", lambda device, there=there: there if device.type == "cuda" else 1e9)
        gpus.warn_if_float64_is_slow(CUDA)
        assert ("device: cpu" in caplog.text) == said
    assert gpus.float64_rate(CPU, 64) >= 0


# Processes.


def obedient(names: list[str], channel: Any) -> None:
    channel.send((gpu_check.CARD, "a card"))
    for name in names:
        if name == "dies":
            os.kill(os.getpid(), signal.SIGKILL)
        if name == "hangs":
            time.sleep(600)
        channel.send((gpu_check.ROW, Row(name, str(os.getpid()), "", OK)))
        channel.send((gpu_check.DONE, name))
        if name == "last":
            return


def none(names: list[str], channel: Any) -> None:
    channel.send((gpu_check.NONE, "no GPU"))


def supervised(*names: str) -> list[Row]:
    found = gpu_check.supervise(names, obedient, lambda *_: None, limit=5.0, method="fork")
    assert found is not None
    return found


@pytest.mark.parametrize("fault", ["dies", "hangs"])
def test_a_check_that_ends_its_process_or_hangs_has_failed_and_the_next_ones_are_made(fault: str) -> None:
    rows = supervised("first", fault, "second")
    assert [(row.check, row.result) for row in rows] == [("first", OK), (fault, FAILED), ("second", OK)]


def test_the_checks_after_a_lost_device_get_a_fresh_process() -> None:
    rows = supervised("last", "next")
    assert [row.result for row in rows] == [OK, OK] and rows[0].measured != rows[1].measured


def test_without_a_card_nothing_is_checked() -> None:
    said = []
    assert gpu_check.supervise(["a"], none, lambda *what: said.append(what), method="fork") is None
    assert said == [(gpu_check.NONE, "no GPU")]


@pytest.mark.parametrize(
    ("results", "status"), [([OK, SKIPPED], 0), ([OK, FAILED, OK], 1), (None, 2)], ids=["good", "bad", "no card"]
)
def test_the_status_says_how_it_went(monkeypatch, tmp_path, results, status) -> None:
    rows = None if results is None else [Row("a", "1", "2", result) for result in results]
    monkeypatch.setattr(gpu_check, "supervise", lambda *_: rows)
    assert gpu_check.main(["a"], tmp_path / "log") == status


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_a_machine_without_a_gpu_says_so_in_one_line(tmp_path: Path) -> None:
    command = [sys.executable, str(SCRIPTS / "gpu_check.py"), "--log", str(tmp_path / "log")]
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 2 and done.stdout.count("\n") == 1 and done.stdout.startswith("nothing was checked: ")
    assert done.stderr == ""
