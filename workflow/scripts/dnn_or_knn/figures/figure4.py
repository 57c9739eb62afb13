"""Figure 4: train and test accuracy of probes on every layer, for true and for random labels, and the network drawn."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .panels import ACCURACY, curves
from .table import Layout, Panel, letter, lettered
from .words import architecture_title, dataset_title

#: What is fitted at the input.
INPUTS = {
    "pixels": "The input's raw pixels, which keep positions, stand apart from the layers' averages over positions.",
    "mean": "The input's features are the means of its channels.",
}


def layout(spec: Mapping[str, Any]) -> Layout:
    """Return the figure: data sets × {true, random} labels, one accuracy axis for all."""
    (network,) = spec["architectures"]
    shown = curves(spec, network, spec["probes"], "train", "test", dashes=True, every=True)
    heads = ("True labels", "Random labels")
    panels = [
        Panel(row, column, dataset, labels, "accuracy", ACCURACY, shown, "all", above, dataset_title(dataset))
        for row, dataset in enumerate(spec["datasets"])
        for column, (labels, above) in enumerate(zip(spec["labels"], heads, strict=True))
    ]
    caption = (
        f"Accuracy of probes fitted on each layer of {architecture_title(network)} after training with true labels (left) "
        "and with random labels (right). Solid: train images, with the labels that the network was trained on; dashed: "
        f"test images, with their true labels. {INPUTS[spec['input_layer']]} Panel ({letter(len(panels))}): the network and "
        "the number of features of each layer."
    )
    raw = spec["input_layer"] == "pixels"
    summary = "Accuracy of the probes from the input to the embedding."
    return Layout(caption, summary, lettered(panels), height=1.5, layers=True, begins=True, apart=raw)
