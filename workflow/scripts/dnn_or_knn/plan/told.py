"""What a job is told, as one canonical text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..runtime.code_digest import code_digest
from ..runtime.files import canonical
from .configuration import weighted_vote
from .registry import READ_OFF
from .runs import Run


def specification(script: str, *modules: str, **values: Any) -> str:
    """Return the specification of a job that runs `script` with modules that it loads by name."""
    files = [script, *(f"dnn_or_knn/{module}.py" for module in modules)]
    return canonical({**values, "code": {"files": files, "digest": code_digest(*files)}})


def named(run: Run) -> dict[str, Any]:
    """Return a run's name as tables have it."""
    return {"dataset": run.dataset, "architecture": run.architecture, "labels": run.labels, "seed": run.seed}


def read_off(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return of a probe's options those that whoever reads its outputs has to know."""
    known = {key: options[key] for key in ("kind", *READ_OFF) if key in options and key != "vote"}
    vote = weighted_vote(options)
    return {"predict": "decision"} | known | ({"vote": vote} if vote else {})


def votes(probes: Mapping[str, Any]) -> list[str]:
    """Return the module that weighs votes, where a probe's are weighted."""
    return ["measures/weighted_votes"] if any(weighted_vote(options) for options in probes.values()) else []
