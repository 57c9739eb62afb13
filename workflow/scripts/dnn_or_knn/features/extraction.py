"""Features of all images at the evaluations of one run: embedding and logits, or every probe point.

One forward pass an evaluation, batch norm in evaluation mode, no augmentation. The images lie on the device as uint8
and what a pass makes stays there until the evaluation is done; while the device computes, one thread reads the next weights
and another writes the last evaluation's arrays. Each finished evaluation is on disk with a record of its digests, from
which an interrupted job goes on.
"""

from __future__ import annotations

import functools
import pickle
import re
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from .. import numerics
from ..networks.input import standardize
from ..networks.parts import ProbePoint
from ..runtime import files
from ..runtime.errors import UserError, nearest
from ..runtime.progress import Progress, log
from ..runtime.resume import State

#: What a network computes of one batch of uint8 images: features by probe point, and "logits".
Forward = Callable[[torch.Tensor], dict[str, torch.Tensor]]
#: CPU caches make small batches faster than large ones.
CPU_BATCH = 100
#: Compilation takes half a minute, once a machine; it pays from about so many FLOP a run on.
COMPILE_FROM = 5e15
LOGITS = "logits"


@dataclass(frozen=True)
class Job:
    """One shard: what is computed of which images, from which weights, and where it goes."""

    run: str
    network: nn.Module
    points: Sequence[ProbePoint]
    #: what `input` is: "pixels" or "mean", see `input_features`
    input_layer: str
    steps: Sequence[int]
    #: "train" and "test": uint8 (N, channels, size, size)
    splits: Mapping[str, np.ndarray]
    #: what `arithmetic` returned
    how: Mapping[str, Any]
    checkpoints: Path
    #: the training manifest's listing of `checkpoints`
    listing: Mapping[str, Mapping[str, Any]]
    state: State


def select(
    network: nn.Module, wanted: str | Sequence[str], *, input_layer: str = "pixels", channels: int = 1
) -> list[ProbePoint]:
    """Return the probe points that are wanted, in the network's order, with the dimensions that they are written in.

    Parameters
    ----------
    wanted: names, or "hidden" for all but the embedding.
    input_layer: what `input` is, see `input_features`; `channels`: of the images.

    Raises
    ------
    UserError: the network has no such probe point.
    """
    points: tuple[ProbePoint, ...] = network.probe_points  # type: ignore[assignment]
    names = {point.name for point in points}
    if isinstance(wanted, str):
        if wanted != "hidden":
            raise UserError(f"layers is '{wanted}' but must be 'hidden' or a list of probe points; correct `layers`")
        wanted = sorted(names - {"embedding"})
    for name in wanted:
        if name not in names:
            raise UserError(f"layers names '{name}', which the network does not have{nearest(name, names)}")
    chosen = [point for point in points if point.name in wanted]
    if input_layer == "pixels":
        return chosen
    return [point._replace(dimensions=channels) if point.name == "input" else point for point in chosen]


def input_features(pixels: np.ndarray, how: str) -> np.ndarray:
    """Return the features of the probe point `input`, float32: the stored pixels, before standardization, in 0 … 1.

    Standardization would leave no information in the mean. "pixels": flattened, (N, channels · size · size).
    "mean": the mean of each channel, (N, channels), as in the authors' layer experiment.
    """
    if how == "pixels":
        return np.divide(pixels.reshape(len(pixels), -1), np.float32(255), dtype=np.float32)
    if how == "mean":
        sums = pixels.sum(axis=(2, 3), dtype=np.int64)
        return (sums / (255 * pixels.shape[2] * pixels.shape[3])).astype(np.float32)
    raise UserError(f"input_layer is '{how}' but must be pixels or mean; correct `layer_input`")


def forward_function(network: nn.Module, names: Sequence[str], *, device: torch.device, precision: str) -> Forward:
    """Return the function that computes the features of a batch of uint8 images, by name, and the logits of the same embedding.

    Parameters
    ----------
    names: probe points other than `input`.
    precision: what `numerics.set_precision` returned.
    """
    only_embedding = set(names) <= {"embedding"}
    prepare = getattr(network, "standardize", standardize)
    dtype = numerics.dtype(precision)

    def forward(images: torch.Tensor) -> dict[str, torch.Tensor]:
        x = prepare(images, dtype)
        with numerics.autocast(precision, device):
            pooled = {"embedding": network.embed(x)} if only_embedding else network.activations(x)  # type: ignore[operator]
        made = {name: pooled[name] for name in names}
        made[LOGITS] = network.classifier(pooled["embedding"])  # type: ignore[operator]
        return made

    return forward


