"""What may be done to features before any probe sees them: PCA, L2 normalisation, and the search for equal rows.

All of it runs in float64 on the CPU, so that a probe gets the same numbers whatever device it computes on, and rows
that were equal stay equal to the last bit.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from ..runtime.errors import UserError

if TYPE_CHECKING:
    import torch

A = TypeVar("A", np.ndarray, "torch.Tensor")

#: Rows that are worked on at a time, so that the temporaries stay small beside the features.
ROWS = 4096


@dataclass(frozen=True)
class Reduced:
    """Features as a probe uses them: `train` (N, p) and `test` (M, p), and the PCA (None without one).

    `mean` (d,) and `basis` (d, p) are float64: a point x is mapped to (x − mean) @ basis.  `train` and `test` are the
    arrays given, untouched, if nothing was asked for, else float64.
    """

    train: np.ndarray
    test: np.ndarray
    mean: np.ndarray | None = None
    basis: np.ndarray | None = None

    def arrays(self) -> dict[str, np.ndarray]:
        """Return what a probe keeps of the PCA: ``pca_mean`` and ``pca_basis``, or nothing."""
        if self.mean is None or self.basis is None:
            return {}
        return {"pca_mean": self.mean, "pca_basis": self.basis}


def reduce(train: np.ndarray, test: np.ndarray, options: dict[str, Any]) -> Reduced:
    """Return the features of one evaluation as the probe's options want them.

    Parameters
    ----------
    train, test: (N, d) and (M, d) features.
    options: ``normalize`` (bool, default false): every row is divided by its Euclidean norm, first of all; ``pca``
        (int or None, default None): PCA to min(pca, d, N − 1) components, fitted on `train`.
    """
    if options.get("normalize"):
        train, test = normalize(train), normalize(test)
    components = options.get("pca")
    if components is None:
        return Reduced(train, test)
    mean, basis = fit_pca(train, int(components))
    both = project(np.concatenate([train, test]), mean, basis)
    return Reduced(both[: len(train)], both[len(train) :], mean, basis)


def normalize(features: np.ndarray) -> np.ndarray:
    """Return the rows (n, d) divided by their Euclidean norms, float64; a row of zeros stays one."""
    unit = np.empty(features.shape)
    for start in range(0, len(features), ROWS):
        rows = features[start : start + ROWS].astype(np.float64)
        largest = np.abs(rows).max(axis=1, keepdims=True, initial=0.0)
        rows /= np.where(largest > 0, largest, 1.0)  # neither overflow nor underflow in the squares
        norm = np.sqrt(fold(np.square(rows)))
        unit[start : start + ROWS] = rows / np.where(norm > 0, norm, 1.0)
    return unit


def fold(terms: A, width: int = 1) -> A:
    """Return the first `width` columns (…, width) that are left of `terms` (…, w) when its last axis is folded.

    The order in which a sum is taken here: the upper half is added onto the lower half, term i + ⌈w/2⌉ to term i, then
    w = ⌈w/2⌉, until one term is left.  Every step is elementwise, so the sum depends neither on the machine nor on what
    else is summed beside it.  `terms` is overwritten.
    """
    left = terms.shape[-1]
    while left > width:
        half = (left + 1) // 2
        terms[..., : left - half] += terms[..., half:left]
        left = half
    return terms[..., :left]


def fit_pca(train: np.ndarray, components: int) -> tuple[np.ndarray, np.ndarray]:
    """Return mean (d,) and basis (d, p) of a PCA of `train` (N, d), p = min(components, d, N − 1), float64.

    The columns of the basis are orthonormal, ordered by falling variance, and signed so that the entry of largest
    magnitude (the first of them) is positive: the fit is a function of the features alone.
    """
    points, dimensions = train.shape
    if components < 1:
        raise UserError(f"pca.components is {components}; it must be at least 1 (or leave out pca)")
    if points < 2:
        raise UserError("PCA needs at least 2 points; leave out pca or take more images")
    mean = np.zeros(dimensions)
    for start in range(0, points, ROWS):
        mean += train[start : start + ROWS].sum(axis=0, dtype=np.float64)
    mean /= points
    if points <= dimensions:
        basis = np.linalg.svd(train - mean, full_matrices=False)[2].T
    else:
        scatter = np.zeros((dimensions, dimensions))
        for start in range(0, points, ROWS):
            centred = train[start : start + ROWS] - mean
            scatter += centred.T @ centred
        basis = np.linalg.eigh(scatter)[1][:, ::-1]
    basis = basis[:, : min(components, dimensions, points - 1)]
    largest = np.abs(basis).argmax(axis=0)
    signs = np.where(basis[largest, np.arange(basis.shape[1])] < 0, -1.0, 1.0)
    return mean, np.ascontiguousarray(basis * signs)


def project(features: np.ndarray, mean: np.ndarray, basis: np.ndarray) -> np.ndarray:
    """Return (features − mean) @ basis as float64 (n, p); equal rows are given equal coordinates.

    A matrix product promises no such thing: the last rows of a block may be summed in another order.
    """
    first, inverse = unique_rows(features)
    coordinates = np.empty((len(first), basis.shape[1]))
    for start in range(0, len(first), ROWS):
        coordinates[start : start + ROWS] = (features[first[start : start + ROWS]] - mean) @ basis
    return coordinates if len(first) == len(features) else coordinates[inverse]


def unique_rows(features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return where each different row of (n, d) occurs first, ascending (u,), and which of them each row is (n,).

    −0 equals 0.  Rows are told apart by a 64-bit hash, and rows of equal hash are compared.
    """
    some = features[:, :: features.shape[1] // 16] if features.shape[1] > 64 else features
    if some is not features and len(np.unique(_row_hashes(some))) == len(features):
        everything = np.arange(len(features))  # rows that differ in a few columns differ
        return everything, everything
    _, first, inverse = np.unique(_row_hashes(features), return_index=True, return_inverse=True)
    if len(first) == len(features):
        everything = np.arange(len(features))
        return everything, everything
    representative = first[inverse]
    doubles = np.flatnonzero(representative != np.arange(len(features)))
    for start in range(0, len(doubles), ROWS):
        rows = doubles[start : start + ROWS]
        if not np.array_equal(features[rows], features[representative[rows]]):
            _, first, inverse = np.unique(features + 0.0, axis=0, return_index=True, return_inverse=True)
            break
    order = np.argsort(first)
    rank = np.empty(len(first), np.int64)
    rank[order] = np.arange(len(first))
    return first[order], rank[inverse.reshape(-1)]


def _row_hashes(features: np.ndarray) -> np.ndarray:
    """Return a 64-bit hash (n,) of every row; equal rows have equal hashes."""
    weights = np.random.default_rng(1).integers(0, 2**63, features.shape[1], dtype=np.uint64) * np.uint64(
        2
    ) + np.uint64(1)
    keys = np.empty(len(features), np.uint64)
    for start in range(0, len(features), ROWS):
        rows = np.ascontiguousarray(features[start : start + ROWS]) + features.dtype.type(0)
        bits = rows.view(f"u{rows.itemsize}").astype(np.uint64)
        bits *= np.uint64(0x9E3779B97F4A7C15)
        bits ^= bits >> np.uint64(32)
        bits *= weights
        keys[start : start + ROWS] = bits.sum(axis=1, dtype=np.uint64)
    return keys
