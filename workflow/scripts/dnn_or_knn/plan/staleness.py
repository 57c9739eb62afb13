"""Which results on disk were made otherwise than the configuration and the code here would make them.

Snakemake compares with its own records in `.snakemake/`, and takes a result without a record for up to date: a copied
one, say, or any after `rm -rf .snakemake`. What stands beside each result, its provenance, is compared here.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator, Mapping
from typing import Any

from ..runtime.code_digest import code_files
from ..runtime.files import canonical, sha256
from .specifications import Jobs, Task

#: The code of a piece of a search (`Probing.query_shard`): how a search was cut is no part of a result's specification, so that a
#: result that was put together from pieces has theirs in its provenance.
SEARCH = ("probe.py", "dnn_or_knn/probes/query_shards.py")


def stale(jobs: Jobs, results: str | os.PathLike[str] | None = None) -> list[tuple[Task, list[str]]]:
    """Return the jobs whose result is there, but was made otherwise, each with what differs.

    Parameters
    ----------
    results: the experiment's folder (default: where the configuration has it).

    What differs is a line each: ``value <key>: <old> -> <new>``, ``code <file>``, ``input <file>: …``, ``provenance …``.
    A result that is not there is not stale, and an input that is not there does not count: Snakemake sees both.
    """
    folder = os.fspath(results or jobs.results)
    digests: dict[str, str | None] = {}
    found = [(task, list(_differences(task, os.path.join(folder, task.manifest), digests))) for task in jobs.tasks]
    return [(task, reasons) for task, reasons in found if reasons]


def _differences(task: Task, path: str, digests: dict[str, str | None]) -> Iterator[str]:
    try:
        with open(f"{path}.provenance.json", encoding="utf-8") as file:
            record = json.load(file)
        if canonical(record["spec"]) != task.spec:
            yield from list(changes(record, json.loads(task.spec))) or ["code: loaded otherwise"]
        elif record.get("pieces_code"):
            yield from changed_code(record["pieces_code"], code_files(*SEARCH))
        for name, digest in record["inputs"].items():
            current = _digest(os.path.normpath(os.path.join(os.path.dirname(path), name)), digests)
            if current not in (None, digest):
                yield f"input {name}: another content"
    except FileNotFoundError:
        if os.path.exists(f"{path}.json"):
            yield "provenance is missing"
    except (ValueError, KeyError, TypeError, AttributeError):
        yield "provenance is damaged"


def _digest(path: str, digests: dict[str, str | None]) -> str | None:
    if path not in digests:
        digests[path] = None
        with contextlib.suppress(FileNotFoundError):
            digests[path] = sha256(path)
    return digests[path]


def changes(made: dict[str, Any], now: dict[str, Any]) -> Iterator[str]:
    """Yield what differs between the provenance of a result and the specification of the job that would make it."""
    old, new = ({key: value for key, value in spec.items() if key != "code"} for spec in (made["spec"], now))
    yield from (f"value {line}" for line in differences(old, new))
    yield from changed_code(made["code"] or {}, code_files(*now["code"]["files"]))


def changed_code(before: Mapping[str, str], after: Mapping[str, str]) -> Iterator[str]:
    """Yield one line for each file of code whose digest differs."""
    yield from (f"code {name}" for name in sorted({*before, *after}) if before.get(name) != after.get(name))


def differences(old: Any, new: Any) -> Iterator[str]:
    """Yield one line for each value that differs between two plain values."""
    for key, before, now in differing(old, new):
        yield f"{key}: {shorten(repr(before))} -> {shorten(repr(now))}"


def differing(old: Any, new: Any, key: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Yield (key, old value, new value) for each that differs between two plain values."""
    if isinstance(old, dict) and isinstance(new, dict):
        for name in sorted({*old, *new}):
            yield from differing(old.get(name), new.get(name), f"{key}.{name}" if key else name)
    elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        for position, pair in enumerate(zip(old, new, strict=True)):
            yield from differing(*pair, f"{key}[{position}]")
    elif canonical(old) != canonical(new):
        yield key, old, new


def shorten(text: str, length: int = 200) -> str:
    """Return a text cut to a length, with what is left out as a mark."""
    return text if len(text) <= length else text[: length - 1] + "…"
