"""Figure 4: train and test accuracy of probes on every layer, for true and for random labels, and the network drawn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.gridspec import SubplotSpec

from . import diagram, style
from .panels import ACCURACY, COLUMNS, Panel, assemble, at_layers, describe, figure, letter, model_curves, models
from .panels import plain as plain_name

PUBLISHED = "authors' k-NN, test"


def panels(spec: Mapping[str, Any]) -> list[Panel]:
    """Return the panels: data sets × {true, random}, one accuracy axis for all."""
    labels = spec["labels"]
    kinds = (labels["true"], labels.get("random_layers") or labels["random"])
    names = models(spec, network=False)
    curves = model_curves(spec, spec["architecture"], names, ["train", "test"], dashes=True, every=True)
    return [
        Panel(letter(2 * row + column), row, column, dataset, kind, "accuracy", ACCURACY, 100.0, curves, "all")
        for row, dataset in enumerate(spec["datasets"])
        for column, kind in enumerate(kinds)
    ]


def data(measures: pd.DataFrame, runs: pd.DataFrame, spec: Mapping[str, Any]) -> pd.DataFrame:
    """Return what the figure shows, the authors' published values included where data set and network match."""
    table = assemble(measures, runs, panels(spec), spec, rows_of=at_layers)
    layers = table.dropna(subset=["layer"]).groupby(["panel", "layer"])["x"].first()
    extra = [
        {
            "panel": panel.letter,
            "dataset": panel.dataset,
            "architecture": spec["architecture"],
            "labels": panel.labels,
            "quantity": plain_name(ACCURACY),
            "series": "published",
            "split": "test",
            "layer": value["layer"],
            "x": layers[panel.letter, value["layer"]],
            "y": value["accuracy"],
            "note": PUBLISHED,
        }
        for panel in panels(spec)
        for value in spec.get("published") or []
        if (value["dataset"], value["architecture"], panel.column) == (panel.dataset, spec["architecture"], 0)
        and (panel.letter, value["layer"]) in layers.index
    ]
    if not extra:
        return table
    return pd.concat([table, pd.DataFrame(extra, columns=COLUMNS).astype({"x": "float64", "y": "float64"})])


def draw(table: pd.DataFrame, spec: Mapping[str, Any], layers: Sequence[Mapping[str, Any]]) -> Figure:
    """Draw the figure from its table, and the network below it from its list of layers."""
    titles = spec.get("titles")
    names = table.dropna(subset=["layer", "x"]).groupby("x")["layer"].first()
    count = 2 * len(spec["datasets"])

    def network(whole: Figure, place: SubplotSpec) -> None:
        title = style.architecture_title(spec["architecture"], titles)
        diagram.draw(whole, place, layers, letter(count), title, means=spec.get("input_layer") == "mean")

    def layer_axis(ax: Axes) -> None:
        ax.set_xticks(names.index.to_numpy(), list(names), rotation=90)
        ax.set_xlim(names.index.min() - 0.5, names.index.max() + 0.5)

    return figure(
        table,
        panels(spec),
        spec,
        row_heads=[style.dataset_title(name, titles) for name in spec["datasets"]],
        column_heads=["True labels", "Random labels"],
        handles=[
            *(
                style.handle(style.model_title(name, titles), style.model_look(name, spec["probes"]))
                for name in models(spec, network=False)
            ),
            *style.split_handles(),
            *([style.published_handle(PUBLISHED)] if (table["series"] == "published").any() else []),
        ],
        height=1.5,
        prepare=layer_axis,
        xlabel="",
        zoom=False,
        strip=(diagram.HEIGHT, network) if layers else None,
    )


def caption(spec: Mapping[str, Any]) -> str:
    """Return the figure's caption."""
    name = style.architecture_title(spec["architecture"], spec.get("titles"))
    text = (
        f"Accuracy of probes fitted on each layer of {name} after training with true labels (left) and with random labels "
        "(right). Solid: train images, with the labels that the network was trained on; dashed: test images, with their "
        f"true labels. Panel ({letter(2 * len(spec['datasets']))}): the network and the number of features of each layer."
    )
    return text + (" Grey crosses: the authors' first-version k-NN test accuracies." if spec.get("published") else "")


def alt(table: pd.DataFrame, spec: Mapping[str, Any]) -> str:
    """Return what the figure shows, in words."""
    return describe(table, spec, "Accuracy of the probes from the input to the embedding.", first=True)
