"""A k-NN search cut into pieces by its queries: each is a job of its own, and another puts their lists together.

Options: those of `knn` but ``pca``, and ``piece`` (1 … pieces) and ``pieces``. What is found for a query does not depend on which
others are asked beside it (`solvers.neighbours`: sums in one order, places by (distance, index)), so any cut gives the same bits.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..runtime import files
from ..runtime.errors import UserError
from . import knn
from .common import ProbeResult
from .solvers.neighbours import drop_own, searches

SPLITS = ("train", "test")


def run(
    train: np.ndarray,
    labels: np.ndarray,
    test: np.ndarray,
    *,
    classes: int,
    options: dict[str, Any],
    seed: int,
    device: str,
) -> ProbeResult:
    """Return the neighbours of one piece of the train and of the test points among all train points; as `knn.run` otherwise."""
    started = time.perf_counter()
    k, metric, features = knn.prepared(train, labels, test, classes, options)
    mine = [rows(len(points), options["piece"], options["pieces"]) for points in (train, test)]
    asked = [features.train[mine[0]], features.test[mine[1]]]
    settings = {"metric": metric, "labels": labels, "device": device, "chunk_mib": options.get("chunk_mib", 256)}
    # A train point is one of its own k + 1 nearest, unless as many points equal it.
    own, other = searches(features.train, asked, k + 1, **settings)
    first = mine[0].start
    near, far = drop_own(own.neighbours - first, own.distances)
    lists = {"train": (near + first, far), "test": (other.neighbours[:, :k], other.distances[:, :k])}
    return knn.result(lists, knn.told({"train": own, "test": other}), started)


def rows(count: int, piece: int, pieces: int) -> slice:
    """Return which of `count` queries are those of a piece, 1 … `pieces`: as many as of any other, give or take one."""
    return slice(count * (piece - 1) // pieces, count * piece // pieces)


def joined(manifests: Sequence[Path], name: str, points: int) -> ProbeResult:
    """Return the search of one evaluation, `name`, put together from the manifests of its pieces, in order.

    Parameters
    ----------
    points: how many train points there are.

    Raises
    ------
    UserError: a piece is damaged, or the lists are not as many as the points.
    """
    loaded: list[dict[str, np.ndarray]] = []
    reports, seconds = [], 0.0
    for path in manifests:
        manifest = files.read_json(path)
        made = f"{path.stem}/{name}.npz"
        files.check(path.parent, manifest["files"], [made])
        with np.load(path.parent / made, allow_pickle=False) as arrays:
            loaded.append(dict(arrays))
        reports.append(manifest["fits"][name])
        seconds += files.read_json(path.with_suffix(".provenance.json"))["fit_seconds"][name]
    whole = {key: np.concatenate([arrays[key] for arrays in loaded]) for key in loaded[0]}
    if len(whole["train_neighbours"]) != points:
        raise UserError(
            f"{manifests[0].parent}: {len(manifests)} pieces hold the neighbours of {len(whole['train_neighbours'])} train points, "
            f"but there are {points}; delete the pieces and run again"
        )
    counts = {split: [len(arrays[f"{split}_neighbours"]) for arrays in loaded] for split in SPLITS}
    return ProbeResult(whole, together(reports, counts) | {"seconds": round(seconds, 3)})


def together(reports: list[dict[str, Any]], counts: dict[str, list[int]]) -> dict[str, Any]:
    """Return the report on a search from those on its pieces, which had these numbers of queries by split."""
    settled, covered = {}, {}
    for split, numbers in counts.items():
        total = max(1, sum(numbers))
        weighed = list(zip(reports, numbers, strict=True))
        settled[split] = {
            arithmetic: sum(round(report["settled"][split][arithmetic] * n) for report, n in weighed) / total
            for arithmetic in reports[0]["settled"][split]
        }
        covered[split] = round(sum(report["covered"][split] * n for report, n in weighed) / total, 6)
    widened = {split: sum(list(fractions.values())[1:]) for split, fractions in settled.items()}
    return {**reports[0], "settled": settled, "widened": widened, "covered": covered}
