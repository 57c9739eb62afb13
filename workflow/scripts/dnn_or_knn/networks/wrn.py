"""Wide residual networks (pre-activation), WRN-depth-width; the paper's is WRN-28-10.

A 3×3 convolution to 16 channels, 3 stages of (depth - 4) / 6 residual units, (16, 32, 64) · width channels wide, at strides
1, 2, 2, then batch norm, activation, global average and the last fully connected layer. Convolutions have no bias.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from ..runtime.errors import UserError
from .parts import (
    INITIALIZATION,
    NORMALIZE_EMBEDDING,
    ProbePoint,
    choice,
    classify,
    count,
    fan_out,
    global_average,
    glorot,
    he,
    linear,
    number,
    options,
    unit_norm,
    unit_scaling,
)

OPTIONS = {
    "depth": count(),
    "width": count(),
    "activation": choice("relu", "leaky_relu"),
    "shortcut": choice("conv", "pool"),
    "initialization": INITIALIZATION,
    "batch_norm_momentum": number(0.1, "a number from 0 to 1", lambda value: 0 <= value <= 1),
    "batch_norm_eps": number(1e-5, "a number above 0", lambda value: value > 0),
    "normalize_embedding": NORMALIZE_EMBEDDING,
}
BASE_WIDTH = 16
SLOPES = {"relu": 0.0, "leaky_relu": 0.1}


class Activation(nn.Module):
    """ReLU, or leaky ReLU with slope 0.1."""

    def __init__(self, slope: float) -> None:
        super().__init__()
        self.slope = slope

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.leaky_relu(x, self.slope) if self.slope else torch.relu(x)


class Unit(nn.Module):
    """One residual unit: x + conv(act(bn(conv(act(bn(x)))))), with a shortcut where the width or resolution changes.

    `shortcut` "conv": a 1×1 convolution of the activated input. "pool": average pooling and zero channels on both
    sides, without parameters, of the input; of the activated input only in the network's first unit, as the authors' code.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        stride: int,
        *,
        first: bool,
        shortcut: str,
        slope: float,
        momentum: float,
        eps: float,
    ) -> None:
        super().__init__()
        changes = inputs != outputs or stride != 1
        self.stride, self.extra = stride, outputs - inputs
        self.projects = changes and shortcut == "conv"
        self.pools = changes and shortcut == "pool"
        self.activates_shortcut = self.projects or (first and shortcut == "pool")
        self.activation = Activation(slope)
        self.bn1 = nn.BatchNorm2d(inputs, momentum=momentum, eps=eps)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs, momentum=momentum, eps=eps)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        if self.projects:
            self.projection = nn.Conv2d(inputs, outputs, 1, stride=stride, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        activated = self.activation(self.bn1(x))
        residual = self.conv2(self.activation(self.bn2(self.conv1(activated))))
        shortcut = activated if self.activates_shortcut else x
        if self.projects:
            shortcut = self.projection(shortcut)
        elif self.pools:
            shortcut = self._pool(shortcut)
        return residual + shortcut

    def _pool(self, x: torch.Tensor) -> torch.Tensor:
        if self.stride > 1:
            x = nn.functional.avg_pool2d(x, self.stride, ceil_mode=True)
        before = self.extra // 2
        return nn.functional.pad(x, (0, 0, 0, 0, before, self.extra - before))


class WideResNet(nn.Module):
    """See the module's docstring; inputs (N, channels, size, size), embedding (N, 64 · width)."""

    def __init__(
        self,
        channels: int,
        size: int,
        classes: int,
        *,
        depth: int,
        width: int,
        activation: str,
        shortcut: str,
        initialization: str,
        batch_norm_momentum: float,
        batch_norm_eps: float,
        normalize_embedding: bool,
    ) -> None:
        super().__init__()
        slope = SLOPES[activation]
        self.initialization, self.slope, self.normalize_embedding = initialization, slope, normalize_embedding
        self.activation = Activation(slope)
        self.initial_conv = nn.Conv2d(channels, BASE_WIDTH, 3, padding=1, bias=False)
        self.units = nn.ModuleDict()
        points = [
            ProbePoint("input", channels * size * size, 0, "input"),
            ProbePoint("initial_conv", BASE_WIDTH, 0, "convolution"),
        ]
        inputs = BASE_WIDTH
        for stage in (1, 2, 3):
            outputs = BASE_WIDTH * 2 ** (stage - 1) * width
            for position in range(1, (depth - 4) // 6 + 1):
                name = f"unit_{stage}_{position}"
                self.units[name] = Unit(
                    inputs,
                    outputs,
                    2 if stage > 1 and position == 1 else 1,
                    first=stage == position == 1,
                    shortcut=shortcut,
                    slope=slope,
                    momentum=batch_norm_momentum,
                    eps=batch_norm_eps,
                )
                points.append(ProbePoint(name, outputs, stage, "unit"))
                inputs = outputs
        self.bn = nn.BatchNorm2d(inputs, momentum=batch_norm_momentum, eps=batch_norm_eps)
        self.classifier = nn.Linear(inputs, classes)
        self.probe_points = (*points, ProbePoint("embedding", inputs, 4, "embedding"))

    def initialize(self, generator: torch.Generator) -> None:
        """Draw all weights; batch norm starts as the identity, the classifier's bias at 0."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                if self.initialization == "he":
                    he(module.weight, generator, slope=self.slope)
                elif self.initialization == "glorot":
                    glorot(module.weight, generator)
                else:
                    fan_out(module.weight, generator)
        {"he": linear, "glorot": glorot, "authors": unit_scaling}[self.initialization](
            self.classifier.weight, generator
        )
        nn.init.zeros_(self.classifier.bias)

    def activations(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        x = self.initial_conv(x)
        pooled = {"initial_conv": global_average(self.activation(x))}
        for name, unit in self.units.items():
            x = unit(x)
            pooled[name] = global_average(self.activation(x))
        return {**pooled, "embedding": self._embedding(x)}

    def embed(self, x: torch.Tensor) -> torch.Tensor:
        x = self.initial_conv(x)
        for unit in self.units.values():
            x = unit(x)
        return self._embedding(x)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return classify(self.classifier, self.embed(x))

    def _embedding(self, x: torch.Tensor) -> torch.Tensor:
        embedding = global_average(self.activation(self.bn(x)))
        return unit_norm(embedding) if self.normalize_embedding else embedding


def build(spec: Mapping[str, Any], *, channels: int, size: int, classes: int) -> WideResNet:
    """Build the network of a specification for images (channels, size, size); a depth is 10, 16, 22, 28, …"""
    values = options(spec, OPTIONS)
    depth = values["depth"]
    if depth < 10 or (depth - 4) % 6:
        units = max(1, round((depth - 4) / 6))
        raise UserError(
            f"network.depth is {depth}, but a wide residual network has 6n + 4 layers; the nearest is {6 * units + 4}"
        )
    return WideResNet(channels, size, classes, **values)
