"""Image by image: each value is that of a loop over 200 images, and what the public codes get wrong is right here."""

from __future__ import annotations

import math
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from dnn_or_knn.atlas import examples
from dnn_or_knn.atlas.common import Part
from toy_run import LAYERS, STEPS, K, Toy

LATER = STEPS[1:]


def table(part: Part) -> pd.DataFrame:
    return pd.DataFrame(examples.measure(part))


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Toy:
    return Toy(tmp_path_factory.mktemp("toy")).write()


@pytest.fixture(scope="module")
def measured(toy: Toy) -> pd.DataFrame:
    return table(toy.part())


def softmax(logits: np.ndarray) -> list[float]:
    powers = [math.exp(float(value)) for value in logits]
    return [power / sum(powers) for power in powers]


def vote(toy: Toy, layer: str, split: str, image: int) -> int:
    """Return k-NN's answer: the class of most of the k nearest other images, the lowest of those with equally many."""
    train, point = toy.features[100, layer, "train"].astype(float), toy.features[100, layer, split][image].astype(float)
    others = [i for i in range(len(train)) if split == "test" or i != image]
    nearest = sorted(others, key=lambda i: (float(np.sqrt(((train[i] - point) ** 2).sum())), i))[:K]
    votes = [sum(toy.labels["train"][i] == label for i in nearest) for label in range(toy.classes)]
    return votes.index(max(votes))


def depth(toy: Toy, split: str, image: int) -> int:
    """Return the first layer from which on k-NN gives the network's last answer."""
    answer = int(toy.logits[100, split][image].argmax())
    right = [vote(toy, layer, split, image) == answer for layer in toy.layers()]
    return next((first for first in range(len(right)) if all(right[first:])), len(right))


def brute(toy: Toy, split: str, image: int) -> dict[str, Any]:
    """Return what the definitions say of one image, by loops."""
    label = int(toy.labels[split][image])
    p = {step: softmax(toy.logits[step, split][image]) for step in LATER}
    right = {step: int(toy.logits[step, split][image].argmax()) == label for step in LATER}
    of_label = [p[step][label] for step in LATER]
    mean = sum(of_label) / len(LATER)
    after = [step for step in LATER if all(right[later] for later in LATER if later >= step)]
    train = toy.features[100, "embedding", "train"].astype(float)
    far = np.sqrt(((train - toy.features[100, "embedding", split][image].astype(float)) ** 2).sum(axis=1))
    near = sorted((i for i in range(len(train)) if split == "test" or i != image), key=lambda i: (float(far[i]), i))[:K]
    return {
        "prediction_depth": depth(toy, split, image),
        "step_learned": after[0] if after else math.nan,
        "first_right": next((step for step in LATER if right[step]), math.nan),
        "forgotten": sum(right[a] and not right[b] for a, b in pairwise(LATER)),
        "confidence": mean,
        "variability": math.sqrt(sum((value - mean) ** 2 for value in of_label) / len(LATER)),
        "correctness": sum(right.values()) / len(LATER),
        # 10 is a tenth of 100.
        "el2n": math.sqrt(sum((value - (c == label)) ** 2 for c, value in enumerate(p[10]))),
        "loo_probability": sum(toy.labels["train"][i] == label for i in near) / K,
        "d_kl_knn": _d_kl([sum(toy.labels["train"][i] == c for i in near) / K for c in range(toy.classes)], p[100]),
    }


def _d_kl(p: list[float], q: list[float]) -> float:
    return sum(a * math.log(a / b) for a, b in zip(p, q, strict=True) if a > 0)


