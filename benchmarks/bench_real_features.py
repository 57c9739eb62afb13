"""All probes on the features of finished runs, each beside scikit-learn on the same features: one table, in Markdown.

A run is read where its features are kept (`keep: {features: all}`). Every step and layer that a run extracted is fitted,
by each probe of the tables below, on the labels that the network was trained on, in a process of its own, one after the
other. `--limit` ends a fit that takes longer, which the table says; `× k-NN` is the probe's time over that of the first
k-NN probe on the same features. `gap` is what the probe certifies: how far its worst fit is from the optimum, relatively.

    snakemake --cores all --configfile benchmarks/real_features.yaml --until features
    python benchmarks/bench_real_features.py results/real-features

| probe | this project | beside it |
|---|---|---|
| knn | L2, 30 neighbours of all train and test points | brute force, float64 |
| svm | one-vs-rest, squared hinge, with probabilities | LinearSVC, calibrated on 5 folds |
| lr | multinomial, L2 penalty | LogisticRegression (lbfgs, its defaults) |
| hinge | one-vs-one, hinge, with probabilities | SVC (libsvm), each pair and its 5 folds |
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as probe.py has it
import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "workflow" / "scripts"))
from dnn_or_knn.data import store
from dnn_or_knn.probes import common
from dnn_or_knn.runtime import files
from sklearn.calibration import CalibratedClassifierCV
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import NearestNeighbors
from sklearn.svm import SVC, LinearSVC
from threadpoolctl import threadpool_limits

ROOT = Path(__file__).resolve().parent.parent
#: Probe of the table → module, options.
PROBES: dict[str, tuple[str, dict[str, Any]]] = {
    "knn": ("knn", {"metric": "l2", "k": 30, "k_max": 30}),
    "svm": ("svm", {"loss": "squared_hinge", "multiclass": "ovr"}),
    "lr": ("logistic", {"penalty": "l2", "multiclass": "multinomial"}),
    "hinge": ("svm", {"loss": "hinge", "multiclass": "ovo"}),
}
HEAD = (
    "| run | step | layer | N | D | C | probe | seconds | processor seconds | iterations | gap | × k-NN "
    "| scikit-learn | its processor seconds |\n" + "|---" * 14 + "|"
)


class Evaluation(NamedTuple):
    """Features that a run has on disk, one step and layer of them, and the manifest of its labels."""

    run: str
    step: int
    layer: str
    features: Path
    labels: Path

    def load(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, int]:
        """Return train features (N, D), labels (N,), test features (M, D) and the number of classes."""
        name = f"step{self.step:06d}_{self.layer}"
        train, test = (files.read_npy(self.features / f"{name}_{split}.npy") for split in ("train", "test"))
        labels = store.load_labels(self.labels)
        return train, labels.labels, test, labels.classes


class Cost(NamedTuple):
    """What a fit took, in seconds, and what the probe reports of it; none where it was ended."""

    clock: float
    processor: float
    report: dict[str, Any]


def evaluations(results: Path, wanted: str) -> Iterator[Evaluation]:
    """Yield the evaluations of the runs under `results` whose name, step and layer contain one of `wanted`'s words."""
    for manifest in sorted(results.glob("*/*/*/seed*/features/*.json")):
        folder = manifest.with_suffix("")
        if manifest.name.endswith(".provenance.json") or not folder.is_dir():
            continue
        run = manifest.parent.parent
        dataset, _, labels, seed = run.relative_to(results).parts
        for path in sorted(folder.glob("step*_train.npy")):
            step, layer = path.name[len("step") : -len("_train.npy")].split("_", 1)
            name = str(run.relative_to(results))
            if not wanted or any(word in f"{name}/{int(step)}/{layer}" for word in wanted.split(",")):
                yield Evaluation(
                    name, int(step), layer, folder, results / dataset / "labels" / labels / seed / "labels.json"
                )


