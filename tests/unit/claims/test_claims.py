"""The claims, on made-up tables in which each holds, fails, and cannot be told."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from conftest import ROOT
from dnn_or_knn.claims import effects, paper_claims
from dnn_or_knn.claims.effects import INCONCLUSIVE, NOT_SUPPORTED, SUPPORTED
from dnn_or_knn.claims.study import THRESHOLDS, Study, check_thresholds, half_depth, kept_to
from dnn_or_knn.measures import tables
from dnn_or_knn.runtime import files
from dnn_or_knn.runtime.errors import UserError

ARCHITECTURES, DEEP = ["mlp", "lenet", "wrn"], "wrn"
LABELS = {"true": "true-labels", "random": "random-labels", "overfit": "overfit"}
PROBES = ("knn", "svm", "lr")
LAYERS = ("input", "initial_conv", "unit_1_1", "unit_2_1", "unit_3_1", "embedding")
STEPS, MEMORIZED = np.arange(0, 1001, 50), 500
TIME = STEPS / 1000
REPLICATES = 100

#: (architecture, labels, layer, split, model) → measure → values at the steps.
World = dict[tuple[str, str, str, str, str], dict[str, np.ndarray]]


def world() -> World:
    """Return curves in which every claim of the paper holds."""
    made: World = {}
    for depth, architecture in enumerate(ARCHITECTURES):
        accuracy = 0.1 + (0.8 + 0.05 * depth) * (1 - np.exp(-8 * TIME))
        for split in ("train", "test"):
            made[architecture, "true", "embedding", split, "dnn"] = {"accuracy": accuracy}
            for shift, probe in enumerate(PROBES):
                made[architecture, "true", "embedding", split, probe] = {
                    "accuracy": accuracy + 0.002 * shift * (3 - depth),
                    "p_same": 0.9 + 0.03 * depth - 0.6 * np.exp(-12 * TIME),
                    "d_kl": 1.5 * np.exp(-6 * TIME) + (0.05 if split == "train" else 0.06),
                }
    _layers(made, "true", [0.3, 0.4, 0.55, 0.7, 0.85, 0.95], [0.28, 0.4, 0.54, 0.68, 0.83, 0.94])
    _layers(made, "random", [0.12, 0.12, 0.13, 0.14, 0.3, 0.98], [0.1] * 6)
    for labels, final in (("random", 0.1), ("overfit", 0.6)):
        before = np.minimum(STEPS / MEMORIZED, 1)
        after = np.maximum(STEPS - MEMORIZED, 0) / (1000 - MEMORIZED)
        network = {"train": 0.1 + 0.9 * before, "test": np.full(len(STEPS), final)}
        common = 0.2 + 0.6 * before
        for split in ("train", "test"):
            made[DEEP, labels, "embedding", split, "dnn"] = {"accuracy": network[split]}
            for probe in PROBES:
                parted = {"train": common * np.exp(-40 * after), "test": common + 1.5 * (1 - np.exp(-20 * after))}
                like = np.full(len(STEPS), 0.6 if probe == "knn" and split == "test" else 0.95)
                made[DEEP, labels, "embedding", split, probe] = {
                    "accuracy": network[split],
                    "p_same": like,
                    "d_kl": parted[split] if probe == "knn" else common,
                }
    return made


def _layers(made: World, labels: str, train: list[float], test: list[float]) -> None:
    """Set the accuracies at the hidden layers, and at the embedding at the last step."""
    for split, values in (("train", train), ("test", test)):
        for probe in PROBES:
            for layer, value in zip(LAYERS[:-1], values, strict=False):
                made[DEEP, labels, layer, split, probe] = {"accuracy": np.array([value])}


def study(
    made: World, *, noise: float = 1e-4, seeds: int = 1, memorized: int | None = MEMORIZED, **values: Any
) -> Study:
    """Return the tables of a world as a study; replicates are its values with noise, relative where they are large."""
    measures, replicates, runs = as_tables(made, noise=noise, seeds=seeds, memorized=memorized)
    facts = {"architectures": ARCHITECTURES, "datasets": ["toy"], "labels": LABELS, "architecture": DEEP}
    facts |= {"probes": {name: name for name in PROBES}, **values}
    return Study(data=effects.prepare(measures, replicates, runs.to_dict("records")), **facts)


def as_tables(
    made: World, *, noise: float = 1e-4, seeds: int = 1, memorized: int | None = MEMORIZED
) -> tuple[pd.DataFrame, dict[str, np.ndarray], pd.DataFrame]:
    rng = np.random.default_rng(0)
    rows: list[dict[str, Any]] = []
    for seed in range(seeds):
        for (architecture, labels, layer, split, model), measures in made.items():
            run = {"dataset": "toy", "architecture": architecture, "labels": LABELS[labels], "seed": seed}
            key = {"layer": layer, "layer_index": LAYERS.index(layer), "split": split, "model": model, "count": 1000}
            steps = STEPS if layer == "embedding" else STEPS[-1:]
            moved = {
                name: value + noise * rng.normal(size=len(value)) * (seeds > 1) for name, value in measures.items()
            }
            for i, step in enumerate(steps):
                values = {name: float(value[i]) for name, value in moved.items()}
                rows.append({**run, **key, "step": step, **values, "floored": 0, "converged": True})
    table = tables.frame(rows)
    drawn = {
        name: table[name].to_numpy()[:, None] + noise * rng.normal(size=(len(table), REPLICATES))
        for name in tables.REPLICATED
    }
    replicates = {name: np.maximum(values, 0) for name, values in drawn.items()}
    runs = table[tables.RUN_KEYS].drop_duplicates().reset_index(drop=True)
    true = (runs.labels == LABELS["true"]).to_numpy()
    runs["classes"], runs["train_count"], runs["test_count"], runs["last_step"] = 10, 1000, 1000, STEPS[-1]
    for column in ("memorization_step", "step_90"):
        runs[column] = pd.array([None if is_true else memorized for is_true in true], "Int64")
    runs["final_train_accuracy"], runs["final_test_accuracy"] = 1.0, np.where(true, 1.0, 0.6)
    return table, replicates, runs[tables.RUN_COLUMNS]


def verdict(of: Study, number: int) -> dict[str, Any]:
    """Return the judged claim."""
    return paper_claims.judge_one(paper_claims.CLAIMS[number - 1], of)


def change(made: World, measure: str, function: Callable[[np.ndarray], np.ndarray], **where: str) -> World:
    """Change a measure wherever the named keys (architecture, labels, layer, split, model) match."""
    names = ("architecture", "labels", "layer", "split", "model")
    for key, measures in made.items():
        if (
            all(dict(zip(names, key, strict=True))[name] == value for name, value in where.items())
            and measure in measures
        ):
            measures[measure] = function(measures[measure])
    return made


EMBEDDING = {"layer": "embedding", "labels": "true"}


def knn_worse_at_one_network(made: World) -> World:
    return change(made, "accuracy", lambda a: a - 0.1, architecture="lenet", split="test", model="knn", **EMBEDDING)


def knn_disagrees(made: World) -> World:
    return change(made, "p_same", lambda p: p - 0.2, architecture="mlp", split="test", model="svm", **EMBEDDING)


def a_layer_falls(made: World) -> World:
    return change(made, "accuracy", lambda a: a - 0.3, labels="true", layer="unit_3_1", split="test", model="lr")


def memorized_early(made: World) -> World:
    return change(made, "accuracy", lambda a: a + 0.7, labels="random", layer="unit_1_1", split="train", model="svm")


def late_parting_with_true_labels(made: World) -> World:
    change(made, "d_kl", lambda d: d * np.where(STEPS > 800, 0.4, 1), split="train", model="knn", **EMBEDDING)
    return change(made, "d_kl", lambda d: d * np.where(STEPS > 800, 3.0, 1), split="test", model="knn", **EMBEDDING)


def random_labels_never_part(made: World) -> World:
    common = 0.2 + 0.6 * np.minimum(STEPS / MEMORIZED, 1)
    return change(made, "d_kl", lambda d: common, labels="random", layer="embedding", model="knn")


def overfitting_never_parts(made: World) -> World:
    return change(made, "d_kl", lambda d: np.full(len(d), 0.5), labels="overfit", layer="embedding", model="knn")


def knn_like_the_network_though_it_memorized(made: World) -> World:
    return change(made, "p_same", lambda p: np.full(len(p), 0.95), labels="random", split="test", model="knn")


def alarm_in_a_true_label_run(made: World) -> World:
    return change(made, "d_kl", lambda d: d + np.where(STEPS >= 700, 1.0, 0), split="test", model="knn", **EMBEDDING)


def alarm_long_before_memorization(made: World) -> World:
    return change(
        made, "d_kl", lambda d: d * np.where(STEPS >= 100, 0.1, 1), labels="overfit", split="train", model="knn"
    )


FAILS = [
    (1, knn_worse_at_one_network, "toy, lenet"),
    (2, knn_disagrees, "toy, mlp, svm"),
    (3, a_layer_falls, "toy, lr"),
    (4, memorized_early, "toy, svm"),
    (5, late_parting_with_true_labels, "toy, knn"),
    (6, random_labels_never_part, "toy, knn"),
    (7, overfitting_never_parts, "toy, knn"),
    (8, knn_like_the_network_though_it_memorized, "toy, random"),
    (9, alarm_in_a_true_label_run, "toy, true"),
    (9, alarm_long_before_memorization, "toy, overfit"),
]


@pytest.fixture(scope="module")
def held() -> list[dict[str, Any]]:
    return paper_claims.judge(study(world()))


@pytest.mark.parametrize("number", range(1, 10))
def test_claim_holds(held, number):
    claim = held[number - 1]
    wrong = [effect for effect in claim["effects"] if effect["verdict"] != SUPPORTED and effect["decides"]]
    assert claim["verdict"] == SUPPORTED and not wrong, wrong
    assert claim["one_run"] and claim["interval"] == paper_claims.INTERVALS[0]
    assert all(effect["low"] <= effect["value"] <= effect["high"] for effect in claim["effects"])


@pytest.mark.parametrize(("number", "spoil", "cell"), FAILS, ids=[f"{n}-{f.__name__}" for n, f, _ in FAILS])
def test_claim_fails_in_the_cell_that_is_named(number, spoil, cell):
    claim = verdict(study(spoil(world())), number)
    assert claim["verdict"] == NOT_SUPPORTED
    assert claim["failing"] and {name.split(": ")[1] for name in claim["failing"]} >= {cell}


@pytest.mark.parametrize("number", range(1, 10))
def test_claim_cannot_be_told_where_intervals_cross_thresholds(number):
    made = world()
    # Noise as wide as the thresholds themselves: nothing can be told, and nothing may be called wrong.
    claim = verdict(study(made, noise=0.3), number)
    assert claim["verdict"] != SUPPORTED
    assert claim["untold"] or claim["failing"]


@pytest.mark.parametrize("number", [4, 6, 7, 8, 9])
def test_claim_cannot_be_told_without_memorization(number):
    claim = verdict(study(world(), memorized=None), number)
    assert claim["verdict"] == INCONCLUSIVE
    assert any("no memorization reached in toy/wrn/" in effect["note"] for effect in claim["effects"])


@pytest.mark.parametrize("number", range(1, 10))
def test_claim_cannot_be_told_of_a_missing_run(number):
    wanted = {4: "random", 6: "random", 7: "overfit", 8: "overfit", 9: "random"}.get(number, "true")
    made = {key: value for key, value in world().items() if not (key[0] == DEEP and key[1] == wanted)}
    claim = verdict(study(made), number)
    assert claim["verdict"] == INCONCLUSIVE
    assert any(effect["note"] == f"run missing: toy/wrn/{LABELS[wanted]}" for effect in claim["effects"])


def test_borderline_effect_is_inconclusive_and_its_interval_crosses():
    made = world()
    for probe, shift in (("knn", 0.03), ("svm", 0.004), ("lr", 0.008)):
        where = {"architecture": "lenet", "split": "test", "model": probe, **EMBEDDING}
        change(made, "accuracy", lambda a, shift=shift: a - shift, **where)
    claim = verdict(study(made, noise=0.002), 1)
    effect = next(effect for effect in claim["effects"] if effect["cell"] == "toy, lenet")
    assert claim["verdict"] == INCONCLUSIVE and effect["low"] < 0.03 <= effect["high"]


# Artefacts that must not decide a claim.


def notes(claim: dict[str, Any]) -> list[str]:
    return [effect["note"] for effect in claim["effects"]]


@pytest.mark.parametrize("number", [1, 2, 3, 4, 5, 8])
def test_a_probe_that_is_left_out_is_missed(number):
    claim = verdict(study(world(), probes={"knn": "knn", "lr": "lr"}), number)
    assert claim["verdict"] == INCONCLUSIVE and "no svm among the probes" in notes(claim)
    assert claim["reasons"][-1].startswith("no svm among the probes")


@pytest.mark.parametrize("measure", ["accuracy", "p_same", "d_kl"])
def test_not_a_number_decides_nothing(measure):
    def lost(values: np.ndarray) -> np.ndarray:
        return np.where(np.arange(len(values)) == len(values) - 1, np.nan, values)

    for number in {"accuracy": (1, 3, 4), "p_same": (2, 8), "d_kl": (5, 6, 7, 8, 9)}[measure]:
        made = change(world(), measure, lost, layer="embedding", model="knn")
        claim = verdict(study(made), number)
        assert claim["verdict"] == INCONCLUSIVE, number
        assert "not a number in the measures that it needs" in notes(claim)


def test_the_untrained_network_is_no_rise_of_p_same():
    """From step 0 to the first evaluation P_SAME leaps, then it falls: claim 2 does not hold."""
    falling = np.where(STEPS == 0, 0.1, 0.99 - 0.1 * TIME)
    made = change(world(), "p_same", lambda p: falling, architecture="wrn", split="test", model="knn", **EMBEDDING)
    claim = verdict(study(made), 2)
    assert claim["verdict"] == NOT_SUPPORTED
    assert "rise of k-NN's P_SAME over training: toy, wrn" in claim["failing"]


def spike(values: np.ndarray) -> np.ndarray:
    return np.where(STEPS == 50, 20.0, values)


def test_an_early_spike_neither_makes_nor_breaks_the_parting():
    where = {"labels": "random", "layer": "embedding", "model": "knn"}
    assert verdict(study(change(world(), "d_kl", spike, **where)), 6)["verdict"] == SUPPORTED
    lasting = change(world(), "d_kl", lambda d: np.maximum(d, 0.3), split="train", **where)
    claim = verdict(study(change(lasting, "d_kl", spike, **where)), 6)
    assert "train D_KL at the end, of that before: toy, knn" in claim["failing"]


@pytest.mark.parametrize("number", [6, 7, 9])
def test_memorization_at_the_first_evaluation_tells_nothing(number):
    claim = verdict(study(world(), memorized=50), number)
    assert claim["verdict"] == INCONCLUSIVE
    assert any(
        "too few evaluations before" in note or "memorized before 2 evaluations" in note for note in notes(claim)
    )


@pytest.mark.parametrize("number", [7, 8, 9])
def test_a_run_that_generalizes_tells_nothing_of_overfitting(number):
    measures, replicates, runs = as_tables(world())
    runs.loc[runs.labels == "overfit", "final_test_accuracy"] = 0.97
    of = study(world())
    of = replace(of, data=effects.prepare(measures, replicates, runs.to_dict("records")))
    claim = verdict(of, number)
    assert claim["verdict"] == INCONCLUSIVE
    assert "no overfitting in toy/wrn/overfit seed 0: test accuracy 0.970" in notes(claim)
    assert sum("no overfitting" in reason for reason in claim["reasons"]) == 1


@pytest.mark.parametrize(("flat", "expected"), [(("train",), 0.0), (("train", "test"), 1.0)])
def test_a_curve_that_does_not_move_has_no_trend_in_common_with_one_that_does(flat, expected):
    made = world()
    for split in flat:
        change(made, "d_kl", lambda d: np.full(len(d), 0.25), split=split, model="knn", **EMBEDDING)
    claim = verdict(study(made, noise=0), 5)
    found = next(e for e in claim["effects"] if e["part"].startswith("correlation") and e["cell"] == "toy, knn")
    assert found["value"] == pytest.approx(expected)


def test_a_tenth_of_the_steps_may_be_anywhere():
    assert kept_to(np.array([[0.1]] * 9 + [[1e6]]), 0.9).tolist() == [0.1]
    assert kept_to(np.array([[0.1]] * 8 + [[1e6]] * 2), 0.9).tolist() == [1e6]


def test_chance_level_agreement_is_not_the_same_accuracy():
    """All four at chance agree perfectly, and that is no support."""
    made = change(world(), "accuracy", lambda a: np.full(len(a), 0.1), architecture="lenet", split="test", **EMBEDDING)
    claim = verdict(study(made), 1)
    assert claim["verdict"] == INCONCLUSIVE and any("did not learn" in note for note in notes(claim))


def test_two_classes_can_be_learned():
    measures, replicates, runs = as_tables(world())
    runs["classes"] = 2
    of = replace(study(world()), data=effects.prepare(measures, replicates, runs.to_dict("records")))
    assert verdict(of, 1)["verdict"] == SUPPORTED


def test_without_replicates_nothing_is_decided():
    measures, replicates, runs = as_tables(world())
    none = {name: values[:, :0] for name, values in replicates.items()}
    of = replace(study(world()), data=effects.prepare(measures, none, runs.to_dict("records")))
    claim = verdict(of, 3)
    assert claim["verdict"] == INCONCLUSIVE and all("no bootstrap replicates" in note for note in notes(claim))


def test_reasons_name_cells_that_fail_and_intervals_that_cross():
    assert verdict(study(knn_worse_at_one_network(world())), 1)["reasons"] == ["spread of test accuracies: toy, lenet"]
    claim = verdict(study(world(), noise=0.3), 5)
    assert claim["failing"] or all(reason.endswith("(the interval crosses)") for reason in claim["reasons"])


def test_several_seeds_are_said_and_widen_the_interval():
    one, three = study(world(), noise=0.004), study(world(), noise=0.004, seeds=3)
    claim = verdict(three, 6)
    assert not claim["one_run"] and claim["seeds"] == [3] and claim["interval"] == paper_claims.INTERVALS[1]
    assert claim["verdict"] == SUPPORTED
    assert verdict(one, 6)["one_run"]


def test_seeds_that_differ_widen_the_interval():
    replicates = np.random.default_rng(0).normal(0, 0.01, (3, 201))
    apart = replicates + np.array([[-0.3], [0.0], [0.3]])
    narrow, wide = effects.interval(replicates, 0.95), effects.interval(apart, 0.95)
    assert wide[2] - wide[1] > 5 * (narrow[2] - narrow[1])
    assert wide[1] < apart[:, 0].mean() < wide[2]


def test_interval_of_a_mean_is_the_normal_one_and_covers():
    rng, covered = np.random.default_rng(1), 0
    for _ in range(200):
        sample = rng.normal(size=100)
        draws = rng.choice(sample, (200, 100)).mean(axis=1)
        _, low, high = effects.interval(np.concatenate([[sample.mean()], draws])[None], 0.95)
        covered += low < 0 < high
    assert 0.89 <= covered / 200 <= 0.98


@pytest.mark.parametrize(
    ("interval", "relation", "expected"),
    [
        ((0.6, 0.8), "above", SUPPORTED),
        ((0.2, 0.4), "above", NOT_SUPPORTED),
        ((0.4, 0.6), "above", INCONCLUSIVE),
        ((0.2, 0.4), "below", SUPPORTED),
        ((0.6, 0.8), "below", NOT_SUPPORTED),
        ((0.4, 0.6), "below", INCONCLUSIVE),
        ((-0.4, 0.5), "within", SUPPORTED),
        ((-0.9, -0.6), "within", NOT_SUPPORTED),
        ((0.6, 0.9), "within", NOT_SUPPORTED),
        ((-0.6, 0.4), "within", INCONCLUSIVE),
        ((-0.6, 0.9), "within", INCONCLUSIVE),
    ],
)
def test_judgement_of_an_interval(interval, relation, expected):
    assert effects.judge(*interval, relation, 0.5) == expected


def test_half_depth_is_interpolated():
    values = np.array([[0.0], [0.2], [0.4], [1.0], [1.0]])
    assert half_depth(values, 0.1)[0] == pytest.approx((2 + 0.1 / 0.6) / 4)
    with pytest.raises(effects.Untold):
        half_depth(values * 0.05, 0.1)


def test_linear_probes_are_reported_in_claim_6_and_decide_nothing(held):
    reported = [effect for effect in held[5]["effects"] if not effect["decides"]]
    assert {effect["cell"] for effect in reported} == {"toy, svm", "toy, lr"}
    assert {effect["verdict"] for effect in reported} == {NOT_SUPPORTED} and held[5]["verdict"] == SUPPORTED


def test_cifar100_parts_at_90_percent():
    made = world()
    measures, replicates, runs = as_tables(made)
    measures["dataset"], runs["dataset"] = "cifar100", "cifar100"
    runs.loc[runs.labels == "overfit", "memorization_step"] = 900
    data = effects.prepare(measures, replicates, runs.to_dict("records"))
    facts = {"architectures": ARCHITECTURES, "datasets": ["cifar100"], "labels": LABELS, "architecture": DEEP}
    claim = verdict(Study(data=data, probes={name: name for name in PROBES}, **facts), 7)
    assert claim["verdict"] == SUPPORTED
    assert {effect["cell"] for effect in claim["effects"]} == {"cifar100, knn, at 90 %"}
    assert "rise of test D_KL after it" not in {effect["part"] for effect in claim["effects"]}


def test_claim_1_looks_at_every_step():
    """A third of the steps disagree, none of them the last: a look at the end alone would miss it."""
    middle = np.where((STEPS > 300) & (STEPS < 700), 0.2, 0.0)
    made = change(world(), "accuracy", lambda a: a - middle, architecture="wrn", split="test", model="svm", **EMBEDDING)
    claim = verdict(study(made), 1)
    assert claim["verdict"] == NOT_SUPPORTED
    assert any("toy, wrn" in name for name in claim["failing"])


def test_thresholds_change_verdicts_and_unknown_ones_are_refused():
    assert verdict(study(world(), thresholds={"same_accuracy": 0.001}), 1)["verdict"] == NOT_SUPPORTED
    with pytest.raises(UserError, match="did you mean 'alarm_gap'"):
        check_thresholds({"alarm_gop": 1})
    with pytest.raises(UserError, match="alike"):
        check_thresholds({"alike": "high"})


def test_documentation_gives_every_threshold_with_its_default():
    text = (ROOT / "docs" / "claims.md").read_text(encoding="utf-8")
    for name, threshold in THRESHOLDS.items():
        shown = ", ".join(threshold.default) if isinstance(threshold.default, list) else f"{threshold.default:g}"
        assert f"| `{name}` | {shown} |" in text, name


def write_experiment(folder: Path, made: World) -> None:
    measures, replicates, runs = as_tables(made)
    written = tables.write(folder, measures, replicates)
    runs.to_csv(folder / tables.RUNS, index=False)
    files.write_json(folder / tables.MANIFEST, {"files": files.listing(folder, [*written, tables.RUNS])})


def command(measures: Path, output: Path, **changes: Any) -> subprocess.CompletedProcess[str]:
    spec = {"claims": {}, "architectures": ARCHITECTURES, "datasets": ["toy"], "labels": LABELS, "architecture": DEEP}
    spec |= {"probes": list(PROBES), **changes}
    script = ROOT / "workflow" / "scripts" / "claims.py"
    line = [
        sys.executable,
        str(script),
        "--spec",
        json.dumps(spec),
        "--measures",
        str(measures),
        "--output",
        str(output),
    ]
    return subprocess.run(line, capture_output=True, text=True)


def test_command_writes_verdicts_table_and_figure(tmp_path):
    made = {key: value for key, value in alarm_in_a_true_label_run(world()).items() if key[1] != "overfit"}
    write_experiment(tmp_path / "measures", made)
    done = command(tmp_path / "measures", tmp_path / "a")
    assert done.returncode == 0, done.stderr
    manifest = files.read_json(tmp_path / "a/claims.json")
    files.check(tmp_path / "a", manifest["files"])
    assert set(manifest["files"]) == {f"claims.{kind}" for kind in ("csv", "md", "pdf", "png")}
    judged = manifest["claims"]
    assert judged == json.loads(json.dumps(paper_claims.judge(study(made))))
    words = [claim["verdict"] for claim in judged]
    assert words == ["supported"] * 4 + ["not supported", "supported"] + ["inconclusive"] * 2 + ["not supported"]
    assert "claim 1: supported (one run)" in done.stderr
    text = (tmp_path / "a/claims.md").read_text()
    assert "**not supported (one run)**" in text and "run missing: toy/wrn/overfit" in text
    table = pd.read_csv(tmp_path / "a/claims.csv")
    assert len(table) == sum(len(claim["effects"]) for claim in judged)


def test_figure_shows_every_effect_of_the_table(held):
    from dnn_or_knn.claims import figure as forest
    from dnn_or_knn.figures import style

    figure = forest.draw(held, style.style({}))
    drawn = {line.get_gid(): line.get_xdata() for ax in figure.axes for line in ax.get_lines() if line.get_gid()}
    expected = [effect for claim in held for effect in claim["effects"]]
    assert len(drawn) == 2 * len(expected)
    assert figure.get_figwidth() == 7
    for effect in expected:
        gid = f"{effect['claim']}|{effect['part']}|{effect['cell']}"
        assert list(drawn[gid]) == [effect["value"]]
        assert list(drawn[f"{gid}|interval"]) == [effect["low"], effect["high"]]


def test_command_refuses_damaged_tables_and_unknown_thresholds(tmp_path):
    write_experiment(tmp_path / "measures", world())
    done = command(tmp_path / "measures", tmp_path / "out", claims={"alarm_gop": 1.0})
    assert done.returncode == 2 and "alarm_gap" in done.stderr
    (tmp_path / "measures" / tables.RUNS).write_text("dataset\n")
    done = command(tmp_path / "measures", tmp_path / "out")
    assert done.returncode == 2 and "runs.csv is damaged" in done.stderr and "Traceback" not in done.stderr
    assert not (tmp_path / "out").exists()


def test_figure_of_the_claims_is_fit_for_print():
    """Text of one size, none of it cut or on another, reasons in place of what could not be computed."""
    from dnn_or_knn.claims import figure as forest
    from dnn_or_knn.figures import style

    made = {key: value for key, value in world().items() if key[1] != "overfit"}
    look = style.style({})
    with style.applied(look):
        figure = forest.draw(paper_claims.judge(study(made)), look)
        figure.canvas.draw()
    labels = [text for ax in figure.axes for text in (*ax.get_yticklabels(), *ax.texts)]
    drawn = [text for text in (*figure.texts, *labels, *figure.legends[0].get_texts()) if text.get_text()]
    assert {text.get_fontsize() for text in drawn} == {7.0}
    assert "run missing" in {text.get_text() for text in labels}
    boxes = [text.get_window_extent() for text in drawn]
    assert all(b.x0 >= 0 and b.x1 <= figure.bbox.x1 and b.y0 >= 0 and b.y1 <= figure.bbox.y1 for b in boxes)
    for i, box in enumerate(boxes):
        for j in range(i):
            assert not box.padded(-1).overlaps(boxes[j].padded(-1)), (drawn[i].get_text(), drawn[j].get_text())
