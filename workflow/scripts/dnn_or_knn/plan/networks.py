"""The networks of a configuration: those of the registry by their names' patterns, and those of libraries and one's own."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ..runtime.errors import UserError, nearest
from ..runtime.files import sha256
from .registry import ANY_ARCHITECTURE, ARCHITECTURES, NAMED
from .schema import fill

#: What a folder of the results may be called.
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
#: Options that say what figures call a network or where they show it.
NOT_BUILT = tuple(ANY_ARCHITECTURE)
#: The paper's networks.
PAPERS = ("mlp640", "lenet", "wrn-28-10")


def folder_name(name: str) -> str:
    """Return what a network that is named by its source is called in the results: `torchvision-resnet18`, `mynet-build`."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name.rpartition("/")[2].replace(".py:", "-")).strip("-.") or "network"


def by_name(config: dict[str, Any]) -> None:
    """Give each network under a source's name, such as `torchvision:resnet18`, a folder's name, wherever it stands, in place."""
    architectures = config.get("architectures")
    if not isinstance(architectures, dict):
        return
    names = {name: folder_name(name) for name in architectures if ":" in name}
    taken = {name: name for name in architectures if name not in names}
    for name, folder in names.items():
        if folder in taken:
            raise UserError(
                f"config: architectures names '{name}' and '{taken[folder]}', which have one folder, {folder}; give one a "
                f"name of its own, such as `mine: {{network: {name}}}`"
            )
        taken[folder] = name
    config["architectures"] = {
        names.get(name, name): {"network": name} | options if name in names and isinstance(options, dict) else options
        for name, options in architectures.items()
    }
    for key in ("runs", "more_runs"):
        blocks = config.get(key)
        for block in blocks if isinstance(blocks, list) else []:
            if isinstance(block, dict) and isinstance(block.get("architectures"), list):
                block["architectures"] = [
                    names.get(name, name) if isinstance(name, str) else name for name in block["architectures"]
                ]
    figures = config.get("figures")
    if isinstance(figures, dict) and isinstance(figures.get("architecture"), str):
        figures["architecture"] = names.get(figures["architecture"], figures["architecture"])


def entry(name: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the registry's entry of a network, with the integers of its name under ``"values"``."""
    if "network" in options:
        if not NAME.fullmatch(name):
            raise UserError(f"config: architectures has the name '{name}'; use letters, digits, -, . and _")
        return NAMED | {"values": {}}
    for pattern, found in ARCHITECTURES.items():
        match = re.fullmatch(pattern, name)
        if match:
            values = {key: int(value) for key, value in match.groupdict().items()}
            if found["module"] == "wrn" and (values["depth"] < 10 or (values["depth"] - 4) % 6):
                near = 6 * max(1, round((values["depth"] - 4) / 6)) + 4
                raise UserError(
                    f"config: architectures names '{name}', but a wide residual network has 6n + 4 layers; take "
                    f"wrn-{near}-{values['width']}"
                )
            return found | {"values": values}
    raise UserError(
        f"config: architectures names '{name}', which matches nothing in the registry{nearest(name, PAPERS)}; a library's or your "
        "own is torchvision:<model>, timm:<model> or <file>.py:<function>"
    )


def told(name: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the network's part of a specification: module, integers of the name, options; of one's own file its digest."""
    found = entry(name, options)
    made = {"module": found["module"], **found["values"]}
    made |= {key: value for key, value in options.items() if key not in NOT_BUILT}
    source = options.get("network", "").rpartition(":")[0]
    if "network" in options and source not in ("torchvision", "timm"):
        if not source.endswith(".py") or not Path(source).is_file():
            raise UserError(
                f"config: architectures.{name}.network is '{options['network']}'; write torchvision:<model>, timm:<model>, or "
                "<file>.py:<function> of a file that is there"
            )
        made["sha256"] = sha256(source)
    return made


def depth(name: str, options: Mapping[str, Any]) -> float:
    """Return how many layers with weights lie between a network's input and its logits, as its options, its name or the
    registry says; infinity for one of a library."""
    found = entry(name, options)
    layers = options.get("depth") or found["values"].get("depth", found.get("depth"))
    if layers is None and "network" in options:
        return math.inf
    if layers is None:
        raise UserError(f"registry: the entry of '{name}' lacks its depth, the number of layers with weights; add it")
    return float(layers)


def depth_of(config: Mapping[str, Any], name: str) -> float:
    """Return `depth` of what a name in the results stands for; features alone count as those of a library's network."""
    return math.inf if "features" in config.get("subjects", {}).get(name, {}) else depth(*settings(config, name))


# Networks that were trained elsewhere.


def names(config: Mapping[str, Any]) -> list[str]:
    """Return what stands for an architecture in the results: those of the configuration, and its subjects."""
    return [*config["architectures"], *config.get("subjects", {})]


def settings(config: Mapping[str, Any], name: str) -> tuple[str, dict[str, Any]]:
    """Return the name and the options of the network that a name in the results stands for.

    A subject's is one under `architectures`, by its name or source there, or one with default options.
    """
    if name in config["architectures"]:
        return name, config["architectures"][name]
    asked = config["subjects"][name]["network"]
    known = folder_name(asked) if ":" in asked else asked
    there = config["architectures"].get(known)
    if there is not None and (":" not in asked or there.get("network") == asked):
        return known, there
    options: dict[str, Any] = {"network": asked} if ":" in asked else {}
    fill(options, {"properties": entry(known, options)["options"]})
    return known, options


def distinct(steps: Iterable[object], where: str) -> None:
    """Raise `UserError` for two keys that are one step, such as 0 and 00: one of them would be lost in silence."""
    seen: dict[int, str] = {}
    for step in map(str, steps):
        first = seen.setdefault(int(step), step)
        if first != step:
            raise UserError(f"{where} has the step {int(step)} twice, as '{first}' and as '{step}'; keep one")


def subjects(config: dict[str, Any]) -> None:
    """Check the configuration's subjects against the rest, in place; without any the key goes."""
    for name, subject in config["subjects"].items():
        where = f"config: subjects.{name}"
        if name in config["architectures"]:
            raise UserError(f"{where} has the name of an architecture; give it another one")
        needed = ("dataset",) if "features" in subject else ("network", "checkpoints", "dataset")
        if lacking := next((key for key in needed if key not in subject), None):
            raise UserError(
                f"{where} lacks the key '{lacking}'; add it" + ("" if len(needed) < 2 else ", or give features alone")
            )
        if subject["dataset"] not in config["datasets"]:
            raise UserError(
                f"{where}.dataset is '{subject['dataset']}', which is not under datasets{nearest(subject['dataset'], config['datasets'])}"
            )
        if "features" in subject:
            continue
        settings(config, name)
        for step, file in subject["checkpoints"].items():
            if not re.fullmatch(r"\d{1,9}", str(step)):
                raise UserError(
                    f"{where}.checkpoints has the step '{step}'; write whole numbers, the steps of the training"
                )
            if not Path(file).is_file():
                raise UserError(f"{where}.checkpoints.{step} is '{file}', which is not there; correct the path")
        distinct(subject["checkpoints"], f"{where}.checkpoints")
        subject["checkpoints"] = {str(step): file for step, file in subject["checkpoints"].items()}
    if not config["subjects"]:
        del config["subjects"]  # a configuration without it means the same
    elif config["figures"]["architecture"] not in names(config):
        config["figures"]["architecture"] = next(iter(config["subjects"]))
