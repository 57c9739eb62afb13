"""Verify a results folder from end to end: recompute every digest, and name what does not fit.

    python workflow/scripts/verify.py results/demo

Checks each provenance file (the manifests that the job read and wrote are the ones on disk) and each manifest (the
files that it lists are on disk, byte for byte). Weights and features that were let go are counted, not faulted.
Exit status 1 if anything does not fit.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dnn_or_knn.errors import UserError
from dnn_or_knn.files import check, read_json, sha256

#: Keys of a manifest that list files. The value says where the files lie: beside the manifest, in the folder of the
#: manifest's own name, or in a folder of that name elsewhere in the run.
LISTS = ("files", "logits")
#: Folders that may be let go on purpose: `keep` in the configuration, or an archive without them.
MAY_BE_ABSENT = ("checkpoints", "features", "logits", "probes", "store", "labels")


def provenance_files(folder: Path) -> list[Path]:
    """Return every provenance file below `folder`, sorted."""
    return sorted(path for path in folder.rglob("*.provenance.json") if ".state" not in path.parts)


def base(manifest: Path, key: str) -> Path:
    """Return the folder that the names in one list of a manifest are relative to."""
    if manifest.name == "training.json" and manifest.parent.name != "figures":
        return manifest.parent / "checkpoints"
    if manifest.parent.name == "features":
        return manifest.parent.parent / key.replace("files", "features") / manifest.stem
    if manifest.parent.parent.name == "probes":
        return manifest.parent / manifest.stem
    return manifest.parent


def problems(folder: Path) -> Iterator[str]:
    """Yield one sentence for everything below `folder` that does not fit."""
    for path in provenance_files(folder):
        try:
            record = read_json(path)
        except UserError as error:
            yield str(error)
            continue
        for kind in ("inputs", "results"):
            for name, digest in record[kind].items():
                yield from _one(path, path.parent / name, digest, kind)
        for name in record["results"]:
            manifest = path.parent / name
            if manifest.suffix == ".json" and manifest.is_file():
                yield from _listed(manifest, read_json(manifest))


def _one(provenance: Path, path: Path, digest: str, kind: str) -> Iterator[str]:
    said = f"{provenance} says that the job {'read' if kind == 'inputs' else 'made'} {path.resolve()}"
    if not path.is_file():
        yield f"{said}, which is missing"
    elif sha256(path) != digest:
        yield f"{said} with SHA-256 {digest[:12]}…, but on disk it has {sha256(path)[:12]}…"


def _listed(manifest: Path, content: dict[str, Any]) -> Iterator[str]:
    for key in LISTS:
        files = content.get(key)
        if not isinstance(files, dict):
            continue
        folder = base(manifest, key)
        absent = [name for name in files if not (folder / name).exists()]
        if absent and len(absent) == len(files) and set(MAY_BE_ABSENT) & set(folder.parts):
            continue
        for name in files:
            try:
                check(folder, files, [name])
            except UserError as error:
                yield str(error)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path, help="the folder of an experiment, such as results/demo")
    args = parser.parse_args()
    checked = provenance_files(args.results)
    if not checked:
        sys.exit(
            f"error: {args.results} holds no provenance files; give the folder of an experiment, such as results/demo"
        )
    found = list(problems(args.results))
    for sentence in found:
        print(sentence)
    print(
        f"{len(checked)} results checked, {len(found)} problems"
        if found
        else f"{len(checked)} results checked, every digest fits"
    )
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
