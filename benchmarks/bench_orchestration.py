"""What orchestration costs: Snakemake's own work, cores without a job, the start of jobs, a GPU between two jobs.

Two tables, in Markdown:

- The demo, run here on `--cores` cores: cores × wall time; what of it had no job (Snakemake records when each job began and
  ended; planning and the narrow ends of the DAG are in it); the processor time of Snakemake itself (RUSAGE_SELF), most of
  which it takes from the jobs beside it. Together they are the most that orchestration can cost. What starting a job costs
  (interpreter, libraries) is measured for each stage and counted for each of its jobs; it is not in the sum.
- config.yaml, with one GPU that is a stand-in: the real Snakefile, the real rules and the real configuration of two of
  its runs, with programs that import what the stage imports, lease the GPU as the stage does, hold it for `--hold` seconds and
  write empty results. The table has the seconds between two leases, with the budget that the Snakefile sets (one job
  more than GPUs) and with a budget of one job, and what they come to for all jobs of config.yaml.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
PARTS = ("Snakefile", "config.yaml", "config", "workflow", "profiles", "envs")
#: Snakemake in a process that tells what it and its jobs used.
LAUNCHER = """
import json, resource, sys, time
from snakemake.cli import main
started = time.monotonic()
try:
    main(sys.argv[2:])
finally:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    with open(sys.argv[1], "w") as file:
        json.dump({"wall": time.monotonic() - started, "own": usage.ru_utime + usage.ru_stime}, file)
"""
#: What the stages that a demo has many of import before they compute.
IMPORTS = {
    "prepare": "from dnn_or_knn.data.loaders import common; from dnn_or_knn.runtime import provenance",
    "labels": "from dnn_or_knn.data import label_sets; from dnn_or_knn.runtime import provenance",
    "train": "from dnn_or_knn.training import job",
    "features": "from dnn_or_knn.features import job",
    "probe": "from dnn_or_knn.probes import common, job; common.load('svm')",
    "measures": "import numpy; from dnn_or_knn.measures import bootstrap, formulas, tables",
    "collect": "import numpy, pandas; from dnn_or_knn.measures import tables",
    "figure": "from dnn_or_knn.figures import style; from dnn_or_knn.measures import tables",
    "training_curves": "from dnn_or_knn.figures import style",
    "claims": "from dnn_or_knn.claims import paper_claims; from dnn_or_knn.figures import style",
    "published": "import pandas; from dnn_or_knn.measures import tables",
    "measure_outputs": "from dnn_or_knn.atlas import examples, job; import pyarrow.parquet",
    "measure_table": "from dnn_or_knn.atlas import tables; import pyarrow.parquet",
    "beside_figure": "import pandas; from dnn_or_knn.figures import style",
    "later_claims": "from dnn_or_knn.claims import later_claims; from dnn_or_knn.figures import style",
    "report": "from dnn_or_knn.report import page",
}
#: Takes the place of a stage program.
STAND_IN = """
import json, sys, time
from pathlib import Path
from typing import Any
{imports}
from dnn_or_knn.runtime import gpus
words = {{option: value for option, value in zip(sys.argv, sys.argv[1:]) if option.startswith("--")}}
if {gpu}:
    gpus.lease(["stand-in"], Path("leases"))
    begin = time.time()
    time.sleep({hold})
    with open("gpu.jsonl", "a") as file:
        file.write(json.dumps([begin, time.time()]) + "\\n")
manifest = Path(words["--output"])
for place in {made}:
    path = manifest.parent / place.format(name=manifest.stem)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch() if path.suffix else path.mkdir(exist_ok=True)
for path in (manifest, manifest.with_suffix(".provenance.json")):
    path.write_text("{{}}")
