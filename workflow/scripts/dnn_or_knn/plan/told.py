"""What a job is told, as one canonical text, and the manifest that it makes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..runtime.code_digest import code_digest
from ..runtime.files import canonical
from .configuration import weighted_vote
from .registry import READ_OFF
from .runs import Run

SHARD = r"(?:steps\d+-|layers)\d+"
#: One of the jobs that a search is cut into, such as 2of3.
PIECE = r"[1-9]\d*of[1-9]\d*"
RUN = "{dataset}/{architecture}/{labels}/seed{seed}"
#: The manifest that each rule makes, without its `.json`, below the experiment's folder.
MANIFESTS = {
    "prepare": "{dataset}/store/store",
    "labels": "{dataset}/labels/{labels}/seed{seed}/labels",
    "train": f"{RUN}/training",
    "import_weights": f"{RUN}/training",
    "import_features": f"{RUN}/training",
    "features": f"{RUN}/features/{{shard}}",
    "given_features": f"{RUN}/features/{{shard}}",
    "probe": f"{RUN}/probes/{{probe}}/{{shard}}",
    "passing_probe": f"{RUN}/probes/{{probe}}/{{shard}}",
    "query_shard": f"{RUN}/probes/{{probe}}/{{shard}}.{{piece}}",
    "measures": f"{RUN}/measures/measures",
    "collect": "measures/measures",
    "figure": "figures/figure{figure}",
    "training_curves": "figures/training",
    "claims": "claims/claims",
    "later_claims": "claims/later",
    "published": "claims/published",
    "choices": "claims/choices",
    "report": "report",
    **{f"measure_{reads}": f"{RUN}/measures/{{measure}}/{{part}}" for reads in ("outputs", "features", "weights")},
    "measure_table": "measures/{measure}",
    "beside_figure": "figures/{beside}",
}


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


def titles(config: Mapping[str, Any]) -> dict[str, str]:
    """Return what figures call data sets and networks, where the configuration says."""
    blocks = (config["datasets"], config["architectures"], config.get("subjects", {}))
    return {name: o["title"] for block in blocks for name, o in block.items() if o.get("title")}


def votes(probes: Mapping[str, Any]) -> list[str]:
    """Return the module that weighs votes, where a probe's are weighted."""
    return ["measures/weighted_votes"] if any(weighted_vote(options) for options in probes.values()) else []
