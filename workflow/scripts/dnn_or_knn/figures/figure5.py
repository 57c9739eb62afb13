"""Figure 5: true labels. Accuracy of the network, and D_KL(probe‖network), eq. (1), on train and test, during training."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .panels import ACCURACY, curves, rows_by_datasets
from .table import D_KL, Layout
from .words import architecture_title


def layout(spec: Mapping[str, Any]) -> Layout:
    """Return the figure: accuracy, train and test D_KL × data sets; train and test of a data set have one axis."""
    (network,) = spec["architectures"]
    accuracy = curves(spec, network, ["dnn"], "train", "test", dashes=True)
    divergences = [curves(spec, network, spec["probes"], split) for split in ("train", "test")]
    return Layout(
        f"{architecture_title(network)} trained on true labels. Top: accuracy of the network on train and test images. "
        "Middle and bottom: divergence D_KL(probe || network) × 100, in nats, on train and on test images, against the "
        "training step, on one scale for each data set.",
        "True labels: accuracy and divergence of the probes from the network.",
        rows_by_datasets(
            spec,
            ("accuracy", ACCURACY, accuracy),
            *(("d_kl", f"{side} {D_KL}", shown) for side, shown in zip(("Train", "Test"), divergences, strict=True)),
        ),
        begins=True,
    )
