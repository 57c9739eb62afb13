"""The life of a shard's features: where they lie, who reads them, when they go, how they are made again.

Features are large and pass through. The extraction leaves a mark for each probe that is to read a shard's features, one
empty file in `<run>/features/.<shard>.unprobed/`; a probe takes its own away when it is done, and with the last one the
features go. The manifest stays, so that nothing becomes stale. A probe that is changed or new afterwards extracts the
features again, from the weights, and compares them with the manifest: no probe that is there has to run. Where several will
read them, `await_again` has left their marks, and the first that is done extracting leaves the features for the others.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import logging
from collections.abc import Iterable, Iterator, Set
from pathlib import Path
from typing import Any

from ..runtime import resume
from ..runtime.command_line import check_code
from ..runtime.errors import UserError
from ..runtime.files import read_json, remove

log = logging.getLogger("dnn_or_knn")
#: The module that extracts, by name: what it runs is in the specification of the extraction, and no part of a probe's code.
EXTRACTION = "dnn_or_knn.features.job"
MARKS = ".unprobed"


def folder_of(manifest: Path) -> Path:
    """Return the folder of a shard's features, given their manifest."""
    return manifest.with_suffix("")


def marks_of(manifest: Path) -> Path:
    """Return the folder of the marks of who has yet to read a shard's features."""
    return manifest.with_name(f".{manifest.stem}{MARKS}")


def there(results: Path) -> list[Path]:
    """Return the folders of features of an experiment that lie on disk."""
    found = results.glob("*/*/*/*/features/*")
    return sorted(path for path in found if path.is_dir() and not path.name.startswith("."))


def marked(results: Path) -> list[Path]:
    """Return the manifests of an experiment's features that somebody has yet to read."""
    folders = sorted(results.glob(f"*/*/*/*/features/.*{MARKS}"))
    return [path.with_name(f"{path.name[1:].removesuffix(MARKS)}.json") for path in folders]


# Who reads them, and when they go.


def await_readers(manifest: Path, readers: Iterable[str]) -> None:
    """Leave one mark for each probe that is to read the features."""
    folder = marks_of(manifest)
    remove(folder)
    for reader in readers:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / reader).touch()


def await_again(readers: Iterable[tuple[Path, str]]) -> None:
    """Leave marks for those that will read a shard's released features, where there are several.

    Parameters
    ----------
    readers: the manifests of features, each with a probe that is to read them.
    """
    by_shard: dict[Path, list[str]] = {}
    for manifest, reader in readers:
        by_shard.setdefault(manifest, []).append(reader)
    for manifest, names in by_shard.items():
        if len(names) > 1 and manifest.is_file() and not folder_of(manifest).is_dir():
            await_readers(manifest, names)


def done_reading(manifest: Path, reader: str) -> None:
    """Take a probe's mark away, if it is there; with the last mark of a shard its features go."""
    mark = marks_of(manifest) / reader
    if not mark.exists():
        return
    mark.unlink()
    with contextlib.suppress(OSError):  # others have yet to read them
        mark.parent.rmdir()
        remove(folder_of(manifest))


def release(results: Path, readers: Set[tuple[Path, str]]) -> list[Path]:
    """Release the marked features that nobody will read any more, and return their folders.

    Parameters
    ----------
    readers: the manifests of features, each with a probe that has yet to read them; all other marks are taken away.
    """
    folders = there(results)
    for manifest in marked(results):
        for mark in sorted(marks_of(manifest).iterdir()):
            if (manifest, mark.name) not in readers:
                done_reading(manifest, mark.name)
    return [folder for folder in folders if not folder.exists()]


def release_all(results: Path, stay: Set[Path] = frozenset()) -> None:
    """Remove all features of an experiment, and the marks of who would have read them, but for runs that lie in these folders."""
    for folder in [*map(marks_of, marked(results)), *there(results)]:
        if folder.parents[1] not in stay:
            remove(folder)


# Read, or made again.


@contextlib.contextmanager
def opened(args: argparse.Namespace, listing: dict[str, Any]) -> Iterator[tuple[Path, bool]]:
    """Yield the folder with the features that a probe reads, and whether they were made again here, since they were released.

    Once the probe is done, its mark goes, and so does what was made again, unless it was left for others.

    Parameters
    ----------
    args: the probe's command line: `features` (their manifest), `reader` (the probe's name, None where none is awaited),
        `extraction` (the specification of the extraction, None if nothing is to be made again), `store`, `labels`, `output`,
        `device`, `threads`.
    listing: the files that the manifest of the features lists.

    Raises
    ------
    UserError: the features were released and the weights are gone, or other features came of them; or they were given, and are gone.
    """
    manifest, state = args.features, resume.beside(args.output)
    again = state.with_name(f"{state.name}-features")
    awaited = args.reader and marks_of(manifest).is_dir()
    if awaited:
        (marks_of(manifest) / args.reader).touch()
    missing = args.extraction is not None and not folder_of(manifest).is_dir()
    folder = _extracted(args, listing, again / "features" / manifest.name) if missing else folder_of(manifest)
    if missing and awaited:
        folder = _left(folder, folder_of(manifest))
    yield folder, missing
    remove(again)
    if args.reader:
        done_reading(manifest, args.reader)


def _extracted(args: argparse.Namespace, listing: dict[str, Any], made: Path) -> Path:
    """Make the features again under the manifest `made`, unless they are there, and return their folder."""
    if not args.extraction:  # they were given, and what takes them over lists them in the manifest
        raise UserError(
            f"{folder_of(args.features)} is gone; delete {args.features} and run again to take the features over again"
        )
    training = args.features.parents[1] / "training.json"
    checkpoints = training.with_name("checkpoints")
    if not checkpoints.is_dir():
        raise UserError(
            f"{folder_of(args.features)} was released, and {checkpoints}, which it is made from, is gone too; delete {training} "
            "and run again to train anew"
        )
    check_code(args.extraction)
    log.info("the features were released: extracting them again")
    given = {"spec": args.extraction, "training": training, "output": made, "readers": []}
    if not (_same(made, listing) and folder_of(made).is_dir()):
        importlib.import_module(EXTRACTION).run(argparse.Namespace(**{**vars(args), **given}))
    if not _same(made, listing):
        remove(made.parents[1])
        raise UserError(
            f"features extracted again are not those that {args.features} lists (another device or library?); "
            "delete that manifest and run again, and every probe of the shard is fitted on the same features"
        )
    return folder_of(made)


def _left(made: Path, place: Path) -> Path:
    """Move features to where others will read them, unless another job left its own there, and return where they are."""
    with contextlib.suppress(OSError):
        made.rename(place)
    return made if made.is_dir() else place


def _same(manifest: Path, listing: dict[str, Any]) -> bool:
    """Return whether a manifest is there and lists exactly these features."""
    return manifest.is_file() and read_json(manifest)["files"] == listing
