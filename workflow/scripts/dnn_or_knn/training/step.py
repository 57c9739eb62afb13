"""Steps of training: SGD with Nesterov momentum on a data set that lies on the device.

One step minimises the mean softmax cross-entropy of a batch plus λ/2 · ‖w‖², whose gradient λ·w is added to the
cross-entropy's:

    g ← ∇ + λ·w,   v ← μ·v + g,   w ← w − η·(g + μ·v)

This is PyTorch's SGD. TensorFlow 1's MomentumOptimizer, the authors', follows the same rule: its accumulator, too, holds
gradients without the learning rate. (The classical form v ← μ·v − η·g differs from it in the steps after a change of η.)

Everything random at a step is a function of (seed, step): the sample order of an epoch of (seed, epoch), the augmentation
of (seed, step). It is drawn in integer arithmetic, equal on CPU and GPU, so neither evaluations nor interruptions can shift
it. On a CPU the trajectory is a function of the specification and the data alone, bit for bit, given libraries, processor and
number of threads. On a GPU it is so up to rounding, which grows from step to step: a stopwatch chooses cuDNN's algorithms, sums of gradients have no fixed
order, and whether steps are compiled depends on the machine and, in a run that goes on, on how many are left.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn
from torch.optim.sgd import sgd  # the function: torch.optim.SGD imports all of torch.compile, seconds of a short job

from .. import numerics
from ..networks.input import standardize
from ..runtime.errors import UserError
from .batches import PLAN, Batches, Images
from .losses import Losses

log = logging.getLogger("dnn_or_knn")
#: Half of the steps that the host may be ahead of a GPU: enough to keep it fed, few enough to stop quickly.
RUN_AHEAD = 8
#: Compilation takes about a minute: it pays for networks with more convolutions, in runs of at least so many steps.
COMPILE_CONVOLUTIONS, COMPILE_STEPS = 4, 2000


def learning_rate(training: Mapping[str, Any], step: int) -> float:
    """Return the learning rate of a step, the first being 0."""
    decays = sum(step >= decay for decay in training["decay_at"])
    return float(training["learning_rate"]) * float(training["decay_factor"]) ** decays


def decayed(parameter: torch.Tensor, decay_on: str) -> bool:
    """Say whether weight decay acts on a parameter. "all": on each; "weights": on those of convolutions and fully connected
    layers alone, which are the ones with two axes or more."""
    if decay_on not in ("all", "weights"):
        raise UserError(f"training.weight_decay_on is '{decay_on}' but must be all or weights; correct it")
    return decay_on == "all" or parameter.ndim > 1


class Trainer:
    """A network in training: `advance` makes steps, `read` returns their losses, `snapshot` and `restore` are its state.

    Nothing in `advance` waits for the device, but for the bound on how far the host may be ahead. On a GPU the whole step
    (batch, augmentation, forward, backward, update) is one CUDA graph, and deep networks are compiled as well.

    `lock` is held while step count, weights, momentum and what `read` returns change; a thread that holds it sees a whole state.
    """

    def __init__(
        self,
        network: nn.Module,
        training: Mapping[str, Any],
        data: Images,
        *,
        seed: int,
        device: torch.device,
        precision: str = "float32",
    ) -> None:
        """
        Parameters
        ----------
        network: on the CPU or `device`; it is moved to `device` in the precision's dtype.
        training: the specification's part of that name.
        data: the training images and labels, on `device`.
        precision: as `numerics.set_precision` returned it.
        """
        self.device, self.precision, self.training, self.seed = device, precision, training, seed
        self.step = 0
        self.lock = threading.RLock()
        self.convolutions = sum(isinstance(module, nn.Conv2d) for module in network.modules())
        self._layout = torch.channels_last if self.convolutions else torch.contiguous_format
        self._standardize = getattr(network, "standardize", standardize)
        self.network = network.to(device, numerics.dtype(precision)).to(memory_format=self._layout).train()
        self.batches = Batches(data, training, seed)
        self.losses = Losses(device, numerics.dtype(precision))
        # A CUDA graph reads the learning rate from the device; the CPU's kernel takes it as it is, in double precision.
        self._rate: float | torch.Tensor = torch.zeros((), device=device) if device.type == "cuda" else 0.0
        self._rate_sent: float | None = None
        self._parameters = dict(self.network.named_parameters())
        # Momentum starts at 0, so that the first step's is the gradient, as PyTorch's is.
        self._momentum = {name: torch.zeros_like(p) for name, p in self._parameters.items() if training["momentum"]}
        decay, decay_on = training["weight_decay"], training["weight_decay_on"]
        names = {name: decay if decayed(p, decay_on) else 0.0 for name, p in self._parameters.items()}
        self._groups = [(value, [n for n in names if names[n] == value]) for value in sorted(set(names.values()))]
        self._logits: Callable[[torch.Tensor], torch.Tensor] = self._plain_logits
        self._graph: torch.cuda.CUDAGraph | None = None
        self._buffers_before: dict[str, torch.Tensor] | None = None
        self._behind: deque[torch.cuda.Event] = deque()

    def prepare(self, steps: int) -> None:
        """Make steps fast before `steps` of them are made: on a GPU, compile and capture. On the CPU nothing is to be done."""
        if self.device.type != "cuda":
            return
        if self.convolutions > COMPILE_CONVOLUTIONS and steps >= COMPILE_STEPS:
            self._logits = numerics.compiled(self._plain_logits, self.device)
        # Every algorithm is timed, not the ten first ones.
        torch.backends.cudnn.benchmark, torch.backends.cudnn.benchmark_limit = True, 0
        with self.lock:
            self.batches.go_to(self.step)
            if not self._capture() and self._logits != self._plain_logits:
                self._logits = self._plain_logits
                self._capture()

    def advance(self) -> None:
        """Make one step."""
        self.batches.go_to(self.step)
        self._set_rate(learning_rate(self.training, self.step))
        if self._graph is not None:
            with self.lock:
                self._graph.replay()
                self._count()
        else:
            self._buffers_before = {name: b.clone() for name, b in self.network.named_buffers()}
            loss, correct = self._gradients()
            with self.lock:
                self._update(loss, correct)
                self._count()
                self._buffers_before = None
        if self.device.type == "cuda" and self.step % RUN_AHEAD == 0:
            self._stay_close()

    def read(self, *, wait: bool = False) -> list[tuple[float, int]]:
        """Return (loss, right answers) of each step that has not been read yet, in order. Call it with `lock` held where
        another thread may read as well.

        The loss is the batch's mean cross-entropy. Without `wait`, only what has arrived from the device.
        """
        return self.losses.read(self.step, wait=wait)

    def accuracy(self, data: Images, batch_size: int = 1000, between: Callable[[], None] | None = None) -> float:
        """Return the fraction of images that the network classifies right, in evaluation mode, without augmentation.

        The batch is halved, and stays so, when it does not fit into memory. `between` is called between batches.
        """
        batch_size = min(batch_size, getattr(data.images, "at_a_time", batch_size))  # of images that stay on disk
        self.network.eval()
        right = torch.zeros((), dtype=torch.int64, device=self.device)
        done = 0
        try:
            while done < len(data.labels):
                part = slice(done, done + batch_size)
                try:
                    with torch.no_grad():
                        right += (self._logits(data.images[part]).argmax(1) == data.labels[part]).sum()
                except (RuntimeError, MemoryError) as error:
                    if not numerics.is_out_of_memory(error) or batch_size == 1:
                        raise
                    batch_size = batch_size // 2
                    log.warning("out of memory: evaluating %d images at a time from here on", batch_size)
                    continue
                done += batch_size
                if self.device.type == "cuda":
                    self._stay_close()
                if between is not None:
                    between()
        finally:
            self.network.train()
        return int(right) / len(data.labels)

    def weights(self, *, copy: bool = True) -> dict[str, torch.Tensor]:
        """Return the network's state on the CPU, in the layout in use, as a copy unless it is not wanted."""
        found = self.network.state_dict() | (self._buffers_before or {})
        return {name: tensor.detach().to("cpu", copy=copy) for name, tensor in found.items()}

    def snapshot(self, *, copy: bool = True) -> dict[str, Any]:
        """Return everything that the next steps depend on, on the CPU. Call it with `lock` held, and hold the lock for as
        long as it is in use if it is to be no copy."""
        momentum = {name: buffer.to("cpu", copy=copy) for name, buffer in self._momentum.items()}
        return {"step": self.step, "model": self.weights(copy=copy), "momentum": momentum}

    def restore(self, snapshot: Mapping[str, Any]) -> None:
        """Continue from a snapshot of the same specification."""
        with self.lock, torch.no_grad():
            for name, tensor in self.network.state_dict().items():
                tensor.copy_(snapshot["model"][name])
            for name, buffer in self._momentum.items():
                buffer.copy_(snapshot["momentum"][name])
            self.step = snapshot["step"]
            self.batches.forget()
            self.losses.go_to(self.step)

    def close(self) -> None:
        """Stop the thread that draws batches."""
        self.batches.close()

    # One step.

    def _plain_logits(self, batch: torch.Tensor) -> torch.Tensor:
        x = self._standardize(batch.contiguous(memory_format=self._layout), numerics.dtype(self.precision))
        with numerics.autocast(self.precision, self.device):
            return self.network(x)

    def _gradients(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Forward and backward of the next batch; return its loss and its number of right answers."""
        batch, labels = self.batches.next()
        logits = self._logits(batch)
        loss = nn.functional.cross_entropy(logits, labels)
        loss.backward()
        return loss.detach(), (logits.detach().argmax(1) == labels).sum()

    def _update(self, loss: torch.Tensor, correct: torch.Tensor) -> None:
        for decay, names in self._groups:
            parameters: list[torch.Tensor] = [self._parameters[name] for name in names]
            momentum: list[torch.Tensor | None] = [self._momentum.get(name) for name in names]
            with torch.no_grad():
                sgd(
                    parameters,
                    [p.grad for p in parameters if p.grad is not None],
                    momentum,
                    fused=True,
                    weight_decay=decay,
                    momentum=self.training["momentum"],
                    lr=self._rate,
                    dampening=0.0,
                    nesterov=self.training["nesterov"] and self.training["momentum"] > 0,
                    maximize=False,
                )
        self._forget_gradients()
        self.losses.put(self.batches.slot, loss, correct)
        self.batches.slot += 1

    def _forget_gradients(self) -> None:
        for parameter in self._parameters.values():
            parameter.grad = None

    def _set_rate(self, rate: float) -> None:
        if isinstance(self._rate, torch.Tensor):
            if rate != self._rate_sent:
                self._rate.fill_(rate)
                self._rate_sent = rate
        else:
            self._rate = rate

    def _count(self) -> None:
        """One more step is done."""
        self.step += 1
        self.losses.count(self.step)

    def _stay_close(self) -> None:
        """Wait until the device has done what it had been given when this was called last."""
        event = torch.cuda.Event(blocking=True)
        event.record(torch.cuda.current_stream(self.device))
        self._behind.append(event)
        if len(self._behind) > 1:
            self._behind.popleft().synchronize()

    def _capture(self) -> bool:
        """Capture the whole step as a CUDA graph, and return whether that succeeded; the log says so if not.

        Warming up makes real steps, whose effects are undone.
        """
        changed = [
            *self.network.state_dict().values(),
            *self._momentum.values(),
            self.batches.slot,
            self.losses.losses,
            self.losses.correct,
        ]
        before = [tensor.clone() for tensor in changed]
        stream, graph = torch.cuda.Stream(), torch.cuda.CUDAGraph()
        stream.wait_stream(torch.cuda.current_stream())
        try:
            with torch.cuda.stream(stream):
                for _ in range(3):
                    self._update(*self._gradients())
            torch.cuda.current_stream().wait_stream(stream)
            with torch.cuda.graph(graph, stream=stream, capture_error_mode="thread_local"):
                self._update(*self._gradients())
            self._graph = graph
        except Exception as error:
            if numerics.is_out_of_memory(error):
                raise
            log.warning("no CUDA graph (%s); going on without it", (str(error) or repr(error)).splitlines()[0])
            self._forget_gradients()
            torch.cuda.synchronize()  # what the side stream was given before the error
        with torch.no_grad():
            for tensor, value in zip(changed, before, strict=True):
                tensor.copy_(value)
        self.batches.slot.fill_(self.step % PLAN)
        torch.cuda.synchronize()
        return self._graph is not None
