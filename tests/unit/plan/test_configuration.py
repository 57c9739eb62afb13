"""The configuration: complete, checked, and wrong values named in one sentence."""

from __future__ import annotations

import copy
import subprocess
import sys

import pytest
import yaml
from conftest import ROOT, SCRIPTS
from dnn_or_knn.plan import runs
from dnn_or_knn.plan.configuration import load_schema, resolve
from dnn_or_knn.runtime.errors import UserError

PAPER = yaml.safe_load((ROOT / "config.yaml").read_text())


def merge(base: dict, overlay: dict) -> dict:
    """Merge as Snakemake does: mappings deeply, the rest replaced."""
    merged = dict(base)
    for key, value in overlay.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = merge(merged[key], value) if both else value
    return merged


def overlays(*names: str) -> dict:
    config = copy.deepcopy(PAPER)
    for name in names:
        config = merge(config, yaml.safe_load((ROOT / "config" / name).read_text()))
    return config


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
        ["authors.yaml"],
        ["demo.yaml", "authors.yaml", "authors-demo.yaml"],
    ],
)
def test_a_resolved_configuration_resolves_to_itself(names: list[str]) -> None:
    once = resolve(overlays(*names))
    assert resolve(once) == once


def test_every_overlay_is_tested() -> None:
    tested = {"demo.yaml", "cpu.yaml", "authors.yaml", "authors-demo.yaml", "choices.yaml"}
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
        ({"subset": {"draw": "balanced", "count": 9}}, "fewer than the 10 classes of mnist"),
        ({"seed": 3}, "unknown key 'seed' in runs[0] (did you mean 'seeds'?)"),
        ({"datasets": ["mnist", "mnist"]}, "two blocks of runs make mnist/lenet/x/seed0"),
    ],
)
def test_a_wrong_block_is_named(changes: dict, sentence: str) -> None:
    with pytest.raises(UserError, match=r"config") as caught:
        runs.create(block(**changes))
    assert sentence in str(caught.value)


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
