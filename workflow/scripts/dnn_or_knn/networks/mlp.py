"""MLP with one hidden layer: flatten, FC `width` ReLU, FC classes. The paper's has 640 hidden units."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from .parts import (
    INITIALIZATION,
    NORMALIZE_EMBEDDING,
    ProbePoint,
    classify,
    count,
    glorot,
    he,
    linear,
    options,
    unit_norm,
    wide,
)

OPTIONS = {"width": count(), "initialization": INITIALIZATION, "normalize_embedding": NORMALIZE_EMBEDDING}


class MLP(nn.Module):
    """See the module's docstring; inputs (N, channels, size, size), embedding (N, width)."""

    def __init__(
        self, inputs: int, classes: int, *, width: int, initialization: str, normalize_embedding: bool
    ) -> None:
        super().__init__()
        self.probe_points = (ProbePoint("input", inputs, 0, "input"), ProbePoint("embedding", width, 1, "embedding"))
        self.initialization = initialization
        self.normalize_embedding = normalize_embedding
        self.hidden = nn.Linear(inputs, width)
        self.classifier = nn.Linear(width, classes)

    def initialize(self, generator: torch.Generator) -> None:
        """Draw all weights; biases start at 0. The authors' initialisation of this network is Glorot's."""
        if self.initialization == "he":
            he(self.hidden.weight, generator)
            linear(self.classifier.weight, generator)
        else:
            glorot(self.hidden.weight, generator)
            glorot(self.classifier.weight, generator)
        nn.init.zeros_(self.hidden.bias)
        nn.init.zeros_(self.classifier.bias)

    def embed(self, x: torch.Tensor) -> torch.Tensor:
        embedding = wide(torch.relu(self.hidden(x.flatten(1))))
        return unit_norm(embedding) if self.normalize_embedding else embedding

    def activations(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"embedding": self.embed(x)}

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return classify(self.classifier, self.embed(x))


def build(spec: Mapping[str, Any], *, channels: int, size: int, classes: int) -> MLP:
    """Build the network of a specification for images (channels, size, size)."""
    return MLP(channels * size * size, classes, **options(spec, OPTIONS))