@pytest.mark.parametrize("split", ["train", "test"])
def test_every_value_is_that_of_a_loop_over_the_images(toy: Toy, measured: pd.DataFrame, split: str) -> None:
    found = measured[measured.split == split].reset_index(drop=True)
    expected = pd.DataFrame([brute(toy, split, image) for image in range(len(toy.labels[split]))])
    for name in expected:
        np.testing.assert_allclose(found[name], expected[name], rtol=1e-9, err_msg=name)
    names = np.array([*LAYERS, "output"])
    assert list(found.depth_layer) == list(names[expected.prediction_depth])
    np.testing.assert_allclose(found.depth, expected.prediction_depth / len(LAYERS))
    if split == "train":  # else nothing was tested
        assert expected.prediction_depth.nunique() == 4 and expected.forgotten.max() > 0


def test_rows_name_the_images_and_both_their_labels(toy: Toy, measured: pd.DataFrame) -> None:
    train, test = (measured[measured.split == split] for split in ("train", "test"))
    assert list(train.image) == list(toy.indices) and list(test.image) == list(range(len(test)))
    assert list(train.label) == list(toy.labels["train"]) and (test.label == test.true_label).all()
    assert list(train.true_label) == list(toy.true["train"][toy.indices]) and (train.label != train.true_label).any()
    answer = np.concatenate([toy.logits[100, split].argmax(axis=1) for split in ("train", "test")])
    assert list(measured.answer) == list(answer) and (measured.right == (measured.answer == measured.label)).all()


def test_means_over_the_images_are_the_measures_of_the_run(toy: Toy, measured: pd.DataFrame) -> None:
    from dnn_or_knn.measures.formulas import measure

    part = toy.part()
    for split, rows in measured.groupby("split"):
        models = part.models("steps000000-000100", 100, "embedding")[split]
        accuracy, found = measure(part.logits(100, split), part.given[split], models, np.empty((0, len(rows))))
        assert rows.right.mean() == pytest.approx(accuracy[0])
        for name, (values, _) in found.items():
            assert rows[f"agrees_{name}"].mean() == pytest.approx(values["p_same"][0])
            assert rows[f"d_kl_{name}"].mean() == pytest.approx(values["d_kl"][0])


# The two faults of public code for the prediction depth.


def depths(votes: list[np.ndarray], answer: np.ndarray) -> np.ndarray:
    return examples.prediction_depth(np.array(votes), answer)


def weighted_by_the_first_columns(toy: Toy, layer: str) -> np.ndarray:
    """Return votes that one public project takes: self dropped by its place in the order, and as weights the first k columns of
    the distances, which are those to the first k images and not to the nearest."""
    features = toy.features[100, layer, "train"].astype(float)
    distances = np.sqrt(((features[:, None] - features[None]) ** 2).sum(axis=2))
    nearest = np.argsort(distances, axis=1, kind="stable")[:, 1 : K + 1]
    weights = 1 / (distances[:, :K] + 1e-9)
    votes = [np.bincount(toy.labels["train"][near], w, toy.classes) for near, w in zip(nearest, weights, strict=True)]
    return np.argmax(votes, axis=1)


def with_its_own_vote(toy: Toy, layer: str) -> np.ndarray:
    """Return votes in which each image is one of its own neighbours, as in another public project."""
    features = toy.features[100, layer, "train"].astype(float)
    nearest = np.argsort(((features[:, None] - features[None]) ** 2).sum(axis=2), axis=1, kind="stable")[:, :K]
    return np.array([np.bincount(toy.labels["train"][near], minlength=toy.classes).argmax() for near in nearest])


@pytest.mark.parametrize("fault", [weighted_by_the_first_columns, with_its_own_vote])
def test_faults_of_public_code_give_other_depths(toy: Toy, measured: pd.DataFrame, fault: Any) -> None:
    answer = toy.logits[100, "train"].argmax(axis=1)
    wrong = depths([fault(toy, layer) for layer in LAYERS], answer)
    own = measured[measured.split == "train"].prediction_depth.to_numpy()
    assert (wrong != own).mean() > 0.05
    if (
        fault is with_its_own_vote
    ):  # an image that votes for itself is right too early, if the network learned its label
        learned = answer == toy.labels["train"]
        assert wrong[learned].mean() < own[learned].mean()


