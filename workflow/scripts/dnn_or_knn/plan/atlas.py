"""The measures beside the paper's: which are switched on, in which jobs they are made, what each is told and reads.

A measure of outputs or weights is one job a run, its part "run"; one of features is one job a shard, named after it, which
reads the shard's features beside the probes, before they go. A shard of hidden layers has the embedding at its step beside it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from .registry import MEASURES

if TYPE_CHECKING:
    from .measuring import Measuring
    from .runs import Run, Shard

Wildcards = Mapping[str, Any]
#: The part of a measure that is one job a run.
WHOLE = "run"


def switched_on(config: Mapping[str, Any]) -> list[str]:
    """Return the measures that the configuration switches on, in the registry's order."""
    return [name for name in MEASURES if config["measures"][name]]


def switched_off(config: Mapping[str, Any]) -> list[str]:
    """Return the measures that the configuration leaves off."""
    return [name for name in MEASURES if not config["measures"][name]]


def judged(config: Mapping[str, Any]) -> list[str]:
    """Return the measures that the later claims are judged on and that are switched on."""
    return [name for name in switched_on(config) if MEASURES[name].get("judged")]


def figures(config: Mapping[str, Any]) -> dict[str, str]:
    """Return the figures of the measures that are switched on, each with its measure."""
    return {name: measure for measure in switched_on(config) for name in MEASURES[measure].get("figures", [])}


def rule(measure: str) -> str:
    """Return the rule that makes the parts of a measure."""
    return f"measure_{MEASURES[measure]['reads']}"


def reading(reads: str) -> str:
    """Return what the wildcard `measure` can be in the rule for measures that read this."""
    return "|".join(name for name, entry in MEASURES.items() if entry["reads"] == reads)


def parts(jobs: Measuring, run: Run, measure: str) -> dict[str, list[Shard]]:
    """Return the parts in which a measure of a run is made, each with the shards that it reads; none of what a run has not."""
    shards, wanted = jobs.experiment.shards(run), MEASURES[measure]["reads"]
    if not measurable(run, measure):
        return {}
    if wanted != "features":
        return {WHOLE: shards if wanted == "outputs" else []}
    return {shard.name: [shard, *_beside(shard, shards)] for shard in shards}


def measurable(run: Run, measure: str) -> bool:
    """Return whether a run has what a measure reads: features that were given have no weights, some no network's output."""
    return run.given is None or (MEASURES[measure]["reads"] == "outputs" and run.logits)


def _beside(shard: Shard, shards: list[Shard]) -> Iterator[Shard]:
    """Yield the shard with the embedding at the step of a shard of hidden layers."""
    if shard.layers != "embedding":
        yield next(one for one in shards if one.layers == "embedding" and shard.steps[0] in one.steps)


def spelled_out(jobs: Measuring, run: Run, of_run: dict[str, str]) -> Iterator[tuple[str, dict[str, str]]]:
    """Yield the jobs that measure a run: rule and wildcards."""
    for measure in switched_on(jobs.config):
        for part in parts(jobs, run, measure):
            yield rule(measure), of_run | {"measure": measure, "part": part}


def neighbours(config: Mapping[str, Any], measure: str) -> str | None:
    """Return the k-NN probe that a measure reads: the first, for one of features the first that keeps plain L2 distances."""
    plain = {"metric": "l2", "pca": None, "normalize": False}
    for name, options in config["probes"].items():
        if options["kind"] == "knn" and (
            MEASURES[measure]["reads"] != "features" or {key: options[key] for key in plain} == plain
        ):
            return str(name)
    return None


def probes(config: Mapping[str, Any], measure: str) -> list[str]:
    """Return the probes whose outputs a measure reads: all for one of outputs, the neighbours' for one of features."""
    if MEASURES[measure]["reads"] == "outputs":
        return list(config["probes"])
    knn = neighbours(config, measure) if MEASURES[measure]["reads"] == "features" else None
    return [knn] if knn else []


def reads(jobs: Measuring, wildcards: Wildcards, what: str) -> list[str]:
    """Return what a measuring job reads of its run, as paths.

    Parameters
    ----------
    what: "features", the manifests of its shards' features; "probes", those of its probes; "folders", those of logits and of
        the probes' outputs.
    """
    measure, run = wildcards["measure"], jobs.experiment.run(wildcards)
    shards = [shard.name for shard in parts(jobs, run, measure)[wildcards["part"]]]
    folder = f"{jobs.results}/{run.path}"
    # Of the shard beside it, a shard of hidden layers wants the features alone.
    probed = shards[:1] if MEASURES[measure]["reads"] == "features" else shards
    fitted = [f"{folder}/probes/{probe}/{shard}" for probe in probes(jobs.config, measure) for shard in probed]
    return {
        "features": [f"{folder}/features/{shard}.json" for shard in shards],
        "probes": [f"{path}.json" for path in fitted],
        "folders": [*(f"{folder}/logits/{shard}" for shard in shards), *fitted],
    }[what]


def reader(wildcards: Wildcards) -> str:
    """Return the name of a measuring job among the readers of features; no probe has a dot in its name."""
    return f"{wildcards['measure']}.{wildcards['part']}"


def readers(jobs: Measuring, wildcards: Wildcards) -> list[str]:
    """Return the measuring jobs that are to read the features of a shard."""
    run, shard = jobs.experiment.run(wildcards), wildcards["shard"]
    return [
        reader({"measure": measure, "part": part})
        for measure in switched_on(jobs.config)
        if MEASURES[measure]["reads"] == "features"
        for part, shards in parts(jobs, run, measure).items()
        if shard in [one.name for one in shards]
    ]
