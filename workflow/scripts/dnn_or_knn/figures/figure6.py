"""Figure 6: random labels. Train accuracy of the network, and D_KL(probe‖network), eq. (1), before and after memorization."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from . import style
from .panels import INSETS, Panel, assemble, describe, divergence, figure, letter, model_curves, models


def panels(spec: Mapping[str, Any]) -> list[Panel]:
    """Return the panels: train accuracy, train and test D_KL × data sets; train and test of a data set have one axis."""
    found = []
    columns = len(spec["datasets"])
    for i, dataset in enumerate(spec["datasets"]):
        place = (dataset, spec["labels"]["random"])
        network = model_curves(spec, spec["architecture"], ["dnn"], ["train"])
        found.append(Panel(letter(i), 0, i, *place, "accuracy", "Train accuracy (%)", 100.0, network, "accuracy"))
        for row, split in ((1, "train"), (2, "test")):
            probes = model_curves(spec, spec["architecture"], models(spec, network=False), [split])
            name = letter(row * columns + i)
            found.append(Panel(name, row, i, *place, "d_kl", divergence(split), 100.0, probes, dataset))
    return sorted(found, key=lambda panel: (panel.row, panel.column))


def data(measures: pd.DataFrame, runs: pd.DataFrame, spec: Mapping[str, Any]) -> pd.DataFrame:
    """Return what the figure shows, memorization steps included."""
    return assemble(measures, runs, panels(spec), spec, memorization=True)


def draw(table: pd.DataFrame, spec: Mapping[str, Any], layers: Sequence[Mapping[str, Any]]) -> Figure:
    """Draw the figure from its table."""
    titles = spec.get("titles")
    return figure(
        table,
        panels(spec),
        spec,
        row_heads=[],
        column_heads=[style.dataset_title(name, titles) for name in spec["datasets"]],
        handles=[
            style.handle(style.model_title(name, titles), style.model_look(name, spec["probes"]))
            for name in models(spec, network=True)
        ],
        divergences=True,
    )


def caption(spec: Mapping[str, Any]) -> str:
    """Return the figure's caption."""
    name = style.architecture_title(spec["architecture"], spec.get("titles"))
    return (
        f"{name} trained on random labels. Top: accuracy of the network on its training set. Middle and bottom: divergence "
        "D_KL(probe || network) × 100, in nats, on train and on test images, against the training step; both have one "
        "scale. Dashed line: memorization, the first evaluation at which the train accuracy rounds to 100.0 %. "
        f"{INSETS}"
    )


def alt(table: pd.DataFrame, spec: Mapping[str, Any]) -> str:
    """Return what the figure shows, in words."""
    return describe(table, spec, "Random labels: accuracy and divergence of the probes from the network.", first=True)
