"""The probes at size: processor seconds and peak memory of each on more and more points, and how they grow. One Markdown table.

    python benchmarks/bench_size.py --points 10000 50000 200000 --dims 2048 --classes 1000 --probes knn lr svm

Features are made up (one centre a class, near enough that classes overlap), written in blocks, mapped into memory as the
probe stage maps them, and removed again; each probe runs in a process of its own. Every number of points gets the same
amount of work per point, so that what is linear shows as exponent 1:

- k-NN is quadratic where points ask as well, so a fixed number of queries is searched for (`--queries`, train points
  without themselves): as one of the query shards does it (`shards.queries`).
- Logistic regression takes a fixed number of steps (`--steps`), float32 and float64 half each, then the probabilities of all points.
- Of the SVM's one-vs-rest problems some are fitted (`--problems`), on all points and without some of the five folds (`--folds`),
  in the way in which all of them would be; then the probabilities of all points and classes are worked out with their weights
  repeated. A step is one of the fits. Batches share products with the points, so that fewer problems than a batch holds look
  slower than they are. `--backend reference` fits them with scikit-learn.

`own` is the peak of the memory that the process itself allocated (anonymous pages; sampled), `peak` that of all its pages, of
which those of mapped files can be taken back by the system. `exponent` is that of the number of points in the seconds (of a step,
where there are steps), from fewer points to more: 1.00 is linear.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
#: Rows that are made at a time.
ROWS = 4096
#: Test points that are made beside the train points.
TEST = 2000
HEAD = (
    "| probe | N × D × classes | seconds | of it fit | seconds a step | steps | own, GiB | peak, GiB | exponent |\n"
    "|---|---|---|---|---|---|---|---|---|"
)


def main(args: argparse.Namespace) -> None:
    """Print one row for each probe and number of points."""
    print(HEAD, flush=True)
    if args.folder:
        args.folder.mkdir(parents=True, exist_ok=True)
    before: dict[str, tuple[int, float]] = {}
    for points in args.points:
        with tempfile.TemporaryDirectory(dir=args.folder) as folder:
            make(Path(folder), points, args.dims, args.classes)
            for probe in args.probes:
                made = measured(probe, Path(folder), args)
                exponent = "—"
                if probe in before:
                    count, seconds = before[probe]
                    exponent = f"{math.log(made['basis'] / seconds) / math.log(points / count):.2f}"
                before[probe] = points, made["basis"]
                cells = [probe, f"{points:,} × {args.dims:,} × {args.classes:,}", f"{made['seconds']:.1f}"]
                cells += [f"{made['fit']:.1f}", f"{made['step']:.2f}" if made["steps"] else "—", str(made["steps"])]
                cells += [f"{made['own'] / 2**30:.2f}", f"{made['peak'] / 2**30:.2f}", exponent]
                print(f"| {' | '.join(cells)} |", flush=True)


def make(folder: Path, points: int, dims: int, classes: int) -> None:
    """Write `train.npy` (N, d), `test.npy` float32 and `labels.npy` (N,) into a folder."""
    random = np.random.default_rng(0)
    centres = 0.1 * random.normal(size=(classes, dims)).astype(np.float32)
    labels = random.permutation(np.arange(points) % classes)
    np.save(folder / "labels.npy", labels)
    for name, count, of in (("train", points, labels), ("test", TEST, random.integers(0, classes, TEST))):
        made = np.lib.format.open_memmap(folder / f"{name}.npy", "w+", np.float32, (count, dims))
        for start in range(0, count, ROWS):
            rows = of[start : start + ROWS]
            made[start : start + ROWS] = random.standard_normal((len(rows), dims), np.float32) + centres[rows]
        made.flush()


def measured(probe: str, folder: Path, args: argparse.Namespace) -> dict[str, Any]:
    """Return what a process of its own says of one probe, and the peaks of its memory in bytes."""
    options = [
        "--child",
        probe,
        "--folder",
        str(folder),
        "--classes",
        str(args.classes),
        "--threads",
        str(args.threads),
    ]
    options += ["--queries", str(args.queries), "--steps", str(args.steps), "--problems", str(args.problems)]
    options += ["--folds", str(args.folds), "--backend", args.backend]
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    environment = os.environ | dict.fromkeys(names, str(args.threads)) | {"OMP_WAIT_POLICY": "PASSIVE"}
    with subprocess.Popen(
        [sys.executable, __file__, *options], stdout=subprocess.PIPE, text=True, env=environment
    ) as child:
        own = 0
        while child.poll() is None:
            own = max(own, anonymous(child.pid))
            time.sleep(0.02)
        assert child.stdout is not None
        said = child.stdout.read()
    if child.returncode:
        sys.exit(f"{probe} ended with status {child.returncode}")
    return {**json.loads(said), "own": own}


def anonymous(process: int) -> int:
    """Return the bytes that a process holds beside mapped files; 0 once it has ended, or where the system does not say."""
    try:
        lines = Path(f"/proc/{process}/status").read_text().splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon"))


# In a process of its own.


def child(args: argparse.Namespace) -> None:
    """Run one probe on the features in a folder and print what it took as JSON."""
    import resource

    sys.path.insert(0, str(ROOT / "workflow" / "scripts"))
    import torch
    from dnn_or_knn.runtime import files

    torch.set_num_threads(args.threads)
    train, test = (files.read_npy(args.folder / f"{split}.npy", mmap=True, private=True) for split in ("train", "test"))
    labels = np.load(args.folder / "labels.npy", allow_pickle=False)
    probes: dict[str, Callable[..., dict[str, float]]] = {"knn": knn, "lr": lr, "svm": svm}
    started = time.process_time()
    said = probes[args.child](train, labels, test, args)
    said["seconds"] = time.process_time() - started
    said["step"] = said["fit"] / max(1, said["steps"])
    said["basis"] = said["step"] if said["steps"] else said["seconds"]
    print(json.dumps({**said, "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024}))


def knn(train: np.ndarray, labels: np.ndarray, test: np.ndarray, args: argparse.Namespace) -> dict[str, float]:
    """Search for the 30 neighbours of some train points."""
    from dnn_or_knn.probes import query_shards

    pieces = max(1, len(train) // args.queries)
    options = {"metric": "l2", "k": 30, "k_max": 30, "piece": 1, "pieces": pieces}
    asked = {"classes": args.classes, "options": options, "seed": 0, "device": "cpu"}
    query_shards.run(train, labels, test[:0], **asked)
    return {"fit": 0.0, "steps": 0}


def lr(train: np.ndarray, labels: np.ndarray, test: np.ndarray, args: argparse.Namespace) -> dict[str, float]:
    """Take some steps of logistic regression, and work out all probabilities."""
    from dnn_or_knn.probes import logistic
    from dnn_or_knn.probes.solvers import multinomial

    class Short(multinomial.Descent):
        """Half of the steps in each arithmetic."""

        def __init__(self, *given: Any) -> None:
            super().__init__(*given)
            self.limit, self.tolerance = args.steps // 2, 0.0

    multinomial.Descent = Short  # type: ignore[misc]
    fit, counted = logistic.exact, []

    def exact(*given: Any) -> Any:
        started = time.process_time()
        made = fit(*given)
        counted.append(time.process_time() - started)
        return made

    logistic.exact = exact
    made = logistic.run(train, labels, test, classes=args.classes, options={"C": 1.0}, seed=0, device="cpu")
    return {"fit": counted[0], "steps": made.report["iterations"]}


def svm(train: np.ndarray, labels: np.ndarray, test: np.ndarray, args: argparse.Namespace) -> dict[str, float]:
    """Fit some of the one-vs-rest problems with their folds, and work out all probabilities with their weights repeated."""
    from dnn_or_knn.probes import svm as probe

    fit_problems, counted = probe._fit, []
    # Some are fitted as all would be.
    by_products = probe.by_products
    probe.by_products = lambda points, dimensions, fits: by_products(points, dimensions, 6 * args.classes)

    def fit(features: Any, labels: Any, fold: Any, targets: Any, settings: Any) -> Any:
        started = time.process_time()
        fold[fold >= args.folds] = -1
        some = fit_problems(features, labels, fold, targets[: args.problems], settings)
        counted.append(time.process_time() - started)
        every = [index % args.problems for index in range(args.classes)]
        return some._replace(**{name: getattr(some, name)[every] for name in some._fields if name != "iterations"})

    probe._fit = fit
    chosen = {"backend": args.backend}
    made = probe.run(train, labels, test, classes=args.classes, options=chosen, seed=0, device="cpu")
    if not made.report["converged"]:
        print(f"a gap of {made.report['gap']:.1e} was left", file=sys.stderr)
    return {"fit": counted[0], "steps": (1 + args.folds) * args.problems}


def options() -> argparse.ArgumentParser:
    """Return the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--points", type=int, nargs="+", default=[10_000, 20_000])
    parser.add_argument("--dims", type=int, default=256)
    parser.add_argument("--classes", type=int, default=100)
    parser.add_argument("--probes", nargs="+", choices=["knn", "lr", "svm"], default=["knn", "lr", "svm"])
    parser.add_argument("--queries", type=int, default=2000, help="of the k-NN search")
    parser.add_argument("--steps", type=int, default=10, help="of logistic regression")
    parser.add_argument(
        "--problems", type=int, default=4, help="of the SVM's one-vs-rest problems, each with five folds"
    )
    parser.add_argument("--folds", type=int, choices=range(1, 6), default=5, help="of the SVM's five that are left out")
    parser.add_argument("--backend", choices=["exact", "reference"], default="exact", help="of the SVM")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--folder", type=Path, help="where the features pass through (default: the system's)")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    return parser


if __name__ == "__main__":
    given = options().parse_args()
    child(given) if given.child else main(given)
