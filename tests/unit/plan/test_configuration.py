"""The configuration: complete, checked, and wrong values named in one sentence."""

from __future__ import annotations

import copy
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from conftest import ROOT, SCRIPTS
from dnn_or_knn.networks import build
from dnn_or_knn.plan import networks, runs, startup
from dnn_or_knn.plan.configuration import choice_probes, load_overlays, resolve
from dnn_or_knn.plan.feasible import doubts
from dnn_or_knn.plan.reading import mistake_in, readable, with_source
from dnn_or_knn.plan.registry import ARCHITECTURES
from dnn_or_knn.plan.schema import load_schema
from dnn_or_knn.plan.specifications import Jobs
from dnn_or_knn.runtime.errors import UserError
from snakemake.utils import update_config

PAPER = load_overlays()


def merge(base: dict, overlay: dict) -> dict:
    """Merge with Snakemake's own function: mappings deeply, the rest replaced."""
    merged = copy.deepcopy(base)
    update_config(merged, overlay)
    return merged


def overlays(*names: str) -> dict:
    """Return the configuration that Snakemake makes of overlays, with their keys first, in the order that jobs see."""
    given = load_overlays(*(ROOT / "config" / name for name in names))
    first: dict = {}
    for name in names:
        update_config(first, yaml.safe_load((ROOT / "config" / name).read_text()))
    return startup.in_order(merge(first, given), PAPER)


def test_the_paper_has_its_runs_and_evaluations() -> None:
    paper = runs.create(PAPER)
    assert len(paper.runs) == 15
    assert sum(len(run.evaluations) for run in paper.runs.values()) == 1057


@pytest.mark.parametrize(
    "names",
    [
        [],
        ["demo.yaml"],
        ["demo.yaml", "choices.yaml"],
        ["cpu.yaml"],
        ["short.yaml"],
        ["authors.yaml"],
        ["demo.yaml", "authors.yaml", "authors-demo.yaml"],
    ],
)
def test_a_resolved_configuration_resolves_to_itself(names: list[str]) -> None:
    once = resolve(overlays(*names))
    assert resolve(once) == once


@pytest.mark.parametrize("names", [[], ["demo.yaml"], ["cpu.yaml"], ["demo.yaml", "authors.yaml", "authors-demo.yaml"]])
def test_no_figure_lacks_a_run(names: list[str]) -> None:
    jobs = Jobs(runs.create(overlays(*names)))
    assert [json.loads(jobs.figure({"figure": number}))["missing"] for number in range(1, 8)] == [[]] * 7


def test_the_choices_lie_on_top_of_any_network() -> None:
    alone = merge(overlays("cpu.yaml", "choices.yaml"), {"architectures": {"wrn-28-1": None}})
    planned = runs.create(merge(alone, {"figures": {"architecture": "lenet"}}))
    assert {run.architecture for run in planned.runs.values()} == {"lenet", "mlp640"}


def test_every_overlay_is_tested() -> None:
    tested = {"demo.yaml", "cpu.yaml", "authors.yaml", "authors-demo.yaml", "choices.yaml", "short.yaml"}
    assert tested == {path.name for path in (ROOT / "config").glob("*.yaml")}


