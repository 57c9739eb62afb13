"""The measures of a run without its network's outputs: what probes alone are worth, their accuracies.

P_SAME and D_KL compare a probe with the network, and stay empty; so do the milestones, which are steps of the network.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ..runtime import files
from .evaluation import BySplit, Row, evaluation_rows, layer_names, layer_order, measure_splits, read_probes, smooth

log = logging.getLogger("dnn_or_knn")
#: What compares a probe with the network.
COMPARED = ("p_same", "d_kl", "d_kl_column")


def evaluations(run: Path, spec: dict[str, Any], truth: BySplit, counts: BySplit) -> Iterator[Row]:
    """Yield the rows of all evaluations of a run, as `evaluation.evaluations` does, the probes' alone.

    Logits of zeros take the network's place in the sums; whatever would compare with them is left out.
    """
    log.warning("%s has no logits: accuracies of the probes are measured, and no P_SAME and D_KL with a network", run)
    extracted = {shard["name"]: files.read_json(run / "features" / f"{shard['name']}.json") for shard in spec["shards"]}
    order = layer_order(extracted, spec.get("layers", []))
    for shard in spec["shards"]:
        classes = files.read_json(run / "probes" / next(iter(spec["probes"])) / f"{shard['name']}.json")["classes"]
        blank = {split: np.zeros((len(labels), classes), np.float32) for split, labels in truth.items()}
        for step in shard["steps"]:
            for layer in shard["layers"] or layer_names(extracted[shard["name"]]):
                place = {"step": step, "layer": layer, "layer_index": order[layer]}
                models, fits = read_probes(
                    run, spec["probes"], f"{shard['name']}/step{step:06d}_{layer}", truth, classes
                )
                measured = measure_splits(f"{run}, step {step}, {layer}", blank, truth, models, counts)
                for row, values in evaluation_rows(measured, fits, truth, with_network=False):
                    smooth(values, row["count"], [*spec["run"].values(), step, layer, row["split"], row["model"]])
                    kept = {name: value for name, value in values.items() if name not in COMPARED}
                    told = {name: value for name, value in row.items() if name not in COMPARED}
                    yield {**place, **told, "floored": 0}, kept


def milestones(rows: list[dict[str, Any]], _history: object, _memorized: float, _nearly: float) -> dict[str, Any]:
    """Return the run's milestones: its last step, and that nothing is known of the network."""
    unknown = ("memorization_step", "step_90", "final_train_accuracy", "final_test_accuracy")
    return dict.fromkeys(unknown) | {"last_step": max(row["step"] for row in rows)}
