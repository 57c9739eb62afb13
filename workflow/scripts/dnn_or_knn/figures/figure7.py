"""Figure 7: enforced overfitting. Test accuracy of the network, and D_KL(k-NN‖network), eq. (1), of train and test."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .panels import curves, nearest_neighbours, rows_by_datasets
from .table import D_KL, Layout
from .words import architecture_title


def layout(spec: Mapping[str, Any]) -> Layout:
    """Return the figure: test accuracy, D_KL of k-NN × data sets."""
    (network,) = spec["architectures"]
    accuracy = curves(spec, network, ["dnn"], "test", dashes=True)
    divergence = curves(spec, network, [nearest_neighbours(spec)], "train", "test", dashes=True)
    return Layout(
        f"{architecture_title(network)} made to overfit: a part of the training set, no augmentation, no weight decay. "
        "Top: accuracy of the network on test images. Bottom: divergence D_KL(k-NN || network) × 100, in nats, of train "
        "and of test images, against the training step.",
        "Enforced overfitting: test accuracy and divergence of k-NN from the network.",
        rows_by_datasets(spec, ("accuracy", "Test accuracy (%)", accuracy), ("d_kl", D_KL, divergence)),
        height=1.6,
        memorization=True,
        begins=True,
    )
