"""What the jobs are told that take in what was made elsewhere: weights, or features alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from . import datasets, given
from .runs import Experiment, modules
from .told import specification

Wildcards = Mapping[str, Any]


class Importing:
    """The part of `specifications.Jobs` that the configuration's subjects are."""

    experiment: Experiment
    config: dict[str, Any]

    def import_weights(self, wildcards: Wildcards) -> str:
        """One network's weights from elsewhere."""
        run = self.experiment.run(wildcards)
        weights = {str(step): file for step, file in sorted((run.weights or {}).items())}
        return specification(
            "import_weights.py",
            *modules(run.network),
            network=run.network,
            weights=weights,
            sizes={step: datasets.size(file) for step, file in weights.items()},
        )

    def weights(self, wildcards: Wildcards) -> list[str]:
        """Return the files of the weights of a subject."""
        return list((self.experiment.run(wildcards).weights or {}).values())

    def import_features(self, wildcards: Wildcards) -> str:
        """All features of a subject, compared with one another and with the labels: what stands for its training."""
        run = self.experiment.run(wildcards)
        return self._given("import_features.py", run, run.evaluations, given.layers(run.given or {}))

    def given_features(self, wildcards: Wildcards) -> str:
        """The features of one shard, from their files."""
        run, shard = self.experiment.run(wildcards), self.experiment.shard(wildcards)
        layers = [given.LAST]
        if shard.layers == "hidden":
            layers = [layer for layer in (run.given or {})[shard.steps[0]] if layer != given.LAST]
        return self._given("given_features.py", run, list(shard.steps), layers)

    def _given(self, script: str, run: Any, steps: list[int], layers: list[str]) -> str:
        files = {str(step): {at: file for at, file in run.given[step].items() if at in layers} for step in steps}
        read = sorted({file for of_step in files.values() for file in of_step.values()})
        return specification(
            script,
            run=run.path,
            steps=steps,
            layers=layers,
            given=files,
            logits=run.logits,
            contents={file: given.fingerprints(file) for file in read},
        )
