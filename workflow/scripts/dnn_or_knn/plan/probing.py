"""What the jobs of the probes are told, and how the k-NN search of one evaluation is cut into jobs: by its queries."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Set
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..runtime.files import read_json
from .registry import PROBES, READ_OFF
from .runs import Experiment
from .told import MANIFESTS, RUN, specification

if TYPE_CHECKING:
    from .specifications import Jobs

Wildcards = Mapping[str, Any]
#: Rules whose results a probe's result follows from, and its own.
BEHIND = ("prepare", "labels", "train", "features", "probe")
#: Rules that read what the probes of a run keep of each image.
MEASURED_BY = ("measures", "measure_outputs")


class Probing:
    """The part of `specifications.Jobs` that the probes are: what their jobs are told, and the pieces of their searches."""

    experiment: Experiment
    config: dict[str, Any]
    results: str
    probes: dict[str, Any]
    #: Returns of how many pieces results that stay as they are were made, by their manifests, where it is not the configured number.
    kept_pieces: Callable[[], Mapping[str, int]] = staticmethod(dict)

    def probe(self, wildcards: Wildcards) -> str:
        """One probe on the evaluations of one shard."""
        return self._fit(wildcards, PROBES[self.probes[wildcards["probe"]]["kind"]]["module"])

    passing_probe = probe

    def passing(self) -> set[str]:
        """Return the probes whose outputs go once they are measured: those that keep probabilities, where the configuration says so.

        Neighbours stay: they are small, and a measure of features that reads them later would otherwise fit every probe of its run.
        """
        if self.config["keep"]["probabilities"] == "all":
            return set()
        return {name for name, options in self.probes.items() if options["kind"] != "knn"}

    def query_shard(self, wildcards: Wildcards) -> str:
        """One piece of the k-NN searches in the evaluations of one shard."""
        piece, pieces = map(int, wildcards["piece"].split("of"))
        return self._fit(wildcards, "query_shards", piece=piece, pieces=pieces)

    def _fit(self, wildcards: Wildcards, module: str, **more: int) -> str:
        run, shard = self.experiment.run(wildcards), self.experiment.shard(wildcards)
        options = dict(self.probes[wildcards["probe"]])
        kind = options.pop("kind")
        return specification(
            "probe.py",
            f"probes/{module}",
            kind=kind,
            module=module,
            options={key: value for key, value in options.items() if key not in READ_OFF} | more,
            run=run.path,
            steps=shard.steps,
            layers=None,
            seed=run.seed,
        )

    def pieces(self, probe: str) -> int:
        """Return among how many jobs the configuration divides the queries of a probe: 1 unless its search can be cut.

        Of a PCA each job would make its own, which another machine may round otherwise.
        """
        options = self.probes[probe]
        whole = options["kind"] != "knn" or options["backend"] != "exact" or options["pca"] is not None
        return 1 if whole else int(self.config["shards"]["queries"])

    def probed(self, wildcards: Wildcards) -> list[str]:
        """Return the manifests that a probe reads: of the features, and of the pieces of its search, if there are any."""
        features = f"{self.results}/{MANIFESTS['features'].format(**wildcards)}.json"
        return [features, *self.searched(".json")(wildcards)]

    def searched(self, *endings: str) -> Callable[[Wildcards], list[str]]:
        """Return an input function: what the jobs that search for a probe make, with these endings; nothing if the probe itself does.

        Snakemake takes other inputs for a change, and how a search is cut is none: a result that stays has those that it had.
        """

        def inputs(wildcards: Wildcards) -> list[str]:
            made = MANIFESTS["probe"].format(**wildcards)
            pieces = self.kept_pieces().get(made, self.pieces(wildcards["probe"]))
            return [f"{self.results}/{path}{ending}" for path in names(wildcards, pieces) for ending in endings]

        return inputs


def names(wildcards: Wildcards, pieces: int) -> list[str]:
    """Return the manifests of the pieces of a search, without their `.json`, below the experiment's folder: none of a whole one."""
    every = [f"{piece}of{pieces}" for piece in range(1, pieces + 1)] if pieces > 1 else []
    return [MANIFESTS["query_shard"].format(**wildcards, piece=piece) for piece in every]


def kept(jobs: Jobs, again: Set[str]) -> dict[str, int]:
    """Return of how many pieces results that are there and stay were made, where the configuration has another number.

    Parameters
    ----------
    again: manifests (as in `MANIFESTS`) of the results that are stale.
    """
    found: dict[str, int] = {}
    for task in jobs.tasks:
        if task.rule != "probe" or jobs.probes[task.wildcards["probe"]]["kind"] != "knn":
            continue
        behind = [MANIFESTS[rule].format(**task.wildcards) for rule in BEHIND]
        if any(made in again or not os.path.exists(f"{jobs.results}/{made}.json") for made in behind):
            continue
        pieces = read_json(f"{jobs.results}/{task.manifest}.provenance.json").get("pieces", 1)
        if pieces != jobs.pieces(task.wildcards["probe"]):
            found[task.manifest] = pieces
    return found


def measured(jobs: Jobs, again: Set[str]) -> list[Path]:
    """Return the folders of probabilities that lie on disk, go once they are measured, and are: no measure will read them.

    Snakemake removes them with the last job that reads them, unless it is killed there; and not those of before it was told to.

    Parameters
    ----------
    again: manifests, as paths, of the results that will be made anew.
    """
    probes, awaited = [], set()
    for task in jobs.tasks:
        made = f"{jobs.results}/{task.manifest}.json"
        if task.rule == "passing_probe":
            probes.append(task)
        elif task.rule in MEASURED_BY and (made in again or not os.path.exists(made)):
            awaited.add(run_of(task.wildcards))
    folders = [Path(jobs.results, task.manifest) for task in probes if run_of(task.wildcards) not in awaited]
    return [folder for folder in folders if folder.is_dir()]


def run_of(wildcards: Wildcards) -> str:
    """Return the run that a job's wildcards name, as its folder below the experiment's."""
    return RUN.format(**wildcards)
