"""What every job leaves: files, a manifest that lists them, and beside it the provenance of both.

A manifest names its files relative to its own folder, so that it is all that another job has to be given.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from . import files, provenance
from .errors import UserError

#: What the name of a manifest's provenance ends in.
PROVENANCE = ".provenance.json"


def finish(
    args: argparse.Namespace,
    facts: Mapping[str, Any],
    made: Iterable[Path] | Mapping[str, Mapping[str, Any]],
    *,
    inputs: Iterable[Path],
    **more: Any,
) -> None:
    """Write a job's manifest and then its provenance: the last that a job does, each whole or not at all.

    Parameters
    ----------
    args: the parsed command line; `args.output` is the manifest.
    facts: what the manifest says beside its files.
    made: the files, or their `files.listing` relative to the manifest's folder.
    inputs: the manifests that the job read.
    more: goes to the provenance, see `provenance.write`.
    """
    write(args.output, facts, made)
    where = args.output.with_suffix(PROVENANCE)
    provenance.write(where, args, inputs=list(inputs), results=[args.output], **more)


def write(manifest: Path, facts: Mapping[str, Any], made: Iterable[Path] | Mapping[str, Mapping[str, Any]]) -> None:
    """Write a manifest alone; parameters as in `finish`."""
    folder = manifest.parent
    listed = made if isinstance(made, Mapping) else files.listing(folder, [os.path.relpath(p, folder) for p in made])
    files.write_json(manifest, {**facts, "files": dict(listed)})


def read(manifest: Path, names: Iterable[str] | None = None) -> dict[str, Any]:
    """Return what a manifest says, after comparing the files that it lists, or those of these names, with their digests.

    Raises
    ------
    UserError: the manifest or a file is missing, damaged or altered.
    """
    content = files.read_json(manifest)
    if not isinstance(content, dict) or not isinstance(content.get("files"), dict):
        raise UserError(f"{manifest} is no manifest of this project; delete it and run again")
    files.check(manifest.parent, content["files"], names)
    return content


def of_runs(runs: Sequence[str], manifests: Sequence[Path]) -> dict[str, Path]:
    """Return each run's manifest, given both in the same order; `UserError` unless there is one each, and one at least."""
    if not runs or len(runs) != len(manifests):
        raise UserError(
            f"the specification names {len(runs)} runs, and {len(manifests)} manifests are given; give one each"
        )
    return dict(zip(runs, manifests, strict=True))
