"""Figure 2: P_SAME of the probes, eq. (2): how often each gives the network's answer on test images, during training."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .panels import networks_by_datasets
from .table import P_SAME, Layout


def layout(spec: Mapping[str, Any]) -> Layout:
    """Return the figure: architectures × data sets, one axis for all."""
    return Layout(
        "P_SAME, the fraction of test images to which a probe on the embedding gives the same class as the network, "
        "against the training step; trained on true labels.",
        "P_SAME of the probes on test images against training step.",
        networks_by_datasets(spec, "p_same", P_SAME, spec["probes"], one_axis=True),
    )
