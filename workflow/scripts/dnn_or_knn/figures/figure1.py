"""Figure 1: test accuracy of the network and of the probes on its embedding, during training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from . import style
from .panels import INSETS, Panel, architecture_grid, assemble, describe, figure, letter, model_curves, models


def panels(spec: Mapping[str, Any]) -> list[Panel]:
    """Return the panels: architectures × data sets, one accuracy axis per data set."""
    return [
        Panel(
            letter(number),
            row,
            column,
            dataset,
            spec["labels"]["true"],
            "accuracy",
            "Test accuracy (%)",
            100.0,
            model_curves(spec, architecture, models(spec, network=True), ["test"]),
            axis=dataset,
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
            style.handle(style.model_title(name, titles), style.model_look(name, spec["probes"], under=True))
            for name in models(spec, network=True)
        ],
    )


def caption(spec: Mapping[str, Any]) -> str:
    """Return the figure's caption."""
    return (
        "Test accuracy of the network (DNN) and of the probes fitted on its embedding, against the training step. "
        f"{INSETS}"
    )


def alt(table: pd.DataFrame, spec: Mapping[str, Any]) -> str:
    """Return what the figure shows, in words."""
    return describe(table, spec, "Test accuracy of the network and its probes against training step.")
