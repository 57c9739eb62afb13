"""The runs, evaluations and shards that a configuration spells out.  Pure arithmetic: nothing is read from disk."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from ..runtime.errors import UserError, nearest
from . import datasets, given, networks
from .configuration import resolve
from .feasible import refuse


@dataclass(frozen=True)
class Run:
    """One trained network: a place in the results, and everything that determines it."""

    dataset: str
    architecture: str
    labels: str
    seed: int
    randomize: bool
    subset: dict[str, Any] | None
    steps: int
    evaluate_every: int
    weights_every: int
    layers: str
    training: dict[str, Any]
    network: dict[str, Any]
    #: step → file of the weights of a network that was trained elsewhere; None for one that is trained here
    weights: dict[int, str] | None = None
    #: step → layer → file of features that were computed elsewhere, without a network; None for all others
    given: dict[int, dict[str, str]] | None = None
    #: whether there is the network's output at each evaluation: always, but where features are given without it
    logits: bool = True

    @property
    def path(self) -> str:
        """The run's folder below `results/<experiment>/`."""
        return f"{self.dataset}/{self.architecture}/{self.labels}/seed{self.seed}"

    @property
    def origin(self) -> str:
        """The rule that makes the run's `training.json`."""
        return "import_features" if self.given is not None else "train" if self.weights is None else "import_weights"

    @cached_property
    def evaluations(self) -> list[int]:
        """Steps at which the network is evaluated: 0, every `evaluate_every`, and the last; those of the weights or the features, if given."""
        if self.weights is not None or self.given is not None:
            return sorted(self.weights or self.given or {})
        return sorted({*range(0, self.steps, self.evaluate_every), self.steps})

    @cached_property
    def checkpoints(self) -> list[int]:
        """Evaluations whose weights are kept and whose features are probed."""
        if self.weights is not None or self.given is not None:
            return self.evaluations
        steps = self.evaluations
        return sorted({*steps[:: self.weights_every], steps[-1]})


@dataclass(frozen=True)
class Shard:
    """What one extraction job extracts, and one probe job probes."""

    name: str
    steps: tuple[int, ...]
    layers: str  #: "embedding", or "hidden": every probe point but the embedding


@dataclass(frozen=True)
class Experiment:
    """A complete configuration and its runs by path."""

    config: dict[str, Any]
    runs: dict[str, Run]

    @property
    def results(self) -> str:
        return f"results/{self.config['experiment']}"

    def run(self, wildcards: Mapping[str, Any]) -> Run:
        """Return the run that a job's wildcards name."""
        w = wildcards
        return self.runs[f"{w['dataset']}/{w['architecture']}/{w['labels']}/seed{w['seed']}"]

    def shards(self, run: Run) -> list[Shard]:
        """Return the run's shards: its embeddings in pieces, and its hidden layers at the last step if asked for."""
        return list(self._shards[run.path].values())

    def shard(self, wildcards: Mapping[str, Any]) -> Shard:
        """Return the shard that a job's wildcards name."""
        return self._shards[self.run(wildcards).path][wildcards["shard"]]

    @cached_property
    def _shards(self) -> dict[str, dict[str, Shard]]:
        return {path: {shard.name: shard for shard in self._cut(run)} for path, run in self.runs.items()}

    def _cut(self, run: Run) -> Iterator[Shard]:
        size, steps = self.config["shards"]["evaluations"], run.checkpoints
        for start in range(0, len(steps), size):
            piece = tuple(steps[start : start + size])
            yield Shard(f"steps{piece[0]:06d}-{piece[-1]:06d}", piece, "embedding")
        if run.given is not None:
            yield from (Shard(f"layers{step:06d}", (step,), "hidden") for step in steps if len(run.given[step]) > 1)
        elif run.layers == "all":
            yield Shard(f"layers{run.steps:06d}", (run.steps,), "hidden")

    def labels(self, wildcards: Mapping[str, Any]) -> Run:
        """Return a run that is trained on the label set that a job's wildcards name."""
        wanted = (wildcards["dataset"], wildcards["labels"], int(wildcards["seed"]))
        return next(run for run in self.runs.values() if (run.dataset, run.labels, run.seed) == wanted)


