"""Figure 7: enforced overfitting. Test accuracy of the network, and D_KL(k-NN‖network), eq. (1), of train and test."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from . import style
from .panels import INSETS, Panel, assemble, describe, figure, letter, model_curves, nearest_neighbours

DIVERGENCE = r"$D_\mathrm{KL}\times 100$ (nats)"


def panels(spec: Mapping[str, Any]) -> list[Panel]:
    """Return the panels: test accuracy, D_KL of k-NN × data sets."""
    found = []
    columns = len(spec["datasets"])
    for i, dataset in enumerate(spec["datasets"]):
        place = (dataset, spec["labels"]["overfit"])
        network = model_curves(spec, spec["architecture"], ["dnn"], ["test"], dashes=True)
        found.append(Panel(letter(i), 0, i, *place, "accuracy", "Test accuracy (%)", 100.0, network, "accuracy"))
        both = model_curves(spec, spec["architecture"], [nearest_neighbours(spec)], ["train", "test"], dashes=True)
        found.append(Panel(letter(columns + i), 1, i, *place, "d_kl", DIVERGENCE, 100.0, both, dataset))
    return sorted(found, key=lambda panel: (panel.row, panel.column))


def data(measures: pd.DataFrame, runs: pd.DataFrame, spec: Mapping[str, Any]) -> pd.DataFrame:
    """Return what the figure shows, memorization steps included."""
    return assemble(measures, runs, panels(spec), spec, memorization=True)


def draw(table: pd.DataFrame, spec: Mapping[str, Any], layers: Sequence[Mapping[str, Any]]) -> Figure:
    """Draw the figure from its table."""
    titles = spec.get("titles")
    name = nearest_neighbours(spec)
    return figure(
        table,
        panels(spec),
        spec,
        row_heads=[],
        column_heads=[style.dataset_title(name, titles) for name in spec["datasets"]],
        handles=[
            style.handle("DNN, test", style.model_look("dnn", [], dashed=True)),
            *(
                style.handle(
                    f"{style.model_title(name, titles)}, {split}",
                    style.model_look(name, spec["probes"], dashed=split == "test"),
                )
                for split in ("train", "test")
            ),
        ],
        height=1.6,
        divergences=True,
    )


def caption(spec: Mapping[str, Any]) -> str:
    """Return the figure's caption."""
    name = style.architecture_title(spec["architecture"], spec.get("titles"))
    return (
        f"{name} made to overfit: a part of the training set, no augmentation, no weight decay. Top: accuracy of the network "
        "on test images. Bottom: divergence D_KL(k-NN || network) × 100, in nats, of train and of test images, against the "
        "training step. Dashed line: memorization, the first evaluation at which the train accuracy rounds to 100.0 %. "
        f"{INSETS}"
    )


def alt(table: pd.DataFrame, spec: Mapping[str, Any]) -> str:
    """Return what the figure shows, in words."""
    return describe(
        table, spec, "Enforced overfitting: test accuracy and divergence of k-NN from the network.", first=True
    )
