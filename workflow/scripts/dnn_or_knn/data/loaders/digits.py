"""scikit-learn's handwritten digits, bundled with it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ... import seeds
from ...runtime.errors import UserError
from .common import Data

#: SHA-256 of scikit-learn's digits: the 1,797 × 8 × 8 pixels as uint8, then the labels as little-endian int64.
DIGITS_SHA256 = "65e5b4619795efb40c1082f4c350c049e4ad552200d369b6ae99e21eef5e72c5"


def load(spec: Mapping[str, Any], root: Path, download: bool) -> Data:
    """Load scikit-learn's 1,797 digits (8 × 8 pixels from 0 to 16) and split them, stratified by class.

    A pixel v becomes ⌊(255 v + 8) / 16⌋: 0…16 spread over 0…255, halves rounded up. `test_fraction` (default 0.2) of the
    images, drawn with `split_seed` (default 0), are the test set; both parts stay in scikit-learn's order.
    """
    from sklearn.datasets import load_digits

    bundle = load_digits()
    pixels, labels = bundle.images.astype(np.uint8), bundle.target.astype("<i8")
    found = hashlib.sha256(pixels.tobytes() + labels.tobytes()).hexdigest()
    if found != DIGITS_SHA256:
        raise UserError(
            f"scikit-learn's digits.csv.gz is altered: expected SHA-256 {DIGITS_SHA256} of its pixels and labels, found "
            f"{found}; install scikit-learn again"
        )
    fraction, seed = spec.get("test_fraction", 0.2), spec.get("split_seed", 0)
    test = stratified_split(labels, fraction, seed)
    images = ((pixels.astype(np.uint16) * 255 + 8) // 16).astype(np.uint8)[:, None]
    return Data(
        images[~test],
        labels[~test],
        images[test],
        labels[test],
        [str(name) for name in bundle.target_names],
        {
            "loader": "digits",
            "source": "sklearn.datasets.load_digits",
            "sha256": DIGITS_SHA256,
            "scaling": "floor((255 * v + 8) / 16)",
            "test_fraction": fraction,
            "split_seed": seed,
        },
    )


def stratified_split(labels: np.ndarray, test_fraction: float, seed: int) -> np.ndarray:
    """Return a boolean mask (N,) of the test points: each class gives its share, rounded by largest remainder.

    The test set has round(N × `test_fraction`) points; a class with equal remainder to another's gives way to the one of lower
    index. Which points of a class: the first of a permutation from the stream ``split/<seed>``.
    """
    if not isinstance(test_fraction, int | float) or not 0 < test_fraction < 1:
        raise UserError(f"test_fraction is {test_fraction!r}; it has to be a number between 0 and 1")
    if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
        raise UserError(f"split_seed is {seed!r}; it has to be an integer from 0 on")
    counts = np.bincount(labels)
    total = round(len(labels) * test_fraction)
    shares, remainders = np.divmod(counts * total, len(labels))
    shares[np.argsort(-remainders, kind="stable")[: total - shares.sum()]] += 1
    if (shares == 0).any() or (shares == counts).any():
        raise UserError(f"test_fraction {test_fraction} leaves a class without train or test images; choose another")
    generator = seeds.generator("split", seed)
    mask = np.zeros(len(labels), dtype=bool)
    for label, share in enumerate(shares):
        mask[generator.permutation(np.flatnonzero(labels == label))[:share]] = True
    return mask
