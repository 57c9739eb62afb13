"""Figure 3: P_SAME of k-NN, eq. (2), during training: the architectures compared."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from . import style
from .panels import INSETS, P_SAME, Curve, Panel, assemble, describe, figure, letter, nearest_neighbours


def curves(spec: Mapping[str, Any]) -> tuple[Curve, ...]:
    """Return one curve per architecture, the deepest first; their colours are not the probes'."""
    names = list(reversed(spec["architectures"]))
    return tuple(
        Curve(
            style.architecture_title(name, spec.get("titles")),
            name,
            nearest_neighbours(spec),
            "test",
            style.architecture_look(name, names),
        )
        for name in names
    )


def panels(spec: Mapping[str, Any]) -> list[Panel]:
    """Return the panels: one per data set, one axis for all."""
    return [
        Panel(letter(i), 0, i, dataset, spec["labels"]["true"], "p_same", f"{P_SAME}(k-NN)", 1.0, curves(spec), "all")
        for i, dataset in enumerate(spec["datasets"])
    ]


def data(measures: pd.DataFrame, runs: pd.DataFrame, spec: Mapping[str, Any]) -> pd.DataFrame:
    """Return what the figure shows."""
    return assemble(measures, runs, panels(spec), spec)


def draw(table: pd.DataFrame, spec: Mapping[str, Any], layers: Sequence[Mapping[str, Any]]) -> Figure:
    """Draw the figure from its table."""
    return figure(
        table,
        panels(spec),
        spec,
        row_heads=[],
        column_heads=[style.dataset_title(name, spec.get("titles")) for name in spec["datasets"]],
        handles=[style.handle(one.series, one.look) for one in curves(spec)],
    )


def caption(spec: Mapping[str, Any]) -> str:
    """Return the figure's caption."""
    return (
        "P_SAME of k-NN, the fraction of test images to which k-NN on the embedding gives the same class as the network, "
        f"against the training step, for each architecture. {INSETS}"
    )


def alt(table: pd.DataFrame, spec: Mapping[str, Any]) -> str:
    """Return what the figure shows, in words."""
    return describe(table, spec, "P_SAME of k-NN on test images against training step, architectures compared.")
