"""The measures beside the paper's: which jobs make them, what those read, who waits for features."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT
from dnn_or_knn.features import dumps
from dnn_or_knn.plan import atlas, startup
from dnn_or_knn.plan.configuration import load_overlays
from dnn_or_knn.plan.registry import MEASURES
from dnn_or_knn.plan.runs import create
from dnn_or_knn.plan.specifications import Jobs
from dnn_or_knn.runtime.errors import UserError

TINY = ROOT / "tests" / "workflow" / "tiny.yaml"
WRN = {"dataset": "digits", "architecture": "wrn-10-1", "labels": "true-labels", "seed": "0"}
FIRST, LAST, HIDDEN = "steps000000-000004", "steps000008-000008", "layers000008"


def jobs(**changes: Any) -> Jobs:
    """Return the tiny experiment's jobs; `changes` replace whole blocks of its configuration."""
    config = copy.deepcopy(load_overlays(TINY))
    for name, block in changes.items():
        config[name] = config.get(name, {}) | block if isinstance(block, dict) else block
    return Jobs(create(config))


ON = dict.fromkeys(MEASURES, True)


def test_measures_are_off_and_add_nothing_to_what_is_there() -> None:
    off, on = ({task.manifest: task for task in made.tasks} for made in (jobs(), jobs(measures=ON)))
    assert not [task for task in off.values() if task.rule.startswith("measure_")]
    added = {manifest for manifest in on if manifest not in off}
    rules = {on[manifest].rule for manifest in added}
    assert {rule for rule in rules if not rule.startswith("measure_")} == {"beside_figure", "later_claims"}
    changed = {manifest for manifest in off if off[manifest].spec != on[manifest].spec}
    assert changed == {"report"}, "the page shows what is switched on"
    assert not [name for name in MEASURES if f'"{name}":false' in off["report"].spec]


def test_a_measure_of_outputs_is_one_job_a_run_and_one_of_features_one_a_shard() -> None:
    made = jobs(measures={"examples": True, "geometry": True})
    of_wrn = [t for t in made.tasks if t.wildcards.get("architecture") == "wrn-10-1" and "measure" in t.wildcards]
    found = {(t.rule, t.wildcards["measure"], t.wildcards["part"]) for t in of_wrn}
    shards = {("measure_features", "geometry", part) for part in (FIRST, LAST, HIDDEN)}
    assert found == {("measure_outputs", "examples", "run"), *shards}


def test_a_measure_of_weights_reads_no_features_and_knows_its_network() -> None:
    made = jobs(measures={"rewind": True})
    (task,) = [t for t in made.tasks if t.rule == "measure_weights" and t.wildcards["architecture"] == "wrn-10-1"]
    spec = json.loads(task.spec)
    assert spec["steps"] == [0, 4, 8] and spec["network"]["module"] == "wrn" and spec["shards"] == []
    assert "dnn_or_knn/networks/wrn.py" in spec["code"]["files"]
    assert atlas.reads(made, task.wildcards, "features") == [] and made.readers(WRN | {"shard": LAST}) == ""


def test_hidden_layers_are_read_with_the_embedding_at_their_step() -> None:
    made = jobs(measures={"geometry": True})
    hidden, first = ({**WRN, "measure": "geometry", "part": part} for part in (HIDDEN, FIRST))
    run = "results/tiny/digits/wrn-10-1/true-labels/seed0"
    assert atlas.reads(made, hidden, "features") == [f"{run}/features/{shard}.json" for shard in (HIDDEN, LAST)]
    assert atlas.reads(made, hidden, "probes") == [f"{run}/probes/knn/{HIDDEN}.json"]
    assert atlas.reads(made, first, "features") == [f"{run}/features/{FIRST}.json"]
    assert len(made.extractions(hidden)) == 2 and '"layers":"hidden"' in made.extractions(hidden)[0]


def test_features_wait_for_the_measures_that_are_on() -> None:
    kept = {"features": "until-probed"}
    last = WRN | {"shard": LAST}
    assert jobs(keep=kept).readers(last) == "knn svm lr"
    assert jobs(keep=kept, measures={"examples": True}).readers(last) == "knn svm lr"
    on = jobs(keep=kept, measures={"geometry": True})
    assert on.readers(last).split() == ["knn", "svm", "lr", f"geometry.{LAST}", f"geometry.{HIDDEN}"]
    assert on.readers(WRN | {"shard": HIDDEN}).split()[3:] == [f"geometry.{HIDDEN}"]
    assert jobs(keep={"features": "all"}, measures={"geometry": True}).readers(last) == ""


def test_features_that_a_measure_will_read_are_not_released(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    manifest = tmp_path / f"results/tiny/digits/wrn-10-1/true-labels/seed0/features/{LAST}.json"
    for measures, left in (({"geometry": True}, [f"geometry.{HIDDEN}", f"geometry.{LAST}"]), ({}, [])):
        made = jobs(keep={"features": "until-probed"}, measures=measures)
        dumps.folder_of(manifest).mkdir(parents=True, exist_ok=True)
        dumps.await_readers(manifest, [f"geometry.{HIDDEN}", f"geometry.{LAST}", "dropped"])
        probes = {f"{made.results}/{t.manifest}.json" for t in made.tasks if t.rule == "probe"}
        wanted = {(path, reader) for path, reader in startup._readers(made, set()) if reader not in made.probes}
        assert probes  # they are to run, and would keep the features by themselves
        dumps.release(Path("results/tiny").resolve(), {(path.resolve(), reader) for path, reader in wanted})
        marks = dumps.marks_of(manifest)
        assert sorted(path.name for path in marks.iterdir()) == left if left else not marks.exists()


@pytest.mark.parametrize(
    ("probes", "examples", "geometry"),
    [
        ({}, "knn", "knn"),
        ({"knn": {"kind": "knn", "metric": "cosine"}}, "knn", None),
        ({"knn": {"kind": "knn", "metric": "cosine"}, "plain": {"kind": "knn"}}, "knn", "plain"),
        ({"knn": {"kind": "knn", "pca": {"components": 3}}}, "knn", None),
    ],
)
def test_the_neighbours_that_a_measure_reads(probes: dict[str, Any], examples: str, geometry: str | None) -> None:
    made = jobs(probes=probes, measures={"examples": True, "geometry": True})
    assert atlas.neighbours(made.config, "examples") == examples
    assert atlas.neighbours(made.config, "geometry") == geometry
    assert atlas.probes(made.config, "geometry") == ([geometry] if geometry else [])


def test_a_prediction_depth_without_neighbours_is_refused() -> None:
    with pytest.raises(UserError, match=r"measures\.examples is true, but no probe is of kind knn"):
        jobs(probes={"knn": None}, measures={"examples": True})
    assert jobs(probes={"knn": None}, measures={"geometry": True}).tasks
