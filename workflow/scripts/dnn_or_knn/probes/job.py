"""The fits of one probe on one shard as a job: every step and layer, resumed where it stopped."""

from __future__ import annotations

import argparse
import importlib
import itertools
import logging
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .. import numerics
from ..data import store
from ..features import dumps
from ..runtime import files, gpus, results, resume
from ..runtime.errors import UserError
from ..runtime.progress import Progress
from . import common

log = logging.getLogger("dnn_or_knn")
#: The module that puts a search together that was cut into pieces, by name: what they hold does not depend on it.
PIECES = "dnn_or_knn.probes.query_shards"


def run(args: argparse.Namespace) -> None:
    """Write one .npz for every fit, and last the manifest with a report on each; see `probe.py` for the arguments."""
    spec = args.spec
    labels = store.load_labels(args.labels)
    features = files.read_json(args.features)
    layers = spec["layers"] or [layer["name"] for layer in features["layers"]]
    key = files.digest({"spec": fitted(spec), "labels": labels.facts})
    with (
        resume.opened(resume.beside(args.output), key) as state,
        dumps.opened(args, features["files"]) as (folder, again),
    ):
        device = gpus.resolve(args.device, share=args.share_gpu)
        numerics.set_precision("float32", device)  # a fit must not depend on what an extraction before it allowed
        if spec["module"] in ("logistic", "svm"):
            gpus.warn_if_float64_is_slow(device)
        fits, resumed = fit_all(spec, layers, labels, features["files"], folder, state, device.type, args.pieces)
        resume.publish(state.kept, [f"{name}.npz" for name in fits], args.output.with_suffix(""))
        facts = {
            "kind": spec["kind"],
            "classes": labels.classes,
            "steps": spec["steps"],
            "layers": layers,
            "fits": {name: record["report"] for name, record in fits.items()},
        }
        results.finish(
            args,
            facts,
            {f"{args.output.stem}/{name}.npz": record["files"][f"{name}.npz"] for name, record in fits.items()},
            inputs=[args.store, args.labels, args.features],
            fit_seconds={name: record["seconds"] for name, record in fits.items()},
            fits_resumed=resumed,
            pieces=max(1, len(args.pieces)),
            **code_of(args.pieces),
            features_extracted_again=again,
        )
        for path in leftovers(args.output, args.pieces):
            files.remove(path)
        state.clear()


def code_of(pieces: Sequence[Path]) -> dict[str, Any]:
    """Return the code that searched in pieces, for the provenance of what they were put together to: its own names none of it."""
    return {"pieces_code": files.read_json(pieces[0].with_suffix(results.PROVENANCE)).get("code")} if pieces else {}


def leftovers(output: Path, pieces: Sequence[Path]) -> list[Path]:
    """Return what lies beside a result of other pieces than it was made of: a killed run had cut its search otherwise.

    Parameters
    ----------
    pieces: the manifests of those that it was made of, which go when Snakemake has seen the result.
    """
    piece = re.compile(rf"({re.escape(output.stem)}\.[1-9]\d*of[1-9]\d*)(\.json|\.provenance\.json|-features)?")
    there = sorted([*output.parent.iterdir(), *resume.beside(output).parent.iterdir()])
    found = [(path, match.group(1)) for path in there if (match := piece.fullmatch(path.name))]
    return [path for path, name in found if name not in {manifest.stem for manifest in pieces}]


def fit_all(
    spec: dict[str, Any],
    layers: list[str],
    labels: store.LabelSet,
    listing: dict[str, Any],
    folder: Path,
    state: resume.State,
    device: str,
    pieces: Sequence[Path] = (),
) -> tuple[dict[str, dict[str, Any]], int]:
    """Make every fit that is not finished in `state`; return the records of all by name, and how many were finished.

    Parameters
    ----------
    listing: the files that the features' manifest lists; `folder`: where they lie.
    pieces: manifests of the pieces of a k-NN search, if jobs of their own made it: then they are read, and no features.
    """
    fit = common.load(spec["module"])
    records: dict[str, dict[str, Any]] = {}
    resumed, count = 0, len(spec["steps"]) * len(layers)
    progress = Progress(f"{spec['kind']} fits", count, "evaluations")
    for step, layer in itertools.product(spec["steps"], layers):
        name, where = f"step{step:06d}_{layer}", f"{spec['run']}, step {step}, {layer}"
        used = [f"{folder.name}/{name}_{split}.npy" for split in ("train", "test")]
        key = files.digest([listing.get(file) for file in used])
        record = state.finished(name, key)
        resumed += record is not None
        if record is None and pieces:
            record = keep(state, name, key, importlib.import_module(PIECES).joined(pieces, name, len(labels.labels)))
        elif record is None:
            files.check(folder.parent, listing, used)
            train, test = (files.read_npy(folder.parent / file, mmap=True, private=True) for file in used)
            told = {"classes": labels.classes, "options": resolve_pca(spec["options"], layer), "seed": spec["seed"]}
            record = keep(state, name, key, fit_one(where, fit, train, labels.labels, test, device=device, **told))
        report = records.setdefault(name, record)["report"]
        if not report["converged"]:
            log.warning("%s: the %s fit did not reach its tolerance: %s", where, spec["kind"], files.canonical(report))
        progress.update(len(records), where, force=len(records) == count)
    return records, resumed


def fit_one(
    where: str, fit: Callable[..., common.ProbeResult], *arrays: np.ndarray, device: str, **told: Any
) -> common.ProbeResult:
    """Return one fit; what is wrong with its features, or too little memory, is one sentence that says `where`."""
    short = f"{where}: the {device}'s memory is too small for this fit; give the job more, or set `device: cpu`"
    with numerics.memory_told(short):
        try:
            return fit(*arrays, device=device, **told)
        except UserError as error:
            raise UserError(f"{where}: {error}") from error


def keep(state: resume.State, name: str, key: str, made: common.ProbeResult) -> dict[str, Any]:
    """Write one fit's arrays (the same bytes for the same arrays), then the record that it is finished; return that."""
    with files.atomic(state.kept / f"{name}.npz") as temporary, open(temporary, "wb") as file:
        np.savez(file, allow_pickle=False, **{array: made.arrays[array] for array in sorted(made.arrays)})
    report = {what: value for what, value in made.report.items() if what != "seconds"}
    return state.finish(name, [f"{name}.npz"], key=key, report=report, seconds=made.report.get("seconds", 0.0))


def resolve_pca(options: dict[str, Any], layer: str) -> dict[str, Any]:
    """Return a probe's options with ``pca`` as the number of components at this layer, or None."""
    pca = options.get("pca")
    wanted = None if pca is None or layer in pca.get("skip_layers", []) else pca["components"]
    return {**options, "pca": wanted}


def fitted(spec: dict[str, Any]) -> dict[str, Any]:
    """Return the part of a specification that one fit depends on: not which steps the job happens to hold."""
    return {key: value for key, value in spec.items() if key not in ("steps", "layers", "run", "stage")}
