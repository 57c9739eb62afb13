"""Layer by layer: TwoNN, neural collapse and CKA against their formulas written out on 200 images."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from dnn_or_knn.atlas import geometry
from dnn_or_knn.atlas.weights import read_array
from dnn_or_knn.runtime.errors import UserError
from toy_run import EMBEDDING, HIDDEN, LAYERS, STEPS, Toy

NC = ["nc1", "nc2_norms", "nc2_angles", "nc2_simplex", "nc3", "nc4"]


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Toy:
    return Toy(tmp_path_factory.mktemp("toy"), copies=3).write()


def neighbour_distances(points: np.ndarray) -> np.ndarray:
    distances = np.sqrt(((points[:, None] - points[None]) ** 2).sum(axis=2))
    np.fill_diagonal(distances, np.inf)
    return np.sort(distances, axis=1)[:, :2]


def facco(points: np.ndarray) -> float:
    """TwoNN as scikit-dimension writes it: least squares through the origin on the 90 % of smallest μ."""
    mu = np.sort([second / first for first, second in neighbour_distances(points)])[: int(0.9 * len(points))]
    x, y = np.log(mu)[:, None], -np.log(1 - np.arange(1, len(mu) + 1) / len(points))
    return float(np.linalg.lstsq(x, y, rcond=None)[0][0])


def papyan(h: np.ndarray, labels: np.ndarray, answer: np.ndarray, weights: np.ndarray) -> dict[str, float]:
    """NC1 to NC4 with the matrices themselves, of classes that all occur."""
    h, classes = h.astype(float), np.unique(labels)
    means = {c: h[labels == c].mean(axis=0) for c in classes}
    centre = np.mean(list(means.values()), axis=0)
    m = np.array([means[c] - centre for c in classes])
    within = np.mean([np.outer(x - means[y], x - means[y]) for x, y in zip(h, labels, strict=True)], axis=0)
    between = np.mean([np.outer(row, row) for row in m], axis=0)
    norms = [np.linalg.norm(row) for row in m]
    cosines = [m[a] @ m[b] / norms[a] / norms[b] for a in range(len(m)) for b in range(len(m)) if a != b]
    w = weights.astype(float)
    nearest = [min(classes, key=lambda c: float(((x - means[c]) ** 2).sum())) for x in h]
    return {
        "nc1": np.trace(within @ np.linalg.pinv(between, rcond=1e-10)) / len(classes),
        "nc2_norms": np.std(norms) / np.mean(norms),
        "nc2_angles": np.std(cosines),
        "nc2_simplex": np.mean([abs(cosine + 1 / (len(m) - 1)) for cosine in cosines]),
        "nc3": np.linalg.norm(w / np.linalg.norm(w) - m / np.linalg.norm(m)) ** 2,
        "nc4": np.mean(np.array(nearest) != answer),
    }


def gram_cka(x: np.ndarray, y: np.ndarray) -> float:
    """Linear CKA with the Gram matrices of the images: HSIC(K, L) / √(HSIC(K, K) HSIC(L, L))."""
    centre = np.eye(len(x)) - 1 / len(x)
    k, m = (centre @ (z.astype(float) @ z.T.astype(float)) @ centre for z in (x, y))
    return float(np.trace(k @ m) / np.sqrt(np.trace(k @ k) * np.trace(m @ m)))


def test_every_value_of_every_step_and_layer_is_that_of_its_formula(toy: Toy) -> None:
    made = [pd.DataFrame({name: list(column) for name, column in geometry.measure(part).items()})
            for part in (toy.part(EMBEDDING), toy.part(HIDDEN, EMBEDDING))]  # fmt: skip
    assert list(made[0].step) == STEPS and list(made[1].layer) == LAYERS[:-1]
    for row in pd.concat(made).to_dict("records"):
        features, logits = toy.features[row["step"], row["layer"], "train"], toy.logits[row["step"], "train"]
        expected = papyan(features, toy.labels["train"], logits.argmax(axis=1), toy.weights[row["step"]])
        if row["layer"] != "embedding":
            expected["nc3"] = np.nan
        assert [row[name] for name in NC] == pytest.approx([expected[name] for name in NC], rel=1e-9, nan_ok=True)
        # The copies lie at the distance 0, and are left out: the other points have the distances that they had.
        distances = neighbour_distances(features.astype(float))
        assert row["intrinsic_dimension"] == pytest.approx(geometry.two_nn(distances[distances[:, 0] > 0]))
        assert row["dimensions"] == 6
        names = LAYERS if row["layer"] != "embedding" else ["embedding"]
        expected_cka = [gram_cka(features, toy.features[row["step"], name, "train"]) for name in names]
        assert list(row["cka"]) == pytest.approx(expected_cka, rel=1e-9)
        assert row["cka_embedding"] == pytest.approx(expected_cka[-1])
        after = names[names.index(row["layer"]) + 1 :]
        assert row["cka_next"] == pytest.approx(expected_cka[names.index(after[0])] if after else np.nan, nan_ok=True)


@pytest.mark.parametrize("dimension", [1, 2, 5, 40])
def test_two_nn_is_that_of_its_formula(dimension: int) -> None:
    points = np.random.default_rng(dimension).normal(size=(200, dimension))
    assert geometry.two_nn(neighbour_distances(points)) == pytest.approx(facco(points), rel=1e-9)


def test_two_nn_finds_the_dimension_of_a_plane_in_space() -> None:
    rng = np.random.default_rng(0)
    plane = rng.uniform(size=(2000, 2)) @ rng.normal(size=(2, 30))
    assert geometry.two_nn(neighbour_distances(plane)) == pytest.approx(2, rel=0.1)


@pytest.mark.parametrize("dimension", [1, 2, 5, 40])
@pytest.mark.parametrize("copies", [0, 20])
def test_two_nn_is_that_of_scikit_dimension(dimension: int, copies: int) -> None:
    skdim = pytest.importorskip("skdim", reason="scikit-dimension is not installed: pip install scikit-dimension")
    points = np.random.default_rng(dimension).normal(size=(200, dimension))
    points[:copies] = points[0]
    distances = neighbour_distances(points)
    with warnings.catch_warnings(action="ignore"):
        expected = skdim.id.TwoNN(discard_fraction=0.1, dist=True).fit(distances).dimension_
    assert geometry.two_nn(distances) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(
    "distances",
    [np.empty((0, 2)), np.ones((50, 1)), np.zeros((50, 2)), np.ones((50, 2)), np.array([[1.0, 2.0], [1.0, 3.0]])],
    ids=["no neighbours kept", "one neighbour", "only copies", "all at one distance", "two points"],
)
def test_two_nn_is_missing_where_it_is_not_defined(distances: np.ndarray) -> None:
    assert np.isnan(geometry.two_nn(distances))


def collapsed(classes: int = 4, each: int = 10, spread: float = 0.0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return features, labels and weights at neural collapse: class means at the corners of a simplex."""
    corners = (np.eye(classes) - 1 / classes) @ np.eye(classes, 8) + 3
    labels = np.repeat(np.arange(classes), each)
    noise = np.random.default_rng(0).normal(size=(len(labels), 8)) * spread
    return (corners[labels] + noise).astype(np.float32), labels, ((corners - 3) * 7).astype(np.float32)


