"""What the architecture modules share: probe points, options, initial weights."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch import nn

from ..runtime.errors import UserError, nearest


class ProbePoint(NamedTuple):
    """A layer whose pooled output the probes see."""

    name: str
    #: features after pooling; of `input` the flattened pixels
    dimensions: int
    #: place in the network's diagram (figure 4 g): 0 before the first block, then blocks of equal resolution
    stage: int
    #: "input", "convolution", "unit", "pool" or "embedding"
    kind: str


class Option(NamedTuple):
    """What one key of a network's specification may hold."""

    check: Callable[[Any], bool]
    allowed: str
    default: Any = None
    choices: tuple[str, ...] = ()


def count(default: int | None = None) -> Option:
    """An option that is a whole number from 1; without a default it is required."""
    return Option(lambda value: type(value) is int and value >= 1, "a whole number from 1", default)


def choice(*values: str) -> Option:
    """An option that is one of some words, the first being the default."""
    return Option(lambda value: value in values, "one of " + ", ".join(values), values[0], values)


def flag(default: bool) -> Option:
    """An option that is true or false."""
    return Option(lambda value: isinstance(value, bool), "true or false", default)


def number(default: float, allowed: str, check: Callable[[float], bool]) -> Option:
    """An option that is a finite number within bounds."""

    def good(value: Any) -> bool:
        return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) and check(value)

    return Option(good, allowed, default)


INITIALIZATION = choice("he", "glorot", "authors")
NORMALIZE_EMBEDDING = flag(False)


def options(spec: Mapping[str, Any], known: Mapping[str, Option]) -> dict[str, Any]:
    """Return the values of a network's options, defaults filled in.

    Raises
    ------
    UserError: an unknown or missing option, or a value that it cannot have; key, value and the nearest are named.
    """
    values: dict[str, Any] = {name: option.default for name, option in known.items()}
    for key, value in spec.items():
        if key == "module":
            continue
        if key not in known:
            raise UserError(
                f"network.{key} is no option of '{spec['module']}'{nearest(key, known)}; correct it or leave it out"
            )
        if not known[key].check(value):
            hint = nearest(value, known[key].choices) if isinstance(value, str) and known[key].choices else ""
            raise UserError(f"network.{key} of '{spec['module']}' is {value!r} but must be {known[key].allowed}{hint}")
        values[key] = value
    for key, value in values.items():
        if value is None:
            raise UserError(f"network.{key} of '{spec['module']}' is missing; give {known[key].allowed}")
    return values


# Initial weights.


def he(weight: torch.Tensor, generator: torch.Generator, *, slope: float = 0.0) -> None:
    """Draw a weight in place: normal with variance 2 / ((1 + slope²) fan_in), for a layer followed by (leaky) ReLU."""
    fan_in = weight[0].numel()
    _normal(weight, math.sqrt(2 / ((1 + slope**2) * fan_in)), generator)


def linear(weight: torch.Tensor, generator: torch.Generator) -> None:
    """Draw a weight in place: normal with variance 1 / fan_in, for a layer that no activation follows."""
    _normal(weight, 1 / math.sqrt(weight[0].numel()), generator)


def glorot(weight: torch.Tensor, generator: torch.Generator) -> None:
    """Draw a weight in place: uniform with variance 2 / (fan_in + fan_out)."""
    receptive = weight[0, 0].numel()
    _uniform(weight, math.sqrt(6 / (receptive * (weight.shape[0] + weight.shape[1]))), generator)


def fan_out(weight: torch.Tensor, generator: torch.Generator) -> None:
    """Draw a convolution's weight in place: normal with variance 2 / (k · k · out), the authors'."""
    _normal(weight, math.sqrt(2 / (weight.shape[0] * weight[0, 0].numel())), generator)


def unit_scaling(weight: torch.Tensor, generator: torch.Generator) -> None:
    """Draw a fully connected weight in place: uniform with variance 1 / fan_in, the authors' last layer."""
    _uniform(weight, math.sqrt(3 / weight[0].numel()), generator)


@torch.no_grad()
def _normal(weight: torch.Tensor, deviation: float, generator: torch.Generator) -> None:
    weight.normal_(0.0, deviation, generator=generator)


@torch.no_grad()
def _uniform(weight: torch.Tensor, bound: float, generator: torch.Generator) -> None:
    weight.uniform_(-bound, bound, generator=generator)


# Arithmetic that stays exact under autocast.


def wide(x: torch.Tensor) -> torch.Tensor:
    """Return `x` in float32, or as it is in float64."""
    return x if x.dtype == torch.float64 else x.float()


def global_average(x: torch.Tensor) -> torch.Tensor:
    """Return the mean over the positions, (N, channels), accumulated and returned in float32 (float64 stays)."""
    return x.mean(dim=(2, 3), dtype=torch.float64 if x.dtype == torch.float64 else torch.float32)


def classify(classifier: nn.Linear, embedding: torch.Tensor) -> torch.Tensor:
    """Return the logits of an embedding: a float32 product even under autocast, since D_KL reads them."""
    with torch.autocast(embedding.device.type, enabled=False):
        return classifier(embedding)


def unit_norm(embedding: torch.Tensor) -> torch.Tensor:
    """Return each row divided by its L2 norm."""
    return nn.functional.normalize(embedding, dim=1)
