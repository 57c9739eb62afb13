"""What `make gpu-check` checks on a card: `CHECKS`, each of which yields the rows of its table, see `gpu_check.py`."""

from __future__ import annotations

import contextlib
import functools
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from .. import numerics
from ..features import extraction
from ..networks.build import create
from ..probes.common import ProbeResult, load
from ..runtime import files, gpus, resume
from ..runtime.errors import UserError
from .card import CLASSES, CPU, NETWORKS, Card, capped, clusters, kernel_seconds, normal, pictures, timed
from .gpu_check import Row, row
from .training_checks import captured, compiled, continued, halved, replays, throughput

#: The probes as configured by default. Their certificates hold to `TOLERANCE` of the optimum.
PROBES: dict[str, dict[str, Any]] = {"knn": {"k_max": 30}, "logistic": {}, "svm": {}}
TOLERANCE = 1e-6
LEASE = "import sys; from pathlib import Path; from dnn_or_knn.runtime import gpus; print(gpus.lease([sys.argv[1]], Path(sys.argv[2]), wait=0), flush=True); sys.stdin.read()"


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
    first, second = (torch.from_numpy(normal(side, side, seed=seed)) for seed in (0, 1))
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


# Features.


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


def _digest(card: Card, network: Mapping[str, Any], folder: Path) -> str:
    """Extract the features of two evaluations and return the digest of their listing."""
    scale = card.scale
    built = create(network, channels=3, size=scale.size, classes=CLASSES)
    weights = folder / "checkpoints"
    weights.mkdir(parents=True, exist_ok=True)
    for step in (0, 1):
        torch.save({"model": built.state_dict(), "step": step}, weights / f"step{step:06d}.pt")
    pixels, _ = pictures(scale.images, scale.size)
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


# Probes.


def neighbours(card: Card) -> Iterator[Row]:
    """The k-NN finds the CPU's neighbours at the CPU's distances, bit for bit, of spread and of collapsed classes."""
    for kind, spread in (("spread", 1.0), ("collapsed", 1e-5)):
        for metric in ("l2", "l1", "cosine"):
            task = clusters(card.scale.neighbours, 100, spread)
            here, there = (fit("knn", task, device, metric=metric).arrays for device in ("cpu", card.device.type))
            same = {name: bool(np.array_equal(here[name], there[name])) for name in here}
            differing = ", ".join(name for name in same if not same[name])
            yield row(f"k-NN, {kind} classes, {metric}", differing or "the CPU's bits", "the CPU's bits", not differing)


def probe(card: Card, kind: str) -> Iterator[Row]:
    """A probe holds its certificate on the card, and is faster there than on the CPU."""
    task = clusters(card.scale.points, card.scale.dimensions, 1.0)
    fit(kind, clusters(200, 8, 1.0), card.device.type)  # starts the libraries
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


def fit(kind: str, task: tuple[np.ndarray, ...], device: str, **options: Any) -> ProbeResult:
    """Return a probe's result on made-up features."""
    train, labels, test = task
    options = {**PROBES[kind], **options}
    return load(kind)(train, labels, test, classes=CLASSES, options=options, seed=0, device=device)


def above(kind: str, task: tuple[np.ndarray, ...], result: ProbeResult) -> float:
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
