"""Votes by similarity: those of DINOv2's k-NN and of lightly's, on neighbours that the probe found."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from dnn_or_knn.measures.formulas import predicted
from dnn_or_knn.measures.weighted_votes import fractions
from dnn_or_knn.probes import knn

CLASSES = 7
KS = (10, 20, 100, 200)


def dinov2(train: torch.Tensor, labels: torch.Tensor, test: torch.Tensor, k: int, temperature: float) -> torch.Tensor:
    """DINOv2's KnnModule in a few lines: softmax of the k largest cosines, summed by class."""
    train, test = (torch.nn.functional.normalize(x, dim=1) for x in (train, test))
    cosines, places = (test @ train.T).topk(k, dim=1)
    weights = torch.softmax(cosines / temperature, dim=1)
    return torch.zeros(len(test), CLASSES, dtype=test.dtype).scatter_add_(1, labels[places], weights)


def lightly(train: torch.Tensor, labels: torch.Tensor, test: torch.Tensor, k: int, temperature: float) -> torch.Tensor:
    """lightly's knn_predict in a few lines: exp(cosine / T) of the k nearest, one-hot labels, a sum; classes best first."""
    train, test = (torch.nn.functional.normalize(x, dim=1) for x in (train, test))
    cosines, places = torch.mm(test, train.t()).topk(k=k, dim=-1)
    one_hot = torch.nn.functional.one_hot(labels[places], CLASSES)
    return (one_hot * (cosines / temperature).exp().unsqueeze(-1)).sum(dim=1).argsort(dim=-1, descending=True)


@pytest.fixture(scope="module")
def points() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Train features, labels and test features of seven blurred classes."""
    random = np.random.default_rng(5)
    centres = random.normal(size=(CLASSES, 24))
    labels, asked = random.integers(0, CLASSES, 600), random.integers(0, CLASSES, 150)
    train, test = (centres[c] + 1.5 * random.normal(size=(len(c), 24)) for c in (labels, asked))
    return train.astype(np.float32), labels, test.astype(np.float32)


@pytest.mark.parametrize("k", KS)
@pytest.mark.parametrize("temperature", [0.07, 0.1])
def test_votes_are_those_of_the_peers(points, k: int, temperature: float) -> None:
    train, labels, test = points
    found = knn.run(
        train, labels, test, classes=CLASSES, options={"metric": "cosine", "k_max": max(KS)}, seed=0, device="cpu"
    )
    neighbours, distances = found.arrays["test_neighbours"], found.arrays["test_distances"]
    votes = fractions(neighbours[:, :k], distances[:, :k], labels, CLASSES, temperature)
    given = torch.from_numpy(train).double(), torch.from_numpy(labels), torch.from_numpy(test).double()
    np.testing.assert_allclose(votes, dinov2(*given, k, temperature).numpy(), rtol=1e-6, atol=1e-9)
    assert (predicted(votes) == lightly(*given, k, temperature)[:, 0].numpy()).all()


def test_a_case_by_hand() -> None:
    votes = fractions(np.array([[0, 1, 2]]), np.array([[0.0, 0.1, 0.1]]), np.array([1, 0, 0]), 3, 0.1 / np.log(4))
    np.testing.assert_allclose(votes, [[1 / 3, 2 / 3, 0]])


def test_a_low_temperature_asks_the_nearest_and_a_high_one_all_alike() -> None:
    neighbours, distances = np.array([[0, 1, 2]]), np.array([[0.5, 0.6, 1.9]])
    labels = np.array([1, 0, 0])
    np.testing.assert_allclose(fractions(neighbours, distances, labels, 2, 1e-6), [[0, 1]])
    np.testing.assert_allclose(fractions(neighbours, distances, labels, 2, 1e9), [[2 / 3, 1 / 3]])