@pytest.mark.parametrize(
    ("overlay", "sentence"),
    [
        ({"seed": [1]}, "unknown key 'seed' (did you mean 'seeds'?)"),
        ({"training": {"learning_rat": 1}}, "unknown key 'learning_rat' in training (did you mean 'learning_rate'?)"),
        ({"training": {"learning_rate": "1e-3"}}, "training.learning_rate is the text '1e-3', not a number"),
        ({"device": "gpu"}, "device is 'gpu'"),
        ({"datasets": {"cifar": {}}}, "'cifar', which is not in the registry (did you mean 'cifar10'?)"),
        ({"architectures": {"lenett": {}}}, "'lenett', which matches nothing in the registry (did you mean 'lenet'?)"),
        ({"architectures": {"lenet": {"shortcut": "pool"}}}, "architectures.lenet: unknown key 'shortcut'"),
        ({"network": {"shortcutt": "pool"}}, "network has the option 'shortcutt'"),
        ({"probes": {"knn": {"k": 100}}}, "asks for k = 100 but keeps k_max = 30"),
        ({"probes": {"svm": {"kind": "svn"}}}, "probes.svm.kind is 'svn'"),
        ({"probes": {"svm": {"los": "hinge"}}}, "unknown key 'los' (did you mean 'loss'?)"),
        ({"probes": {"dnn": {"kind": "knn"}}}, "probes has the name 'dnn'"),
        ({"figures": {"architecture": "wrn-16-4"}}, "figures.architecture is 'wrn-16-4'"),
        ({"seeds": []}, "seeds is []"),
        ({"seeds": 3}, "seeds is 3, not a list"),
        ({"probes": None}, "probes is empty, not keys with values"),
        ({"runs": None}, "runs is empty, not a list"),
        ({"data": {"download": "no"}}, "data.download is 'no', not true or false"),
        ({"probes": {"lr": {"C": "large"}}}, "probes.lr: C is 'large', not a number"),
        ({"experiment": "../up"}, "experiment is '../up'"),
        ({"measures": {"replicates": 10**9}}, "measures.replicates is 1000000000, but must be at most 100000"),
        ({"training": {"batch_size": 0}}, "training.batch_size is 0, but must be at least 1"),
        (
            {"data": {"root": "$NO_SUCH_PLACE/data"}},
            "data.root is '$NO_SUCH_PLACE/data', but $NO_SUCH_PLACE stands for",
        ),
        ({"data": {"root": "/a/${NO_SUCH_PLACE}"}}, "but ${NO_SUCH_PLACE} stands for nothing here"),
        ({"data": {"root": "~nobody-of-this-name/a"}}, "but ~nobody-of-this-name stands for nothing here"),
    ],
)
def test_a_wrong_value_is_named_in_one_sentence(overlay: dict, sentence: str) -> None:
    with pytest.raises(UserError) as caught:
        runs.create(merge(PAPER, overlay))
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


def block(**changes: object) -> dict:
    plain = {"architectures": ["lenet"], "datasets": ["mnist"], "labels": "x", "steps": 10, "evaluate_every": 5}
    return merge(PAPER, {"runs": [plain | changes]})


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"architectures": ["mlp"]}, "runs[0].architectures names 'mlp', which is not under architectures"),
        ({"training": {"decay_at": [10]}}, "decay_at holds 10, but the run ends at step 10"),
        ({"training": {"lr": 1}}, "unknown key 'lr'"),
        ({"evaluate_every": 11}, "evaluate_every is 11, more than its 10 steps"),
        ({"steps": 10**9, "evaluate_every": 1}, "runs[0].steps is 1000000000, but must be at most 10000000"),
        ({"steps": 10**6, "evaluate_every": 1}, "runs[0] makes 1000000 evaluations; raise evaluate_every"),
        ({"subset": {"draw": "balanced", "count": 9}}, "fewer than the 10 classes of mnist"),
        ({"seed": 3}, "unknown key 'seed' in runs[0] (did you mean 'seeds'?)"),
        ({"datasets": ["mnist", "mnist"]}, "two blocks of runs make mnist/lenet/x/seed0"),
    ],
)
def test_a_wrong_block_is_named(changes: dict, sentence: str) -> None:
    with pytest.raises(UserError, match=r"config") as caught:
        runs.create(block(**changes))
    assert sentence in str(caught.value)


def test_a_dropped_data_set_or_architecture_takes_its_runs_with_it() -> None:
    kept = {path: run for path, run in runs.create(PAPER).runs.items() if path.startswith("mnist/wrn-28-10/")}
    without = {"datasets": {"cifar10": None, "cifar100": None}, "architectures": {"lenet": None, "mlp640": None}}
    assert kept and runs.create(merge(PAPER, without)).runs == kept


def test_a_dropped_choice_takes_its_probes_with_it() -> None:
    whole, without = (merge(overlays("choices.yaml"), {"choices": left}) for left in ({}, {"l1-distance": None}))
    added = [set(choice_probes(resolve(config))) for config in (whole, without)]
    assert added[0] - added[1] == {"knn--l1-distance"} and added[1] < added[0]
    assert "l1-distance" not in resolve(without)["choices"]


def test_dropping_all_runs_is_said() -> None:
    without = {"datasets": {"mnist": None, "cifar10": None, "cifar100": None, "digits": {}}}
    with pytest.raises(UserError, match=r"no run is left.*cifar10"):
        runs.create(merge(PAPER, without))


def test_classes_too_small_for_the_votes_of_all_neighbours_are_told() -> None:
    def said(count: int) -> list[str]:
        config = resolve(block(subset={"draw": "balanced", "count": count}, seeds=[0, 1]))
        return list(doubts(config, runs.create(config).runs))

    assert list(doubts(resolve(PAPER), runs.create(PAPER).runs)) == []
    assert said(310) == []
    (sentence,) = said(309)
    assert "probes.knn takes 30 neighbours, but mnist/x has about 30.9 images of a class" in sentence


