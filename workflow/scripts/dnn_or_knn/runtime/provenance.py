"""The JSON beside a result that says where it came from."""

from __future__ import annotations

import argparse
import functools
import importlib.metadata
import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from .code_digest import PACKAGE, SCRIPTS, code_files, digest_of
from .files import canonical, digest, sha256, write_json

LIBRARIES = (
    "numpy",
    "scipy",
    "torch",
    "torchvision",
    "scikit-learn",
    "faiss-gpu",
    "faiss-cpu",
    "pandas",
    "pyarrow",
    "matplotlib",
    "seaborn",
    "snakemake",
)
RAPL = Path("/sys/class/powercap")


def energy() -> dict[str, int]:
    """Return the energy counters of the processor packages in microjoules, empty where they cannot be read."""
    counters = {}
    for file in RAPL.glob("*rapl:[0-9]/energy_uj"):
        try:
            counters[file.parent.name] = int(file.read_text())
        except (OSError, ValueError):
            continue
    return counters


_STARTED, _ENERGY = time.monotonic(), energy()


def write(path: str | Path, args: argparse.Namespace, *, inputs: list[Path], results: list[Path], **facts: Any) -> None:
    """Write the provenance of a job's results, atomically.

    Parameters
    ----------
    path: the JSON to write, `<result>.provenance.json`.
    args: the stage's parsed command line (its specification and threads are recorded).
    inputs, results: the manifests that the job read and wrote; their SHA-256 are recorded, under names that do not
        depend on where the checkout lies.
    facts: anything else worth keeping, such as ``device`` or the seconds of each part.

    The record ends with a ``digest`` of all of itself.
    """
    folder = Path(path).parent
    record = {
        "spec": args.spec,
        "code": code_files(*args.spec["code"]["files"]) if "code" in args.spec else None,
        "inputs": {os.path.relpath(p, folder): sha256(p) for p in inputs},
        "results": {os.path.relpath(p, folder): sha256(p) for p in results},
        "git": git_state(),
        "python": ".".join(map(str, sys.version_info[:3])),
        "libraries": library_versions(),
        "threads": args.threads,
        "wall_seconds": round(time.monotonic() - _STARTED, 3),
        "peak_memory_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        * (1 if sys.platform == "darwin" else 1024),
        "energy_joules": energy_since_start(),
        **gpu_facts(),
        **facts,
    }
    record = json.loads(canonical(record))  # as it is read back
    write_json(path, record | {"digest": digest(record)})


def faults(record: Any) -> list[str]:
    """Return what is wrong with a provenance record in itself, in words: nothing, if it is as `write` left it."""
    if not isinstance(record, dict) or any(
        not isinstance(record.get(key), dict) for key in ("spec", "inputs", "results")
    ):
        return ["is no record of provenance"]
    found = []
    if record.get("digest") != digest({key: value for key, value in record.items() if key != "digest"}):
        found.append("was altered: its own digest does not fit")
    code, listed = record["spec"].get("code"), record.get("code")
    if isinstance(code, dict) and isinstance(listed, dict) and code.get("digest") != digest_of(listed):
        found.append("names a code digest that its list of code files does not give")
    return found


def energy_since_start() -> float | None:
    """Return the joules that the processor packages used since this process started, other processes' included.

    None where the counters cannot be read, or wrapped around meanwhile.
    """
    now = energy()
    used = [now[name] - before for name, before in _ENERGY.items() if name in now]
    return round(sum(used) / 1e6, 3) if used and min(used) >= 0 else None


def gpu_facts() -> dict[str, Any]:
    """Return the name and the peak memory of the GPU that this process used, if it used one."""
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_initialized():
        return {"device": "cpu"}
    return {"device": torch.cuda.get_device_name(), "peak_gpu_memory_bytes": torch.cuda.max_memory_allocated()}


@functools.cache
def git_state() -> dict[str, Any]:
    """Return ``{"commit": …, "dirty": …}`` of the checkout; both None, with a ``reason``, where no commit holds this code.

    So it is outside a checkout, and where the code lies unpacked inside another project's. Dirty: a file of the project
    was changed, or workflow/ holds one that git does not know, such as a new probe.
    """

    def git(*words: str) -> str:
        command = ["git", "-C", str(SCRIPTS), *words]
        return subprocess.run(command, capture_output=True, text=True, timeout=20, check=True).stdout.strip()

    reason = "git knows no commit here"
    try:
        commit = git("rev-parse", "--verify", "HEAD")
        reason = f"commit {commit} of the repository around the code does not hold it"
        git("cat-file", "-e", f"{commit}:./{Path(__file__).resolve().relative_to(PACKAGE.parent)}")
        reason = f"git could not tell what differs from commit {commit}"
        changed = git("status", "--porcelain", "--untracked-files=no", "--", "../..")
        unknown = git("ls-files", "--others", "--exclude-standard", str(SCRIPTS.parent))
    except (OSError, subprocess.SubprocessError):
        return {"commit": None, "dirty": None, "reason": reason}
    return {"commit": commit, "dirty": bool(changed or unknown)}


def library_versions() -> dict[str, str]:
    """Return the versions of the libraries that can move a number, where installed."""
    versions = {}
    for name in LIBRARIES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions
