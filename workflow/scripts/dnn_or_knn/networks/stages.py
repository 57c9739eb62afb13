"""What a stranger's network does with an image: which module computes the logits, and which modules are its stages."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from typing import Any, NamedTuple

import torch
from torch import nn

from ..runtime.errors import UserError, nearest

#: A trunk, which is taken apart, has stages of so many resolutions, or so many blocks of one kind.
RESOLUTIONS, BLOCKS = 3, 4


class Call(NamedTuple):
    """One module's last call: its place in the order of all, what it made, pooled."""

    order: int
    shape: tuple[int, ...]
    made: torch.Tensor


class Trial(NamedTuple):
    """What `watch` saw."""

    model: nn.Module
    size: int  #: pixels of the images that it was shown
    calls: dict[str, Call]  #: by the modules' names, in the order in which they were done
    head: str  #: the layer whose output is, or becomes, the logits
    linear: bool  #: whether it is the logits as it is
    embedding: torch.Tensor

    def stages(self) -> list[str]:
        """Return the modules whose outputs are the network's stages, in the order of execution.

        Of a network that goes through resolutions, the last module of each; of one that stays at one, every block. Left out is
        what is the embedding already, and what comes after it.
        """
        found = self._by_resolution()
        if len(found) < RESOLUTIONS:
            found = self._blocks() or found
        return [name for name in found if not _same(self.calls[name].made, self.embedding)]

    def _children(self, name: str) -> list[str]:
        """Return a module's children that were called before the head; a list of modules, never called, gives its own."""
        found = []
        for child, module in self.model.get_submodule(name).named_children():
            path = f"{name}.{child}" if name else child
            if path in self.calls:
                if self.calls[path].order < self.calls[self.head].order:
                    found.append(path)
            elif any(True for _ in module.children()):
                found += self._children(path)
        return sorted(found, key=lambda path: self.calls[path].order)

    def _trunk(self, name: str) -> list[str]:
        """Return a module, or what it is made of if that goes through several resolutions."""
        children = self._children(name)
        if name and len({resolution(self.calls[path].shape) for path in children} - {None}) < RESOLUTIONS:
            return [name]
        return [part for child in children for part in self._trunk(child)]

    def _by_resolution(self) -> list[str]:
        last: dict[tuple[int, ...], str] = {}
        for name in self._trunk(""):
            where = resolution(self.calls[name].shape)
            if where is not None and (max(where) > 1 or any(True for _ in self.model.get_submodule(name).parameters())):
                last[where] = name
        return sorted(last.values(), key=lambda name: self.calls[name].order)

    def _blocks(self) -> list[str]:
        """Return the blocks of the largest row of modules of one kind and one shape."""
        best: tuple[int, list[str]] = (0, [])
        for name, module in self.model.named_modules():
            children = [path for path in self._children(name) if path.rpartition(".")[0] == name]
            kinds = {(type(self.model.get_submodule(path)), self.calls[path].shape) for path in children}
            if len(children) >= BLOCKS and len(kinds) == 1:
                best = max(best, (_weights([module]), children))
        return best[1]


def watch(model: nn.Module, images: torch.Tensor, size: int, classes: int, classifier: str) -> Trial:
    """Show images to a network, in evaluation mode, and return what its modules did.

    Parameters
    ----------
    classifier: name of the module that computes the logits, or "auto": the last layer with weights for each class.
    """
    calls: dict[str, Call] = {}
    given: dict[str, torch.Tensor] = {}
    made: dict[str, torch.Tensor] = {}

    def hook(name: str, layer: bool) -> Any:
        def seen(_module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
            tensor = first_tensor(output)
            if tensor is None or len(tensor) != len(images):  # TNT's inner tokens are no features of an image
                return
            calls.pop(name, None)
            calls[name] = Call(next(order), tuple(tensor.shape), pooled(tensor).detach())
            if layer and inputs and isinstance(inputs[0], torch.Tensor):
                given[name], made[name] = pooled(inputs[0]).detach(), tensor.detach()

        return seen

    order = itertools.count()
    before = model.training
    handles = [
        module.register_forward_hook(hook(name, isinstance(module, nn.Linear | nn.Conv2d)))
        for name, module in model.named_modules()
        if name
    ]
    try:
        with torch.no_grad():
            logits = first_tensor(model.eval()(images))
    finally:
        for handle in handles:
            handle.remove()
        model.train(before)
    if logits is None or logits.ndim != 2 or logits.shape[1] != classes:
        shape = None if logits is None else tuple(logits.shape)
        raise UserError(
            f"the network returns {shape} for two images, not logits (2, {classes}); give it `classes` outputs"
        )
    head = _head(made, model, logits, classes, classifier)
    linear = made[head].flatten(1).shape == logits.shape and _same(made[head].flatten(1), logits)
    return Trial(model, size, calls, head, linear, given[head])


def _head(made: dict[str, torch.Tensor], model: nn.Module, logits: torch.Tensor, classes: int, classifier: str) -> str:
    """Return the name of the layer that computes the logits."""
    if classifier != "auto":
        if classifier not in made:
            raise UserError(
                f"classifier names '{classifier}', which is no fully connected layer or convolution that the network runs"
                f"{nearest(classifier, list(made))}"
            )
        return classifier
    layers: dict[str, Any] = {name: model.get_submodule(name) for name in made}
    fitting = [name for name in made if len(layers[name].weight) == classes]
    exact = [
        name for name in fitting if made[name].flatten(1).shape == logits.shape and _same(made[name].flatten(1), logits)
    ]
    if not fitting:
        raise UserError(f"the network has no last layer with {classes} outputs; name one as its `classifier`")
    return (exact or fitting)[-1]


def first_tensor(output: Any) -> torch.Tensor | None:
    """Return the first floating-point tensor in what a module made; None if there is none."""
    if isinstance(output, torch.Tensor):
        return output if output.is_floating_point() and output.ndim > 1 else None
    items: Iterable[Any] = (
        output.values() if isinstance(output, dict) else output if isinstance(output, list | tuple) else ()
    )
    return next((found for item in items if (found := first_tensor(item)) is not None), None)


def pooled(output: Any) -> torch.Tensor:
    """Return features (N, dimensions): the mean over the positions of maps (N, C, H, W) or (N, H, W, C) or of tokens (N, L, C)."""
    x = first_tensor(output)
    assert x is not None
    dtype = x.dtype if x.dtype == torch.float64 else torch.float32
    if x.ndim == 4:
        return x.mean(dim=(1, 2) if channels_last(x.shape) else (2, 3), dtype=dtype)
    return x.mean(dim=1, dtype=dtype) if x.ndim == 3 else x.flatten(1)


def channels_last(shape: Iterable[int]) -> bool:
    """Say whether the channels of square maps stand last, as Swin's do."""
    _, second, third, fourth = shape
    return second == third != fourth


def resolution(shape: tuple[int, ...]) -> tuple[int, ...] | None:
    """Return the height and width of maps, the length of a row of tokens; None of features without positions."""
    if len(shape) == 4:
        return shape[1:3] if channels_last(shape) else shape[2:]
    return shape[1:2] if len(shape) == 3 else None


def _same(found: torch.Tensor, expected: torch.Tensor) -> bool:
    """Say whether two arrays are the same to 1e-5 of the largest value."""
    if found.shape != expected.shape:
        return False
    return bool((found - expected).abs().max() <= 1e-5 * expected.abs().max())


def _weights(modules: Iterable[nn.Module]) -> int:
    return sum(parameter.numel() for module in modules for parameter in module.parameters())
