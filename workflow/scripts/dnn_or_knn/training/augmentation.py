"""Augmentation of a batch's uint8 pixels, as tensor work on whatever device holds them: zero-pad, random crop back, flip.

Per-image standardization comes after it (`networks/input.py`), as in the paper. Random numbers are a hash of (seed, step, position in the batch), in integer arithmetic: the same on
CPU and GPU, the same after a resumption, without any state, and computable inside a CUDA graph from a step counter that
lives on the device.
"""

from __future__ import annotations

import torch

#: Constants of SplitMix64 (Steele, Lea and Flood, 2014), as signed 64-bit integers.
_GAMMA = -0x61C8864680B583EB
_MIX_1 = -0x40A7B892E31B1A47
_MIX_2 = -0x6B2FB644ECCEEE15
_MASK_64 = (1 << 64) - 1


def draws(
    seed: int,
    step: int | torch.Tensor,
    size: int,
    *,
    pad: int,
    device: torch.device | str = "cpu",
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the augmentation of one batch, a pure function of (seed, step).

    Parameters
    ----------
    seed: of the run.
    step: 0, 1, …; an int or an int64 tensor with one element on `device` (for compiled or captured steps).
    size: images in the batch.
    pad: pixels of padding on each side.

    Returns
    -------
    offsets: int64 (size, 2), the crop's top and left in the padded image, uniform in 0 … 2 · pad.
    flips: bool (size,), fair coins.
    """
    counter = torch.arange(1, size + 1, device=device) + step * size
    bits = _mix(_mix(counter * _GAMMA) + _signed(_scramble(seed)))
    # 30 bits each for top and left: a share is off by less than (2 pad + 1) / 2^30 of itself.
    fields = torch.stack([_shift(bits, 34), _shift(bits, 4) & ((1 << 30) - 1)], dim=1)
    return _shift(fields * (2 * pad + 1), 30), (bits & 1).bool()


def augment(
    images: torch.Tensor, offsets: torch.Tensor, flips: torch.Tensor | None = None, *, pad: int
) -> torch.Tensor:
    """Zero-pad images by `pad` pixels on each side, crop each back to its size at its offset, then mirror some.

    Parameters
    ----------
    images: uint8 (N, channels, size, size).
    offsets: int64 (N, 2), top and left of each crop in the padded image, 0 … 2 · pad; as `draws` makes them.
    flips: bool (N,), which images are mirrored left to right; None: none.

    Returns
    -------
    uint8 (N, channels, size, size), contiguous; one gather, no host synchronisation.
    """
    number, channels, height, width = images.shape
    padded = torch.nn.functional.pad(images, (pad, pad, pad, pad))
    columns = torch.arange(width, device=images.device)
    if flips is not None:
        columns = torch.where(flips[:, None], width - 1 - columns, columns)
    columns = columns + offsets[:, 1:]
    rows = torch.arange(height, device=images.device) + offsets[:, :1]
    places = rows[:, :, None] * (width + 2 * pad) + columns[:, None, :]
    places = places.view(number, 1, height * width).expand(-1, channels, -1)
    return padded.flatten(2).gather(2, places).view(number, channels, height, width)


def _shift(x: torch.Tensor, bits: int) -> torch.Tensor:
    """Return the logical right shift of 64-bit integers."""
    return (x >> bits) & ((1 << (64 - bits)) - 1)


def _mix(x: torch.Tensor) -> torch.Tensor:
    """Return SplitMix64's finalizer of 64-bit integers (products wrap around)."""
    x = (x ^ _shift(x, 30)) * _MIX_1
    x = (x ^ _shift(x, 27)) * _MIX_2
    return x ^ _shift(x, 31)


def _scramble(seed: int) -> int:
    """Return a 64-bit key of a seed: SplitMix64's output for it, in Python integers."""
    x = (seed + 1) * _GAMMA & _MASK_64
    x = (x ^ x >> 30) * _MIX_1 & _MASK_64
    x = (x ^ x >> 27) * _MIX_2 & _MASK_64
    return x ^ x >> 31


def _signed(x: int) -> int:
    """Return 64 bits as a signed integer."""
    return x - (1 << 64) if x >> 63 else x
