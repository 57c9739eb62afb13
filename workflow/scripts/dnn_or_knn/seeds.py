"""One rule that turns a seed into a stream of random numbers, the same on every machine."""

from __future__ import annotations

import hashlib

import numpy as np


def generator(purpose: str, seed: int) -> np.random.Generator:
    """Return the random stream of one purpose and seed.

    The stream is PCG64's, started from the first 128 bits of the SHA-256 of ``"dnn-or-knn/<purpose>/<seed>"`` through NumPy's
    SeedSequence (both of which NumPy keeps stable). Streams of different purposes are independent, so that what one
    draw takes never shifts another.
    """
    entropy = hashlib.sha256(f"dnn-or-knn/{purpose}/{int(seed)}".encode()).digest()[:16]
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(int.from_bytes(entropy, "big"))))
