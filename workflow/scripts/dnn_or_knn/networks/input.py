"""What every network sees: images standardized one by one."""

from __future__ import annotations

import torch


def standardize(images: torch.Tensor, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """Return images with their own mean subtracted, divided by max(std, 1 / sqrt(number of values)).

    Parameters
    ----------
    images: uint8 (N, channels, height, width). A dense memory format, plain or channels-last, is kept.
    dtype: floating type of the result. Mean and standard deviation (the population's) run over all values of an image.
    """
    if not images.is_contiguous() and images.is_contiguous(memory_format=torch.channels_last):
        return standardize(images.permute(0, 2, 3, 1), dtype).permute(0, 3, 1, 2)
    x = images.flatten(1).to(dtype)
    x = x - x.mean(dim=1, keepdim=True)
    deviation = x.square().mean(dim=1, keepdim=True).sqrt()
    return (x / deviation.clamp_min(x.shape[1] ** -0.5)).view(images.shape)
