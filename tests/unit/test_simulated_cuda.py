"""The simulated GPU refuses and counts what a GPU refuses and waits for, and else computes what the CPU computes."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch
from simulated_cuda import SimulatedCuda, simulated


@pytest.fixture
def device() -> Iterator[SimulatedCuda]:
    with simulated() as device:
        yield device


def there(*shape: int) -> torch.Tensor:
    return torch.arange(float(np.prod(shape)), device="cuda").view(shape)


def test_tensors_go_there_and_come_back(device: SimulatedCuda) -> None:
    values = np.arange(6.0).reshape(2, 3)
    for made in (torch.as_tensor(values, device="cuda"), torch.from_numpy(values).to("cuda"), torch.ones(3).cuda()):
        assert made.device == torch.device("cuda", 0) and made.cpu().device.type == "cpu"
    assert there(3).tolist() == [0.0, 1.0, 2.0] and float(there(3).sum()) == 3.0
    for made in (torch.zeros(2, device="cuda"), torch.tensor([1.0], device="cuda"), there(2).new_ones(2)):
        assert (made + there(2)).device.type == torch.zeros_like(made).device.type == "cuda"
    assert there(2).to("cuda").dtype == torch.float32 and torch.ones(2).device.type == "cpu"


def test_views_share_memory(device: SimulatedCuda) -> None:
    base = torch.zeros(4, 4, device="cuda")
    base.T[1] += 1
    base.diagonal().mul_(5)
    torch.mm(there(2, 2), there(2, 2), out=base[2:, 2:])
    base[base == 1] = 7.0
    expected = torch.tensor([[0.0, 7, 0, 0], [0, 5, 0, 0], [0, 7, 2, 3], [0, 7, 6, 11]])
    assert torch.equal(base.cpu(), expected)


REFUSED: dict[str, tuple[type[Exception], Callable[[], object]]] = {
    "sum": (RuntimeError, lambda: there(3) + torch.ones(3)),
    "sum with a number on the GPU": (RuntimeError, lambda: torch.ones(3) + there(1)[0]),
    "sum into a number on the CPU": (RuntimeError, lambda: torch.tensor(1.0).add_(there(1)[0])),
    "product": (RuntimeError, lambda: there(2, 2) @ torch.ones(2, 2)),
    "out": (RuntimeError, lambda: torch.mm(there(2, 2), there(2, 2), out=torch.ones(2, 2))),
    "concatenation": (RuntimeError, lambda: torch.cat([there(2), torch.ones(2)])),
    "choice": (RuntimeError, lambda: torch.where(there(2) > 0, there(2), torch.ones(2))),
    "gather": (RuntimeError, lambda: there(2).gather(0, torch.zeros(1, dtype=torch.int64))),
    "scatter": (RuntimeError, lambda: there(2).scatter_(0, torch.zeros(1, dtype=torch.int64), there(1))),
    "selection": (RuntimeError, lambda: there(2).index_select(0, torch.zeros(1, dtype=torch.int64))),
    "bisection": (RuntimeError, lambda: torch.searchsorted(there(3), torch.tensor(1.0))),
    "index into the CPU": (RuntimeError, lambda: torch.ones(3)[there(2).long()]),
    "mask into the CPU": (RuntimeError, lambda: torch.ones(3)[there(3) > 0]),
    "values written": (RuntimeError, lambda: there(3).index_put_((torch.tensor([0, 1]),), torch.ones(2))),
    "product of integers": (RuntimeError, lambda: there(2, 2).long() @ there(2, 2).long()),
    "numpy": (TypeError, lambda: there(2).numpy()),
    "asarray": (TypeError, lambda: np.asarray(there(2))),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_a_gpu_refuses_is_refused(device: SimulatedCuda, name: str) -> None:
    error, operation = REFUSED[name]
    with pytest.raises(error, match=r"same device|only|indices|not implemented|convert cuda"):
        operation()


def test_what_a_gpu_allows_is_allowed(device: SimulatedCuda) -> None:
    three = there(3)
    three += torch.tensor(1.0)
    three[torch.tensor([0, 2])] = 5.0
    three[torch.tensor([True, False, False])] *= 2
    three[1] = torch.tensor(3.0)
    assert three[torch.tensor([2, 1, 0])].tolist() == [5.0, 3.0, 10.0]
    assert torch.ones(3).copy_(three).tolist() == [10.0, 3.0, 5.0]


WAITS: dict[str, tuple[int, Callable[[], object]]] = {
    "a sum": (0, lambda: (there(4) * 2).sum()),
    "a choice": (0, lambda: there(4).masked_fill(there(4) > 1, 0.0)),
    "a number": (1, lambda: float(there(4).sum())),
    "a truth": (1, lambda: bool(there(4).any())),
    "places": (1, lambda: there(4).nonzero()),
    "a mask read": (1, lambda: there(4)[there(4) > 1]),
    "a mask written": (0, lambda: there(4).index_put_((there(4) > 1,), there(1)[0])),
    "a copy back": (1, lambda: there(4).cpu()),
    "a copy there": (1, lambda: torch.ones(4).to("cuda")),
    "a copy back that is not waited for": (
        0,
        lambda: torch.empty(4, pin_memory=True).copy_(there(4), non_blocking=True),
    ),
    "a copy there that is not waited for": (0, lambda: torch.ones(4).pin_memory().to("cuda", non_blocking=True)),
    "a copy from memory that is not pinned": (1, lambda: torch.ones(4).to("cuda", non_blocking=True)),
    "eigenvalues": (1, lambda: torch.linalg.eigh(there(1, 1))),
    "a factor": (0, lambda: torch.linalg.cholesky_ex(there(1, 1) + 1)),
}


@pytest.mark.parametrize("name", WAITS)
def test_waiting_is_counted(device: SimulatedCuda, name: str) -> None:
    expected, operation = WAITS[name]
    operation()
    assert sum(device.waits.values()) == expected


def test_nothing_of_it_is_left() -> None:
    with simulated():
        left = there(2)
    with pytest.raises(RuntimeError, match="outside"):
        left + 1
    assert torch.equal(torch.tensor([1.0]) + 1, torch.tensor([2.0]))