def competitor(probe: str, train: np.ndarray, labels: np.ndarray, test: np.ndarray) -> None:
    """Do with scikit-learn what a probe does."""
    train, test = train.astype(np.float64), test.astype(np.float64)
    if probe == "knn":
        index = NearestNeighbors(n_neighbors=30, algorithm="brute").fit(train)
        index.kneighbors()
        index.kneighbors(test)
        return
    model = {
        "svm": CalibratedClassifierCV(LinearSVC(), method="sigmoid", cv=5, ensemble=False),
        "lr": LogisticRegression(),
        "hinge": SVC(kernel="linear", probability=True, cache_size=1000, random_state=0),
    }[probe].fit(train, labels)
    model.predict_proba(train)
    model.predict_proba(test)


def _fit(pipe: Any, evaluation: Evaluation, probe: str, ours: bool, threads: int, device: str) -> None:
    """Fit one probe, ours or scikit-learn's, and send what it cost."""
    torch.set_num_threads(threads)
    warnings.simplefilter("ignore")
    train, labels, test, classes = evaluation.load()
    module, options = PROBES[probe]
    run = common.load(module)
    if device == "cuda":
        torch.zeros(1, device=device)  # the start of the device is no part of a fit
    with threadpool_limits(threads):
        clock, processor, report = time.perf_counter(), time.process_time(), {}
        if ours:
            report = run(train, labels, test, classes=classes, options=options, seed=0, device=device).report
        else:
            competitor(probe, train, labels, test)
    pipe.send(Cost(time.perf_counter() - clock, time.process_time() - processor, report))


def cost(evaluation: Evaluation, probe: str, *, ours: bool, threads: int, device: str, limit: float) -> Cost | None:
    """Return what a fit cost, made in a process of its own; None if it was ended after `limit` seconds.

    Raises
    ------
    RuntimeError: the process ended by itself without a result.
    """
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe(duplex=False)
    child = context.Process(target=_fit, args=(there, evaluation, probe, ours, threads, device))
    child.start()
    there.close()
    try:
        return here.recv() if here.poll(limit) else None
    except EOFError:
        child.join()
        raise RuntimeError(f"{probe} on {evaluation.run} ended with status {child.exitcode}") from None
    finally:
        child.kill()
        child.join()


def rows(evaluation: Evaluation, args: argparse.Namespace) -> Iterator[str]:
    """Yield the rows of one evaluation."""
    train, _, _, classes = evaluation.load()
    where = (
        f"| {evaluation.run} | {evaluation.step} | {evaluation.layer} | {len(train):,} | {train.shape[1]} | {classes} "
    )
    options = {"threads": args.threads, "limit": args.limit}
    base = None
    for probe in args.probes:
        ours = cost(evaluation, probe, ours=True, device=args.device, **options)
        theirs = cost(evaluation, probe, ours=False, device="cpu", **options) if args.competitors else None
        if probe == "knn" and ours is not None:
            base = ours.clock
        ended = f"> {args.limit:.0f}"
        mine = f"{ended} | | | | "
        if ours is not None:
            gap = ours.report.get("gap")
            mine = f"{ours.clock:.2f} | {ours.processor:.2f} | {ours.report['iterations']} | {gap:.1e} | "
            mine += f"{ours.clock / base:.1f}" if base else ""
        other = f"{theirs.clock:.2f} | {theirs.processor:.2f}" if theirs else f"{ended if args.competitors else ''} | "
        yield f"{where}| {probe} | {mine} | {other} |"


def main() -> int:
    """Print the table; return 1 where no run has features."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", nargs="?", type=Path, default=ROOT / "results" / "real-features")
    parser.add_argument("--probes", nargs="+", choices=list(PROBES), default=list(PROBES))
    parser.add_argument(
        "--only", default="", help="words, by commas: evaluations run/step/layer that contain one of them"
    )
    parser.add_argument("--limit", type=float, default=300.0, help="seconds after which a fit is ended (default: 300)")
    parser.add_argument(
        "--no-competitors", dest="competitors", action="store_false", help="this project's probes alone"
    )
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu", help="of this project's probes")
    args = parser.parse_args()
    found = list(evaluations(args.results, args.only))
    if not found:
        print(f"no run under {args.results} has features that match; `--help` says how they are made", file=sys.stderr)
        return 1
    print(
        f"{args.threads} threads, {os.cpu_count()} processors, load {os.getloadavg()[0]:.1f}, {args.device}.\n\n{HEAD}"
    )
    for evaluation in found:
        for row in rows(evaluation, args):
            print(row, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
