"""Accuracy, P_SAME and D_KL of the network and its probes at every evaluation of a run, from what lies on disk."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ..runtime import files, results
from ..runtime.errors import UserError
from ..runtime.progress import Progress
from .bootstrap import smoothed
from .formulas import Measured, Model, first_step

SPLITS = ("train", "test")
#: Measures that are fractions of the samples.
FRACTIONS = ("accuracy", "p_same")


def evaluations(
    run: Path, spec: dict[str, Any], truth: dict[str, np.ndarray], counts: dict[str, np.ndarray]
) -> Iterator[tuple[dict[str, Any], dict[str, np.ndarray]]]:
    """Yield the rows of all evaluations of a run, and for each its measures with their replicates, (1 + B,) each."""
    extracted = {shard["name"]: files.read_json(run / "features" / f"{shard['name']}.json") for shard in spec["shards"]}
    order = layer_order(extracted)
    progress, done = Progress("measured", sum(len(s["steps"]) for s in spec["shards"]), "evaluations"), 0
    for shard in spec["shards"]:
        fits = {probe: files.read_json(run / "probes" / probe / f"{shard['name']}.json") for probe in spec["probes"]}
        for step in shard["steps"]:
            logits = {split: read_logits(run, extracted, step, split, len(truth[split])) for split in SPLITS}
            for layer in shard["layers"] or layer_names(extracted[shard["name"]]):
                place = {"step": step, "layer": layer, "layer_index": order[layer]}
                found = evaluation(run, spec["probes"], fits, shard["name"], step, layer, logits, truth, counts)
                for row, values in found:
                    key = [*spec["run"].values(), step, layer, row["split"], row["model"]]
                    for name in values.keys() & FRACTIONS:
                        words = "/".join(map(str, [*key, name]))
                        values[name] = np.append(values[name][:1], smoothed(values[name][1:], row["count"], words))
                    yield {**place, **row}, values
            done += 1
            progress.update(done)


def layer_names(manifest: dict[str, Any]) -> list[str]:
    """Return the probe points that a manifest of features lists, in the network's order."""
    return [layer["name"] for layer in manifest["layers"]]


def layer_order(extracted: dict[str, dict[str, Any]]) -> dict[str, int]:
    """Return each measured layer's position from the input on: the hidden ones as extracted, the embedding last."""
    names = [name for manifest in extracted.values() for name in layer_names(manifest) if name != "embedding"]
    return {layer: position for position, layer in enumerate([*dict.fromkeys(names), "embedding"])}


def read_logits(run: Path, extracted: dict[str, dict[str, Any]], step: int, split: str, count: int) -> np.ndarray:
    """Return the network's logits (count, C) at a step, from the shard that has them, checked against its manifest."""
    names = {shard: f"../logits/{shard}/step{step:06d}_{split}.npy" for shard in extracted}
    shard = next((shard for shard, name in names.items() if name in extracted[shard]["files"]), None)
    if shard is None:
        raise UserError(
            f"no shard of {run} has the {split} logits of step {step}; delete {run / 'features'} and run again"
        )
    files.check(run / "features", extracted[shard]["files"], [names[shard]])
    path = run / "logits" / shard / Path(names[shard]).name
    logits = files.read_npy(path)
    if logits.ndim != 2 or len(logits) != count:
        raise UserError(
            f"{path} has shape {logits.shape}, but the {split} split has {count} labels; "
            "the store or the labels changed, so extract the features again"
        )
    return logits


