"""LeNet: conv 32@5×5 same, ReLU, max-pool 2, conv 64@5×5 same, ReLU, max-pool 2, FC `embedding` ReLU, FC classes."""

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
    classify,
    count,
    global_average,
    glorot,
    he,
    linear,
    options,
    unit_norm,
    wide,
)

OPTIONS = {"embedding": count(640), "initialization": INITIALIZATION, "normalize_embedding": NORMALIZE_EMBEDDING}
FILTERS = (32, 64)


class LeNet(nn.Module):
    """See the module's docstring; inputs (N, channels, size, size), embedding (N, embedding)."""

    def __init__(
        self, channels: int, size: int, classes: int, *, embedding: int, initialization: str, normalize_embedding: bool
    ) -> None:
        super().__init__()
        first, second = FILTERS
        self.probe_points = (
            ProbePoint("input", channels * size * size, 0, "input"),
            ProbePoint("conv1", first, 1, "convolution"),
            ProbePoint("pool1", first, 1, "pool"),
            ProbePoint("conv2", second, 2, "convolution"),
            ProbePoint("pool2", second, 2, "pool"),
            ProbePoint("embedding", embedding, 3, "embedding"),
        )
        self.initialization = initialization
        self.normalize_embedding = normalize_embedding
        self.conv1 = nn.Conv2d(channels, first, 5, padding="same")
        self.conv2 = nn.Conv2d(first, second, 5, padding="same")
        self.hidden = nn.Linear(second * (size // 4) ** 2, embedding)
        self.classifier = nn.Linear(embedding, classes)

    def initialize(self, generator: torch.Generator) -> None:
        """Draw all weights; biases start at 0. The authors' initialisation of this network is Glorot's."""
        for layer in (self.conv1, self.conv2, self.hidden, self.classifier):
            draw = glorot if self.initialization != "he" else linear if layer is self.classifier else he
            draw(layer.weight, generator)
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]

    def activations(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        conv1 = torch.relu(self.conv1(x))
        pool1 = nn.functional.max_pool2d(conv1, 2)
        conv2 = torch.relu(self.conv2(pool1))
        pool2 = nn.functional.max_pool2d(conv2, 2)
        maps = {"conv1": conv1, "pool1": pool1, "conv2": conv2, "pool2": pool2}
        pooled = {name: global_average(x) for name, x in maps.items()}
        return {**pooled, "embedding": self._embedding(pool2)}

    def embed(self, x: torch.Tensor) -> torch.Tensor:
        # Maximum and ReLU commute, their gradients too, bit for bit: after the pooling ReLU has a quarter of the work.
        for convolution in (self.conv1, self.conv2):
            x = torch.relu(nn.functional.max_pool2d(convolution(x), 2))
        return self._embedding(x)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return classify(self.classifier, self.embed(x))

    def _embedding(self, pool2: torch.Tensor) -> torch.Tensor:
        embedding = wide(torch.relu(self.hidden(pool2.flatten(1))))
        return unit_norm(embedding) if self.normalize_embedding else embedding


def build(spec: Mapping[str, Any], *, channels: int, size: int, classes: int) -> LeNet:
    """Build the network of a specification for images (channels, size, size); they must be 4 pixels wide or more."""
    if size < 4:
        raise UserError(
            f"lenet halves its images twice and needs 4×4 pixels or more, not {size}×{size}; take another network"
        )
    return LeNet(channels, size, classes, **options(spec, OPTIONS))