def create(config: Mapping[str, Any]) -> Experiment:
    """Check a configuration and spell out its runs; raise `UserError` if two blocks disagree."""
    complete = resolve(config)
    runs: dict[str, Run] = {}
    for run in [*_spell_out(complete), *_subjects(complete)]:
        if run.path in runs:
            raise UserError(f"config: two blocks of runs make {run.path}; give one of them another name under `labels`")
        runs[run.path] = run
    _same_labels(runs)
    _figures(complete, runs)
    given.refuse(complete, runs)
    refuse(complete, runs)
    return Experiment(complete, runs)


def _spell_out(config: dict[str, Any]) -> Iterator[Run]:
    """Yield the runs of every block, in order."""
    for position, block in enumerate(config["runs"] + config["more_runs"]):
        for architecture in block["architectures"]:
            for dataset in block["datasets"]:
                subset, classes = block["subset"], datasets.entry(config, dataset)["classes"]
                if subset and subset["draw"] == "balanced" and subset["count"] < classes:
                    raise UserError(
                        f"config: runs[{position}].subset.count is {subset['count']}, fewer than the "
                        f"{classes} classes of {dataset}; a balanced draw needs one of each"
                    )
                for seed in block["seeds"]:
                    yield Run(
                        dataset=dataset,
                        architecture=architecture,
                        labels=block["labels"],
                        seed=seed,
                        randomize=block["randomize"],
                        subset=subset,
                        steps=block["steps"],
                        evaluate_every=block["evaluate_every"],
                        weights_every=config["keep"]["weights_every"],
                        layers=block["layers"],
                        training=block["training"],
                        network=network(config, architecture, dataset),
                    )


def _subjects(config: dict[str, Any]) -> Iterator[Run]:
    """Yield a run for each subject, of weights or of features; its name stands where an architecture's does."""
    for name, subject in config.get("subjects", {}).items():
        if "features" in subject:
            files = {int(step): layers for step, layers in subject["features"].items()}
            about: dict[str, Any] = {"given": files, "logits": given.has_logits(subject["features"])}
            about |= {"network": given.NETWORK, "layers": "all" if len(files[max(files)]) > 1 else "embedding"}
        else:
            files = {int(step): file for step, file in subject["checkpoints"].items()}
            about = {
                "weights": files,
                "network": network(config, name, subject["dataset"]),
                "layers": subject["layers"],
            }
        yield Run(
            dataset=subject["dataset"],
            architecture=name,
            labels=subject["labels"],
            seed=subject["seed"],
            randomize=False,
            subset=subject["subset"],
            steps=max(files),
            evaluate_every=1,
            weights_every=1,
            training=config["training"],
            **about,
        )


def network(config: Mapping[str, Any], architecture: str, dataset: str | None = None) -> dict[str, Any]:
    """Return the network's part of a specification: module, integers of the name, options.

    For a data set with a mean and a standard deviation the module is `normalized`, which holds the network within.
    """
    made = networks.told(*networks.settings(config, architecture))
    options = config["datasets"][dataset] if dataset else {}
    if "mean" not in options:
        return made
    return {"module": "normalized", "mean": options["mean"], "std": options["std"], "network": made}


def modules(network: Mapping[str, Any]) -> list[str]:
    """Return the modules that build a network, as specifications name them."""
    within = modules(network["network"]) if network["module"] == "normalized" else []
    return [f"networks/{network['module']}", *within]


def _same_labels(runs: Mapping[str, Run]) -> None:
    """Refuse one name for two label sets of a data set."""
    seen: dict[tuple[str, str, int], Run] = {}
    for run in runs.values():
        first = seen.setdefault((run.dataset, run.labels, run.seed), run)
        if (first.randomize, first.subset) != (run.randomize, run.subset):
            raise UserError(
                f"config: {first.path} and {run.path} mean different labels by '{run.labels}'; rename one under `labels`"
            )


def _figures(config: Mapping[str, Any], runs: Mapping[str, Run]) -> None:
    """Refuse figures of a network that does not exist."""
    name = config["figures"]["architecture"]
    known = networks.names(config)
    if name not in known:
        raise UserError(
            f"config: figures.architecture is '{name}', which is not under architectures{nearest(name, known)}"
        )
