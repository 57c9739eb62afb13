"""A k-NN search cut into pieces by its queries gives the bits of the whole one, wherever it is cut."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from dnn_or_knn.probes import knn, query_shards


def features(kind: str, points: int, dimensions: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return train features, labels and 29 test features: on a grid, so that many are equal or equally far, or apart by class."""
    random = np.random.default_rng(points)
    labels = random.integers(0, 3, points + 29)
    if kind == "ties":
        made = random.integers(-1, 2, (points + 29, dimensions))
        made[: points // 5] = made[0]
    else:
        made = random.normal(size=(points + 29, dimensions)) + 40.0 * labels[:, None]
    return made[:points].astype(np.float32), labels[:points], made[points:].astype(np.float32)


def search(kind: str, points: int, dimensions: int, pieces: int, **options: Any) -> list[dict[str, np.ndarray]]:
    """Return the arrays of the whole search, and those of its pieces put together."""
    train, labels, test = features(kind, points, dimensions)
    asked = {"classes": 3, "seed": 0, "device": "cpu"}
    every = [
        query_shards.run(train, labels, test, options={**options, "piece": n, "pieces": pieces}, **asked).arrays
        for n in range(1, pieces + 1)
    ]
    whole = knn.run(train, labels, test, options=options, **asked).arrays
    return [whole, {key: np.concatenate([arrays[key] for arrays in every]) for key in every[0]}]


@pytest.mark.parametrize("metric", ["l2", "l1", "cosine"])
@pytest.mark.parametrize(
    ("kind", "points", "dimensions", "pieces"),
    [
        ("ties", 53, 3, 2),
        ("ties", 601, 4, 5),
        ("ties", 47, 2, 50),  # more pieces than test points
        ("apart", 263, 70, 3),
        ("apart", 2203, 5, 4),  # enough points to search class by class
    ],
)
def test_any_cut_gives_the_same_bits(kind: str, points: int, dimensions: int, pieces: int, metric: str) -> None:
    whole, joined = search(kind, points, dimensions, pieces, metric=metric, k_max=11, normalize=points == 263)
    assert whole.keys() == joined.keys()
    for name in whole:
        assert whole[name].dtype == joined[name].dtype and np.array_equal(whole[name], joined[name]), name


def test_ties_and_divisions_by_class_are_met() -> None:
    """Else the test above would show less than it says."""
    whole, _ = search("ties", 601, 4, 1, metric="l2", k_max=11)
    assert (whole["train_distances"][:, 0] == 0).any() and (np.diff(whole["test_distances"]) == 0).any()
    train, labels, test = features("apart", 2203, 5)
    report = knn.run(train, labels, test, classes=3, options={"k_max": 11}, seed=0, device="cpu").report
    assert report["covered"]["train"] < 0.5


def test_pieces_are_of_like_size_and_leave_out_nothing() -> None:
    for count, pieces in ((10, 3), (3, 10), (200_000, 7), (1, 1)):
        cut = [query_shards.rows(count, piece, pieces) for piece in range(1, pieces + 1)]
        assert [row for part in cut for row in range(count)[part]] == list(range(count))
        sizes = [len(range(count)[part]) for part in cut]
        assert max(sizes) - min(sizes) <= 1


def test_the_report_is_that_of_all_queries() -> None:
    def report(one: float, covered: float) -> dict[str, Any]:
        settled = {"float32": one, "float64": 1 - one}
        return {
            "gap": 0.0,
            "settled": {"train": settled, "test": settled},
            "widened": {"train": 1 - one, "test": 1 - one},
            "covered": {"train": covered, "test": covered},
        }

    made = query_shards.together([report(1.0, 0.25), report(0.5, 1.0)], {"train": [6, 2], "test": [0, 4]})
    assert made["settled"] == {"train": {"float32": 7 / 8, "float64": 1 / 8}, "test": {"float32": 0.5, "float64": 0.5}}
    assert made["widened"] == {"train": 1 / 8, "test": 0.5} and made["gap"] == 0.0
    assert made["covered"] == {"train": 0.4375, "test": 1.0}