def test_collapse_is_0_at_collapse_and_grows_with_the_spread() -> None:
    found = [geometry.collapse(features, labels, labels, weights)
             for features, labels, weights in (collapsed(), collapsed(spread=0.01), collapsed(spread=0.1))]  # fmt: skip
    assert list(found[0].values()) == pytest.approx([0.0] * 6, abs=1e-6)
    assert found[0]["nc1"] < found[1]["nc1"] < found[2]["nc1"]


def test_a_class_without_members_takes_no_part() -> None:
    features, labels, weights = collapsed(spread=0.05)
    there = labels != 2
    found = geometry.collapse(features[there], labels[there], labels[there], weights)
    renamed = np.searchsorted([0, 1, 3], labels[there])
    assert found == pytest.approx(papyan(features[there], renamed, renamed, weights[[0, 1, 3]]))


def test_one_class_has_no_collapse_but_its_answers() -> None:
    features, labels, weights = collapsed(spread=0.05)
    found = geometry.collapse(features, np.zeros_like(labels), labels, weights)
    assert found.pop("nc4") == 0.75 and all(np.isnan(value) for value in found.values())
    constant = geometry.collapse(np.ones_like(features), labels, labels, weights)
    assert np.isnan(constant["nc1"]) and constant["nc4"] == 0.75


def test_nearest_means_equally_far_go_to_the_lowest_class() -> None:
    features = np.array([[-1.0], [-1.0], [1.0], [1.0], [0.0], [0.0]], np.float32)
    labels = np.array([0, 0, 1, 1, 0, 1])
    answer = np.array([0, 0, 1, 1, 0, 0])
    assert geometry.collapse(features, labels, answer, None)["nc4"] == 0


def test_cka_of_a_constant_layer_is_missing_and_a_rotation_changes_nothing() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(50, 4)).astype(np.float32)
    turned = (x @ np.linalg.qr(rng.normal(size=(4, 4)))[0] * 3 + 5).astype(np.float32)
    found = geometry.cka_matrix([x, turned, np.full((50, 2), 0.1, np.float32)])
    assert found[0, 1] == pytest.approx(1, abs=1e-5) and np.isnan(found[2]).all() and np.isnan(found[:2, 2]).all()
    assert geometry.cka_matrix([x]) == pytest.approx(np.array([[1.0]]))


def test_without_a_probe_that_keeps_l2_distances_the_dimension_is_missing(toy: Toy) -> None:
    found = geometry.measure(toy.part(EMBEDDING, knn=None))
    assert np.isnan(found["intrinsic_dimension"]).all() and np.isfinite(found["nc1"]).all()


# The weights of the last layer, without torch.


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_an_array_is_the_one_that_torch_loads(tmp_path: Path, dtype: torch.dtype) -> None:
    kept = {"first.weight": torch.randn(5, 1, 3, 3, dtype=dtype), "classifier.weight": torch.randn(10, 64, dtype=dtype)}
    kept["first.count"] = torch.tensor(7)
    torch.save({"model": kept, "step": 3}, tmp_path / "step.pt")
    for name in ("first.weight", "classifier.weight"):
        loaded = torch.load(tmp_path / "step.pt", weights_only=True)["model"][name].numpy()
        found = read_array(tmp_path / "step.pt", name)
        assert found is not None and found.dtype == loaded.dtype and np.array_equal(found, loaded)
    assert read_array(tmp_path / "step.pt", "fc.weight") is None


class Executed:
    """Would do something when it is loaded."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return eval, ("1 / 0",)


@pytest.mark.parametrize("what", ["nothing", "text", "code", "turned"])
def test_what_holds_no_weights_is_one_sentence_and_is_not_executed(tmp_path: Path, what: str) -> None:
    path = tmp_path / "checkpoints" / "step.pt"
    path.parent.mkdir()
    if what == "text":
        path.write_text("no weights")
    if what == "code":
        torch.save({"model": Executed()}, path)
    if what == "turned":
        torch.save({"model": {"w": torch.randn(3, 4).T}}, path)
    with pytest.raises(
        UserError, match=r"step\.pt holds something else than weights .*; delete .*checkpoints and train"
    ):
        read_array(path, "w")