def evaluation(
    run: Path,
    probes: dict[str, dict[str, Any]],
    fits: dict[str, dict[str, Any]],
    shard: str,
    step: int,
    layer: str,
    logits: dict[str, np.ndarray],
    truth: dict[str, np.ndarray],
    counts: dict[str, np.ndarray],
) -> list[tuple[dict[str, Any], dict[str, np.ndarray]]]:
    """Return the rows of one evaluation, and for each its measures with their replicates, (1 + B,) each.

    The network itself has a row at the embedding alone: its output is the same whatever layer is probed.
    """
    from dnn_or_knn.measures.formulas import measure

    models: dict[str, dict[str, Model]] = {split: {} for split in SPLITS}
    reports: dict[str, dict[str, Any]] = {}
    for probe, options in probes.items():
        name = f"step{step:06d}_{layer}.npz"
        files.check(run / "probes" / probe, fits[probe]["files"], [f"{shard}/{name}"])
        for split in SPLITS:
            loaded = read_models(
                run / "probes" / probe / shard / name, probe, options, split, truth, logits["train"].shape[1]
            )
            models[split].update(loaded)
            reports.update(dict.fromkeys(loaded, fits[probe]["fits"][name.removesuffix(".npz")]))
    rows: list[tuple[dict[str, Any], dict[str, np.ndarray]]] = []
    results: dict[str, dict[str, Measured]] = {}
    network: dict[str, np.ndarray] = {}
    for split in SPLITS:
        try:
            network[split], results[split] = measure(logits[split], truth[split], models[split], counts[split])
        except UserError as error:
            raise UserError(f"{run}, step {step}, {layer}, {split} split: {error}") from error
    for split in SPLITS:
        key = {"split": split, "count": len(truth[split])}
        if layer == "embedding":
            gap = network["train"][0] - network["test"][0]
            row = {
                "model": "dnn",
                "accuracy": network[split][0],
                "generalization_gap": gap,
                "floored": 0,
                "converged": True,
            }
            rows.append(({**key, **row}, {"accuracy": network[split]}))
        for name, (values, floored) in results[split].items():
            accuracies = [results[one][name].values["accuracy"][0] for one in SPLITS]
            row = {measure_name: value[0] for measure_name, value in values.items()}
            row |= {"model": name, "floored": floored, "generalization_gap": accuracies[0] - accuracies[1]}
            row |= {"converged": reports[name].get("converged", True), "gap": reports[name].get("gap")}
            rows.append(({**key, **row}, values))
    return rows


def read_models(
    path: Path, probe: str, options: dict[str, Any], split: str, truth: dict[str, np.ndarray], classes: int
) -> dict[str, Model]:
    """Return the models in one probe's file: one, or for k-NN one for each k (`knn`, and `knn-k5` for k = 5 of a sweep)."""
    import numpy as np

    from dnn_or_knn.measures.formulas import Model
    from dnn_or_knn.measures.votes import vote_fractions

    try:
        with np.load(path, allow_pickle=False) as arrays:
            if options["kind"] == "knn":
                neighbours = arrays[f"{split}_neighbours"]
            else:
                probabilities, decision = arrays[f"{split}_probabilities"], arrays[f"{split}_decision"]
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"{path} is damaged ({error}); delete it and run the probe again") from error
    given = len(neighbours) if options["kind"] == "knn" else len(probabilities)
    if given != len(truth[split]):
        raise UserError(
            f"{path} holds {given} {split} points, but there are {len(truth[split])} labels; run the probe again"
        )
    if options["kind"] != "knn":
        return {probe: Model(lambda rows: probabilities[rows], decision, options["predict"])}

    def votes(k: int) -> Model:
        if k > neighbours.shape[1]:
            raise UserError(
                f"{path} holds {neighbours.shape[1]} neighbours of each point, but k = {k}; raise k_max of {probe}"
            )
        return Model(lambda rows: vote_fractions(neighbours[rows, :k], truth["train"], classes), None, "probability")

    return {probe: votes(options["k"])} | {f"{probe}-k{k}": votes(k) for k in options.get("k_sweep", [])}


def read_history(training: Path) -> list[tuple[int, float, float]]:
    """Return (step, train accuracy, test accuracy) of every evaluation in the history beside a training's manifest."""
    results.read(training, ["history.csv"])
    with open(training.with_name("history.csv"), newline="", encoding="utf-8") as file:
        return [
            (int(line["step"]), float(line["train_accuracy"]), float(line["test_accuracy"]))
            for line in csv.DictReader(file)
            if re.fullmatch(r"\d.*", line.get("train_accuracy") or "")
        ]


def milestones(
    rows: list[dict[str, Any]], history: list[tuple[int, float, float]], memorized: float, nearly: float
) -> dict[str, Any]:
    """Return the run's milestones: from the logits where weights were kept, else from the training's own evaluations."""
    accuracy = {split: {entry[0]: entry[1 + i] for entry in history} for i, split in enumerate(SPLITS)}
    for row in rows:
        if row["model"] == "dnn":
            accuracy[row["split"]][row["step"]] = float(row["accuracy"])
    last = max(accuracy["train"])
    return {
        "memorization_step": first_step(accuracy["train"].items(), memorized),
        "step_90": first_step(accuracy["train"].items(), nearly),
        "last_step": last,
        "final_train_accuracy": accuracy["train"][last],
        "final_test_accuracy": accuracy["test"][last],
    }
