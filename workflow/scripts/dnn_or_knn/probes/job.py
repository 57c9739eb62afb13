"""The fits of one probe on one shard as a job: every step and layer, resumed where it stopped."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from .. import numerics
from ..data import store
from ..features import dumps
from ..runtime import files, gpus, results, resume
from ..runtime.errors import UserError
from ..runtime.progress import Progress
from . import common

log = logging.getLogger("dnn_or_knn")


class Fit(NamedTuple):
    """One fit: of the features of one evaluation at one layer."""

    step: int
    layer: str

    @property
    def name(self) -> str:
        """What its files are called."""
        return f"step{self.step:06d}_{self.layer}"


class Fitted(NamedTuple):
    """What was fitted: by the names of the fits."""

    reports: dict[str, dict[str, Any]]
    seconds: dict[str, float]
    files: dict[str, dict[str, Any]]
    resumed: int


def run(args: argparse.Namespace) -> None:
    """Write one .npz for every fit, and last the manifest with a report on each; see `probe.py` for the arguments."""
    spec = args.spec
    labels = store.load_labels(args.labels)
    features = files.read_json(args.features)
    layers = spec["layers"] or [layer["name"] for layer in features["layers"]]
    key = files.digest({"spec": fitted(spec), "labels": labels.facts})
    with (
        resume.opened(resume.beside(args.output), key) as state,
        dumps.opened(args, features["files"]) as folder,
    ):
        device = gpus.resolve(args.device)
        numerics.set_precision("float32", device)  # a fit must not depend on what an extraction before it allowed
        if spec["module"] in ("logistic", "svm"):
            gpus.warn_if_float64_is_slow(device)
        fits = [Fit(step, layer) for step in spec["steps"] for layer in layers]
        done = fit_all(fits, spec, labels, features["files"], folder, state, device.type)
        resume.publish(state.kept, list(done.files), args.output.with_suffix(""))
        facts = {
            "kind": spec["kind"],
            "classes": labels.classes,
            "steps": spec["steps"],
            "layers": layers,
            "fits": done.reports,
        }
        results.finish(
            args,
            facts,
            {f"{args.output.stem}/{name}": entry for name, entry in done.files.items()},
            inputs=[args.store, args.labels, args.features],
            fit_seconds=done.seconds,
            fits_resumed=done.resumed,
            features_extracted_again=folder != dumps.folder_of(args.features),
        )
        state.clear()


def fit_all(
    fits: list[Fit],
    spec: dict[str, Any],
    labels: store.LabelSet,
    listing: dict[str, Any],
    folder: Path,
    state: resume.State,
    device: str,
) -> Fitted:
    """Make every fit that is not finished in `state`, and report on all.

    Parameters
    ----------
    listing: the files that the features' manifest lists; `folder`: where they lie.
    """
    fit = common.load(spec["module"])
    reports: dict[str, dict[str, Any]] = {}
    seconds: dict[str, float] = {}
    made: dict[str, dict[str, Any]] = {}
    resumed = 0
    progress = Progress(f"{spec['kind']} fits", len(fits), "evaluations")
    for number, one in enumerate(fits, 1):
        where = f"{spec['run']}, step {one.step}, {one.layer}"
        used = [f"{folder.name}/{one.name}_{split}.npy" for split in ("train", "test")]
        key = files.digest([listing.get(name) for name in used])
        record = state.finished(one.name, key)
        resumed += record is not None
        if record is None:
            files.check(folder.parent, listing, used)
            train, test = (files.read_npy(folder.parent / name) for name in used)
            told = {"options": resolve_pca(spec["options"], one.layer), "seed": spec["seed"], "device": device}
            result = fit_one(where, fit, train, labels.labels, test, classes=labels.classes, **told)
            record = keep(state, one.name, key, result)
        report = reports[one.name] = record["report"]
        seconds[one.name] = report.pop("seconds", 0.0)
        made |= record["files"]
        if not report["converged"]:
            log.warning("%s: the %s fit did not reach its tolerance: %s", where, spec["kind"], files.canonical(report))
        progress.update(number, where, force=number == len(fits))
    return Fitted(reports, seconds, made, resumed)


def fit_one(
    where: str, fit: Callable[..., common.ProbeResult], *arrays: np.ndarray, device: str, **told: Any
) -> common.ProbeResult:
    """Return one fit; what is wrong with its features, or too little memory, is one sentence that says `where`."""
    try:
        return fit(*arrays, device=device, **told)
    except UserError as error:
        raise UserError(f"{where}: {error}") from error
    except (RuntimeError, MemoryError) as error:
        if not numerics.is_out_of_memory(error):
            raise
        raise UserError(
            f"{where}: the {device}'s memory is too small for this fit; give the job more, or set `device: cpu`"
        ) from error


def keep(state: resume.State, name: str, key: str, made: common.ProbeResult) -> dict[str, Any]:
    """Write one fit's arrays (the same bytes for the same arrays), then the record that it is finished; return that."""
    with files.atomic(state.kept / f"{name}.npz") as temporary, open(temporary, "wb") as file:
        np.savez(file, allow_pickle=False, **{array: made.arrays[array] for array in sorted(made.arrays)})
    return state.finish(name, [f"{name}.npz"], key=key, report=made.report)


def resolve_pca(options: dict[str, Any], layer: str) -> dict[str, Any]:
    """Return a probe's options with ``pca`` as the number of components at this layer, or None."""
    pca = options.get("pca")
    wanted = None if pca is None or layer in pca.get("skip_layers", []) else pca["components"]
    return {**options, "pca": wanted}


def fitted(spec: dict[str, Any]) -> dict[str, Any]:
    """Return the part of a specification that one fit depends on: not which steps the job happens to hold."""
    return {key: value for key, value in spec.items() if key not in ("steps", "layers", "run", "stage")}
