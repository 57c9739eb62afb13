"""The configuration: one schema, defaults filled in, one clear sentence for whatever does not fit.

Imported by the Snakefile, so nothing heavy is imported here.
"""

from __future__ import annotations

import copy
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from jsonschema import Draft202012Validator
from jsonschema.exceptions import ValidationError

from ..runtime.errors import UserError, nearest
from .registry import ARCHITECTURES, DATASETS, PROBES

SCHEMA_FILE = Path(__file__).resolve().parents[3] / "schemas" / "config.schema.yaml"
PAPER = SCHEMA_FILE.parents[2] / "config.yaml"
#: A run's evaluations are spelled out in its jobs, one by one.
MOST_EVALUATIONS = 100_000
NUMBER_AS_TEXT = re.compile(r"^[+-]?\d+(\.\d*)?[eE][+-]?\d+$")
#: JSON schema's types in words.
TYPES = {
    "object": "keys with values",
    "array": "a list",
    "string": "a text",
    "number": "a number",
    "integer": "a whole number",
    "boolean": "true or false",
    "null": "null",
}
Schema = dict[str, Any]


def load_schema() -> Schema:
    """Return the configuration's JSON schema."""
    return yaml.safe_load(SCHEMA_FILE.read_text(encoding="utf-8"))


def load_overlays(*names: str | Path) -> dict[str, Any]:
    """Return config.yaml with overlays merged into it as Snakemake does: mappings deeply, everything else replaced."""
    from snakemake.common.configfile import load_configfile
    from snakemake.utils import update_config

    config: dict[str, Any] = {}
    for name in (PAPER, *names):
        refuse_repeated_keys(name)
        update_config(config, load_configfile(name))
    return config


def refuse_repeated_keys(file: str | Path) -> None:
    """Raise `UserError` if a YAML file gives a key twice in one mapping: the first would be lost in silence."""
    try:
        waiting = [yaml.compose(Path(file).read_text(encoding="utf-8"), yaml.SafeLoader)]
    except (OSError, yaml.YAMLError):
        return  # Snakemake says what is wrong
    while waiting:
        node = waiting.pop()
        if isinstance(node, yaml.SequenceNode):
            waiting += node.value
        elif isinstance(node, yaml.MappingNode):
            lines: dict[str, int] = {}
            for key, value in node.value:
                name, line = str(key.value), key.start_mark.line + 1
                if name in lines:
                    raise UserError(
                        f"{file}: the key '{name}' stands in line {lines[name]} and again in line {line}; keep one"
                    )
                lines[name] = line
                waiting.append(value)


def resolve(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the configuration checked and complete.

    Entries of `datasets`, `architectures` and `probes` that an overlay set to null are dropped. Raises `UserError`
    naming the key, its value and what is allowed.
    """
    schema = load_schema()
    complete = _without_null(copy.deepcopy(dict(config)), ("datasets", "architectures", "probes"))
    check(complete, schema, "config")
    fill(complete, schema)
    complete["data"]["root"] = _folder(complete["data"]["root"])
    _network_defaults(complete)
    for name, options in complete["datasets"].items():
        if name not in DATASETS:
            raise UserError(f"config: datasets names '{name}', which is not in the registry{nearest(name, DATASETS)}")
        _options(options, DATASETS[name]["options"], f"datasets.{name}")
    for name, options in complete["architectures"].items():
        _options(options, architecture_entry(name)["options"], f"architectures.{name}")
    for name, options in complete["probes"].items():
        _probe(name, options)
    for name, options in choice_probes(complete).items():
        _probe(name, options)
    for key in ("runs", "more_runs"):
        for position, run in enumerate(complete[key]):
            _run(run, complete, schema, f"{key}[{position}]")
    return complete


def choice_probes(config: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the probes that the configuration's `choices` add: `<probe>--<choice>` → options."""
    added = {}
    for choice, what in config["choices"].items():
        for probe, options in what["probes"].items():
            if probe not in config["probes"]:
                raise UserError(
                    f"config: choices.{choice}.probes names '{probe}', which is not under probes{nearest(probe, config['probes'])}"
                )
            added[f"{probe}--{choice}"] = config["probes"][probe] | options
    return added


def architecture_entry(name: str) -> dict[str, Any]:
    """Return the registry's entry that a network's name matches, with the integers of the name under ``"values"``."""
    for pattern, entry in ARCHITECTURES.items():
        match = re.fullmatch(pattern, name)
        if match:
            return entry | {"values": {key: int(value) for key, value in match.groupdict().items()}}
    known = ("mlp640", "lenet", "wrn-28-10")
    raise UserError(
        f"config: architectures names '{name}', which matches nothing in the registry{nearest(name, known)}"
    )


def check(value: Any, schema: Schema, where: str) -> None:
    """Raise `UserError` with the first error of `value` against `schema`, in words."""
    errors = sorted(Draft202012Validator(schema).iter_errors(value), key=lambda error: [str(p) for p in error.path])
    if errors:
        raise UserError(_sentence(errors[0], where))


def fill(value: Any, schema: Schema, definitions: Schema | None = None) -> None:
    """Fill in the defaults of a checked value, in place, however deep, whether or not the parent object was there."""
    definitions = schema.get("$defs", {}) if definitions is None else definitions
    schema = definitions[schema["$ref"].rsplit("/", 1)[1]] if "$ref" in schema else schema
    if isinstance(value, dict):
        entries = schema.get("additionalProperties")
        if isinstance(entries, dict):
            for entry in value.values():
                fill(entry, entries, definitions)
        for key, child in schema.get("properties", {}).items():
            if key not in value and ("default" in child or child.get("properties")):
                value[key] = copy.deepcopy(child.get("default", {}))
            if key in value:
                fill(value[key], child, definitions)
    elif isinstance(value, list) and "items" in schema:
        for item in value:
            fill(item, schema["items"], definitions)


def _sentence(error: ValidationError, where: str) -> str:
    """Return a validation error as: where, what is wrong, what is allowed."""
    path = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in error.absolute_path).lstrip(".")
    path = path or "the top level"
    value: Any = error.instance
    schema: Any = error.schema
    rule: Any = error.validator_value
    if error.validator == "additionalProperties":
        known = schema.get("properties", {})
        unknown = next(str(key) for key in value if key not in known)
        inside = "" if path == "the top level" else f" in {path}"
        return f"{where}: unknown key '{unknown}'{inside}{nearest(unknown, known)}"
    if error.validator == "required":
        missing = next(key for key in rule if key not in value)
        return f"{where}: {path} lacks the key '{missing}'; add it"
    if isinstance(value, str) and NUMBER_AS_TEXT.match(value) and error.validator == "type":
        return f"{where}: {path} is the text '{value}', not a number; YAML wants a dot and a sign, such as 1.0e-3"
    if error.validator == "enum":
        allowed = [str(item) for item in rule]
        return f"{where}: {path} is {value!r}{nearest(str(value), allowed)}; allowed: {', '.join(allowed)}"
    meaning = schema.get("description")
    bound = {"minimum": "at least", "maximum": "at most", "exclusiveMinimum": "above", "exclusiveMaximum": "below"}
    if error.validator == "type":
        wanted = " or ".join(TYPES[name] for name in ([rule] if isinstance(rule, str) else rule))
        said = f"{where}: {path} is {'empty' if value is None else repr(value)}, not {wanted}"
    elif error.validator in bound:
        said = f"{where}: {path} is {value!r}, but must be {bound[error.validator]} {rule}"
    else:
        said = f"{where}: {path} is {value!r}: {error.message}"
    return said + (f"; it means: {meaning}" if meaning else "")


