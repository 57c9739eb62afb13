"""Exact k-NN: this project's search against scikit-learn's and faiss's brute force, their speed and their mistakes.

Tables, in Markdown:

- Time of a search of `--queries` points among `--n`, and of the `--n` points among themselves, for the 30 nearest:
  `neighbours.search`, scikit-learn in float64 (exact up to rounding), faiss in float32. The three take turns, so that
  what else the machine does meets all of them; medians, of the clock and of the processors' time.
- The share of the true neighbours that each finds on collapsed features, as a network trained to zero loss has them, by
  the spread of a class in each dimension over the length of its features. Truth: direct differences in float64.
- The peak memory beside the inputs of 10,000 queries among 50,000 points, in a process of its own
  (`--no-large` leaves it out).

Features are made up: `random` is one cloud, `overlapping` has one centre a class and is non-negative as behind a ReLU,
`collapsed` has classes of spread / length 3e-5.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import faiss
import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "workflow" / "scripts"))
from dnn_or_knn.probes.preprocessing import fold
from dnn_or_knn.probes.solvers import neighbours
from sklearn.neighbors import NearestNeighbors

K, CLASSES = 30, 10
KINDS = ("random", "overlapping", "collapsed")
Search = Callable[[], np.ndarray]


def features(kind: str, count: int, dimensions: int, spread: float = 3e-5) -> tuple[np.ndarray, np.ndarray]:
    """Return features (N, d) float32 and labels (N,)."""
    random = np.random.default_rng(0)
    labels = random.integers(0, CLASSES, count)
    noise = random.standard_normal((count, dimensions), dtype=np.float32)
    if kind == "random":
        return noise, labels
    centres = random.normal(size=(CLASSES, dimensions)).astype(np.float32)
    if kind == "overlapping":
        return np.maximum(noise + centres[labels] / 3, 0), labels
    centres /= np.linalg.norm(centres, axis=1, keepdims=True)
    return centres[labels] + np.float32(spread) * noise, labels


def competitors(train: np.ndarray, labels: np.ndarray, queries: np.ndarray | None) -> dict[str, Search]:
    """Return a search by each of the three, from float32 features to neighbours; None: the training points' own."""

    def ours() -> np.ndarray:
        return neighbours.search(train, queries, K, labels=labels).neighbours

    def scikit_learn() -> np.ndarray:
        index = NearestNeighbors(n_neighbors=K, algorithm="brute").fit(train.astype(np.float64))
        return index.kneighbors(None if queries is None else queries.astype(np.float64), return_distance=True)[1]

    def flat() -> np.ndarray:
        index = faiss.IndexFlatL2(train.shape[1])
        index.add(train)
        distances, found = index.search(train if queries is None else queries, K + (queries is None))
        return neighbours.drop_own(found, distances)[0] if queries is None else found

    return {"ours": ours, "scikit-learn float64": scikit_learn, "faiss float32": flat}


def times(searches: dict[str, Search], rounds: int) -> dict[str, tuple[float, float]]:
    """Return median seconds, of the clock and of the processors, of searches that take turns."""
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in searches}
    for _ in range(rounds):
        for name, search in searches.items():
            clock, processor = time.perf_counter(), time.process_time()
            search()
            taken[name].append((time.perf_counter() - clock, time.process_time() - processor))
    return {
        name: (statistics.median(t[0] for t in values), statistics.median(t[1] for t in values))
        for name, values in taken.items()
    }


def speed(n: int, queries: int, dimensions: int, rounds: int) -> None:
    """Print how long the searches take."""
    print(f"\n## {K} nearest of {n:,} × {dimensions}, {torch.get_num_threads()} threads\n")
    print("| features | search | by | seconds | processor seconds | ours is faster by | in processor time |")
    print("|---|---|---|---|---|---|---|")
    for kind in KINDS:
        points, labels = features(kind, n + queries, dimensions)
        for what, asked in ((f"{queries:,} queries", points[n:]), ("leave one out", None)):
            found = times(competitors(points[:n], labels[:n], asked), rounds)
            for name, (clock, processor) in found.items():
                ratios = f"{clock / found['ours'][0]:.2f}× | {processor / found['ours'][1]:.2f}×"
                ratios = "| " if name == "ours" else ratios
                print(f"| {kind} | {what} | {name} | {clock:.2f} | {processor:.2f} | {ratios} |", flush=True)


def exactness(dimensions: int, n: int = 10_000, queries: int = 200) -> None:
    """Print the share of the true neighbours that each search finds on collapsed features."""
    print(f"\n## Share of the true {K} nearest found, {queries} queries among {n:,} × {dimensions}\n")
    print("| spread / length | faiss float32 | float64 products | ours | ours, every place in the order |")
    print("|---|---|---|---|---|")
    for spread in (1e-3, 1e-4, 3e-5, 1e-5, 1e-6):
        points, labels = features("collapsed", n + queries, dimensions, spread)
        train, asked = points[:n], points[n:]
        true = np.array([nearest(train, query) for query in asked])
        searches = competitors(train, labels[:n], asked)
        found = [searches["faiss float32"](), products(train, asked), searches["ours"]()]
        shares = [np.mean([len(set(a) & set(b)) / K for a, b in zip(f, true, strict=True)]) for f in found]
        same = (found[-1] == true).mean()
        print(f"| {spread:.0e} | " + " | ".join(f"{share:.4f}" for share in [*shares, same]) + " |", flush=True)


def nearest(train: np.ndarray, query: np.ndarray) -> np.ndarray:
    """Return the true neighbours (K,) of one point, from all differences."""
    distances = np.sqrt(fold(np.square(train.astype(np.float64) - query.astype(np.float64)))[:, 0])
    return np.lexsort((np.arange(len(train)), distances))[:K]


def products(train: np.ndarray, asked: np.ndarray) -> np.ndarray:
    """Return neighbours by |x|² + |y|² − 2⟨x, y⟩ in float64."""
    y, x = train.astype(np.float64), asked.astype(np.float64)
    squares = (x * x).sum(axis=1)[:, None] + (y * y).sum(axis=1) - 2 * x @ y.T
    return np.argsort(squares, axis=1, kind="stable")[:, :K]


def large(kind: str, dimensions: int) -> None:
    """Print the peak memory of one large search beside its inputs."""
    points, labels = features(kind, 60_000, dimensions)
    train, queries, labels = points[:50_000].copy(), points[50_000:].copy(), labels[:50_000]
    del points
    neighbours.search(train[:3000], queries[:100], K, labels=labels[:3000])  # libraries load and threads start
    before = resident()
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    clock = time.perf_counter()
    found = neighbours.search(train, queries, K, labels=labels)
    clock = time.perf_counter() - clock
    peak = resident("VmHWM")
    inputs = (train.nbytes + queries.nbytes) / 2**20
    print(f"| {kind} | {inputs:.0f} MiB | {peak - before:.0f} MiB | {clock:.1f} s | {found.settled} |", flush=True)


def resident(what: str = "VmRSS") -> float:
    """Return this process's memory in MiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(what))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, default=10_000, help="training points (default: 10,000)")
    parser.add_argument("--queries", type=int, default=2_000, help="further points (default: 2,000)")
    parser.add_argument("--d", type=int, default=640, help="dimensions (default: 640)")
    parser.add_argument("--rounds", type=int, default=3, help="turns of each competitor (default: 3)")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="CPU threads (default: all)")
    parser.add_argument(
        "--large",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="measure the memory of 10,000 queries among 50,000 points (default: yes)",
    )
    parser.add_argument("--memory-of", choices=KINDS, help=argparse.SUPPRESS)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    faiss.omp_set_num_threads(args.threads)
    if args.memory_of:
        large(args.memory_of, args.d)
        return
    speed(args.n, args.queries, args.d, args.rounds)
    exactness(args.d)
    if args.large:
        print(f"\n## 10,000 queries among 50,000 × {args.d}, beside the inputs\n")
        print("| features | inputs | peak beside them | time | settled by |")
        print("|---|---|---|---|---|", flush=True)
        for kind in KINDS:
            command = [sys.executable, __file__, "--memory-of", kind, "--d", str(args.d)]
            subprocess.run([*command, "--threads", str(args.threads)], check=True)


if __name__ == "__main__":
    main()
