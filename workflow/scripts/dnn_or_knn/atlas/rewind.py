"""Where memorization sits, asked by setting layers back: arXiv 2307.09542.

The network of the last step, but for one layer, whose weights (and running statistics) are those of an earlier kept step; no
training, forward passes alone. If memorization sits in a layer, setting that layer back takes it away.

Rows: for each layer with weights, in the network's order, and each kept step before the last. Then three groups of layers:
`last stage`, the last block of equal resolution and all that follows it; `before it`, all others; `all`, the whole network, at
every step, the last included: the network as it was. A network without blocks has `all` alone.

Columns: accuracy of the train images that are trained with their own label (`own`), of those that are trained with another
(`relabelled`), and of the test images (`test`, true labels), with the number of images; missing where there are none. Replicates
of the first two are beside them as lists, over the draws of the measures.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import nn

from .. import numerics
from ..features import extraction, job
from ..measures.bootstrap import draw_counts, smoothed
from ..measures.formulas import predicted
from ..networks.build import create
from ..runtime import gpus
from ..runtime.progress import Progress
from .common import Columns, Part, by_rows

LAST, BEFORE, ALL = "last stage", "before it", "all"
Weights = Mapping[str, torch.Tensor]


def measure(part: Part) -> Columns:
    """Return one row per layer, or group of layers, and step; the specification has ``steps``, ``network``, ``bootstrap`` …"""
    device = gpus.resolve(part.device)
    asked = Asked(part, device)
    layers = layers_of(asked.network)
    sets = {name: [name] for name in layers} | groups(asked.network, layers)
    *earlier, last = part.spec["steps"]
    # Step by step, so that each step's weights are read once.
    wanted = [*((step, name) for step in earlier for name in sets), (last, ALL)]
    progress = Progress("rewound", len(wanted), "networks")

    def rows() -> Iterator[dict[str, Any]]:
        final = asked.weights(last)
        for done, (step, name) in enumerate(wanted, 1):
            if done == 1 or step != wanted[done - 2][0]:
                earlier_weights = asked.weights(step)
            mixed = set_back(final, earlier_weights, [layers[layer] for layer in sets[name]])
            yield {"layer": name, "step": step, **asked.accuracies(mixed, f"{step}/{name}")}
            progress.update(done, f"{name} at step {step}")

    with numerics.memory_told(f"the {device.type}'s memory cannot hold the images and batches of {asked.batch_size}"):
        order = list(sets)
        return by_rows(sorted(rows(), key=lambda row: (order.index(row["layer"]), row["step"])))


def layers_of(network: nn.Module, within: str = "") -> dict[str, str]:
    """Return the layers of a network that hold weights, in its order, each with what its entries of the weights begin with.

    A layer is a module of the network itself, or of what the network wraps, or of a dictionary of modules.
    """
    children = {name: child for name, child in network.named_children() if child.state_dict()}
    if len(children) == 1:
        ((name, child),) = children.items()
        if any(inner.state_dict() for inner in child.children()):
            return layers_of(child, f"{within}{name}.")
    found: dict[str, str] = {}
    for name, child in children.items():
        if isinstance(child, nn.ModuleDict):
            found |= {inner: f"{within}{name}.{inner}." for inner in child}
        else:
            found[name] = f"{within}{name}."
    return found


def groups(network: nn.Module, layers: Mapping[str, str]) -> dict[str, list[str]]:
    """Return the groups of layers that are set back together, see the module's docstring."""
    names = list(layers)
    stages = {point.name: point.stage for point in network.probe_points if point.kind != "embedding"}  # type: ignore[union-attr]
    last = max(stages.values(), default=0)
    first = next((place for place, name in enumerate(names) if stages.get(name) == last and last > 0), None)
    cut = {LAST: names[first:], BEFORE: names[:first]} if first else {}
    return cut | {ALL: names}


def set_back(final: Weights, earlier: Weights, prefixes: list[str]) -> dict[str, torch.Tensor]:
    """Return the final weights with those whose names begin with one of the prefixes as they were earlier."""
    return {name: earlier[name] if name.startswith(tuple(prefixes)) else value for name, value in final.items()}


class Asked:
    """The network of a run, which is asked with other weights each time."""

    def __init__(self, part: Part, device: torch.device) -> None:
        spec = part.spec
        precision = numerics.set_precision(spec["precision"], device)
        facts, splits = job.images(part.store, part.labels, stream=spec.get("stream", False))
        self.part, self.device = part, device
        self.network = create(spec["network"], channels=facts["channels"], size=facts["size"], classes=part.classes)
        self.network.to(device=device, dtype=numerics.dtype(precision), memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.network.eval().requires_grad_(False)
        self.forward = extraction.forward_function(self.network, ["embedding"], device=device, precision=precision)
        # Images that stay on disk are put on the device as they are asked for.
        self.images = {
            split: pixels.on(device) if hasattr(pixels, "on") else torch.from_numpy(np.array(pixels)).to(device)
            for split, pixels in splits.items()
        }
        torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic = False, True
        self.batch_size = extraction.batch_of(spec, device)
        self.own = part.given["train"] == part.true["train"]
        draw = spec["bootstrap"]
        self.draws = draw_counts(len(self.own), draw["replicates"], seed=draw["seed"], split="train").astype(np.float64)

    def weights(self, step: int) -> Weights:
        """Return the kept weights of a step, on the CPU."""
        return torch.load(self.part.checkpoint(step), map_location="cpu", weights_only=True)["model"]

    def accuracies(self, weights: Weights, where: str) -> dict[str, Any]:
        """Return the row of a network with these weights; `where` names it among the run's."""
        self.network.load_state_dict(weights)
        right = {}
        with torch.no_grad():
            for split, images in self.images.items():
                widths = {extraction.LOGITS: self.part.classes}
                made = extraction.evaluate(
                    self.forward, images, widths, self.batch_size, one_shape=self.device.type == "cuda"
                )
                right[split] = predicted(made[extraction.LOGITS].cpu().numpy()) == self.part.given[split]
        row: dict[str, Any] = {"test": right["test"].mean(), "test_count": len(right["test"])}
        for name, those in (("own", self.own), ("relabelled", ~self.own)):
            row |= self._of_train(name, right["train"], those, f"rewind/{where}/{name}")
        return row

    def _of_train(self, name: str, right: np.ndarray, those: np.ndarray, where: str) -> dict[str, Any]:
        """Return the accuracy of some of the train images, its smoothed replicates, and their number; NaN where there are none."""
        drawn = self.draws @ those
        with np.errstate(invalid="ignore", divide="ignore"):
            replicates = smoothed((self.draws @ (right & those)) / drawn, max(int(those.sum()), 1), where)
        value = right[those].mean() if those.any() else np.nan
        return {name: value, f"{name}_count": int(those.sum()), f"{name}_replicates": replicates}
