"""Verify a results folder from end to end: recompute every digest, and name what does not fit.

    python workflow/scripts/results.py verify results/demo [--configfile config/demo.yaml]

Checks each provenance file (it is as it was written, and the manifests that the job read and wrote are the ones on disk),
each manifest (the files that it lists are on disk, byte for byte), and that there is no file that none of them names.
Each result is also held against the configuration: the given one, or else the one of the last run of Snakemake, which lies
with the results. What was released is counted, not faulted: weights, features, outputs of probes. Where the configuration keeps
those of a probe, and others of its run lie there, it is faulted.
Exit status 1 if anything does not fit.
"""

from __future__ import annotations

import argparse
import os
from collections import Counter
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from ..plan import probing
from ..plan.configuration import load_overlays
from ..plan.runs import create
from ..plan.specifications import Jobs
from ..plan.staleness import stale
from ..plan.startup import FROZEN
from ..runtime.errors import UserError
from ..runtime.files import check, read_json, sha256, within
from ..runtime.provenance import faults

#: Folders that may be released on purpose: `keep` in the configuration, or an archive without them.
MAY_BE_ABSENT = ("checkpoints", "features", "logits", "probes", "store", "labels")


def provenance_files(folder: Path) -> list[Path]:
    """Return every provenance file below `folder`, sorted."""
    return sorted(path for path in folder.rglob("*.provenance.json") if ".state" not in path.parts)


def problems(
    folder: Path,
    released: list[Path] | None = None,
    *,
    without: tuple[str, ...] = (),
    among: Collection[Path] | None = None,
) -> Iterator[str]:
    """Yield one sentence for everything below `folder` that does not fit.

    Parameters
    ----------
    released: takes the folders that are gone on purpose.
    without: suffixes of files that are not looked at.
    among: the files that are looked at, as in a part of an experiment; None: all.
    """
    known: set[Path] = set()
    for path in provenance_files(folder):
        if among is not None and path not in among:
            continue
        known.add(path)
        yield from _record(folder, path, known, [] if released is None else released, without)
    strays: dict[Path, list[Path]] = {}
    for path in sorted(folder.rglob("*") if among is None else among):
        parts = path.relative_to(folder).parts
        hidden = parts[0] == "logs" or any(part.startswith(".") for part in parts)
        if path.is_file() and path not in known and path.suffix not in without and not hidden:
            strays.setdefault(path.parent, []).append(path)
    for first, *rest in strays.values():
        more = f" (as {len(rest)} more there)" if rest else ""
        yield f"{first} belongs to no result{more}: neither a provenance file nor a manifest names it"


def _record(
    folder: Path, path: Path, known: set[Path], released: list[Path], without: tuple[str, ...]
) -> Iterator[str]:
    """Yield what does not fit of one result; add its files to `known`."""
    try:
        record = read_json(path)
    except UserError as error:
        yield str(error)
        return
    wrong = faults(record)
    yield from (f"{path} {fault}" for fault in wrong)
    if "is no record of provenance" in wrong:
        return
    for kind in ("inputs", "results"):
        for name, digest in record[kind].items():
            yield from _one(path, path.parent / name, digest, kind)
    for name in record["results"]:
        manifest = path.parent / name
        known.add(manifest)
        if manifest.suffix == ".json" and manifest.is_file():
            yield from _listed(folder, manifest, known, released, without)


def _one(provenance: Path, path: Path, digest: str, kind: str) -> Iterator[str]:
    said = f"{provenance} says that the job {'read' if kind == 'inputs' else 'made'} {path.resolve()}"
    if not path.is_file():
        yield f"{said}, which is missing"
    elif sha256(path) != digest:
        yield f"{said} with SHA-256 {str(digest)[:12]}…, but on disk it has {sha256(path)[:12]}…"


def _listed(
    results: Path, manifest: Path, known: set[Path], released: list[Path], without: tuple[str, ...]
) -> Iterator[str]:
    """Yield the files of a manifest that are not as it lists them."""
    try:
        content = read_json(manifest)
    except UserError as error:
        yield str(error)
        return
    given = content.get("files") if isinstance(content, dict) else None
    listed: dict[str, Any] = given if isinstance(given, dict) else {}
    folders: dict[Path, dict[str, Path]] = {}
    for name in listed:
        path = within(manifest.parent, name)
        folders.setdefault(path.parent, {})[name] = path
    for folder, paths in folders.items():
        known.update(paths.values())
        if not folder.is_relative_to(results):
            yield f"{manifest} lists files outside {results}; delete it and run again"
        elif _may_be_absent(folder, results) and not any(path.exists() for path in paths.values()):
            released.append(folder)
        else:
            yield from _differing(manifest, listed, [name for name in paths if not name.endswith(without)])


