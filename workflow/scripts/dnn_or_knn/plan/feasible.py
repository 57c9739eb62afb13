"""What no run can do, told from the configuration alone: more images than there are, more neighbours, more memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from ..runtime.errors import UserError, nearest
from . import atlas, datasets, networks
from .configuration import choice_probes
from .registry import MEASURES
from .schema import load_schema
from .sizes import MOST_BYTES, parameters, probe_points, train_images, training_bytes

Config = Mapping[str, Any]


def refuse(config: Config, runs: Mapping[str, Any]) -> None:
    """Raise `UserError` if a run of the configuration cannot be, or a key names what no run has.

    Parameters
    ----------
    config: complete, from `resolve`.
    runs: path → `Run`.
    """
    probes = config["probes"] | choice_probes(config)
    for run in runs.values():
        entry = datasets.entry(config, run.dataset)
        images = train_images(entry, config["datasets"][run.dataset])
        points = _points(run, images)
        if run.layers == "all" and datasets.streamed(entry) and config["layer_input"] == "pixels":
            raise UserError(
                f"config: layer_input is pixels, but {run.dataset} has images of {entry['size']} pixels a side, whose probe point "
                "'input' would be too wide; set layer_input: mean"
            )
        _network(run, entry, points)
        if points is not None:
            if run.weights is None and run.given is None:
                _batch(run, points)
            for name, options in probes.items():
                _neighbours(name, options, run, points)
    _layers(probes, runs.values())
    _measures(config, runs.values())
    _names(config, runs.values())


def doubts(config: Config, runs: Mapping[str, Any]) -> Iterator[str]:
    """Yield a sentence for each label set whose classes have too few images for the votes of all k neighbours.

    A point's own class then cannot fill its neighbourhood: leave-one-out probabilities stay away from 1 and D_KL(k-NN‖DNN) on
    train from 0, however much the network memorizes.

    Parameters
    ----------
    config: complete, from `resolve`.
    runs: path → `Run`.
    """
    said: set[tuple[str, str, str]] = set()
    for run in runs.values():
        count, classes = (run.subset or {}).get("count"), datasets.entry(config, run.dataset)["classes"]
        for name, options in (config["probes"] | choice_probes(config)).items():
            key = (run.dataset, run.labels, name)
            if (
                options["kind"] == "knn"
                and count is not None
                and count < (options["k"] + 1) * classes
                and key not in said
            ):
                said.add(key)
                yield (
                    f"config: probes.{name} takes {options['k']} neighbours, but {run.dataset}/{run.labels} has about "
                    f"{count / classes:.3g} images of a class, so that no train image can have all {options['k']} from its own: train "
                    f"D_KL of {name} cannot go to 0; raise subset.count to more than {(options['k'] + 1) * classes}, or lower k"
                )


def _points(run: Any, images: int | None) -> int | None:
    """Return how many images a run is trained on, None if that is not known."""
    count = run.subset["count"] if run.subset else None
    if images is not None and count is not None and count > images:
        raise UserError(
            f"config: runs has a subset.count of {count} for {run.dataset}, which has only {images} training images; lower "
            f"it to {images} or fewer"
        )
    return count if count is not None else images


def _network(run: Any, image: Mapping[str, Any], points: int | None) -> None:
    batch = run.training["batch_size"]
    if training_bytes(run.network, image, 0) > MOST_BYTES:
        count = parameters(run.network, image) or 0
        raise UserError(
            f"config: architectures names '{run.architecture}', a network of {count:.2g} parameters, whose training needs "
            f"{training_bytes(run.network, image, 0) / 1e12:.3g} TB, more than a machine holds; make it smaller"
        )
    needed = training_bytes(run.network, image, batch)
    if needed > MOST_BYTES and (points is None or batch <= points):
        raise UserError(
            f"config: training.batch_size is {batch}, for which {run.architecture} on {run.dataset} needs {needed / 1e12:.3g} TB, "
            "more than a machine holds; lower it"
        )


def _batch(run: Any, points: int) -> None:
    batch = run.training["batch_size"]
    if batch > points:
        raise UserError(
            f"config: training.batch_size is {batch}, more than the {points} training images of {run.path}; lower it there to "
            f"{points} or fewer"
        )


def _neighbours(name: str, options: Mapping[str, Any], run: Any, points: int) -> None:
    if options["kind"] != "knn":
        return
    k = max(options["k_max"], options["k"], *options["k_sweep"], 1)
    if k >= points:
        raise UserError(
            f"config: probes.{name} wants {k} neighbours, but {run.path} has {points} training images, {points - 1} besides "
            f"the point itself; lower k, k_max and k_sweep to {points - 1}"
        )


def _measures(config: Config, runs: Iterable[Any]) -> None:
    """Refuse measures that nothing could be measured by, and the prediction depth without k-NN."""
    for name in atlas.switched_on(config):
        if not any(atlas.measurable(run, name) for run in runs):
            raise UserError(
                f"config: measures.{name} is true, but all runs are of features alone, which have not the "
                f"{'logits' if MEASURES[name]['reads'] == 'outputs' else 'weights'} that it reads; set it to false"
            )
    if config["measures"]["examples"] and atlas.neighbours(config, "examples") is None:
        raise UserError(
            "config: measures.examples is true, but no probe is of kind knn, whose votes are the prediction depth; add one, "
            "or set it to false"
        )


def _layers(probes: Mapping[str, Mapping[str, Any]], runs: Iterable[Any]) -> None:
    """Refuse `skip_layers` of layers that neither a network of the runs has nor one of the paper's, whose layers an overlay
    such as config/choices.yaml names whatever is run."""
    have = {layer for name in networks.PAPERS for layer in probe_points(networks.told(name, {})) or ()}
    for run in runs:
        names = probe_points(run.network)
        if names is None:
            return
        have |= set(names)
    for name, options in probes.items():
        for layer in (options.get("pca") or {}).get("skip_layers", []):
            if layer not in have:
                raise UserError(
                    f"config: probes.{name}.pca.skip_layers names '{layer}', which no network has{nearest(layer, have)}"
                )


def _names(config: Config, runs: Iterable[Any]) -> None:
    """Refuse label sets and data sets that no run has, unless they are the defaults: a small experiment may lack those."""
    properties = load_schema()["properties"]
    labels, datasets = ({getattr(run, key) for run in runs} for key in ("labels", "dataset"))
    for key, schema in properties["figures"]["properties"].items():
        value = config["figures"][key]
        if key.endswith(("_labels", "_layers")) and value not in labels and value != schema["default"]:
            raise UserError(f"config: figures.{key} is '{value}', labels that no run has{nearest(value, labels)}")
    early = config["claims"]["early_parting"]
    for name in early if early != properties["claims"]["properties"]["early_parting"]["default"] else []:
        if name not in datasets:
            raise UserError(
                f"config: claims.early_parting names '{name}', a data set that no run has{nearest(name, datasets)}"
            )
