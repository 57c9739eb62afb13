"""Figure 6: random labels. Train accuracy of the network, and D_KL(probe‖network), eq. (1), before and after memorization."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .panels import curves, rows_by_datasets
from .table import D_KL, Layout
from .words import architecture_title


def layout(spec: Mapping[str, Any]) -> Layout:
    """Return the figure: train accuracy, train and test D_KL × data sets; train and test of a data set have one axis."""
    (network,) = spec["architectures"]
    divergences = [curves(spec, network, spec["probes"], split) for split in ("train", "test")]
    return Layout(
        f"{architecture_title(network)} trained on random labels. Top: accuracy of the network on its training set. Middle "
        "and bottom: divergence D_KL(probe || network) × 100, in nats, on train and on test images, against the training "
        "step, on one scale for each data set.",
        "Random labels: accuracy and divergence of the probes from the network.",
        rows_by_datasets(
            spec,
            ("accuracy", "Train accuracy (%)", curves(spec, network, ["dnn"], "train")),
            *(("d_kl", f"{side} {D_KL}", shown) for side, shown in zip(("Train", "Test"), divergences, strict=True)),
        ),
        memorization=True,
        begins=True,
    )
