"""The bootstrap over samples: the same resampled indices for everything that is measured on a split.

A replicate draws N of the N samples with replacement. How often it drew each is a row of integer counts, and the mean
of any per-sample value over the replicate is that row times the values, divided by N. So all replicates of all
measures of an evaluation are one product of matrices, exact, and replicates of two models, steps or networks on one
split are paired: their difference has the interval that it should have.

Where all samples agree, as at an accuracy of 100 %, every replicate is that value, although of N samples without an error
the error rate may be 3/N. So fractions are smoothed: `smoothed` adds a random part of a success and of a failure.
"""

from __future__ import annotations

import numpy as np

from ..seeds import generator


def draw_counts(size: int, replicates: int, *, seed: int, split: str) -> np.ndarray:
    """Return how often each replicate drew each sample, uint16 (replicates, size); every row sums to `size`.

    The draw depends on `seed`, `split` and `size` alone, and the first replicates are the same however many follow.
    Train and test draw independently, also where they are of one size: they hold different images.
    """
    random = generator(f"bootstrap/{split}/{size}", seed)
    counts = np.empty((replicates, size), np.uint16)
    for row in counts:
        row[:] = np.bincount(random.integers(0, size, size), minlength=size)
    return counts


def smoothed(replicates: np.ndarray, size: int, name: str) -> np.ndarray:
    """Return replicates (B,) of a fraction of `size` samples with a random success and failure more, each of mean weight 1.

    A fraction's posterior under a uniform prior has just these, gamma variables of shape 1, beside its data. The weights
    depend on `name` and `size` alone; different measures need different names, lest their difference have no width.
    """
    success, failure = generator(f"bootstrap/smoothing/{name}", size).standard_gamma(1.0, (2, len(replicates)))
    return (size * replicates + success) / (size + success + failure)