def _differing(manifest: Path, listed: dict[str, Any], names: list[str]) -> Iterator[str]:
    """Yield the files that are not as their manifest lists them."""
    for name in names:
        try:
            check(manifest.parent, listed, [name])
        except UserError as error:
            yield str(error).split("; delete ")[0]  # what to delete is up to who reads this
        except (KeyError, TypeError):
            yield f"{manifest} does not say what {name} is; delete it and run again"


def _may_be_absent(folder: Path, results: Path) -> bool:
    return bool(set(MAY_BE_ABSENT) & set(folder.relative_to(results).parts))


def disagreements(folder: Path, jobs: Jobs, notes: list[str]) -> Iterator[str]:
    """Yield a sentence for each result below `folder` that was made with other values than the configuration's.

    Parameters
    ----------
    notes: takes what is no fault: results of other code than this checkout's, not made yet, or of no job.
    """
    other_code = 0
    for task, reasons in stale(jobs, folder):
        values = [reason.removeprefix("value ") for reason in reasons if reason.startswith("value ")]
        other_code += any(reason.startswith("code") for reason in reasons)
        if values:
            yield f"{folder / task.manifest}.json was made with another configuration: {'; '.join(values)}"
    wanted = {folder / f"{task.manifest}.provenance.json" for task in jobs.tasks if task.rule != "query_shard"}
    there = set(provenance_files(folder))
    for count, what in (
        (other_code, "were made by other code than this checkout's"),
        (len(wanted - there), "of the configuration are not made yet"),
        (len(there - wanted), "belong to no job of the configuration"),
    ):
        if count:
            notes.append(f"{count} results {what}")


def missing(folder: Path, jobs: Jobs, absent: Collection[Path]) -> list[Path]:
    """Return which of the absent folders hold a probe's outputs that the configuration keeps.

    Where none of a run's lies below `folder`, they were left behind: an archive holds none.
    """
    kept: dict[str, list[Path]] = {}
    for task in jobs.tasks:
        if task.rule == "probe":
            kept.setdefault(probing.run_of(task.wildcards), []).append(folder / task.manifest)
    of_runs = [folders for folders in kept.values() if any(path.is_dir() for path in folders)]
    return [path for folders in of_runs for path in folders if path in absent]


def configured(folder: Path, overlays: list[str]) -> Jobs | None:
    """Return the jobs of `config.yaml` with some overlays, or of the configuration with the results, if it is there."""
    if overlays:
        return Jobs(create(load_overlays(*overlays)))
    frozen = folder / FROZEN
    return Jobs(create(read_json(frozen)["config"])) if frozen.is_file() else None


def main(command: str, words: list[str]) -> int:
    """Verify a folder of results, and say what does not fit."""
    parser = argparse.ArgumentParser(
        prog=f"results.py {command}", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("results", type=Path, help="the folder of an experiment, such as results/demo")
    parser.add_argument("--configfile", nargs="+", default=[], help="configuration to hold them against, as overlays")
    args = parser.parse_args(words)
    args.results = Path(os.path.normpath(args.results))
    checked = provenance_files(args.results)
    if not checked:
        raise UserError(
            f"{args.results} holds no provenance files; give the folder of an experiment, such as results/demo"
        )
    released: list[Path] = []
    notes: list[str] = []
    found = list(problems(args.results, released))
    jobs = configured(args.results, args.configfile)
    if jobs is None:
        notes.append("not held against a configuration: none lies with the results, and --configfile gives none")
    else:
        lost = missing(args.results, jobs, released)
        released = [path for path in released if path not in lost]
        found += [f"{path} is missing, and the configuration keeps it" for path in lost]
        found += disagreements(args.results, jobs, notes)
    for sentence in found:
        print(sentence)
    if released:
        kinds = Counter(
            next(p for p in reversed(f.relative_to(args.results).parts) if p in MAY_BE_ABSENT) for f in released
        )
        notes.append("released, and so not checked: " + ", ".join(f"{kinds[k]} folders of {k}" for k in sorted(kinds)))
    for note in notes:
        print(note)
    fits = "every digest fits" + (", and the configuration" if jobs else "")
    print(f"{len(checked)} results checked, " + (f"{len(found)} problems" if found else fits))
    return 1 if found else 0