def test_the_folder_of_the_data_may_name_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCRATCH", "/scratch/me")
    monkeypatch.setenv("HOME", "/home/me")
    for root, folder in {
        "$SCRATCH/a": "/scratch/me/a",
        "${SCRATCH}": "/scratch/me",
        "~/a": "/home/me/a",
        "a~": "a~",
    }.items():
        assert resolve(merge(PAPER, {"data": {"root": root}}))["data"]["root"] == folder


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("seeds: [0]\na: {b: 1}\nseeds: [1]\n", "the key 'seeds' stands in line 1 and again in line 3; keep one"),
        (
            "runs:\n  - steps: 1\n    x: 2\n    steps: 3\n",
            "the key 'steps' stands in line 2 and again in line 4; keep one",
        ),
        ("a: {b: 1,\n  b: 2}\n", "the key 'b' stands in line 1 and again in line 2; keep one"),
        ("a: {b: 1, b: 2}\n", "the key 'b' stands in line 1 and again in line 1; keep one"),
        ("a: {b: 1}\nc: {b: 1}\n", None),
        ("", None),
        ("a: {0: x,\n  00: y}\n", "the key '0' stands in line 1 and as '00' in line 2; keep one"),
        ('{"a": 1, "a": 2}\n', "the key 'a' stands in line 1 and again in line 1; keep one"),
    ],
)
def test_a_key_given_twice_is_refused(tmp_path: Path, text: str, said: str | None) -> None:
    file = tmp_path / "overlay.yaml"
    file.write_text(text)
    if said is None:
        readable(file)
    else:
        with pytest.raises(UserError, match=re.escape(f"{file}: {said}")):
            readable(file)


@pytest.mark.parametrize("name", ["mlp640", "lenet"])
def test_a_networks_depth_is_the_number_of_its_layers_with_weights(name: str) -> None:
    spec = runs.network({"architectures": {name: {}}}, name)
    with torch.device("meta"):
        network = build.create(spec, channels=3, size=32, classes=10)
    layers = [module for module in network.modules() if isinstance(module, torch.nn.Conv2d | torch.nn.Linear)]
    assert networks.depth(name, {}) == len(layers)
    assert networks.depth("wrn-28-10", {}) == 28


def test_a_networks_depth_must_be_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ARCHITECTURES, "flat", {"module": "flat", "options": {}})
    with pytest.raises(UserError, match="the entry of 'flat' lacks its depth"):
        networks.depth("flat", {})


def test_one_name_cannot_mean_two_label_sets() -> None:
    config = block()
    config["architectures"]["wrn-10-1"] = {}
    config["more_runs"] = [config["runs"][0] | {"architectures": ["wrn-10-1"], "randomize": True}]
    with pytest.raises(UserError, match="mean different labels by 'x'"):
        runs.create(config)


def test_evaluations_shards_and_kept_weights() -> None:
    config = block(steps=12, layers="all")
    config["shards"] = {"evaluations": 2}
    made = runs.create(config)
    run = made.runs["mnist/lenet/x/seed0"]
    assert run.evaluations == [0, 5, 10, 12]
    assert [(s.name, s.steps) for s in made.shards(run)] == [
        ("steps000000-000005", (0, 5)),
        ("steps000010-000012", (10, 12)),
        ("layers000012", (12,)),
    ]
    config["keep"] = {"weights_every": 2}
    assert runs.create(config).runs["mnist/lenet/x/seed0"].checkpoints == [0, 10, 12]


def test_every_key_has_a_description_and_a_default_or_is_required() -> None:
    schema = load_schema()

    def walk(node: dict, path: str) -> None:
        for name, child in node.get("properties", {}).items():
            where = f"{path}.{name}"
            assert child.get("description"), where
            required = name in node.get("required", []) or "properties" in child or child.get("type") == "object"
            assert "default" in child or required, where
            walk(child, where)

    walk(schema, "config")
    walk(schema["$defs"]["block"], "runs[]")


def test_the_documentation_table_is_the_schemas() -> None:
    made = subprocess.run(
        [sys.executable, SCRIPTS / "configuration_table.py"], capture_output=True, text=True, check=True
    )
    assert made.stdout == (ROOT / "docs" / "configuration.md").read_text(), "run `make docs`"


