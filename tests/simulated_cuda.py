"""A CUDA device made of CPU memory: real code computes real numbers under the rules of a GPU, where there is none.

A tensor on it says that it is on ``cuda:0`` and holds a CPU tensor, on which every operation is run; views share memory
as they do anywhere. What a GPU refuses is refused: operands on two devices, indices on the GPU into a tensor on the CPU,
``numpy()``, products of integers. What makes the host wait is counted. Backward passes, streams, compiled functions and a
GPU's own rounding are not simulated.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator
from typing import Any
from unittest import mock

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

aten = torch.ops.aten
CPU, CUDA = torch.device("cpu"), torch.device("cuda", 0)
#: Operations whose indices may be on the CPU.
INDEXING = {aten.index, aten.index_put, aten.index_put_, aten._index_put_impl_}
#: Operations beside the elementwise ones that take a CPU tensor without axes for a number.
TAKE_NUMBERS = {*INDEXING, aten.masked_fill, aten.masked_fill_, aten.fill_}
#: Operations that a GPU has for floating types alone.
PRODUCTS = {aten.mm, aten.bmm, aten.mv, aten.dot, aten.addmm, aten.addmm_, aten.addmv, aten.baddbmm}
#: Operations for which the host waits: for a number, a size, or whether a factorization succeeded.
WAITING = {
    aten._local_scalar_dense,
    aten.nonzero,
    aten.masked_select,
    aten.bincount,
    aten.equal,
    aten._unique2,
    aten._linalg_eigh,
    aten._linalg_svd,
    aten._linalg_check_errors,
}


class CudaTensor(torch.Tensor):
    """A tensor on the simulated device; `held` has its values."""

    held: torch.Tensor

    @staticmethod
    def __new__(cls, held: torch.Tensor) -> CudaTensor:
        made = torch.Tensor._make_wrapper_subclass(
            cls,
            held.shape,
            strides=held.stride(),
            storage_offset=held.storage_offset(),
            dtype=held.dtype,
            device=CUDA,
        )
        made.held = held
        return made

    def __repr__(self, *, tensor_contents: object = None) -> str:
        return f"cuda:{self.held!r}"

    def numpy(self, **_: object) -> Any:
        raise TypeError("can't convert cuda:0 device type tensor to numpy. Use Tensor.cpu() to copy the tensor first.")

    def __array__(self, *_: object, **__: object) -> Any:
        return self.numpy()

    def tolist(self) -> Any:
        return self.cpu().tolist()

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # type: ignore[override]
        raise RuntimeError(f"{func} on a tensor of the simulated device, outside of `simulated`")


class SimulatedCuda(TorchDispatchMode):
    """The device. `waits` counts, by operation, how often the host waited for it; "copy" is one between the devices.

    `forbidden`: whether to wait is an error, as after `torch.cuda.set_sync_debug_mode("error")`. `limit`: bytes of one tensor
    above which memory is full; `largest`: those of the largest tensor made.
    """

    def __init__(self) -> None:
        super().__init__()
        self.waits: Counter[str] = Counter()
        self.forbidden = False
        self.limit: float = float("inf")
        self.largest = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        packet = func.overloadpacket
        leaves = tree_leaves((args, kwargs))
        there = any(isinstance(leaf, CudaTensor) for leaf in leaves)
        wanted = kwargs.get("device")
        goes = there if wanted is None else torch.device(wanted).type == "cuda"
        if wanted is not None:
            kwargs["device"] = CPU
        pinned = bool(kwargs.pop("pin_memory", False)) or packet is aten._pin_memory
        if packet in (aten._to_copy, aten.copy_):
            self._count_copy(packet, args, kwargs, goes)
        elif there:
            self._check(func, args, [leaf for leaf in leaves if isinstance(leaf, torch.Tensor)])
            self._count(packet, args)
        if packet is aten._pin_memory:
            made = args[0].clone()
        else:
            made = func(*tree_map(_held, args), **tree_map(_held, kwargs))
        if goes:
            self._allocate(made)
        arguments = zip(func._schema.arguments, [*args, *[None] * len(func._schema.arguments)], strict=False)
        written = [kwargs.get(a.name, given) for a, given in arguments if a.alias_info and a.alias_info.is_write]
        if written:  # what was written in place, or through `out`, is what comes back
            return written[0] if isinstance(made, torch.Tensor) else None if made is None else tuple(written)
        if pinned:
            made.pinned = True
        return (
            tree_map(lambda leaf: CudaTensor(leaf) if isinstance(leaf, torch.Tensor) else leaf, made) if goes else made
        )

    def _check(self, func: Any, args: Any, tensors: list[torch.Tensor]) -> None:
        """Raise what a GPU raises for operands that it cannot take."""
        packet = func.overloadpacket
        if packet in INDEXING:
            tensors = [args[0], *args[2:3]]
            if not isinstance(args[0], CudaTensor):
                raise RuntimeError("indices should be either on cpu or on the same device as the indexed tensor (cpu)")
        numbers = packet in TAKE_NUMBERS or torch.Tag.pointwise in func.tags
        writes = any(
            argument.alias_info is not None and argument.alias_info.is_write for argument in func._schema.arguments
        )
        for position, tensor in enumerate(tensors):
            is_number = tensor.ndim == 0 and numbers and not (writes and position == 0)
            if not isinstance(tensor, CudaTensor) and not is_number:
                raise RuntimeError(f"Expected all tensors to be on the same device, but found cuda:0 and cpu ({func})")
        if packet in PRODUCTS and not args[0].dtype.is_floating_point:
            raise RuntimeError(f"{func} not implemented on cuda for {args[0].dtype}")

    def _allocate(self, made: Any) -> None:
        for leaf in tree_leaves(made):
            if isinstance(leaf, torch.Tensor):
                self.largest = max(self.largest, leaf.nbytes)
                if leaf.nbytes > self.limit:
                    raise torch.OutOfMemoryError("CUDA out of memory")

    def _wait(self, operation: str) -> None:
        self.waits[operation] += 1
        if self.forbidden:
            raise RuntimeError(f"called a synchronizing CUDA operation: {operation}")

    def _count(self, packet: Any, args: Any) -> None:
        if packet in WAITING:
            self._wait(packet.__name__)
        elif packet in INDEXING:
            masks = any(index is not None and index.dtype in (torch.bool, torch.uint8) for index in args[1])
            # A number written where a mask says is filled in without a look at the mask.
            if masks and not (len(args) > 2 and args[2].numel() == 1 and len(args[1]) == 1):
                self._wait("mask as index")

    def _count_copy(self, packet: Any, args: Any, kwargs: Any, goes: bool) -> None:
        target, source = args[:2] if packet is aten.copy_ else (None, args[0])
        to_cuda = goes if target is None else isinstance(target, CudaTensor)
        if to_cuda != isinstance(source, CudaTensor):
            host = source if to_cuda else target
            asynchronous = kwargs.get("non_blocking") or (packet is aten.copy_ and len(args) > 2 and args[2])
            if not (asynchronous and getattr(host, "pinned", False)):
                self._wait("copy")


def _held(leaf: Any) -> Any:
    return leaf.held if isinstance(leaf, CudaTensor) else leaf


@contextlib.contextmanager
def simulated() -> Iterator[SimulatedCuda]:
    """Let ``cuda`` be the simulated device."""

    def tensor(data: Any, *, device: Any = None, **options: Any) -> torch.Tensor:
        """Take the place of `torch.tensor`, which the dispatcher does not see."""
        return real(data, **options).to(device)

    real = torch.tensor
    torch._C._ensureCUDADeviceGuardSet()  # as for fake tensors
    with (
        mock.patch.object(torch.cuda, "_lazy_init"),
        mock.patch.object(torch, "tensor", tensor),
        # A module that moves is given new parameters: the old ones cannot become another class's.
        mock.patch.object(torch.__future__, "get_overwrite_module_params_on_conversion", lambda: True),
        torch.backends.cudnn.flags(enabled=False),
        SimulatedCuda() as device,
    ):
        yield device


class Event:
    """An event on the simulated device, where everything is done at once."""

    def __init__(self, **_: object) -> None: ...

    def record(self, *_: object) -> None: ...

    def synchronize(self) -> None: ...

    def query(self) -> bool:
        return True