def test_an_image_with_copies_is_left_out_by_its_index_and_not_by_its_place(toy: Toy) -> None:
    neighbours, distances = toy.neighbours(100, "embedding", "train")
    copies = np.arange(50, 70)
    assert (distances[copies] == 0).all() and not (neighbours == np.arange(len(neighbours))[:, None]).any()
    by_place = copies[np.argsort(np.zeros((20, 20)), axis=1, kind="stable")[:, 1:]]
    assert (by_place == copies[:, None]).any(), "dropped by its place, the image stays among its neighbours"


# Edges, each defined in the module's docstring.


def test_equal_votes_go_to_the_lowest_class() -> None:
    votes = np.array([[1, 1, 0], [1, 0, 0]])
    assert list(examples.prediction_depth(votes, np.array([1, 1, 1]))) == [0, 2, 2]
    assert list(examples.prediction_depth(votes, np.array([0, 0, 0]))) == [2, 1, 0]


def test_one_layer_has_the_depths_0_and_1(tmp_path: Path) -> None:
    found = table(Toy(tmp_path, hidden=False).write().part())
    assert set(found.prediction_depth) == {0, 1} and set(found.layers) == {1}
    assert set(found.depth_layer) == {"embedding", "output"}
    assert ((found.prediction_depth == 0) == found.agrees_knn).all()


def test_step_0_counts_where_it_is_the_only_evaluation(toy: Toy) -> None:
    logits, given = toy.logits[0, "train"], toy.labels["train"]
    found = examples.along_the_steps([0], [logits], given)
    assert set(found["first_right"][~np.isnan(found["first_right"])]) == {0} and not found["variability"].any()
    assert np.isfinite(found["el2n"]).all()


def test_one_evaluation_varies_and_forgets_nothing(toy: Toy) -> None:
    logits, given = toy.logits[100, "train"], toy.labels["train"]
    found = examples.along_the_steps([100], [logits], given)
    right = logits.argmax(axis=1) == given
    assert not found["variability"].any() and not found["forgotten"].any()
    assert (found["step_learned"][right] == 100).all() and np.isnan(found["step_learned"][~right]).all()
    assert list(found["correctness"]) == list(right.astype(float))


def test_an_image_that_was_never_right_has_no_steps_and_forgot_nothing() -> None:
    logits = np.tile(np.eye(3)[[0, 0]], (4, 1, 1)) * 9
    found = examples.along_the_steps([10, 20, 30, 40], list(logits), np.array([0, 2]))
    assert list(found["forgotten"]) == [0, 0] and found["first_right"][0] == found["step_learned"][0] == 10
    assert np.isnan(found["first_right"][1]) and np.isnan(found["step_learned"][1])


def test_forgotten_counts_every_loss_and_learned_is_after_the_last() -> None:
    answers = [0, 1, 0, 1, 0, 0]
    found = examples.along_the_steps([1, 2, 3, 4, 5, 6], [np.eye(2)[[a]] for a in answers], np.array([0]))
    assert (found["forgotten"][0], found["first_right"][0], found["step_learned"][0]) == (2, 1, 5)
    assert found["correctness"][0] == pytest.approx(4 / 6)


def test_a_class_without_members_gets_no_vote(tmp_path: Path) -> None:
    toy = Toy(tmp_path, classes=6).write()
    found = table(toy.part())
    assert found.loo_probability.between(0, 1).all() and not np.isnan(found.d_kl_knn).any()
    # The network may answer with it; then no layer's vote does.
    assert (found[found.answer >= 4].prediction_depth == len(LAYERS)).all() and (found.answer >= 4).any()


def test_nothing_is_called_a_memorization_score(measured: pd.DataFrame) -> None:
    assert not [name for name in measured if "memor" in name or "score" in name]
