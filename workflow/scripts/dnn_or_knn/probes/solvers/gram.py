"""Numerics that the linear probes share: products over many points, in blocks, with float64 sums."""

from __future__ import annotations

import torch

#: Rows that one block converts to float64 at a time: 8,192 × 640 values are 42 MB.
ROWS = 8192


def gram(
    features: torch.Tensor,
    weights: torch.Tensor | None = None,
    *,
    dtype: torch.dtype = torch.float64,
    rows: int = ROWS,
) -> torch.Tensor:
    """Return ``Σ_i w_i x_i x_iᵀ`` (d, d), summed in `dtype` over blocks of `rows` points.

    Parameters
    ----------
    features: (N, d), any float type, on any device; each block is converted, never the whole.
    weights: (N,), or None for ones; any sign.
    """
    dimensions = features.shape[1]
    total = torch.zeros((dimensions, dimensions), dtype=dtype, device=features.device)
    for start in range(0, len(features), rows):
        block = features[start : start + rows].to(dtype)
        weighted = block if weights is None else block * weights[start : start + rows, None].to(dtype)
        total.addmm_(weighted.T, block)
    return total