def test_the_snakefile_side_imports_nothing_heavy() -> None:
    code = "import sys; from dnn_or_knn.plan import startup; print([m for m in ('torch', 'pandas', 'numpy') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=SCRIPTS, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("x.json", b'{"seeds": [0,}', "x.json, line 1: Expecting value; mend the JSON"),
        ("x.yaml", b"a: 1\n\tb: 2\n", "x.yaml, line 2: "),
        ("x.yaml", b"a: 1\nb: caf\xe9\n", "x.yaml, line 2: the byte 0xe9 is no UTF-8"),
        ("x.yaml", b"- a\n", "x.yaml holds no keys"),
        ("x.json", b'{"seeds": [0]}', None),
    ],
)
def test_a_file_that_cannot_be_read_is_named_with_its_line(
    tmp_path: Path, name: str, content: bytes, said: str | None
) -> None:
    (tmp_path / name).write_bytes(content)
    found = mistake_in(tmp_path / name)
    assert found is None if said is None else found is not None and f"{tmp_path}/{said}" in found


def test_a_mistake_is_said_of_the_last_file_that_holds_its_key() -> None:
    sources = {"config.yaml": {"seeds": [0], "keep": {}}, "mine.yaml": {"keep": {"features": "al"}}, "more.yaml": {}}
    assert with_source("config: keep.features is 'al'", sources).startswith("mine.yaml: keep.features")
    assert with_source("config: seeds[0] is -1", sources).startswith("config.yaml: seeds[0]")
    assert with_source("config: unknown key 'featurs' in keep", sources).startswith("mine.yaml: unknown")
    assert with_source("config: two blocks", {}) == "config: two blocks"
    both = sources | {"more.yaml": {"seeds": [-1], "keep": {"features": "none"}}}
    assert with_source("config: seeds[0] is -1", both).startswith("more.yaml: seeds[0]")
    assert with_source("config: keep.features is 'none'", both).startswith("more.yaml: keep.features")


def test_a_mistake_in_a_list_is_said_of_the_file_whose_list_it_is() -> None:
    """Lists are replaced as a whole: what an earlier file has in its own does not count, however deep it goes."""
    run = {"training": {"decay_at": [1500]}}
    sources: dict[str, Any] = {"config.yaml": {"runs": [run, run]}, "mine.yaml": {"runs": [{"steps": 1000}]}}
    assert with_source("config: runs[0].training.decay_at holds 1", sources).startswith("mine.yaml: runs[0]")
    assert with_source("config: runs[0].steps is 0", sources).startswith("mine.yaml: runs[0]")
    assert with_source("config: training.pad is -1", sources).startswith("config: ")


def test_votes_by_similarity_are_told_to_the_measures_alone() -> None:
    """Without them a specification is what it was; a choice may have them too, with the default temperature."""
    plain = Jobs(runs.create(PAPER))
    knn = {"metric": "cosine", "k": 20, "k_max": 200, "k_sweep": [10, 100, 200]}
    alike = Jobs(runs.create(merge(PAPER, {"probes": {"knn": {"vote": {"weights": "uniform"}}}})))
    assert [task.spec for task in alike.tasks] == [task.spec for task in plain.tasks]
    vote = {"weights": "softmax", "temperature": 0.1}
    asked = Jobs(runs.create(merge(PAPER, {"probes": {"knn": knn | {"vote": vote}}})))
    spec = next(json.loads(task.spec) for task in asked.tasks if task.rule == "measures")
    assert spec["probes"]["knn"] == {
        "kind": "knn",
        "predict": "decision",
        "k": 20,
        "k_sweep": [10, 100, 200],
        "vote": vote,
    }
    assert "dnn_or_knn/measures/weighted_votes.py" in spec["code"]["files"]
    without = Jobs(runs.create(merge(PAPER, {"probes": {"knn": knn}})))
    fits = [[task.spec for task in jobs.tasks if task.rule == "probe"] for jobs in (asked, without)]
    assert fits[0] == fits[1]
    choice = {"choices": {"peers": {"probes": {"knn": knn | {"vote": {"weights": "softmax"}}}}}}
    spec = next(
        json.loads(task.spec) for task in Jobs(runs.create(merge(PAPER, choice))).tasks if task.rule == "measures"
    )
    assert spec["probes"]["knn--peers"]["vote"]["temperature"] == 0.07 and "vote" not in spec["probes"]["knn"]
