"""Figure 1: test accuracy of the network and of the probes on its embedding, during training."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .panels import networks_by_datasets
from .table import Layout


def layout(spec: Mapping[str, Any]) -> Layout:
    """Return the figure: architectures × data sets, one accuracy axis per data set."""
    return Layout(
        "Accuracy on test images of the network (DNN) and of the probes fitted on its embedding, against the training step; "
        "trained on true labels.",
        "Test accuracy of the network and its probes against training step.",
        networks_by_datasets(spec, "accuracy", "Test accuracy (%)", ["dnn", *spec["probes"]], one_axis=False),
    )