def _without_null(config: dict[str, Any], keys: tuple[str, ...]) -> dict[str, Any]:
    for key in keys:
        if isinstance(config.get(key), dict):
            config[key] = {name: entry for name, entry in config[key].items() if entry is not None}
    return config


def _folder(root: str) -> str:
    """Return `data.root` with `~` and environment variables replaced."""
    folder = os.path.expanduser(os.path.expandvars(root))
    if unset := re.search(r"\$\w+|\$\{.*?\}|^~[^/]*", folder):
        raise UserError(
            f"config: data.root is '{root}', but {unset[0]} stands for nothing here; set it or write the folder"
        )
    return folder


def _options(options: dict[str, Any], properties: Schema, where: str) -> None:
    """Check and complete the options of one registry entry, in place."""
    schema = {"type": "object", "additionalProperties": False, "properties": properties}
    check(options, schema, f"config: {where}")
    fill(options, schema)


def _network_defaults(config: dict[str, Any]) -> None:
    """Give each architecture the options under `network` that it has and does not set itself, in place."""
    entries = {name: architecture_entry(name) for name in config["architectures"]}
    known = {option for entry in entries.values() for option in entry["options"]}
    for option in config["network"]:
        if option not in known:
            raise UserError(
                f"config: network has the option '{option}', which no architecture here has{nearest(option, known)}"
            )
    for name, entry in entries.items():
        shared = {option: value for option, value in config["network"].items() if option in entry["options"]}
        config["architectures"][name] = shared | config["architectures"][name]


def _probe(name: str, options: dict[str, Any]) -> None:
    kind = options["kind"]
    if not re.fullmatch(r"[a-z0-9][a-z0-9_-]*", name) or name == "dnn":
        raise UserError(
            f"config: probes has the name '{name}'; use lower-case letters, digits, - and _ (and not 'dnn')"
        )
    if kind not in PROBES:
        raise UserError(f"config: probes.{name}.kind is '{kind}', which is not in the registry{nearest(kind, PROBES)}")
    _options(options, PROBES[kind]["options"] | {"kind": {"type": "string"}}, f"probes.{name}")
    highest = max([options.get("k", 0), *options.get("k_sweep", [])])
    if highest > options.get("k_max", highest):
        raise UserError(
            f"config: probes.{name} asks for k = {highest} but keeps k_max = {options['k_max']} neighbours; raise k_max"
        )


def _run(run: dict[str, Any], config: dict[str, Any], schema: Schema, where: str) -> None:
    """Check one block of `runs` against the rest, and complete its training values, in place."""
    for key in ("architectures", "datasets"):
        for name in run[key]:
            if name not in config[key]:
                raise UserError(
                    f"config: {where}.{key} names '{name}', which is not under {key}{nearest(name, config[key])}"
                )
    training = schema["properties"]["training"]
    check(run["training"], training, f"config: {where}.training")
    run["training"] = config["training"] | run["training"]
    run["seeds"] = run["seeds"] or config["seeds"]
    for step in run["training"]["decay_at"]:
        if step >= run["steps"]:
            raise UserError(f"config: {where}.training.decay_at holds {step}, but the run ends at step {run['steps']}")
    if run["evaluate_every"] > run["steps"]:
        raise UserError(
            f"config: {where}.evaluate_every is {run['evaluate_every']}, more than its {run['steps']} steps"
        )
    if run["steps"] > MOST_EVALUATIONS * run["evaluate_every"]:
        raise UserError(
            f"config: {where} makes {run['steps'] // run['evaluate_every']} evaluations; raise evaluate_every until they are "
            f"at most {MOST_EVALUATIONS}"
        )
