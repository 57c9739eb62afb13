"""The claims judged again for each choice: what flips is named, and the figure shows what the table says."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import published_tables
import pytest
from conftest import ROOT
from dnn_or_knn.claims import choices, choices_figure, choices_words, effects, paper_claims
from dnn_or_knn.claims.study import Study
from dnn_or_knn.claims.words import INCONCLUSIVE, NOT_SUPPORTED, SUPPORTED
from dnn_or_knn.figures import style
from dnn_or_knn.measures import tables
from dnn_or_knn.report import page
from dnn_or_knn.runtime import files
from dnn_or_knn.runtime.errors import UserError
from matplotlib.figure import Figure
from published_tables import SHOWN, as_tables, published, thresholds

SCRIPTS = ROOT / "workflow" / "scripts"

OWN = {"knn": "knn", "svm": "svm", "lr": "lr"}
SPEC: dict[str, Any] = {
    "choices": [
        {"name": "as configured", "roles": OWN, "divergence": "d_kl"},
        {"name": "k-1", "roles": OWN | {"knn": "knn-k1"}, "divergence": "d_kl"},
        {"name": "hinge", "roles": OWN | {"svm": "svm--hinge"}, "divergence": "d_kl"},
        {"name": "kl-by-column", "roles": OWN, "divergence": "d_kl_column"},
        {"name": "never fitted", "roles": OWN | {"knn": "knn-k7"}, "divergence": "d_kl"},
    ],
    "claims": thresholds(),
    "style": {},
    "architectures": ["mlp640", "lenet", "wrn-28-10"],
    "datasets": ["cifar10"],
    "labels": SHOWN,
    "architecture": "wrn-28-10",
}
NAMES = [choice["name"] for choice in SPEC["choices"]]


def measured() -> tuple[pd.DataFrame, dict[str, np.ndarray], pd.DataFrame]:
    """Return tables with three more models: k = 1 is far from the network on test, hinge is the same SVM again.

    By column, train and test D_KL of true labels run in opposite directions.
    """
    measures, _, runs = as_tables([published(0, ["cifar10"])])
    one = measures[measures.model == "knn"].assign(model="knn-k1")
    one["p_same"] -= np.where(one.labels == "true-labels", 0.4, 0.0)
    again = measures[measures.model == "svm"].assign(model="svm--hinge")
    rows = pd.concat([measures, one, again], ignore_index=True)
    upwards = (rows.labels == "true-labels") & (rows.split == "test")
    rows["d_kl_column"] = np.where(upwards, 3.0 - rows.d_kl, rows.d_kl)
    table = tables.frame(rows.to_dict("records"))
    noise = np.random.default_rng(0).normal(0, 1e-4, (len(table), 40))
    noise[(table.model == "svm--hinge").to_numpy()] = noise[(table.model == "svm").to_numpy()]
    return table, {name: table[name].to_numpy()[:, None] + noise for name in tables.REPLICATED}, runs


@pytest.fixture(scope="module")
def data() -> effects.Data:
    table, replicates, runs = measured()
    return effects.prepare(table, replicates, runs.to_dict("records"))


@pytest.fixture(scope="module")
def judged(data) -> choices.Judged:
    return choices_words.judge(data, SPEC, choices_words.checked(SPEC))


@pytest.fixture(scope="module")
def shown(judged) -> list[choices.Panel]:
    return choices.panels(judged)


@pytest.fixture(scope="module")
def figure(shown) -> Figure:
    look = style.style({})
    with style.applied(look):
        made = choices_figure.draw(shown, look)
        made.set_dpi(150)
        made.canvas.draw()
        return made


def words(judged: choices.Judged, choice: str) -> dict[int, str]:
    return {claim["claim"]: claim["verdict"] for claim in judged[choice]}


def flips(judged: choices.Judged, choice: str) -> set[int]:
    return {n for n, verdict in words(judged, choice).items() if verdict != words(judged, "as configured")[n]}


def test_reference_is_first_and_judged_as_the_claims_are(data, judged):
    assert list(judged) == NAMES
    plain = {key: SPEC[key] for key in ("architectures", "datasets", "labels", "architecture")}
    assert judged["as configured"] == paper_claims.judge(Study(data=data, probes=OWN, thresholds=thresholds(), **plain))


def test_choices_change_the_claims_that_they_speak_of_and_no_others(judged):
    assert words(judged, "as configured")[2] == SUPPORTED and words(judged, "k-1")[2] == NOT_SUPPORTED
    assert flips(judged, "k-1") == {2, 8}
    assert flips(judged, "hinge") == set()
    assert words(judged, "as configured")[5] == SUPPORTED and words(judged, "kl-by-column")[5] == NOT_SUPPORTED
    assert flips(judged, "kl-by-column") & {1, 2, 3, 4} == set()


def test_a_model_that_was_not_fitted_is_inconclusive(judged, shown):
    for number in (1, 3, 5, 6, 7, 9):
        assert words(judged, "never fitted")[number] == INCONCLUSIVE
    row = shown[5].rows[4]
    assert row.effect is None and "has no knn-k7 at embedding" in row.note


def test_a_missing_run_is_inconclusive_for_every_choice():
    table, replicates, runs = measured()
    kept = (table.labels != "overfit").to_numpy()
    left = effects.prepare(
        table[kept].reset_index(drop=True),
        {name: values[kept] for name, values in replicates.items()},
        runs[runs.labels != "overfit"].to_dict("records"),
    )
    without = choices_words.judge(left, SPEC, choices_words.checked(SPEC))
    assert {words(without, choice)[7] for choice in without} == {INCONCLUSIVE}
    panel = choices.panels(without)[6]
    assert {row.note for row in panel.rows} == {"run missing: cifar10/wrn-28-10/overfit"}
    figure = choices_figure.draw([panel], style.style({}))
    assert [text.get_text() for text in figure.axes[0].texts].count("run missing") == len(without)


def test_flips_are_named_with_their_cells(judged):
    changes = choices.changes(judged)
    assert list(changes) == NAMES[1:] and changes["hinge"] == []
    said = changes["k-1"][0]
    assert (
        said.startswith("claim 2: supported → not supported (P_SAME on test beyond what is asked: cifar10, ")
        and " more)" in said
    )


def effect(part: str, value: float | None, verdict: str, **more: Any) -> dict[str, Any]:
    plain = {"claim": 1, "part": part, "cell": "here", "relation": "above", "threshold": 0.5, "unit": "share"}
    limits = {"value": value, "low": value, "high": value, "verdict": verdict, "decides": True, "note": ""}
    return plain | limits | more


def claim(*found: dict[str, Any], **more: Any) -> dict[str, Any]:
    verdict = choices.verdict_of([one for one in found if one["decides"]])
    return {"claim": 1, "title": "t", "verdict": verdict, "effects": list(found), "failing": [], "undecided": []} | more


def test_weakest_effect_is_the_worst_verdict_then_the_least_margin():
    near, far = effect("a", 0.6, SUPPORTED), effect("a", 0.9, SUPPORTED)
    fails, unknown = effect("a", 0.45, NOT_SUPPORTED), effect("a", None, INCONCLUSIVE)
    assert choices.weakest([far, near]) is near
    assert choices.weakest([near, fails, unknown]) is fails
    assert choices.weakest([unknown]) is None and choices.weakest([]) is None


@pytest.mark.parametrize(
    ("relation", "value", "expected"),
    [("above", 0.7, 0.2), ("below", 0.7, -0.2), ("within", -0.7, -0.2), ("within", 0.1, 0.4)],
)
def test_margin_is_positive_on_the_supporting_side(relation, value, expected):
    assert choices.margin(effect("a", value, SUPPORTED, relation=relation)) == pytest.approx(expected)


def test_panel_shows_the_part_on_which_the_verdict_hinges():
    good, bad = effect("first", 0.9, SUPPORTED), effect("second", 0.1, NOT_SUPPORTED)
    assert choices.hinge([claim(good, bad)] * 2) == "second"
    moved = [claim(effect("first", 0.9, SUPPORTED), effect("second", value, SUPPORTED)) for value in (0.9, 0.6)]
    assert choices.hinge(moved) == "second"
    assert choices.hinge([claim(good, effect("second", 0.9, SUPPORTED))]) == "first"
    assert choices.hinge([claim(good) | {"effects": []}]) is None


def test_better_verdict_names_what_no_longer_fails():
    worse = claim(effect("a", 0.1, NOT_SUPPORTED), failing=["a: here", "a: there"])
    better = claim(effect("a", 0.9, SUPPORTED))
    assert choices.flip(worse, better) == "claim 1: not supported → supported (no longer a: here and 1 more)"
    assert choices.flip(better, worse) == "claim 1: supported → not supported (a: here and 1 more)"


def rows(*values: float, **more: Any) -> list[choices.Row]:
    judged = {str(i): [claim(effect("a", value, SUPPORTED, **more))] for i, value in enumerate(values)}
    return choices.panels(judged)[0].rows


def test_axis_holds_everything_but_a_lone_choice_that_would_squeeze_the_rest():
    low, high = choices_figure.limits(rows(0.6, 0.7, 0.8, 0.9))
    assert low < 0.5 and high > 0.9
    assert choices_figure.limits(rows(0.6, 0.7, 0.8, 0.75, 50.0))[1] < 1
    assert choices_figure.limits(rows(50.0, 0.6, 0.7, 0.8, 0.75))[1] > 50, "the reference is never left out"
    low, high = choices_figure.limits(rows(0.1, 0.2, relation="within"))
    assert low < -0.5 and high > 0.5


def test_figure_shows_what_the_table_says(shown, figure):
    table = choices_words.table(shown)
    assert list(table.columns) == choices_words.COLUMNS and len(table) == 9 * 5
    assert len(figure.axes) == 9
    lines = {line.get_gid(): line for ax in figure.axes for line in ax.get_lines() if line.get_gid()}
    texts = {text.get_gid(): text.get_text() for ax in figure.axes for text in ax.texts}
    for row in table.astype(object).where(table.notna(), None).to_dict("records"):
        gid = f"{row['claim']}|{row['choice']}"
        assert texts[f"{gid}|verdict"] == row["verdict"] + ("" if row["explains"] else "†")
        if row["value"] is None:
            assert gid not in lines and gid in texts and row["note"]
        elif gid in texts:
            assert re.search(rf"{row['value']:.3g}", texts[gid]) and gid not in lines
        else:
            assert list(lines[gid].get_xdata()) == [row["value"]]
            assert list(lines[f"{gid}|interval"].get_xdata()) == [row["low"], row["high"]]
    assert (table.changed != "").sum() == sum(len(found) for found in choices.changes(as_judged(shown)).values())


def as_judged(shown: list[choices.Panel]) -> choices.Judged:
    return {row.choice: [panel.rows[i].claim for panel in shown] for i, row in enumerate(shown[0].rows)}


def test_figure_is_fit_for_print(figure):
    """Seven inches wide, text of 7 to 9 points, nothing outside, verdicts clear of the neighbouring panel."""
    assert figure.get_figwidth() == 7 and figure.get_figheight() < 9.5
    drawn = [*figure.texts, *figure.legends[0].get_texts()]
    drawn += [text for ax in figure.axes for text in (*ax.texts, *ax.get_xticklabels(), *ax.get_yticklabels())]
    drawn = [text for text in drawn if text.get_text()]
    assert {text.get_fontsize() for text in drawn} == {7.0, 8.0}
    whole = figure.bbox
    for text in drawn:
        box = text.get_window_extent()
        assert box.x0 >= -1 and box.x1 <= whole.x1 + 1 and box.y0 >= -1 and box.y1 <= whole.y1 + 1, text.get_text()
    for ax, neighbour in ((figure.axes[i], figure.axes[i + 1]) for i in (0, 1, 3, 4, 6, 7)):
        assert max(text.get_window_extent().x1 for text in ax.texts) < neighbour.get_window_extent().x0


def test_rows_that_a_choice_does_not_touch_are_pale(shown, figure):
    of_claim_2 = {row.choice: row.touched for row in shown[1].rows}
    assert [name for name, touched in of_claim_2.items() if not touched] == ["as configured", "hinge", "kl-by-column"]
    alpha = {line.get_gid(): line.get_alpha() for ax in figure.axes for line in ax.get_lines()}
    assert alpha["2|kl-by-column"] < alpha["2|k-1"] == alpha["2|as configured"] == 1


def test_command_writes_everything_and_loads_no_torch(tmp_path):
    """A torch that cannot be imported stands first on the path."""
    measures = published_tables.write(tmp_path / "measures", *measured())
    (tmp_path / "first").mkdir()
    (tmp_path / "first" / "torch.py").write_text("raise RuntimeError('torch was imported')\n")
    line = [sys.executable, str(SCRIPTS / "choices.py"), "--spec", json.dumps(SPEC)]
    line += ["--measures", str(measures / "measures.json"), "--output", str(tmp_path / "out" / "choices.json")]
    environment = os.environ | {"PYTHONPATH": str(tmp_path / "first")}
    done = subprocess.run(line, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    assert "hinge: no verdict changes" in done.stderr
    out = tmp_path / "out"
    manifest = files.read_json(out / "choices.json")
    files.check(out, manifest["files"])
    assert set(manifest["files"]) == {f"choices.{kind}" for kind in ("csv", "md", "pdf", "png")}
    assert (out / "choices.provenance.json").is_file()
    assert [choice["name"] for choice in manifest["choices"]] == NAMES
    first, second = manifest["choices"][:2]
    assert second["roles"]["knn"] == "knn-k1" and len(second["verdicts"]) == 9 and first["changes"] == []
    assert "95% interval (paired bootstrap over samples)" in manifest["caption"]
    assert manifest["caption"].endswith("One run each: another training could come out differently.")
    assert "k-1: claim 2: supported → not supported" in manifest["alt"]
    text = (out / "choices.md").read_text(encoding="utf-8")
    verdict = second["verdicts"][1]
    assert f"**not supported {verdict['supported']}/{verdict['deciding']}**" in text
    assert "- hinge: no verdict changes" in text and "has no knn-k7 at embedding" in text
    shape_of_the_page(out / "choices.json")


def shape_of_the_page(manifest: Path) -> None:
    """The page shows the figure with its words, the table with its flips, and how to make them again."""
    shown = page.choices_table(manifest, " --configfile config/demo.yaml")
    assert shown["figure"]["alt"].startswith("9 panels") and shown["figure"]["id"] == "choices-figure"
    assert shown["figure"]["command"].endswith(f"{manifest.as_posix()} --configfile config/demo.yaml")
    rows = {row[0]: row[1:] for row in shown["rows"]}
    flips = [cell for cell in rows["k-1"] if isinstance(cell, dict)]
    assert flips and all((flip["tag"], flip["verdict"]) == ("strong", "not supported") for flip in flips)
    assert all(flip["text"].startswith("not supported ") for flip in flips)
    assert not any(isinstance(cell, dict) for cell in rows["hinge"])
    moved = [name for name, _ in shown["moved"]]
    assert "k-1" in moved and "hinge" not in moved


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"choices": SPEC["choices"][1:]}, "no 'as configured'"),
        ({"choices": [SPEC["choices"][0] | {"roles": {"kn": "knn"}}]}, "did you mean 'knn'"),
        ({"choices": [SPEC["choices"][0] | {"divergence": "d_kl_colunm"}]}, "did you mean 'd_kl_column'"),
    ],
)
def test_bad_choices_are_refused(change, said):
    with pytest.raises(UserError, match=re.escape(said)):
        choices_words.checked(SPEC | change)


def test_documentation_names_every_choice_of_the_overlay():
    import yaml

    overlay = yaml.safe_load((ROOT / "config" / "choices.yaml").read_text(encoding="utf-8"))
    text = (ROOT / "docs" / "choices.md").read_text(encoding="utf-8")
    missing = [name for name in overlay["choices"] if f"| `{name}` |" not in text]
    assert not missing
