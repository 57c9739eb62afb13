"""Figure 2: P_SAME of the probes, eq. (2): how often each gives the network's answer on test images, during training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from . import style
from .panels import INSETS, P_SAME, Panel, architecture_grid, assemble, describe, figure, letter, model_curves, models


def panels(spec: Mapping[str, Any]) -> list[Panel]:
    """Return the panels: architectures × data sets, one axis for all."""
    return [
        Panel(
            letter(number),
            row,
            column,
            dataset,
            spec["labels"]["true"],
            "p_same",
            P_SAME,
            1.0,
            model_curves(spec, architecture, models(spec, network=False), ["test"]),
            axis="all",
        )
        for number, (row, column, architecture, dataset) in enumerate(architecture_grid(spec))
    ]


def data(measures: pd.DataFrame, runs: pd.DataFrame, spec: Mapping[str, Any]) -> pd.DataFrame:
    """Return what the figure shows."""
    return assemble(measures, runs, panels(spec), spec)


def draw(table: pd.DataFrame, spec: Mapping[str, Any], layers: Sequence[Mapping[str, Any]]) -> Figure:
    """Draw the figure from its table."""
    titles = spec.get("titles")
    rows = [style.architecture_title(name, titles) for name in reversed(spec["architectures"])]
    columns = [style.dataset_title(name, titles) for name in spec["datasets"]]
    return figure(
        table,
        panels(spec),
        spec,
        row_heads=[] if len(columns) == 1 else rows,
        column_heads=rows if len(columns) == 1 else columns,
        handles=[
            style.handle(style.model_title(name, titles), style.model_look(name, spec["probes"]))
            for name in models(spec, network=False)
        ],
    )


def caption(spec: Mapping[str, Any]) -> str:
    """Return the figure's caption."""
    return (
        "P_SAME, the fraction of test images to which a probe on the embedding gives the same class as the network, "
        f"against the training step. {INSETS}"
    )


def alt(table: pd.DataFrame, spec: Mapping[str, Any]) -> str:
    """Return what the figure shows, in words."""
    return describe(table, spec, "P_SAME of the probes on test images against training step.")
