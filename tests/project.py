"""A checkout of the project in a temporary folder, with the tiny experiment, and what Snakemake would do there."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT
from forking import python

PARTS = ("Snakefile", "config.yaml", "config", "workflow", "profiles", "envs")
JOB = re.compile(r"^(?:local)?rule (\w+):\n((?:    .*\n)*)", re.MULTILINE)
Job = tuple[str, ...]


class Project:
    """A checkout of its own in a temporary folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        for part in PARTS:
            source = ROOT / part
            if source.is_dir():
                shutil.copytree(source, folder / part, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy2(source, folder / part)
        for overlay in (ROOT / "tests" / "workflow").glob("*.yaml"):
            shutil.copy2(overlay, folder)

    def start(
        self, *arguments: str, overlays: tuple[str, ...] = ("tiny.yaml",), forked: bool = False, **options: Any
    ) -> subprocess.Popen:
        """Start Snakemake here, or with the options of `Popen` that are given; `forked`: it and its jobs as forks."""
        command = [python() if forked else sys.executable, "-m", "snakemake", *arguments, "--configfile", *overlays]
        settings = {
            "cwd": self.folder,
            "env": {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
            "text": True,
            "stdout": subprocess.PIPE,
            "stderr": subprocess.STDOUT,
        }
        return subprocess.Popen(command, **settings | options)

    def snakemake(
        self, *arguments: str, overlays: tuple[str, ...] = ("tiny.yaml",), check: bool = True, **options: Any
    ) -> str:
        """Run Snakemake here to its end, as a fork, and return what it printed."""
        child = self.start(*arguments, overlays=overlays, forked=True, **options)
        output, _ = child.communicate()
        assert not check or child.returncode == 0, output
        return output

    def planned(self, *arguments: str, overlays: tuple[str, ...] = ("tiny.yaml",)) -> set[Job]:
        """Return the jobs that would run now: (rule, values of its wildcards …)."""
        output = self.snakemake("--dry-run", "--printshellcmds", *arguments, overlays=overlays)
        jobs = set()
        for rule, fields in JOB.findall(output + "\n"):
            wildcards = re.search(r"^    wildcards: (.*)$", fields, re.MULTILINE)
            values = [part.split("=")[1] for part in wildcards.group(1).split(", ")] if wildcards else []
            jobs.add((rule, *values))
        assert jobs or "Nothing to be done" in output, output
        return jobs - {("all",), ("training",), *((f"figure{number}",) for number in range(1, 8))}

    def python(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run one of the project's scripts here, as a fork."""
        return subprocess.run([python(), *arguments], cwd=self.folder, capture_output=True, text=True, check=False)


def manifests(results: Path) -> dict[str, str]:
    """Return the text of every manifest below a results folder: equal texts mean equal results, byte for byte.

    The report's is left out, since the page shows the seconds that each run took.
    """
    return {
        path.relative_to(results).as_posix(): path.read_text()
        for path in sorted(results.rglob("*.json"))
        if not path.name.endswith((".provenance.json", "report.json"))
        and not path.name.startswith(".")
        and ".state" not in path.parts
    }


def same_results(one: Project, other: Project, *, part: bool = False, experiment: str = "tiny") -> None:
    """Assert that two checkouts hold the same results, bit for bit; with `part`, the first may hold only some."""
    first, second = (manifests(project.folder / "results" / experiment) for project in (one, other))
    assert first
    assert first.keys() - second.keys() == set()
    assert part or second.keys() - first.keys() == set()
    different = [name for name in first if first[name] != second[name]]
    assert different == [], different


@contextmanager
def small_disk(folder: Path, megabytes: float) -> Iterator[Callable[[str], None]]:
    """Mount a small disk; the yielded function mounts it again with other options. Needs root."""
    folder.mkdir(parents=True)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={int(megabytes * 1024)}k", "tmpfs", str(folder)]
    if os.geteuid() or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("mounting a small disk needs root")
    try:
        yield lambda options: subprocess.run(["mount", "-o", f"remount,{options}", str(folder)], check=True) and None
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)
