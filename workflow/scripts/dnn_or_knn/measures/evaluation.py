"""Accuracy, P_SAME and D_KL of the network and its probes at every evaluation of a run, from what lies on disk."""

from __future__ import annotations

import csv
import importlib
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..runtime import files, results
from ..runtime.errors import UserError
from ..runtime.progress import Progress
from .bootstrap import smoothed
from .formulas import Measured, Model, first_step, measure
from .votes import vote_fractions

SPLITS = ("train", "test")
#: Measures that are fractions of the samples.
FRACTIONS = ("accuracy", "p_same")
#: The votes by similarity, by name: a job that uses them says so in its specification.
WEIGHTED = "dnn_or_knn.measures.weighted_votes"
#: An array for each split: its true labels, its logits, its replicates' counts.
BySplit = dict[str, np.ndarray]
#: A row of the table, and its measures with their replicates, (1 + B,) each.
Row = tuple[dict[str, Any], dict[str, np.ndarray]]


def evaluations(run: Path, spec: dict[str, Any], truth: BySplit, counts: BySplit) -> Iterator[Row]:
    """Yield the rows of all evaluations of a run."""
    extracted = {shard["name"]: files.read_json(run / "features" / f"{shard['name']}.json") for shard in spec["shards"]}
    order = layer_order(extracted, spec.get("layers", []))
    progress, done = Progress("measured", sum(len(s["steps"]) for s in spec["shards"]), "evaluations"), 0
    for shard in spec["shards"]:
        for step in shard["steps"]:
            logits = {split: read_logits(run, extracted, step, split, len(truth[split])) for split in SPLITS}
            for layer in shard["layers"] or layer_names(extracted[shard["name"]]):
                place = {"step": step, "layer": layer, "layer_index": order[layer]}
                name, classes = f"{shard['name']}/step{step:06d}_{layer}", logits["train"].shape[1]
                models, fits = read_probes(run, spec["probes"], name, truth, classes)
                measured = measure_splits(f"{run}, step {step}, {layer}", logits, truth, models, counts)
                for row, values in evaluation_rows(measured, fits, truth, with_network=layer == "embedding"):
                    smooth(values, row["count"], [*spec["run"].values(), step, layer, row["split"], row["model"]])
                    yield {**place, **row}, values
            done += 1
            progress.update(done)


def smooth(values: dict[str, np.ndarray], count: int, key: list[Any]) -> None:
    """Smooth the replicates of the fractions among a row's measures, in place; `key` names the row."""
    for name in values.keys() & FRACTIONS:
        words = "/".join(map(str, [*key, name]))
        values[name] = np.append(values[name][:1], smoothed(values[name][1:], count, words))


def layer_names(manifest: dict[str, Any]) -> list[str]:
    """Return the probe points that a manifest of features lists, in the network's order."""
    return [layer["name"] for layer in manifest["layers"]]


def layer_order(extracted: dict[str, dict[str, Any]], told: Sequence[str] = ()) -> dict[str, int]:
    """Return each measured layer's position from the input on: the hidden ones as told, or else as extracted, the embedding last."""
    rows = [told, *map(layer_names, extracted.values())]
    names = dict.fromkeys(name for row in rows for name in row if name != "embedding")
    return {layer: position for position, layer in enumerate([*names, "embedding"])}


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


def measure_splits(
    where: str, logits: BySplit, truth: BySplit, models: dict[str, dict[str, Model]], counts: BySplit
) -> dict[str, tuple[np.ndarray, dict[str, Measured]]]:
    """Return what `measure` finds on both splits of one evaluation; an error names the evaluation and the split."""
    measured = {}
    for split in SPLITS:
        try:
            measured[split] = measure(logits[split], truth[split], models[split], counts[split])
        except UserError as error:
            raise UserError(f"{where}, {split} split: {error}") from error
    return measured


def evaluation_rows(
    measured: dict[str, tuple[np.ndarray, dict[str, Measured]]],
    fits: dict[str, dict[str, Any]],
    truth: BySplit,
    *,
    with_network: bool,
) -> Iterator[Row]:
    """Yield the rows of one evaluation; the network's own, `with_network`, stand at the embedding alone: its output is the
    same whatever layer is probed."""
    for split in SPLITS:
        network, probed = measured[split]
        key = {"split": split, "count": len(truth[split])}
        if with_network:
            gap = measured["train"][0][0] - measured["test"][0][0]
            row = {"model": "dnn", "accuracy": network[0], "generalization_gap": gap, "floored": 0, "converged": True}
            yield {**key, **row}, {"accuracy": network}
        for name, (values, floored) in probed.items():
            accuracies = [measured[one][1][name].values["accuracy"][0] for one in SPLITS]
            row = {measure_name: value[0] for measure_name, value in values.items()}
            row |= {"model": name, "floored": floored, "generalization_gap": accuracies[0] - accuracies[1]}
            row |= {"converged": fits[name].get("converged", True), "gap": fits[name].get("gap")}
            yield {**key, **row}, values


def read_probes(
    run: Path, probes: dict[str, dict[str, Any]], name: str, truth: BySplit, classes: int
) -> tuple[dict[str, dict[str, Model]], dict[str, dict[str, Any]]]:
    """Return the models of one evaluation, `name` ("<shard>/step000100_embedding"), by split, and how each was fitted."""
    shard, evaluation = name.split("/")
    models: dict[str, dict[str, Model]] = {split: {} for split in SPLITS}
    fits: dict[str, dict[str, Any]] = {}
    for probe, options in probes.items():
        folder = run / "probes" / probe
        manifest = files.read_json(folder / f"{shard}.json")
        files.check(folder, manifest["files"], [f"{name}.npz"])
        for split in SPLITS:
            loaded = read_models(folder / f"{name}.npz", probe, options, split, truth, classes)
            models[split].update(loaded)
            fits.update(dict.fromkeys(loaded, manifest["fits"][evaluation]))
    return models, fits


def read_models(
    path: Path, probe: str, options: dict[str, Any], split: str, truth: BySplit, classes: int
) -> dict[str, Model]:
    """Return the models in one probe's file: one, or for k-NN one for each k (`knn`, and `knn-k5` for k = 5 of a sweep)."""
    try:
        with np.load(path, allow_pickle=False) as arrays:
            if options["kind"] == "knn":
                neighbours = arrays[f"{split}_neighbours"]
                distances = arrays[f"{split}_distances"] if "vote" in options else None
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
        if distances is not None:
            fractions = importlib.import_module(WEIGHTED).fractions
            return Model(
                lambda rows: fractions(
                    neighbours[rows, :k], distances[rows, :k], truth["train"], classes, options["vote"]["temperature"]
                ),
                None,
                "probability",
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
