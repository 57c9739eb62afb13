"""Print, for every job that `snakemake` would run now, why.

    python workflow/scripts/results.py why [--configfile config/demo.yaml] [snakemake's other options and targets]

Snakemake says that "params have changed", or that execution is forced; this says which value, from what to what, and which
file of the code. It looks at every result of the configuration, and counts those that are stale but not asked for.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..plan.startup import WHY
from ..runtime.files import read_json

FIELD = re.compile(r"^    (\w+): (.*)$")
JOB = re.compile(r"^(?:local)?(?:rule|checkpoint) (\w+):$")
#: Snakemake prints the whole specification before and now, and says of what is stale that it is forced.
PARAMETERS = re.compile(r"Params have changed since last execution: .*?(?=; [A-Z]|$)")
FORCED = re.compile(r"Forced execution")
#: Of a probe whose manifest is there, the folder alone.
RELEASED = re.compile(r"Missing output files: [^,;]+(?<!\.json)(?=;|$)")


def planned(text: str) -> Iterator[dict[str, str]]:
    """Yield the jobs of a dry run's output: ``{"rule", "output", "wildcards", "reason", …}``."""
    job: dict[str, str] = {}
    for line in text.splitlines():
        start = JOB.match(line)
        field = FIELD.match(line)
        if job and field:
            job[field.group(1)] = field.group(2)
        else:
            if job:
                yield job
            job = {"rule": start.group(1)} if start else {}
    if job:
        yield job


def identity(rule: str, wildcards: dict[str, str]) -> tuple[str, frozenset[tuple[str, str]]]:
    """Return what tells a job from all others."""
    return rule, frozenset(wildcards.items())


def dry_run(given: list[str]) -> tuple[subprocess.CompletedProcess[str], dict[Any, list[str]], bool]:
    """Return what a dry run says, what differs of every stale result by the `identity` of its job, and if there is any result."""
    command = [sys.executable, "-m", "snakemake", "--dry-run", "--printshellcmds", *given]
    with tempfile.TemporaryDirectory() as folder:
        answer = Path(folder, "stale.json")
        environment = {**os.environ, "COLUMNS": "1000000", WHY: str(answer)}
        done = subprocess.run(command, capture_output=True, text=True, env=environment)
        found = read_json(answer) if answer.is_file() else {"stale": [], "results": None}
    stale = {identity(entry["rule"], entry["wildcards"]): entry["reasons"] for entry in found["stale"]}
    return done, stale, found["results"] is not None


def main(command: str, given: list[str]) -> int:
    """Print what is stale; `given` goes to Snakemake."""
    if {"-h", "--help"} & set(given):
        print(__doc__)
        return 0
    plan, stale, made = dry_run(given)
    if plan.returncode:
        said = plan.stdout + plan.stderr
        sentence = said.find("\nerror: ") + 1  # before it stands what Snakemake says of every run
        sys.stderr.write(said[sentence:])
        return plan.returncode
    jobs = [job for job in planned(plan.stdout + plan.stderr) if "log" in job]  # the others are names of targets
    if jobs and not made:
        print(f"No result is there yet: all {len(jobs)} jobs would run, each for the first time.")
        return 0
    for job in jobs:
        wildcards = job.get("wildcards", "")
        print(job["rule"], wildcards.replace(", ", " "))
        values = dict(part.split("=", 1) for part in wildcards.split(", ") if part)
        found = stale.pop(identity(job["rule"], values), [])
        brief = PARAMETERS.sub("" if found else "another value of its command line", job.get("reason", ""))
        brief = FORCED.sub("", brief) if found else brief
        if job["rule"] == "passing_probe":
            brief = RELEASED.sub("its probabilities were released, and are to be read again", brief)
        for reason in [*found, *(part.strip() for part in brief.split(";") if part.strip())]:
            print(f"    {reason}")
    more = f"; {len(stale)} more are stale, but not asked for" if stale else ""
    print(f"{len(jobs)} jobs to run{more}" if jobs or stale else "Nothing to be done: every result is up to date.")
    return 0
