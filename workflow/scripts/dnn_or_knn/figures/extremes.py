"""The shallowest and the deepest train images of each run, with their labels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from . import beside, style

#: Images on either side, and how many letters a label may have.
COUNT, LETTERS = 6, 11
#: Heights in inches of a row and of the head, and the distance of the two sides in images.
HEIGHT, HEAD, GAP = 0.98, 0.2, 0.35
SIDES = ("shallowest", "deepest")


def shown(table: pd.DataFrame, _spec: Mapping[str, Any], stores: Mapping[str, Any]) -> pd.DataFrame:
    """Return the images of each kind of run, its first seed: of equal depth the surest are the shallowest, the least sure deepest.

    Of equal depth and confidence those that come first in the data set.
    """
    pieces = []
    for kind in beside.kinds(table):
        rows = beside.of_kind(table[table["split"] == "train"], kind)
        rows = rows[rows["seed"] == rows["seed"].min()]
        for side, sign in zip(SIDES, (1, -1), strict=True):
            order = np.lexsort((rows["image"], -sign * rows["confidence"], sign * rows["prediction_depth"]))
            pieces.append(rows.iloc[order[:COUNT]].assign(side=side, place=range(min(COUNT, len(rows)))))
    columns = [*beside.KIND, "seed", "side", "place", "image", "label", "true_label", "answer", "depth_layer", "depth"]
    found = pd.concat(pieces, ignore_index=True)[[*columns, "confidence"]]
    for name in ("label", "true_label", "answer"):
        classes = [
            stores[dataset].class_names[label] for dataset, label in zip(found["dataset"], found[name], strict=True)
        ]
        found[f"{name}_name"] = classes
    return found


def draw(table: pd.DataFrame, spec: Mapping[str, Any], stores: Mapping[str, Any]) -> Figure:
    """Draw a row of images for each kind of run: the shallowest at the left, the deepest at the right."""
    kinds, width = beside.kinds(table), float(style.style(spec)["width"])
    height, unit = HEIGHT * len(kinds) + HEAD, width / (2 * COUNT + GAP)
    made = style.new_figure(width, height)
    made.set_layout_engine("none")
    for side, column in zip(SIDES, (0, COUNT + GAP), strict=True):
        at = ((column + 0.1) * unit / width, 1 - 0.03 / height)
        made.text(*at, side.capitalize(), ha="left", va="top", color=style.GREY)
    for number, kind in enumerate(kinds):
        top = height - HEAD - number * HEIGHT
        made.text(0.1 * unit / width, top / height, beside.title(kind), ha="left", va="top", fontweight="bold")
        for place, (_, image) in enumerate(beside.of_kind(table, kind).iterrows()):
            left = (image["place"] + 0.1 + (COUNT + GAP) * (image["side"] == SIDES[1])) * unit
            box = (left / width, (top - 0.3 - 0.8 * unit) / height, 0.8 * unit / width, 0.8 * unit / height)
            _image(made.add_axes(box, gid=f"{number}/{place}"), image, stores[kind[0]].train_images[image["image"]])
    return made


def _image(ax: Axes, about: pd.Series, pixels: np.ndarray) -> None:
    """Draw one image, (channels, size, size) uint8; its label above, and below its depth, or its own class if that is another."""
    picture = pixels[0] if len(pixels) == 1 else np.moveaxis(pixels[:3], 0, -1)
    ax.imshow(picture, cmap="gray", interpolation="nearest", vmin=0, vmax=255)
    ax.axis("off")
    other = about["label"] != about["true_label"]
    size = style.small() - 1
    ax.set_title(
        _short(about["label_name"]),
        fontsize=size,
        pad=1.5,
        fontweight="normal",
        color="#c62f24" if other else "#000000",
    )
    below = _short(about["true_label_name"]) if other else about["depth_layer"]
    ax.text(0.5, -0.15, below, transform=ax.transAxes, fontsize=size, ha="center", va="baseline", color=style.GREY)


def _short(text: str) -> str:
    return text if len(text) <= LETTERS else f"{text[: LETTERS - 1]}…"


def caption(table: pd.DataFrame) -> str:
    """Return what the figure is."""
    return (
        f"The {COUNT} train images of each run with the smallest and with the largest prediction depth; of one depth the surest are "
        "the shallowest and the least sure the deepest. Above each the label that it is trained with, in red if that is not its "
        "own, which then stands below; else below it the layer of its depth. First seed."
    )


def alt(table: pd.DataFrame) -> str:
    """Return the figure in words: the labels of each side."""
    said = []
    for kind in beside.kinds(table):
        rows = beside.of_kind(table, kind)
        sides = [f"{side}: {', '.join(rows.loc[rows['side'] == side, 'label_name'])}" for side in SIDES]
        said.append(f"{beside.title(kind)}, {'; '.join(sides)}.")
    return " ".join(["Images with their labels.", *said])
