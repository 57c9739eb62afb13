"""The later claims: supported on tables made to support them, not supported on tables made to contradict them."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import published_tables
import pytest
from conftest import ROOT
from dnn_or_knn.atlas import tables as atlas
from dnn_or_knn.claims import later_claims, paper_claims
from dnn_or_knn.claims.later_study import LaterStudy
from dnn_or_knn.claims.words import INCONCLUSIVE, NOT_SUPPORTED, SUPPORTED, TOO_SMALL
from dnn_or_knn.measures.bootstrap import draw_counts
from dnn_or_knn.plan import schema as plan_schema
from dnn_or_knn.runtime import files, results
from forking import python
from published_tables import DEEP, LABELS, as_tables, published, write

LAYERS = 15
COUNTS = {"train": 3000, "test": 1000}
DRAW = {"replicates": 40, "seed": 0}


def examples(seeds: int = 1, layers: int = LAYERS, **depths: float) -> pd.DataFrame:
    """Return images of the true and the random run of CIFAR-10 with these mean depths, as shares of the layers.

    Of the true run: `train`, `right` and `wrong` (test); of the random run: `random`, and `own` of those that drew their own label.
    """
    means = {"train": 0.2, "right": 0.2, "wrong": 0.5, "random": 0.6, "own": 0.6} | depths
    rows = []
    for seed in range(seeds):
        rng = np.random.default_rng(seed)
        for kind in ("true", "random"):
            for split, count in COUNTS.items():
                true = rng.integers(0, 10, count)
                label = rng.integers(0, 10, count) if (kind, split) == ("random", "train") else true
                right = rng.random(count) < 0.9
                mean = np.where(right, means["right"], means["wrong"])
                if split == "train":
                    mean = (
                        np.where(label == true, means["own"], means["random"])
                        if kind == "random"
                        else np.full(count, means["train"])
                    )
                depth = rng.binomial(layers, mean)
                columns = {
                    "label": label,
                    "true_label": true,
                    "right": right,
                    "layers": layers,
                    "depth": depth / layers,
                }
                name = {
                    "dataset": "cifar10",
                    "architecture": DEEP,
                    "labels": LABELS[kind],
                    "seed": seed,
                    "split": split,
                }
                rows.append(pd.DataFrame({**name, **columns}))
    return pd.concat(rows, ignore_index=True)


STEPS = [0, 1000, 2000, 3000, 4000]


def rewound(seeds: int = 1, **accuracies: float) -> pd.DataFrame:
    """Return the random run of CIFAR-10 with layers set back; the whole network has 0.1, 0.2, 0.45, 0.8 and 1 of 1000 images.

    The accuracy on relabelled images with the last stage, and with what is before it, set back to any step is given.
    """
    back = {"last stage": 0.9, "before it": 0.3} | accuracies
    rows = []
    for seed in range(seeds):
        for layer in ("last stage", "before it", "all"):
            for step, whole in zip(STEPS, (0.1, 0.2, 0.45, 0.8, 1.0), strict=True):
                mean = whole if layer == "all" else back[layer]
                draws = np.random.default_rng([seed, step]).binomial(1000, mean, 40) / 1000
                name = {"dataset": "cifar10", "architecture": DEEP, "labels": LABELS["random"], "seed": seed}
                rows.append({**name, "layer": layer, "step": step, "relabelled": mean, "relabelled_replicates": draws})
    return pd.DataFrame(rows)


def study(made: pd.DataFrame | None, *, seeds: int = 1, **changes: Any) -> LaterStudy:
    """Return the published curves of CIFAR-10 with the measure beside them."""
    plain = published_tables.study([published(seed, ["cifar10"]) for seed in range(seeds)])
    block: dict[str, Any] = {}
    plan_schema.fill(block, plan_schema.load_schema()["properties"]["later_claims"])
    facts = {name: getattr(plain, name) for name in plain.__dataclass_fields__} | {"probes": {}}
    facts["thresholds"] = plain.thresholds | block
    return LaterStudy(**(facts | {"examples": made, "bootstrap": DRAW} | changes))


def judged(number: int, made: LaterStudy) -> dict[str, Any]:
    claim = next(claim for claim in later_claims.LATER if claim.number == number)
    return paper_claims.judge_one(claim, made)


@pytest.mark.parametrize("number", [10, 11])
@pytest.mark.parametrize("seeds", [1, 3])
def test_claim_holds_on_tables_made_to_support_it(number: int, seeds: int) -> None:
    claim = judged(number, study(examples(seeds), seeds=seeds))
    assert claim["verdict"] == SUPPORTED and claim["deciding"] == 1 and claim["one_run"] == (seeds == 1)
    effect = claim["effects"][0]
    assert effect["low"] < effect["value"] < effect["high"]
    assert effect["value"] == pytest.approx({10: 0.4, 11: 0.3}[number], abs=0.02)


@pytest.mark.parametrize(
    ("number", "depths", "verdict"),
    [
        (10, {"random": 0.2, "own": 0.2}, NOT_SUPPORTED),  # as deep
        (10, {"random": 0.1, "own": 0.1}, NOT_SUPPORTED),  # less deep
        (10, {"random": 0.23, "own": 0.23}, NOT_SUPPORTED),  # deeper by less than a layer
        (11, {"wrong": 0.2}, NOT_SUPPORTED),
        (11, {"wrong": 0.1}, NOT_SUPPORTED),
        (11, {"wrong": 0.25}, INCONCLUSIVE),  # of 100 wrong answers
        (10, {"wrong": 0.0}, SUPPORTED),  # the other claim's matter
        (11, {"random": 0.0}, SUPPORTED),
    ],
)
def test_tables_made_to_contradict_a_claim_do(number: int, depths: dict[str, float], verdict: str) -> None:
    assert judged(number, study(examples(**depths)))["verdict"] == verdict


@pytest.mark.parametrize(
    ("last", "verdict"),
    [(0.45, SUPPORTED), (0.3, SUPPORTED), (0.9, NOT_SUPPORTED), (0.65, NOT_SUPPORTED), (0.505, INCONCLUSIVE)],
)
@pytest.mark.parametrize("seeds", [1, 3])
def test_memorization_in_the_last_stage(last: float, verdict: str, seeds: int) -> None:
    """Of what goes with the whole network, set back to step 2000, (1 − last) / 0.55 goes with the last stage; 0.9 is asked."""
    claim = judged(12, study(None, seeds=seeds, rewind=rewound(seeds, **{"last stage": last})))
    effect, before = claim["effects"]
    assert claim["verdict"] == verdict and claim["deciding"] == 1 and not before["decides"]
    assert effect["value"] == pytest.approx((1 - last) / 0.55) and before["value"] == pytest.approx(0.7 / 0.55)
    assert "set back to step 2000" in effect["note"]


@pytest.mark.parametrize(
    ("change", "verdict", "said"),
    [
        (lambda r: None, INCONCLUSIVE, "switch on measures.rewind"),
        (lambda r: r[r.dataset == "mnist"], INCONCLUSIVE, "was not rewound"),
        (lambda r: r.assign(relabelled=np.nan), TOO_SMALL, "no relabelled images"),
        (lambda r: r[r.layer == "all"], TOO_SMALL, "no stages"),
        (lambda r: r[(r.step == 0) | (r.step > 2000)], TOO_SMALL, "too few evaluations before memorization"),
    ],
    ids=["not measured", "another run", "true labels", "no blocks", "memorized at once"],
)
def test_rewinding_that_cannot_be_judged_says_why(change: Callable[[Any], Any], verdict: str, said: str) -> None:
    claim = judged(12, study(None, rewind=change(rewound())))
    assert claim["verdict"] == verdict and said in claim["effects"][0]["note"]


def test_images_that_drew_their_own_label_are_reported_and_decide_nothing() -> None:
    apart, alike = (judged(10, study(examples(own=own))) for own in (0.3, 0.6))
    assert apart["verdict"] == alike["verdict"] == SUPPORTED
    effect = apart["effects"][1]
    assert not effect["decides"] and effect["value"] == pytest.approx(0.3, abs=0.03)
    assert "images relabelled" in effect["note"] and alike["effects"][1]["verdict"] == NOT_SUPPORTED


def test_the_value_is_the_difference_of_means_and_each_replicate_that_of_its_draw() -> None:
    made = examples()
    rows = made[(made.labels == LABELS["true"]) & (made.split == "test")]
    found = study(made).mean_depth(published_tables_run("true"), 0, "test", ~rows.right.to_numpy())
    assert found[0] == pytest.approx(rows[~rows.right].depth.mean())
    for replicate, draw in zip(found[1:], draw_counts(len(rows), 40, seed=0, split="test"), strict=True):
        assert replicate == pytest.approx(np.repeat(rows.depth, draw)[np.repeat(~rows.right, draw).to_numpy()].mean())


def published_tables_run(kind: str) -> Any:
    return study(None).run("cifar10", kind)


@pytest.mark.parametrize(
    ("change", "verdict", "said"),
    [
        (lambda e: None, INCONCLUSIVE, "switch on measures.examples"),
        (lambda e: e.assign(layers=1), TOO_SMALL, "fewer than three layers"),
        (lambda e: e[e.dataset == "mnist"], INCONCLUSIVE, "no images measured"),
        (lambda e: e.assign(right=True), TOO_SMALL, "too few to compare: 0 images"),
    ],
    ids=["not measured", "one layer", "another run", "no wrong answer"],
)
def test_what_cannot_be_decided_says_why(change: Callable[[Any], Any], verdict: str, said: str) -> None:
    claim = judged(11, study(change(examples())))
    assert claim["verdict"] == verdict and said in claim["effects"][0]["note"]


def test_a_network_that_memorized_nothing_tells_nothing_of_random_labels() -> None:
    made = study(examples())
    runs = {key: facts | {"memorization_step": None} for key, facts in made.data.runs.items()}
    assert judged(10, replace(made, data=replace(made.data, runs=runs)))["verdict"] == TOO_SMALL


def test_a_replicate_that_drew_none_of_the_images_has_their_mean() -> None:
    those = np.zeros(COUNTS["test"], bool)
    those[0] = True
    made = examples()
    found = study(made).mean_depth(published_tables_run("true"), 0, "test", those)
    assert found == pytest.approx(np.full(len(found), found[0]))


def test_they_are_not_among_the_papers_nine() -> None:
    assert [claim.number for claim in paper_claims.CLAIMS] == list(range(1, 10))
    assert all(claim.number > 9 and claim.statement.startswith("Later work (arXiv ") for claim in later_claims.LATER)


def test_the_stage_writes_verdicts_table_and_figure(tmp_path: Path) -> None:
    folder = write(tmp_path / "measures", *as_tables([published(0, ["cifar10"])]))
    atlas.write(folder / "examples.parquet", {name: column.to_numpy() for name, column in examples().items()})
    results.write(folder / "examples.json", {}, [folder / "examples.parquet"])
    made = study(None)
    facts = {
        "architectures": made.architectures,
        "datasets": made.datasets,
        "labels": made.labels,
        "architecture": DEEP,
    }
    spec = {"claims": dict(made.thresholds), "bootstrap": DRAW, **facts}
    words = [
        "--measures",
        folder / "measures.json",
        "--beside",
        folder / "examples.json",
        "--output",
        tmp_path / "later.json",
    ]
    line = [python(), str(ROOT / "workflow/scripts/later_claims.py"), "--spec", json.dumps(spec), *map(str, words)]
    done = subprocess.run(line, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    claims = files.read_json(tmp_path / "later.json")["claims"]
    assert [(claim["claim"], claim["verdict"]) for claim in claims][:2] == [(10, SUPPORTED), (11, SUPPORTED)]
    text = (tmp_path / "later.md").read_text()
    assert text.startswith("# Later claims, which are not the paper's\n") and "claim 10 (later work)" in done.stderr
    assert (tmp_path / "later.png").stat().st_size > 5000 and len(pd.read_csv(tmp_path / "later.csv")) >= 3
