"""Print, for every job that `snakemake` would run now, why.

    python workflow/scripts/why.py [--configfile config/demo.yaml] [snakemake's other options and targets]

Snakemake says that "params have changed"; this says which value, from what to what, and which file of the code.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dnn_or_knn.runtime.code_digest import code_files
from dnn_or_knn.runtime.errors import UserError
from dnn_or_knn.runtime.files import read_json

FIELD = re.compile(r"^    (\w+): (.*)$")
JOB = re.compile(r"^(?:local)?(?:rule|checkpoint) (\w+):$")
SHELL = "Shell command: "
#: Snakemake prints the whole specification before and now.
PARAMETERS = re.compile(r"Params have changed since last execution: .*?(?=; [A-Z]|$)")


def planned(text: str) -> Iterator[dict[str, str]]:
    """Yield the jobs of a dry run's output: ``{"rule", "output", "wildcards", "reason", "shell", …}``."""
    job: dict[str, str] = {}
    for line in text.splitlines():
        start = JOB.match(line)
        field = FIELD.match(line)
        if job and field:
            job[field.group(1)] = field.group(2)
        elif job and line.startswith(SHELL):
            job["shell"] = line.removeprefix(SHELL)
        else:
            if job:
                yield job
            job = {"rule": start.group(1)} if start else {}
    if job:
        yield job


def specification(job: dict[str, str]) -> dict[str, Any] | None:
    """Return the specification that a planned job would be given, None if it takes none."""
    words = shlex.split(job.get("shell", ""))
    return json.loads(words[words.index("--spec") + 1]) if "--spec" in words else None


def differences(old: Any, new: Any, key: str = "") -> Iterator[str]:
    """Yield one line for each value that differs between two plain values."""
    if isinstance(old, dict) and isinstance(new, dict):
        for name in sorted({*old, *new}):
            yield from differences(old.get(name), new.get(name), f"{key}.{name}" if key else name)
    elif old != new:
        yield f"{key}: {old!r} -> {new!r}"


def changes(made: dict[str, Any], now: dict[str, Any]) -> Iterator[str]:
    """Yield what differs between the provenance of a result and the specification of the job that would make it."""
    old, new = ({key: value for key, value in spec.items() if key != "code"} for spec in (made["spec"], now))
    yield from (f"value {line}" for line in differences(old, new))
    before, after = made["code"] or {}, code_files(*now["code"]["files"])
    yield from (f"code {name}" for name in sorted({*before, *after}) if before.get(name) != after.get(name))


def reasons(job: dict[str, str]) -> list[str]:
    """Return the reasons of one planned job, in words."""
    outputs = job.get("output", "").split(", ")
    provenance = next((Path(name) for name in outputs if name.endswith(".provenance.json")), None)
    wanted = specification(job)
    found: list[str] = []
    if wanted and provenance and provenance.is_file():
        try:
            found += changes(read_json(provenance), wanted)
        except (KeyError, TypeError, AttributeError, UserError):
            found.append(f"{provenance} is damaged")
    said = job.get("reason", "")
    brief = PARAMETERS.sub("" if found else "another value of its command line", said)
    return found + [part.strip() for part in brief.split(";") if part.strip()]


def main() -> int:
    given = sys.argv[1:]
    if {"-h", "--help"} & set(given):
        print(__doc__)
        return 0
    command = [sys.executable, "-m", "snakemake", "--dry-run", "--printshellcmds", *given]
    plan = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "COLUMNS": "1000000"})
    if plan.returncode:
        sys.stderr.write(plan.stdout + plan.stderr)
        return plan.returncode
    jobs = [job for job in planned(plan.stdout + plan.stderr) if job["rule"] != "all"]
    for job in jobs:
        print(job["rule"], job.get("wildcards", "").replace(", ", " "))
        for reason in reasons(job):
            print(f"    {reason}")
    print(f"{len(jobs)} jobs to run" if jobs else "Nothing to be done: every result is up to date.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