def evaluate(
    forward: Forward,
    images: torch.Tensor,
    widths: Mapping[str, int],
    batch_size: int,
    *,
    one_shape: bool = False,
    tick: Callable[[int], None] = lambda done: None,
) -> dict[str, torch.Tensor]:
    """Compute the features of all images, name → float32 (N, width) on the images' device.

    Parameters
    ----------
    forward: see `forward_function`.
    images: uint8 (N, channels, size, size).
    widths: name → columns of what `forward` returns.
    batch_size: images at a time.
    one_shape: whether the last batch reaches back to be as large as the others, so that compiled code fits all.
    tick: told the number of images done after each batch.
    """
    total = len(images)
    outputs = {
        name: torch.empty((total, width), dtype=torch.float32, device=images.device) for name, width in widths.items()
    }
    for start in range(0, total, batch_size):
        stop = min(start + batch_size, total)
        begin = max(0, stop - batch_size) if one_shape else start
        made = forward(images[begin:stop])
        for name, output in outputs.items():
            output[begin:stop].copy_(made[name])
        tick(stop)
    return outputs


def first_non_finite(outputs: Mapping[str, torch.Tensor]) -> str | None:
    """Return the name of the first array with a NaN or an infinity, None if all are finite; one synchronisation."""
    # The extremes are NaN where there is one; they are found 15 times as fast as every value is looked at.
    finite = torch.stack([torch.stack(output.aminmax()).isfinite().all() for output in outputs.values()]).tolist()
    return next((name for name, good in zip(outputs, finite, strict=True) if not good), None)


def arithmetic(
    network: nn.Module,
    splits: Mapping[str, np.ndarray],
    spec: Mapping[str, Any],
    *,
    kept: int,
    device: torch.device,
    precision: str,
) -> dict[str, Any]:
    """Return what the bits of a run's features depend on beside weights and images: the same for each of its shards.

    A GPU rounds by the size of a batch, and compiled code otherwise than PyTorch's own. So both come from the specification,
    and the run decides whether compilation pays, not the shard.

    Parameters
    ----------
    network, splits: as in `Job`, still on the CPU.
    spec: see `batch_of`, and "compile", whether it may be compiled.
    kept: evaluations of the whole run whose weights are kept.
    device, precision: what `gpus.resolve` and `numerics.set_precision` returned.
    """
    cuda = device.type == "cuda"
    work = kept * sum(map(len, splits.values()))
    compiled = cuda and spec["compile"] and _flop(network, splits["train"]) * work >= COMPILE_FROM
    return {"device": device.type, "precision": precision, "batch_size": batch_of(spec, device), "compiled": compiled}


def batch_of(spec: Mapping[str, Any], device: torch.device) -> int:
    """Return how many images are evaluated at a time.

    Parameters
    ----------
    spec: "batch_size", those of a GPU; a CPU takes at most `CPU_BATCH`, or "cpu_batch" of images that are large.
    """
    if device.type == "cuda":
        return int(spec["batch_size"])
    return int(min(spec["batch_size"], spec.get("cpu_batch", CPU_BATCH)))


def extract(job: Job, *, device: torch.device) -> dict[str, Any]:
    """Compute and write every evaluation of a shard that is not yet finished in `job.state`.

    The arrays lie in `job.state.kept` as ``features/step000100_embedding_train.npy`` and ``logits/step000100_train.npy``.

    Parameters
    ----------
    device: what `gpus.resolve` returned.

    Returns
    -------
    ``{"files": listing, "evaluations": step → how it was computed, "resumed": how many were taken over}``.

    Raises
    ------
    UserError: damaged or missing weights, features that are not finite, a full disk, no compiler where one is needed.
    """
    records = {step: record for step in job.steps if (record := job.state.finished(_part(step)))}
    todo = [step for step in job.steps if step not in records]
    resumed = len(records)
    if resumed:
        log.info("%d of %d evaluations were finished before", resumed, len(job.steps))
    precision = job.how["precision"]
    network = job.network.to(device=device, dtype=numerics.dtype(precision), memory_format=torch.channels_last)  # type: ignore[call-overload]
    network.eval().requires_grad_(False)
    names = [point.name for point in job.points if point.name != "input"]
    forward = forward_function(network, names, device=device, precision=precision)
    # Features that were released are extracted again and must be the same bits: no stopwatch chooses the algorithm.
    torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic = False, True
    splits = {name: _resident(pixels, device) for name, pixels in job.splits.items()}
    per_step = sum(map(len, splits.values()))
    with torch.no_grad(), ThreadPoolExecutor(1) as reader, ThreadPoolExecutor(1) as writer:
        if job.how["compiled"]:
            forward = numerics.compiled(forward, device, same_bits=True)
        progress = Progress("features", per_step * len(todo), "images")
        reading = reader.submit(_read, job, todo[0]) if todo else None
        writing: Future[dict[str, Any]] | None = None
        try:
            for position, step in enumerate(todo):
                assert reading is not None
                _load(network, reading.result(), job, step)
                reading = reader.submit(_read, job, todo[position + 1]) if position + 1 < len(todo) else None
                before = position * per_step
                arrays = _evaluate_splits(job, forward, splits, step, progress, before)
                if writing is not None:
                    records[todo[position - 1]] = writing.result()
                writing = writer.submit(_write, job, step, arrays)
                progress.update(before + per_step, f"step {step}")
            if writing is not None:
                records[todo[-1]] = writing.result()
        finally:
            for future in (reading, writing):
                if future is not None:
                    future.cancel()
    made = {name: entry for step in job.steps for name, entry in records[step]["files"].items()}
    return {
        "files": made,
        "evaluations": {str(step): records[step]["how"] for step in job.steps},
        "resumed": resumed,
    }


