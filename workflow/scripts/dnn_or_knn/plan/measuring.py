"""What the jobs of the measures beside the paper's are told, and their inputs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from . import atlas
from .registry import MEASURES
from .runs import Experiment, modules
from .told import named, read_off, specification, votes

Wildcards = Mapping[str, Any]


class Measuring:
    """The part of `specifications.Jobs` that the measures beside the paper's are: what their jobs are told, and their inputs."""

    experiment: Experiment
    config: dict[str, Any]
    results: str
    probes: dict[str, Any]
    told: Callable[[str], Callable[[Wildcards], str]]
    stored: Callable[[], list[str]]
    _shown: Callable[[], dict[str, Any]]
    _titles: Callable[[], dict[str, Any]]
    _streaming: Callable[[str], list[str]]
    _evaluated: Callable[[str], dict[str, Any]]

    def measure(self, wildcards: Wildcards) -> str:
        """One measure beside the paper's numbers: of a run, or of one shard of its features."""
        run, name = self.experiment.run(wildcards), wildcards["measure"]
        entry, more = MEASURES[name], dict[str, Any]()
        probes = {probe: self.probes[probe] for probe in atlas.probes(self.config, name)}
        code = [f"atlas/{entry['module']}", *votes(probes)]
        if entry["reads"] == "weights":
            more = {"network": run.network, "precision": run.training["precision"], "steps": run.checkpoints}
            more["batch_size"] = self.config["jobs"]["evaluation_batch"]
            more["bootstrap"] = self._draws()
            more |= self._evaluated(run.dataset)
            code += [*modules(run.network), *self._streaming(run.dataset)]
        return specification(
            "measure.py",
            *code,
            measure=name,
            module=entry["module"],
            run=named(run),
            shards=[{"name": s.name, "steps": s.steps} for s in atlas.parts(self, run, name)[wildcards["part"]]],
            probes={probe: read_off(options) for probe, options in probes.items()},
            knn=atlas.neighbours(self.config, name),
            **more,
        )

    measure_outputs = measure_features = measure_weights = measure

    def measure_table(self, wildcards: Wildcards) -> str:
        """The experiment's table of one measure beside the paper's, put together from its parts."""
        return specification(
            "measure_table.py", measure=wildcards["measure"], parts=self.measured(wildcards["measure"])
        )

    def beside_figure(self, wildcards: Wildcards) -> str:
        """One figure of a measure beside the paper's, and its look."""
        name = wildcards["beside"]
        return specification(
            "beside_figure.py",
            f"figures/{name}",
            figure=name,
            measure=atlas.figures(self.config)[name],
            datasets=self.stored(),
            style=self.config["figures"]["style"],
            **self._titles(),
        )

    def later_claims(self, _wildcards: Wildcards) -> str:
        """The verdicts on the later claims, which are not the paper's."""
        thresholds = self.config["claims"] | self.config["later_claims"]
        return specification("later_claims.py", claims=thresholds, bootstrap=self._draws(), **self._shown())

    def _draws(self) -> dict[str, int]:
        return {key: self.config["measures"][key] for key in ("replicates", "seed")}

    def measured(self, measure: str) -> list[str]:
        """Return the parts of a measure of all runs, as their manifests without `.json` below the experiment's folder."""
        return [
            f"{run.path}/measures/{measure}/{part}"
            for run in self.experiment.runs.values()
            for part in atlas.parts(self, run, measure)
        ]

    def parts_of(self, pattern: str) -> Callable[[Wildcards], list[str]]:
        """Return an input function: `pattern` once for every part of the measure that the job puts together."""
        return lambda wildcards: [
            f"{self.results}/{pattern.format(part=part)}" for part in self.measured(wildcards["measure"])
        ]

    def reads(self, what: str) -> Callable[[Wildcards], list[str]]:
        """Return an input function: what a measuring job reads of its run, see `atlas.reads`."""
        return lambda wildcards: atlas.reads(self, wildcards, what)

    def readers(self, wildcards: Wildcards) -> str:
        """Return who is to read the features of a shard before they go: probes, and measures of features."""
        run = self.experiment.run(wildcards)
        # What was given stays: there are no weights that it could be extracted from.
        until_probed = self.config["keep"]["features"] == "until-probed" and run.given is None
        return " ".join([*self.probes, *atlas.readers(self, wildcards)] if until_probed else [])

    def extractions(self, wildcards: Wildcards) -> list[str]:
        """Return what the extractions of the features that a measuring job reads are told."""
        shards = atlas.parts(self, self.experiment.run(wildcards), wildcards["measure"])[wildcards["part"]]
        return [self.told("features")({**wildcards, "shard": shard.name}) for shard in shards]
