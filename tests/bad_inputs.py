"""Bad inputs by the hundred: a wrong value for every key of the schema, and what only the whole shows to be wrong.

A case is the text of a configuration file that goes on top of `tests/workflow/tiny.yaml`, and a word of the key that its
sentence must name.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import yaml
from dnn_or_knn.plan.registry import ARCHITECTURES, DATASETS, PROBES
from dnn_or_knn.plan.schema import load_schema


class Case(NamedTuple):
    """One bad file."""

    name: str
    text: str | bytes
    names: str  #: what the sentence must say


#: What each type is not, as YAML writes it.
OTHERS = {
    "integer": [
        "x",
        "[1]",
        "{a: 1}",
        "true",
        "1.5",
        "2.0",
        ".nan",
        ".inf",
        "-.inf",
        "1.0e+400",
        "'7'",
        "2020-01-01",
        "1e3",
    ],
    "number": ["x", "[1]", "{a: 1}", "true", ".nan", ".inf", "-.inf", "1e-3", "'0.1'", "2020-01-01"],
    "string": ["7", "[a]", "{a: b}", "true", "0.5", ".nan", "2020-01-01"],
    "boolean": ["7", "x", "[true]", "{a: true}", "'yes'", ".nan"],
    "array": ["7", "x", "{a: 1}", "true", ".inf"],
    "object": ["7", "x", "[1]", "true", ".nan"],
    "null": [],
}
BLOCK = "runs: [{architectures: [mlp8], datasets: [digits], labels: true-labels, steps: 30, evaluate_every: 10, %s}]\n"
RUN = dict.fromkeys(("architectures", "datasets", "labels", "steps", "evaluate_every"))


def nested(path: tuple[str, ...], value: str) -> str:
    """Return YAML with `value`, itself YAML, at a path."""
    return "".join(f"{{{key}: " for key in path) + value + "}" * len(path) + "\n"


def wrong_values(schema: dict[str, Any]) -> Iterator[str]:
    """Yield YAML of values that a schema does not allow."""
    kinds = schema.get("type", [])
    kinds = [kinds] if isinstance(kinds, str) else kinds
    if "enum" in schema:
        yield from (text for text in ("7.25", "no-such-word", "[1]", "{a: 1}", ".nan"))
    elif kinds:
        yield from set.intersection(*({*OTHERS[kind]} for kind in kinds if kind != "null"))
        yield from [] if "null" in kinds else ["null"]
    for name, step in (("minimum", -1), ("exclusiveMinimum", 0), ("maximum", 1), ("exclusiveMaximum", 0)):
        if name in schema:
            yield str(schema[name] + step)
    if schema.get("minItems") or schema.get("minProperties"):
        yield "[]" if "array" in kinds else "{}"
    if schema.get("pattern"):
        yield from ("'../up'", "'Capital'", "'with space'", "''", "'a/b'", "-a", "x" * 101)


def leaves(schema: dict[str, Any], path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], dict[str, Any]]]:
    """Yield every key of a schema with its path and schema, however deep."""
    for key, child in schema.get("properties", {}).items():
        yield (*path, key), child
        yield from leaves(child, (*path, key))


def of_the_schema() -> Iterator[Case]:
    """Every key with wrong values, and every key misspelt."""
    schema = load_schema()
    for path, child in leaves(schema):
        for value in sorted(wrong_values(child)):
            # An entry of these set to null is no mistake, and mappings merge.
            if value in ("{}", "null") and path[0] in ("datasets", "architectures") and len(path) > 1:
                continue
            if value == "{}" or (path in (("runs",), ("more_runs",)) and value == "[]" and path == ("more_runs",)):
                continue
            yield Case(f"{'.'.join(path)}: {value}", nested(path, value), path[-1])
        wrong = path[-1][:-1] + "zz"
        yield Case(f"{'.'.join(path)} misspelt", nested((*path[:-1], wrong), "1"), wrong)
    for key, child in schema["$defs"]["block"]["properties"].items():
        for value in sorted(wrong_values(child)):
            text = BLOCK % "x: 1" if key in RUN else BLOCK % f"{key}: {value}"
            if key in RUN:
                text = text.replace("x: 1", "layers: embedding")
                block = yaml.safe_load(text)["runs"][0]
                words = ", ".join(
                    f"{k}: {value if k == key else yaml.safe_dump(v, default_flow_style=True).split(chr(10))[0]}"
                    for k, v in block.items()
                )
                text = f"runs: [{{{words}}}]\n"
            yield Case(f"runs.{key}: {value}", text, key)
        yield Case(f"runs.{key} misspelt", BLOCK % f"{key}zz: 1", f"{key}zz")
    for path, child in leaves(schema["properties"]["training"], ()):
        for value in sorted(wrong_values(child)):
            yield Case(f"runs.training.{path[0]}: {value}", BLOCK % f"training: {nested(path, value).strip()}", path[0])


def of_the_registry() -> Iterator[Case]:
    """Every option with wrong values."""
    for kind, entry in PROBES.items():
        for option, child in entry["options"].items():
            for value in sorted(wrong_values(child)):
                yield Case(
                    f"{kind}.{option}: {value}", f"probes: {{new: {{kind: {kind}, {option}: {value}}}}}\n", option
                )
    for name, entry in DATASETS.items():
        for option, child in entry["options"].items():
            for value in sorted(wrong_values(child)):
                yield Case(f"{name}.{option}: {value}", f"datasets: {{{name}: {{{option}: {value}}}}}\n", option)
    for name, pattern in (("mlp9", 0), ("lenet", 1), ("wrn-16-1", 2)):
        for option, child in list(ARCHITECTURES.values())[pattern]["options"].items():
            for value in sorted(wrong_values(child)):
                yield Case(f"{name}.{option}: {value}", f"architectures: {{{name}: {{{option}: {value}}}}}\n", option)


#: What each value alone may be, but not here: text → what the sentence names.
TOGETHER = {
    "probes: {lr: {penalty: l1}}": "probes.lr.penalty is l1",
    "choices: {a: {probes: {lr: {penalty: l1}}}}": "choices.a.probes.lr.penalty",
    "probes: {knn: {k_max: 1500}}": "1500 neighbours",
    "probes: {knn: {k: 40}}": "k_max = 30",
    "probes: {knn: {k_sweep: [31]}}": "k_max = 30",
    "probes: {knn: {vote: {weights: softmax}}}": "metric: cosine",
    "probes: {knn: {vote: {temperature: 0.1}}}": "weights",
    "probes: {knn: {vote: {weights: softmax, temperature: 0}}}": "temperature",
    BLOCK % "subset: {draw: first, count: 31}"
    + "probes: {knn: {k_max: 31}}\ntraining: {batch_size: 10}": "31 neighbours",
    BLOCK % "subset: {draw: first, count: 20}" + "training: {batch_size: 10}": "30 neighbours",
    BLOCK % "subset: {draw: first, count: 5000}": "subset.count of 5000",
    BLOCK % "subset: {draw: balanced, count: 9}": "9, fewer than the 10 classes",
    BLOCK % "subset: {draw: first, count: 40}": "batch_size is 50",
    "training: {batch_size: 1439}": "batch_size is 1439",
    BLOCK % "training: {batch_size: 100000}": "batch_size is 100000",
    "architectures: {wrn-11-2: {}}": "wrn-11-2",
    "architectures: {wrn-4-2: {}}": "wrn-4-2",
    "architectures: {wrn-11-2: null}": "wrn-11-2",
    "architectures: {wrn-016-2: {}}": "wrn-016-2",
    "architectures: {mlp: {}}": "'mlp'",
    "architectures: {mlp0: {}}": "mlp0",
    "architectures: {lenett: {}}": "lenett",
    "architectures: {lenett: null}": "lenett",
    "architectures: {resnet: {}}": "resnet",
    "datasets: {mnits: null}": "mnits",
    "datasets: {mnits: {}}": "mnits",
    "probes: {knnn: null}": "knnn",
    "probes: {Knn: {kind: knn}}": "Knn",
    "probes: {dnn: {kind: knn}}": "dnn",
    "probes: {new: {kind: knnn}}": "knnn",
    "probes: {new: {k: 3}}": "kind",
    "probes: {knn: {k_sweep: [5]}, knn-k5: {kind: knn}}": "knn-k5",
    "architectures: {mlp99999999999: {}}\n" + (BLOCK % "seeds: [0]").replace("mlp8", "mlp99999999999"): "TB",
    "architectures: {wrn-28-100000: {}}\n" + (BLOCK % "seeds: [0]").replace("mlp8", "wrn-28-100000"): "TB",
    "architectures: {wrn-1000000000000-1: {}}\n" + (BLOCK % "seeds: [0]").replace("mlp8", "wrn-1000000000000-1"): "TB",
    "architectures: {lenet: {embedding: 999999999999}}\n" + (BLOCK % "seeds: [0]").replace("mlp8", "lenet"): "TB",
    "architectures: {wrn-40-2000: {}}\n" + (BLOCK % "seeds: [0]").replace("mlp8", "wrn-40-2000"): "TB",
    "measures: {replicates: 1000000000}": "replicates",
    "device: cuda": "no GPU",
    "data: {root: '$NO_SUCH_PLACE_HERE/a'}": "NO_SUCH_PLACE_HERE",
    "data: {root: ''}": "data.root",
    "choices: {a: {roles: {knnn: knn}}}": "knnn",
    "choices: {a: {roles: {knn: knn-k5}}}": "knn-k5",
    "choices: {a: {roles: {knn: nothing}}}": "nothing",
    "choices: {a: {probes: {knnn: {k: 1}}}}": "knnn",
    "choices: {a: {probes: {knn: {kk: 1}}}}": "kk",
    "choices: {'A b': {roles: {}}}": "A b",
    "choices: {nothing: null}": "choices drops 'nothing', which is no choice",
    "figures: {overfit_labels: overfitt}": "overfit_labels",
    "figures: {true_labels: tru-labels}": "true_labels",
    "figures: {random_labels: rand}": "random_labels",
    "figures: {random_layers: rand}": "random_layers",
    "figures: {architecture: wrn-16-4}": "figures.architecture",
    "claims: {early_parting: [cifar]}": "early_parting",
    "claims: {early_parting: [mnist, digits]}": "mnist",
    "probes: {svm: {pca: {components: 4, skip_layers: [conv9]}}}": "conv9",
    "probes: {svm: {pca: {skip_layers: [input]}}}": "components",
    "probes: {svm: {pca: {components: 0}}}": "components",
    "network: {activationn: relu}": "activationn",
    "network: {activation: tanh}": "activation",
    BLOCK % "training: {decay_at: [30]}": "decay_at holds 30",
    BLOCK % "training: {decay_at: [5, 5]}": "twice",
    (BLOCK % "seeds: [0]").replace("evaluate_every: 10", "evaluate_every: 31"): "evaluate_every is 31",
    (BLOCK % "seeds: [0]").replace("steps: 30", "steps: 10000000").replace("every: 10", "every: 1"): "evaluations",
    (BLOCK % "seeds: [0]").replace("mlp8", "mlp9"): "mlp9",
    (BLOCK % "seeds: [0]").replace("[digits]", "[digit]"): "digit",
    (BLOCK % "seeds: [0]").replace("[digits]", "[digits, digits]"): "two blocks",
    "more_runs: [{architectures: [mlp8], datasets: [digits], labels: true-labels, steps: 3, evaluate_every: 1}]": "two blocks",
    "more_runs: [{architectures: [wrn-10-1], datasets: [digits], labels: random-labels, steps: 3, evaluate_every: 1}]": "random-labels",
    "more_runs: [{}]": "more_runs[0]",
    "runs: []": "runs",
    "seeds: [0, 0]": "twice",
    "seeds: [-1]": "seeds[0]",
    "seeds: [0.0]": "seeds[0]",
    "seeds: [99999999999999999999]": "seeds[0]",
    "seeds: &a [*a]": "seeds",
    "experiment: 2024": "experiment",
    "1: 2": "key 1",
    "null: 2": "key null",
    "true: 2": "key true",
    "training: {1.5: 2}": "key 1.5",
    "[1]: 2": "bad.yaml",
}

#: Files that are no configuration.
FILES: dict[str, str | bytes] = {
    "a list": "- a\n",
    "a text": "just words\n",
    "a number": "7\n",
    "a tab": "a:\n\tb: 1\n",
    "an open bracket": "seeds: [0\n",
    "an open brace": "seeds: {a: 1\n",
    "an open quote": "experiment: 'x\n",
    "a bad indent": "seeds: [0]\n  device: cpu\n",
    "a colon too many": "a: b: c\n",
    "an unknown alias": "seeds: *nothing\n",
    "an unknown tag": "seeds: !nothing [1]\n",
    "python": "seeds: !!python/object/apply:os.system ['true']\n",
    "two documents": "seeds: [0]\n---\nseeds: [1]\n",
    "latin-1": "experiment: caf\xe9\n".encode("latin-1"),
    "utf-16": "experiment: a\n".encode("utf-16"),
    "zeros": b"\0\0\0\0",
    "a picture": b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR",
    "a control character": "experiment: a\x07b\n",
    "a key twice": "seeds: [0]\nkeep: {}\nseeds: [1]\n",
    "a key twice within": "keep: {features: all, features: all}\n",
    "a date that is none": "seeds: [2020-13-45]\n",
    "a percent": "%YAML 9.9\n---\nseeds: [0]\n",
    "an at sign": "experiment: @x\n",
    "a backtick": "experiment: `x`\n",
}


def cases() -> list[Case]:
    """Return all of them."""
    together = [Case(text, text + "\n", names) for text, names in TOGETHER.items()]
    files = [Case(name, text, "bad.yaml") for name, text in FILES.items()]
    return [*of_the_schema(), *of_the_registry(), *together, *files]