def _resident(pixels: np.ndarray, device: torch.device) -> torch.Tensor:
    if hasattr(pixels, "on"):  # they stay on disk
        return pixels.on(device)
    return torch.from_numpy(pixels).to(device).contiguous(memory_format=torch.channels_last)


def _evaluate_splits(
    job: Job,
    forward: Forward,
    splits: Mapping[str, torch.Tensor],
    step: int,
    progress: Progress,
    before: int,
) -> dict[str, np.ndarray]:
    """Return one evaluation's arrays by their relative paths."""
    widths = {point.name: point.dimensions for point in job.points if point.name != "input"}
    widths[LOGITS] = job.network.classifier.out_features  # type: ignore[union-attr, assignment]
    arrays: dict[str, np.ndarray] = {}
    for split, images in splits.items():
        tick = functools.partial(_tick, progress, before)
        one_shape = images.device.type == "cuda"
        outputs = evaluate(forward, images, widths, job.how["batch_size"], one_shape=one_shape, tick=tick)
        before += len(images)
        if (name := first_non_finite(outputs)) is not None:
            raise UserError(
                f"{job.run}: {name} of the {split} images at step {step} is not finite; "
                "the training diverged there: lower its learning_rate, or leave this evaluation out"
            )
        for name, output in outputs.items():
            arrays[_path(step, name, split)] = output.cpu().numpy()
        if any(point.name == "input" for point in job.points):
            arrays[_path(step, "input", split)] = input_features(job.splits[split], job.input_layer)
    return arrays


def _tick(progress: Progress, before: int, done: int) -> None:
    progress.update(before + done)


def _path(step: int, name: str, split: str) -> str:
    if name == LOGITS:
        return f"{LOGITS}/step{step:06d}_{split}.npy"
    return f"features/step{step:06d}_{name}_{split}.npy"


def _flop(network: nn.Module, pixels: np.ndarray) -> float:
    """Return the floating-point operations of one image's forward pass, counted on the CPU."""
    from torch.utils.flop_counter import FlopCounterMode

    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        prepare = getattr(network, "standardize", standardize)
        network.eval()(prepare(torch.from_numpy(np.array(pixels[:1])), torch.float32))
    return float(counter.get_total_flops())


# Weights.


def _read(job: Job, step: int) -> Any:
    """Return the contents of one checkpoint file, after comparing it with the training manifest."""
    name = f"step{step:06d}.pt"
    if name not in job.listing:
        kept = sorted(int(n.group(1)) for n in map(re.compile(r"step(\d+)\.pt").fullmatch, job.listing) if n)
        raise UserError(
            f"{job.run}: no weights are kept of step {step}, only of {kept}; add it to the training's checkpoints"
        )
    files.check(job.checkpoints, job.listing, [name])
    try:
        return torch.load(job.checkpoints / name, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        if numerics.is_out_of_memory(error):
            raise
        raise UserError(
            f"{job.checkpoints / name} holds something else than weights, and was not executed; delete {job.checkpoints} and "
            "train again"
        ) from error


def _load(network: nn.Module, content: Any, job: Job, step: int) -> None:
    """Load weights into the network."""
    path = job.checkpoints / f"step{step:06d}.pt"
    if not isinstance(content, dict) or content.get("step") != step or "model" not in content:
        raise UserError(f"{path} does not hold the weights of step {step}; delete {job.checkpoints} and train again")
    try:
        network.load_state_dict(content["model"])
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{path} holds the weights of another network ({reason}); train again") from error


def _write(job: Job, step: int, arrays: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Write one evaluation's arrays, then the record that says that it is finished."""
    for name, array in arrays.items():
        files.write_npy(job.state.kept / name, array)
    return job.state.finish(_part(step), arrays, how=dict(job.how))


def _part(step: int) -> str:
    return f"step{step:06d}"
