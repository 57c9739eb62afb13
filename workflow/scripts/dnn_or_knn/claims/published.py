"""The experiment's numbers beside the published ones: paper, authors' code, here, with differences."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from ..measures.learned import of_learned

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = [
    *("what", "dataset", "architecture", "layer", "paper", "authors_code", "here", "here_minus_paper"),
    "here_minus_code",
]


def compare(
    published: dict[str, Any], labels: dict[str, str], knn: str | None, measures: pd.DataFrame, runs: pd.DataFrame
) -> Iterator[dict[str, Any]]:
    """Yield one row per published number; `here` is empty where this experiment has no such run.

    It is the mean over the seeds that learned.

    Parameters
    ----------
    published: workflow/resources/published.yaml.
    labels: the experiment's names for the "true", "random" and "overfit" label sets.
    knn: the name of the k-NN probe, None if there is none.
    """
    measures, runs, _ = of_learned(measures, runs)
    last = measures[
        measures.step == measures.groupby(["dataset", "architecture", "labels", "seed"]).step.transform("max")
    ]

    def here(column: str, **where: str) -> float | None:
        found = last
        for name, value in where.items():
            found = found[found[name] == value]
        return float(found[column].mean()) * 100 if len(found) else None

    for entry in published["final_test_accuracy"]:
        place = {key: entry[key] for key in ("dataset", "architecture")}
        value = here("accuracy", **place, labels=labels["true"], model="dnn", split="test", layer="embedding")
        yield row("final test accuracy of the network, %", place, "embedding", entry, value)
    for entry in published["chance"]:
        place = {key: entry[key] for key in ("dataset", "architecture")}
        value = here("accuracy", **place, labels=labels["random"], model="dnn", split="test", layer="embedding")
        yield row("test accuracy of the network, random labels, %", place, "embedding", entry, value)
    for entry in published["memorization"]:
        place = {key: entry[key] for key in ("dataset", "architecture")}
        run = runs[
            (runs.dataset == place["dataset"])
            & (runs.architecture == place["architecture"])
            & (runs.labels == labels["overfit"])
        ]
        steps = run.memorization_step.dropna()
        value = float(steps.mean()) if len(steps) else None
        yield row("memorization step, enforced overfitting", place, "", {"paper": [entry["step"]] * 2}, value)
        at = measures.merge(run[["dataset", "architecture", "labels", "seed", "memorization_step"]], how="inner")
        at = at[
            (at.step == at.memorization_step) & (at.model == "dnn") & (at.split == "test") & (at.layer == "embedding")
        ]
        value = float(at.accuracy.mean()) * 100 if len(at) else None
        yield row("test accuracy at memorization, %", place, "", {"paper": [entry["test_accuracy"]] * 2}, value)
    for entry in published["final_d_kl"]:
        place = {key: entry[key] for key in ("dataset", "architecture")}
        where = {"labels": labels[entry["labels"]], "split": entry["split"], "layer": "embedding"}
        value = here("d_kl_column", **place, **where, model=knn) if knn else None
        what = f"final D_KL × 100 by column, k-NN, {entry['labels']} labels, {entry['split']}"
        yield row(what, place, "embedding", entry, value)
    for entry in published["layer_test_accuracy"]:
        place = {key: entry[key] for key in ("dataset", "architecture")}
        for layer, accuracy in zip(entry["layers"], entry["code"], strict=True):
            where = {"labels": labels["true"], "split": "test", "layer": layer}
            value = here("accuracy", **place, **where, model=knn) if knn else None
            yield row("test accuracy of k-NN on a layer, %", place, layer, {"code": accuracy}, value)


def row(what: str, place: dict[str, str], layer: str, entry: dict[str, Any], here: float | None) -> dict[str, Any]:
    """Return one row; a difference to an interval is 0 inside it, else the distance to its nearer end."""
    paper, code = entry.get("paper"), entry.get("code")
    outside = None
    if here is not None and paper:
        outside = here - min(max(here, paper[0]), paper[1])
    shown = None if not paper else f"{paper[0]:g}" if paper[0] == paper[1] else f"{paper[0]:g}–{paper[1]:g}"
    return {
        "what": what,
        **place,
        "layer": layer,
        "paper": shown,
        "authors_code": code,
        "here": here,
        "here_minus_paper": outside,
        "here_minus_code": here - code if here is not None and code is not None else None,
    }
