"""Fit one probe on the features of one shard: every step and layer that it holds.

  python workflow/scripts/probe.py --spec '{"kind": "knn", "module": "knn", "options": {"metric": "l2", "k_max": 30},
    "steps": [0, 100], "layers": null, "seed": 0, "run": "digits/mlp16/true-labels/seed0"}' \\
    --store STORE --labels LABELS --features-manifest RUN/features/steps000000-000100.json \\
    --features RUN/features/steps000000-000100 --output RUN/probes/knn/steps000000-000100 \\
    --manifest RUN/probes/knn/steps000000-000100.json --state RUN/.state/probe

Specification:
  kind, module  the probe; its code is dnn_or_knn/probes/<module>.py
  options       its options; "pca" is null or {"components", "skip_layers": [layers left as they are]}
  steps, layers what to fit; layers null: all layers that the features' manifest lists
  seed, run     what random choices start from; the name of the run, for messages

Features that were let go are extracted again from the weights, if --extraction says how, and compared with their manifest.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import logging
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dnn_or_knn.features import marks
from dnn_or_knn.runtime import command_line, files
from dnn_or_knn.runtime.progress import Progress

if TYPE_CHECKING:
    import numpy as np

log = logging.getLogger("dnn_or_knn")


def main(args: argparse.Namespace) -> None:
    """Write <output>/<step>_<layer>.npz for every evaluation, then the manifest with a report on each fit."""
    from dnn_or_knn import numerics
    from dnn_or_knn.data import store
    from dnn_or_knn.probes import common as probes
    from dnn_or_knn.runtime import gpus, provenance
    from dnn_or_knn.runtime.errors import UserError

    spec = args.spec
    labels = store.load_labels(args.labels)
    extracted = files.read_json(args.features_manifest)
    layers = spec["layers"] or [layer["name"] for layer in extracted["layers"]]
    features = available(args, extracted["files"])
    device = gpus.resolve(args.device, share=args.share_gpu)
    numerics.set_precision("float32", device)  # a fit must not depend on what an extraction before it allowed
    if spec["module"] in ("logistic", "svm"):
        gpus.warn_if_float64_is_slow(device)
    fit = probes.load(spec["module"])
    state = open_state(args.state, spec)
    names = [(f"step{step:06d}_{layer}", step, layer) for step in spec["steps"] for layer in layers]
    progress = Progress(f"{spec['kind']} fits", len(names), "evaluations")
    reports: dict[str, dict[str, Any]] = {}
    seconds: dict[str, float] = {}
    resumed = 0
    for done, (name, step, layer) in enumerate(names):
        where = f"{spec['run']}, step {step}, {layer}"
        used = {split: f"{name}_{split}.npy" for split in ("train", "test")}
        inputs = [extracted["files"].get(file) for file in used.values()]
        key = files.digest({"spec": fitted(spec), "features": inputs, "labels": labels.facts})
        report = finished(state, name, key)
        resumed += report is not None
        if report is None:
            files.check(features, extracted["files"], list(used.values()))
            train, test = (files.read_npy(features / file) for file in used.values())
            options = resolve_pca(spec["options"], layer)
            try:
                result = fit(
                    train,
                    labels.labels,
                    test,
                    classes=labels.classes,
                    options=options,
                    seed=spec["seed"],
                    device=device.type,
                )
            except UserError as error:
                raise UserError(f"{where}: {error}") from error
            except (RuntimeError, MemoryError) as error:
                if not numerics.is_out_of_memory(error):
                    raise
                raise UserError(
                    f"{where}: the {device.type}'s memory is too small for this fit; give the job more, or set `device: cpu`"
                ) from error
            report = keep(state, name, key, result.arrays, result.report)
        seconds[name] = report.pop("seconds", 0.0)
        reports[name] = report
        if not report["converged"]:
            log.warning("%s: the %s fit did not reach its tolerance: %s", where, spec["kind"], files.canonical(report))
        progress.update(done + 1, where, force=done + 1 == len(names))
    with files.atomic(args.output) as folder:
        folder.mkdir()
        for name in reports:
            files.place(state / f"{name}.npz", folder / f"{name}.npz")
    manifest = {
        "kind": spec["kind"],
        "classes": labels.classes,
        "steps": spec["steps"],
        "layers": layers,
        "fits": reports,
        "files": files.listing(args.output),
    }
    files.write_json(args.manifest, manifest)
    provenance.write(
        args.manifest.with_suffix(".provenance.json"),
        args,
        inputs=[args.store / store.STORE_MANIFEST, args.labels / store.LABELS_MANIFEST, args.features_manifest],
        results=[args.manifest],
        fit_seconds=seconds,
        fits_resumed=resumed,
        features_extracted_again=features != args.features,
    )
    files.remove(args.state)
    if features != args.features:
        files.remove(features.parent)
    if args.unprobed:
        marks.let_go(args.unprobed, args.features)


def available(args: argparse.Namespace, listing: dict[str, dict[str, Any]]) -> Path:
    """Return the folder of the features: as the extraction left it, or made again if they were let go since.

    Another probe of the shard, changed or new, thus needs no run of the extraction, which would make every probe of the
    shard stale.
    """
    from dnn_or_knn.runtime.errors import UserError

    if args.unprobed and args.unprobed.parent.is_dir() and args.features.is_dir():
        args.unprobed.touch()
    if args.features.is_dir() or args.extraction is None:
        return args.features
    if not args.checkpoints.is_dir():
        raise UserError(
            f"{args.features} was let go, and {args.checkpoints}, which it is made from, is gone too; delete {args.training} "
            "and run again to train anew"
        )
    command_line.check_code(args.extraction)
    log.info("the features were let go: extracting them again")
    again = args.state.with_name(f"{args.state.name}-features")
    # By name: what it runs is in the specification of the extraction, and no part of the fit.
    script = importlib.import_module("features")
    options = {
        "spec": files.canonical(args.extraction),
        "store": args.store,
        "labels": args.labels,
        "training": args.training,
        "checkpoints": args.checkpoints,
        "features": again / "features",
        "logits": again / "logits",  # so that the same is computed as before
        "manifest": again / "features.json",
        "state": again / "state",
        "device": args.device,
        "threads": args.threads,
    }
    made = again / "features.json"
    if not same(made, listing):
        script.main(script.arguments().parse_args([f"--{key}={value}" for key, value in options.items()]))
    if not same(made, listing):
        files.remove(again)
        raise UserError(
            f"features extracted again are not those that {args.features_manifest} lists (another device or library?); "
            "delete that manifest and run again, and every probe of the shard is fitted on the same features"
        )
    return again / "features"


def same(manifest: Path, listing: dict[str, dict[str, Any]]) -> bool:
    """Return whether a manifest is there and lists exactly these features."""
    return manifest.is_file() and files.read_json(manifest)["files"] == listing


def resolve_pca(options: dict[str, Any], layer: str) -> dict[str, Any]:
    """Return a probe's options with ``pca`` as the number of components at this layer, or None."""
    pca = options.get("pca")
    wanted = None if pca is None or layer in pca.get("skip_layers", []) else pca["components"]
    return {**options, "pca": wanted}


