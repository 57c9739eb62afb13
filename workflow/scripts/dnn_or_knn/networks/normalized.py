"""Any network of this package, on images that are normalized by a mean and a standard deviation of each channel."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from .build import create


class Normalization:
    """(pixel / 255 − mean) / std of uint8 images (N, channels, height, width); a dense memory format is kept."""

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        self.mean, self.std = torch.tensor(mean, dtype=torch.float64), torch.tensor(std, dtype=torch.float64)
        self._there: dict[tuple[torch.device, torch.dtype], tuple[torch.Tensor, torch.Tensor]] = {}

    def __call__(self, images: torch.Tensor, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        key = (images.device, dtype)
        if key not in self._there:  # once: a CUDA graph must not copy from the host
            factor, shift = 1 / (255 * self.std), -self.mean / self.std
            self._there[key] = (
                factor.to(images.device, dtype)[:, None, None],
                shift.to(images.device, dtype)[:, None, None],
            )
        factor, shift = self._there[key]
        return images.to(dtype) * factor + shift


def build(spec: Mapping[str, Any], *, channels: int, size: int, classes: int) -> nn.Module:
    """Build the network ``spec["network"]``; it takes the place of per-image standardization by its `standardize`."""
    network = create(spec["network"], channels=channels, size=size, classes=classes)
    network.standardize = Normalization(spec["mean"], spec["std"])  # type: ignore[assignment]
    return network
