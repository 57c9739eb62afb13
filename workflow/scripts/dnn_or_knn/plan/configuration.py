"""The configuration: merged, complete, each block checked against the registry and the others.

Imported by the Snakefile, so nothing heavy is imported here.
"""

from __future__ import annotations

import copy
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..runtime.errors import UserError, nearest
from . import datasets, given, networks
from .reading import readable
from .registry import ANY_ARCHITECTURE, DATASETS, PROBES
from .schema import SCHEMA_FILE, Schema, check, fill, load_schema, plain

PAPER = SCHEMA_FILE.parents[2] / "config.yaml"
#: A run's evaluations are spelled out in its jobs, one by one.
MOST_EVALUATIONS = 100_000


def load_overlays(*names: str | Path) -> dict[str, Any]:
    """Return config.yaml with overlays merged into it as Snakemake does: mappings deeply, everything else replaced."""
    from snakemake.common.configfile import load_configfile
    from snakemake.utils import update_config

    config: dict[str, Any] = {}
    for name in (PAPER, *names):
        readable(name)
        update_config(config, load_configfile(name))
    return config


def resolve(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the configuration checked and complete.

    Entries of `datasets`, `architectures`, `probes` and `choices` that an overlay set to null are dropped, and with a data set
    or an architecture the runs on it. Raises `UserError` naming the key, its value and what is allowed.
    """
    schema = load_schema()
    plain(config, "config")
    complete = _without_null(copy.deepcopy(dict(config)))
    networks.by_name(complete)
    given.complete(complete)
    if complete.get("datasets") == {}:  # subjects that are wrong have made none: what is wrong with them is said first
        check(complete | {"datasets": {"any": {}}}, schema, "config")
    check(complete, schema, "config")
    fill(complete, schema)
    complete["data"]["root"] = _folder(complete["data"]["root"])
    _network_defaults(complete)
    for name, options in complete["datasets"].items():
        datasets.complete(name, options)
    for name, options in complete["architectures"].items():
        _options(options, networks.entry(name, options)["options"] | ANY_ARCHITECTURE, f"architectures.{name}")
        for key in [key for key in networks.NOT_BUILT if options[key] is None]:
            del options[key]  # a specification without it means the same
    for name, options in complete["probes"].items():
        if not re.fullmatch(r"[a-z0-9][a-z0-9_-]*", name) or name == "dnn":
            raise UserError(
                f"config: probes has the name '{name}'; use lower-case letters, digits, - and _ (and not 'dnn')"
            )
        _probe(f"probes.{name}", options)
    for name, options in choice_probes(complete).items():
        probe, choice = name.split("--", 1)
        _probe(f"choices.{choice}.probes.{probe}", options)
    networks.subjects(complete)
    if not (complete["runs"] or complete["more_runs"] or "subjects" in complete):
        raise UserError("config: runs is [], empty, and there are no subjects; give one of them")
    _roles(complete)
    for key in ("runs", "more_runs"):
        for position, run in enumerate(complete[key]):
            for names in ("architectures", "datasets"):
                run[names] = [name for name in run[names] if config[names].get(name, {}) is not None]
            _run(run, complete, schema, f"{key}[{position}]")
        complete[key] = [run for run in complete[key] if run["architectures"] and run["datasets"]]
    if not (complete["runs"] or complete["more_runs"] or "subjects" in complete):
        dropped = [name for key in ("datasets", "architectures") for name in config[key] if config[key][name] is None]
        raise UserError(
            f"config: no run is left, each has its data sets or architectures among those dropped ({', '.join(dropped)}); give "
            "runs on others"
        )
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


def _without_null(config: dict[str, Any]) -> dict[str, Any]:
    """Drop the entries that an overlay set to null, in place; of probes and choices, `startup` knows which there were."""
    for key in ("datasets", "architectures", "probes", "choices"):
        if not isinstance(config.get(key), dict):
            continue
        for name in [name for name, entry in config[key].items() if entry is None]:
            if key == "datasets" and name not in DATASETS:
                raise UserError(
                    f"config: datasets drops '{name}', which is not in the registry{nearest(name, DATASETS)}"
                )
            if key == "architectures":
                networks.entry(name, {"network": name} if ":" in name else {})
            del config[key][name]
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
    entries = {name: networks.entry(name, options) for name, options in config["architectures"].items()}
    known: Schema = {}
    for entry in entries.values():
        known |= entry["options"]
    for option in config["network"]:
        if option not in known:
            raise UserError(
                f"config: network has the option '{option}', which no architecture here has{nearest(option, known)}"
            )
    check(config["network"], {"type": "object", "properties": known}, "config: network")
    for name, entry in entries.items():
        shared = {option: value for option, value in config["network"].items() if option in entry["options"]}
        config["architectures"][name] = shared | config["architectures"][name]


def _probe(where: str, options: dict[str, Any]) -> None:
    """Check and complete one probe's options, in place."""
    kind = options["kind"]
    if kind not in PROBES:
        raise UserError(f"config: {where}.kind is '{kind}', which is not in the registry{nearest(kind, PROBES)}")
    _options(options, PROBES[kind]["options"] | {"kind": {"type": "string"}}, where)
    highest = max([options.get("k", 0), *options.get("k_sweep", [])])
    if highest > options.get("k_max", highest):
        raise UserError(
            f"config: {where} asks for k = {highest} but keeps k_max = {options['k_max']} neighbours; raise k_max"
        )
    if weighted_vote(options) is None:
        options.pop("vote", None)  # the paper's, and what a specification without it means
    elif options["metric"] != "cosine":
        raise UserError(
            f"config: {where}.vote weighs neighbours by their cosines, but {where}.metric is {options['metric']}; set metric: cosine"
        )
    if kind == "logistic" and options["penalty"] == "l1" and options["multiclass"] == "multinomial":
        raise UserError(
            f"config: {where}.penalty is l1, which goes with multiclass ovr alone, as in liblinear; set `multiclass: ovr`"
        )


def weighted_vote(options: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return a probe's votes by similarity as measures are told them, None where all neighbours vote alike."""
    vote = options.get("vote") or {}
    if vote.get("weights", "uniform") == "uniform":
        return None
    return {"temperature": PROBES["knn"]["options"]["vote"]["properties"]["temperature"]["default"], **vote}


def models(probes: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return what probes are called in the measures table: by their names, and `<name>-k<k>` for each k of a sweep."""
    return [
        word
        for name, options in probes.items()
        for word in (name, *(f"{name}-k{k}" for k in options.get("k_sweep", [])))
    ]


def _roles(config: dict[str, Any]) -> None:
    """Refuse roles of probes or k that are not there, and two models of one name."""
    probes = config["probes"] | choice_probes(config)
    known = models(probes)
    for name in known:
        if known.count(name) > 1:
            raise UserError(f"config: probes has '{name}' twice, once as a k of k_sweep; rename the probe")
    for choice, what in config["choices"].items():
        for role, model in what["roles"].items():
            where = f"config: choices.{choice}.roles"
            if role not in config["probes"]:
                raise UserError(f"{where} names '{role}', which is not under probes{nearest(role, config['probes'])}")
            if model not in known:
                raise UserError(
                    f"{where}.{role} is '{model}', which is no probe and no k of a k_sweep{nearest(model, known)}"
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
