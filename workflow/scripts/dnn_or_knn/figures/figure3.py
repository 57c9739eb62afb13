"""Figure 3: P_SAME of k-NN, eq. (2), during training: the architectures compared."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from . import style
from .panels import nearest_neighbours, rows_by_datasets
from .table import P_SAME, Curve, Layout
from .words import architecture_title


def layout(spec: Mapping[str, Any]) -> Layout:
    """Return the figure: one panel per data set, in it one curve per architecture, the deepest first."""
    names, knn = list(reversed(spec["architectures"])), nearest_neighbours(spec)
    curves = [Curve(architecture_title(n), n, knn, "test", style.architecture_look(n, names)) for n in names]
    return Layout(
        "P_SAME of k-NN, the fraction of test images to which k-NN on the embedding gives the same class as the network, "
        "against the training step, or against the share of its steps where one network has more than twice another's, "
        "for each architecture; trained on true labels.",
        "P_SAME of k-NN on test images over training, architectures compared.",
        rows_by_datasets(spec, ("p_same", f"{P_SAME}(k-NN)", tuple(curves))),
        together=True,
    )
