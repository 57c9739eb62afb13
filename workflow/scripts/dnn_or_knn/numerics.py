"""In which arithmetic a job computes: precision, compiled functions; and what a full memory looks like."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator
from typing import Any, ParamSpec, TypeVar

import torch

from .runtime.errors import UserError

log = logging.getLogger("dnn_or_knn")
P = ParamSpec("P")
R = TypeVar("R")


def set_precision(wanted: str, device: torch.device) -> str:
    """Choose the arithmetic of this process's matrix products and convolutions; return what "auto" came to.

    "float32": IEEE single precision. "tf32": TensorFloat-32 on GPUs that have it. "bf16": bfloat16 autocast (weights
    stay float32), see `autocast`. "float64": double precision throughout, see `dtype`. "auto": bf16 on GPUs that have it,
    else float32.
    """
    if wanted == "auto":
        has_bf16 = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
        wanted = "bf16" if has_bf16 else "float32"
    if wanted not in ("float32", "tf32", "bf16", "float64"):
        raise UserError(
            f"precision is '{wanted}' but must be auto, float32, tf32, bf16 or float64; correct `precision`"
        )
    # Of every library first: torch refuses to tell a precision that differs between them.
    torch.set_float32_matmul_precision("highest")
    torch.backends.cuda.matmul.allow_tf32 = wanted == "tf32"
    torch.backends.cudnn.allow_tf32 = wanted == "tf32"
    return wanted


def autocast(precision: str, device: torch.device) -> contextlib.AbstractContextManager[object]:
    """Return the context in which a network computes at a precision that `set_precision` returned."""
    if precision == "bf16":
        return torch.autocast(device.type, dtype=torch.bfloat16)
    return contextlib.nullcontext()


def dtype(precision: str) -> torch.dtype:
    """Return the type of weights and of standardized images at a precision that `set_precision` returned."""
    return torch.float64 if precision == "float64" else torch.float32


# Memory and compilation.

#: How the CPU's allocator, CUDA's, the driver's, and the libraries' own put it.
OUT_OF_MEMORY = (
    "can't allocate memory",
    "CUDA out of memory",
    "CUDA error: out of memory",
    "Triton Error [CUDA]: out of memory",
    "STATUS_ALLOC_FAILED",
    "DEVICE_ALLOCATION_FAILED",
)


def is_out_of_memory(error: BaseException) -> bool:
    """Say whether an error means that the device's (or the machine's) memory is full."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in OUT_OF_MEMORY)


@contextlib.contextmanager
def memory_told(sentence: str) -> Iterator[None]:
    """Turn a lack of memory into a `UserError` that says this sentence."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise UserError(sentence) from error


def compiled(function: Callable[P, R], device: torch.device, *, same_bits: bool = False) -> Callable[P, R]:
    """Return `function` compiled by torch.compile on a GPU, as it is on the CPU.

    same_bits: whether every call is to compute the same bits on every machine; else a stopwatch chooses how sums are divided.

    Where the first compiled call fails (no C compiler, a GPU that Triton does not know) the plain function takes over,
    with one line in the log (so `function` must not change its arguments), or, with `same_bits`, a `UserError` says so.
    Out of memory passes.
    """
    if device.type != "cuda":
        return function
    options: dict[str, Any] | None = {"deterministic": True} if same_bits else None
    return with_fallback(torch.compile(function, dynamic=False, options=options), None if same_bits else function)


def with_fallback(fast: Callable[P, R], plain: Callable[P, R] | None) -> Callable[P, R]:
    """Return a function that calls `fast`, or `plain` from then on if the first call of `fast` fails: None to refuse then."""
    state = {"works": False, "failed": False}

    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        if state["failed"] and plain is not None:
            return plain(*args, **kwargs)
        try:
            result = fast(*args, **kwargs)
        except Exception as error:
            if state["works"] or is_out_of_memory(error):
                raise
            reason = (str(error).splitlines() or [repr(error)])[0]
            if plain is None:
                raise UserError(
                    f"torch.compile failed ({reason}); without it the features would differ from another machine's in their "
                    "last bits; install a C compiler, or set `jobs.evaluation_compile: false` (all features are then made again)"
                ) from error
            state["failed"] = True
            log.warning("torch.compile failed (%s); going on without it", reason)
            return plain(*args, **kwargs)
        state["works"] = True
        return result

    return call
