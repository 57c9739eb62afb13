"""Print, for every job that `snakemake` would run now, why.

    python workflow/scripts/why.py [--configfile config/demo.yaml] [snakemake's options and targets]

Snakemake says that "params have changed"; this says which value, from what to what, and which file of the code.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dnn_or_knn import head
from dnn_or_knn.code import code_files
from dnn_or_knn.config import load_overlays
from dnn_or_knn.errors import UserError
from dnn_or_knn.files import read_json

FIELD = re.compile(r"^    (\w+): (.*)$")
JOB = re.compile(r"^(?:local)?(?:rule|checkpoint) (\w+):$")


def planned(text: str) -> Iterator[dict[str, str]]:
    """Yield the jobs of a dry run's output: ``{"rule", "output", "wildcards", "reason", …}``."""
    job: dict[str, str] = {}
    for line in text.splitlines():
        start = JOB.match(line)
        field = FIELD.match(line)
        if job and field:
            job[field.group(1)] = field.group(2)
            continue
        if job:
            yield job
        job = {"rule": start.group(1)} if start else {}
    if job:
        yield job


def differences(old: Any, new: Any, key: str = "") -> Iterator[str]:
    """Yield one line for each value that differs between two plain values."""
    if isinstance(old, dict) and isinstance(new, dict):
        for name in sorted({*old, *new}):
            yield from differences(old.get(name), new.get(name), f"{key}.{name}" if key else name)
    elif old != new:
        yield f"{key}: {old!r} -> {new!r}"


def reasons(job: dict[str, str], specification: dict[str, Any] | None) -> list[str]:
    """Return the reasons of one planned job, in words."""
    outputs = job.get("output", "").split(", ")
    said = re.sub(r"Params have changed since last execution: .*?(?=; [A-Z]|$)", "", job.get("reason", ""))
    found = []
    provenance = next((Path(name) for name in outputs if name.endswith(".provenance.json")), None)
    if specification and provenance and provenance.is_file():
        made = read_json(provenance)
        code = specification.pop("code")
        old = {key: value for key, value in made["spec"].items() if key != "code"}
        found += [f"value {line}" for line in differences(old, specification)]
        now = code_files(*code["files"])
        found += [
            f"code {name}"
            for name in sorted({*now, *(made["code"] or {})})
            if now.get(name) != (made["code"] or {}).get(name)
        ]
    return found + [part.strip() for part in said.split(";") if part.strip()]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--configfile", nargs="+", default=[], help="overlays, as given to snakemake")
    args, rest = parser.parse_known_args()
    overlays = ["--configfile", *args.configfile] if args.configfile else []
    command = [sys.executable, "-m", "snakemake", "--dry-run", *rest, *overlays]
    plan = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "COLUMNS": "1000000"})
    if plan.returncode:
        sys.stderr.write(plan.stdout + plan.stderr)
        return plan.returncode
    jobs = head.start(load_overlays("config.yaml", *args.configfile), remote=False)
    count = 0
    for job in planned(plan.stdout + plan.stderr):
        if job["rule"] == "all":
            continue
        count += 1
        wildcards = dict(part.split("=", 1) for part in job.get("wildcards", "").split(", ") if "=" in part)
        print(job["rule"], " ".join(f"{key}={value}" for key, value in wildcards.items()))
        specification = jobs.of_rule(job["rule"], wildcards)
        for reason in reasons(job, specification):
            print(f"    {reason}")
    print(f"{count} jobs to run" if count else "Nothing to be done: every result is up to date.")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except UserError as error:
        sys.exit(f"error: {error}")