"""
#: What a stand-in leaves beside its manifest, by the manifest's name.
MADE = {
    "prepare": [f"{split}_{what}.npy" for split in ("train", "test") for what in ("images", "labels")],
    "labels": ["indices.npy", "labels.npy"],
    "train": ["checkpoints", "history.csv"],
    "features": ["{name}", "../logits/{name}"],
    "probe": ["{name}"],
}
#: Two of config.yaml's runs, each 1 training, 2 extractions and 6 probe jobs.
PROBES, SHARDS = ("knn", "svm", "lr"), ("steps000000-025000", "steps026000-050000")
RUNS = ("results/paper/cifar10/lenet/true-labels/seed0", "results/paper/cifar100/lenet/true-labels/seed0")


def checkout(folder: Path) -> Path:
    """Copy the project without results."""
    folder.mkdir()
    for part in PARTS:
        (shutil.copytree if (ROOT / part).is_dir() else shutil.copy2)(ROOT / part, folder / part)
    return folder


def snakemake(folder: Path, *words: str, **environment: str) -> dict[str, Any]:
    """Run Snakemake in a folder; return the seconds of wall time, its own processor time, and what it said."""
    usage = folder / "usage.json"
    done = subprocess.run(
        [sys.executable, "-c", LAUNCHER, str(usage), *words],
        cwd=folder,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        sys.exit(done.stdout + done.stderr)
    return json.loads(usage.read_text()) | {"said": done.stdout + done.stderr}


def planned(folder: Path, *words: str) -> tuple[dict[str, int], float]:
    """Return how many jobs of each rule a dry run lists, and how long it took."""
    started = time.monotonic()
    said = snakemake(folder, "--dry-run", *words)["said"]
    seconds = time.monotonic() - started
    table = said.split("Job stats:")[1].split("total")[0]
    return {rule: int(count) for rule, count in re.findall(r"^(\w+) +(\d+)$", table, re.MULTILINE)}, seconds


def start(stage: str) -> float:
    """Return the processor seconds that a process needs to start and to import what a stage imports, the least of three."""
    code = f"import sys, time; sys.path.insert(0, 'workflow/scripts'); {IMPORTS[stage]}; print(time.process_time())"
    runs = [
        subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout
        for _ in range(3)
    ]
    return min(float(run.split()[-1]) for run in runs)


def busy(folder: Path) -> float:
    """Return the seconds of all jobs together, as Snakemake recorded them; each has one thread."""
    records = [
        json.loads(path.read_text()) for path in (folder / ".snakemake" / "metadata").rglob("*") if path.is_file()
    ]
    jobs = {tuple(record["log"]): record["endtime"] - record["starttime"] for record in records}
    return sum(jobs.values())


def demo(folder: Path, cores: int) -> None:
    """Print the table of the demo."""
    counts, _ = planned(folder, "--configfile", "config/demo.yaml")
    used = snakemake(folder, "--cores", str(cores), "--configfile", "config/demo.yaml")
    jobs = sum(counts.values()) - counts.pop("all")
    empty = cores * used["wall"] - busy(folder)
    starts = sum(start(rule) * count for rule, count in counts.items())
    print(f"\nThe demo, {jobs} jobs on {cores} cores:\n")
    print("| | core-seconds | seconds of wall time |\n|---|---|---|")
    for what, seconds in (
        ("everything", cores * used["wall"]),
        ("without a job", empty),
        ("Snakemake's own work", used["own"]),
        ("orchestration at most: the two together", empty + used["own"]),
        ("the jobs' own start: interpreter and libraries", starts),
    ):
        print(f"| {what} | {seconds:.1f} | {seconds / cores:.1f} |")
    print(f"\nSnakemake's own work is {used['own'] / jobs:.3f} s a job.")


def gaps(folder: Path, budget: int | None, hold: float) -> list[float]:
    """Return the seconds in which the stand-in GPU is free between two jobs, the first one's start left out."""
    for stage in IMPORTS:
        gpu = stage in ("train", "features", "probe")
        text = STAND_IN.format(imports=IMPORTS[stage], gpu=gpu, hold=hold, made=MADE.get(stage, []))
        (folder / "workflow" / "scripts" / f"{stage}.py").write_text(text)
    targets = [f"{run}/probes/{probe}/{shard}.json" for run in RUNS for probe in PROBES for shard in SHARDS]
    limit = [] if budget is None else ["--resources", f"gpu={budget}"]
    shutil.rmtree(folder / "results", ignore_errors=True)
    (folder / "gpu.jsonl").unlink(missing_ok=True)
    snakemake(
        folder, "--cores", "8", *limit, "--config", "device=cuda", "--set-threads", "train=1", "features=1", "probe=1",
        "--", *targets, CUDA_VISIBLE_DEVICES="0",
    )  # fmt: skip
    held = sorted(json.loads(line) for line in (folder / "gpu.jsonl").read_text().splitlines())
    return [after[0] - before[1] for before, after in itertools.pairwise(held)]


def paper(folder: Path, hold: float) -> None:
    """Print the table of the GPU's idle time."""
    counts, seconds = planned(folder)
    jobs = sum(counts[rule] for rule in ("train", "features", "probe"))
    print(f"\nconfig.yaml, {sum(counts.values()) - 1} jobs, {jobs} of them on the GPU; planned in {seconds:.1f} s:\n")
    print(
        "| budget | idle between two jobs (s): median | mean | highest | all of config.yaml's, by the mean (minutes) |"
    )
    print("|---|---|---|---|---|")
    for name, budget in (("one job more than GPUs", None), ("as many jobs as GPUs", 1)):
        found = gaps(folder, budget, hold)
        mean = statistics.mean(found)
        total = (seconds + mean * jobs) / 60
        print(f"| {name} | {statistics.median(found):.2f} | {mean:.2f} | {max(found):.2f} | {total:.1f} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cores", type=int, default=len(os.sched_getaffinity(0)), help="of the demo (default: all)")
    parser.add_argument(
        "--hold", type=float, default=4.0, help="seconds that a stand-in job holds the GPU (default: 4)"
    )
    parser.add_argument("--only", choices=["demo", "paper"], help="print this table alone")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        if args.only != "paper":
            demo(checkout(Path(scratch) / "demo"), args.cores)
        if args.only != "demo":
            paper(checkout(Path(scratch) / "paper"), args.hold)


if __name__ == "__main__":
    main()
