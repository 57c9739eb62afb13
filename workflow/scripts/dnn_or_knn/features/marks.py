"""Marks that say who has yet to read a shard's features: the last to take its own away lets them go.

They lie in `<run>/.state/unprobed-<shard>/`, one empty file for each probe.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Set
from pathlib import Path

from ..runtime.files import remove

PREFIX = "unprobed-"


def of(run: Path, shard: str) -> Path:
    """Return the folder of a shard's marks."""
    return run / ".state" / f"{PREFIX}{shard}"


def leave(folder: Path, probes: list[str]) -> None:
    """Leave one mark for each probe that is to read the features."""
    remove(folder)
    for probe in probes:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / probe).touch()


def let_go(mark: Path, features: Path) -> None:
    """Take a probe's mark away, if it is there; with the last mark of a shard its features go."""
    if not mark.exists():
        return
    mark.unlink()
    with contextlib.suppress(OSError):  # others have yet to read them
        mark.parent.rmdir()
        remove(features)


def features_of(folder: Path) -> Path:
    """Return the features that a folder of marks is about."""
    return folder.parent.parent / "features" / folder.name.removeprefix(PREFIX)


def marked(results: Path) -> Iterator[Path]:
    """Yield the folders of marks of an experiment."""
    yield from sorted(results.glob(f"*/*/*/*/.state/{PREFIX}*"))


def release(results: Path, readers: Set[Path]) -> list[Path]:
    """Let go of the marked features that nobody will read any more, and return their folders.

    Parameters
    ----------
    readers: the marks of the probes that have yet to run; all others are taken away.
    """
    gone = []
    for folder in marked(results):
        for mark in sorted(folder.iterdir()):
            if mark not in readers:
                let_go(mark, features_of(folder))
        if not folder.exists():
            gone.append(features_of(folder))
    return gone