def fitted(spec: dict[str, Any]) -> dict[str, Any]:
    """Return the part of a specification that one fit depends on: not which steps the job happens to hold."""
    return {key: value for key, value in spec.items() if key not in ("steps", "layers", "run", "stage")}


def open_state(folder: Path, spec: dict[str, Any]) -> Path:
    """Return the folder of finished evaluations, without what other code or other options left there."""
    state = folder / files.digest(fitted(spec))[:16]
    with contextlib.suppress(FileNotFoundError):
        for path in folder.iterdir():
            if path != state:
                files.remove(path)
    state.mkdir(parents=True, exist_ok=True)
    for leftover in state.glob(".*.part"):
        files.remove(leftover)
    return state


def keep(state: Path, name: str, key: str, arrays: dict[str, np.ndarray], report: dict[str, Any]) -> dict[str, Any]:
    """Write one evaluation's arrays (the same bytes for the same arrays), then the record that it is finished."""
    import numpy as np

    with files.atomic(state / f"{name}.npz") as temporary, open(temporary, "wb") as file:
        np.savez(file, allow_pickle=False, **{array: arrays[array] for array in sorted(arrays)})
    listing = files.listing(state, [f"{name}.npz"])
    files.write_json(state / f"{name}.json", {"key": key, "report": report, "files": listing})
    return report


def finished(state: Path, name: str, key: str) -> dict[str, Any] | None:
    """Return the report of an evaluation that was finished before, on these inputs, and is whole; else None."""
    from dnn_or_knn.runtime.errors import UserError

    if not (state / f"{name}.json").is_file():
        return None
    try:
        record = files.read_json(state / f"{name}.json")
        files.check(state, record["files"])
    except (UserError, KeyError, TypeError):
        log.warning("the finished fit of %s is damaged and is made again", name)
        return None
    return record["report"] if record["key"] == key else None


def arguments() -> argparse.ArgumentParser:
    """Return the command line."""
    parser = command_line.parser(__doc__)
    parser.add_argument("--store", required=True, type=Path, help="folder of the data set's store")
    parser.add_argument("--labels", required=True, type=Path, help="folder of the run's label set")
    parser.add_argument("--features-manifest", required=True, type=Path, help="the features' manifest")
    parser.add_argument("--features", required=True, type=Path, help="folder of the features")
    parser.add_argument("--output", required=True, type=Path, help="folder to make: one .npz an evaluation")
    parser.add_argument("--manifest", required=True, type=Path, help="JSON to make: a report on every fit")
    parser.add_argument("--state", required=True, type=Path, help="folder of finished fits, removed at the end")
    parser.add_argument(
        "--extraction", type=command_line.specification, help="specification of features.py for this shard"
    )
    parser.add_argument("--training", type=Path, help="the training's manifest, to extract from")
    parser.add_argument("--checkpoints", type=Path, help="folder of the kept weights, to extract from")
    parser.add_argument("--unprobed", type=Path, help="mark of this probe among those that are to read the features")
    parser.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto", help="default: auto")
    parser.add_argument(
        "--share-gpu", type=int, default=0, help="probes that a GPU takes beside a training; 0 (default): none"
    )
    return parser


if __name__ == "__main__":
    sys.exit(command_line.run(main, arguments()))
