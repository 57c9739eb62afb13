"""What each job of the workflow is told: its specification, as one canonical JSON text.

Snakemake compares these texts to decide what is stale, so each holds everything that determines the job's result
(values and the digest of the code that it runs) and nothing else. Methods take the wildcards of a job.
"""

from __future__ import annotations

import functools
import hashlib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import yaml

from ..runtime.code_digest import SCRIPTS
from ..runtime.files import sha256
from . import atlas, datasets, given, networks
from .configuration import choice_probes
from .importing import Importing
from .measuring import Measuring
from .probing import Probing
from .registry import MEASURES
from .runs import Experiment, modules
from .told import MANIFESTS, PIECE, SHARD, named, read_off, specification, titles, votes

Wildcards = Mapping[str, Any]
#: Characters of a specification above which a job is given a file: a command may have 128 KiB, and a probe's has two.
LONGEST = 40_000


class Task(NamedTuple):
    """One job that the configuration spells out."""

    rule: str
    wildcards: dict[str, str]
    spec: str  #: the specification
    manifest: str  #: the manifest that it makes, without its `.json`, below the experiment's folder


#: Figure → the label sets of the runs that it shows, in the configuration's `figures` block and here by these names.
FIGURES = {
    1: ["true"],
    2: ["true"],
    3: ["true"],
    4: ["true", "random_layers"],
    5: ["true"],
    6: ["random"],
    7: ["overfit"],
}
#: Figures that show every network; the others show one.
EVERY_NETWORK = {1, 2, 3}


def _any_of(words: Iterable[str]) -> str:
    """Return a regular expression that matches these words; none, if there are none."""
    return "|".join(map(re.escape, sorted(words))) or "(?!)"


@functools.cache
def published() -> dict[str, Any]:
    """Return the published numbers, `workflow/resources/published.yaml`."""
    return yaml.safe_load((SCRIPTS.parent / "resources" / "published.yaml").read_text(encoding="utf-8"))


class Jobs(Measuring, Probing, Importing):
    """Specifications and inputs of all jobs of one experiment."""

    def __init__(self, experiment: Experiment) -> None:
        self.experiment = experiment
        self.config = experiment.config
        self.results = experiment.results
        self.probes = self.config["probes"] | choice_probes(self.config)

    def wildcards(self) -> dict[str, str]:
        """Return what each wildcard can be, so that no path is read in two ways."""
        names = {
            "dataset": self.config["datasets"],
            "architecture": networks.names(self.config),
            "labels": {run.labels for run in self.experiment.runs.values()},
            "probe": self.probes,
            "measure": MEASURES,
            "beside": {name for entry in MEASURES.values() for name in entry.get("figures", [])},
        }
        alternatives = {name: _any_of(words) for name, words in names.items()}
        return alternatives | {"seed": r"\d+", "shard": SHARD, "piece": PIECE, "part": f"{atlas.WHOLE}|{SHARD}"}

    def trained(self) -> str:
        """Return which architectures are trained here, as a wildcard's constraint."""
        return _any_of(self.config["architectures"])

    def imported(self) -> str:
        """Return which stand for weights that were trained elsewhere, as a wildcard's constraint."""
        return _any_of(self.config.get("subjects", {}).keys() - given.subjects(self.config).keys())

    def given(self) -> str:
        """Return which stand for features alone, as a wildcard's constraint."""
        return _any_of(given.subjects(self.config))

    def extracted(self) -> str:
        """Return which are networks, whose features are extracted, as a wildcard's constraint."""
        return f"{self.trained()}|{self.imported()}"

    def staying(self) -> str:
        """Return which probes' outputs stay, as a wildcard's constraint."""
        return _any_of(self.probes.keys() - self.passing())

    def going(self) -> str:
        """Return which probes' outputs go once they are measured, as a wildcard's constraint."""
        return _any_of(self.passing())

    # All jobs, and how one is told its specification.

    @functools.cached_property
    def tasks(self) -> list[Task]:
        """Every job that the configuration spells out, from the data sets to the page."""
        return [
            Task(rule, wildcards, getattr(self, rule)(wildcards), MANIFESTS[rule].format(**wildcards))
            for rule, wildcards in self._spelled_out()
        ]

    def _spelled_out(self) -> Iterator[tuple[str, dict[str, str]]]:
        runs = self.experiment.runs.values()
        yield from (("prepare", {"dataset": name}) for name in self.stored())
        for dataset, labels, seed in dict.fromkeys((run.dataset, run.labels, run.seed) for run in runs):
            yield "labels", {"dataset": dataset, "labels": labels, "seed": str(seed)}
        for run in runs:
            of_run = {name: str(getattr(run, name)) for name in ("dataset", "architecture", "labels", "seed")}
            yield run.origin, of_run
            for shard in self.experiment.shards(run):
                yield "features" if run.given is None else "given_features", of_run | {"shard": shard.name}
                for probe in self.probes:
                    of_probe = of_run | {"probe": probe, "shard": shard.name}
                    pieces = self.pieces(probe)
                    yield from (
                        ("query_shard", of_probe | {"piece": f"{n}of{pieces}"})
                        for n in range(1, pieces + 1)
                        if pieces > 1
                    )
                    yield "passing_probe" if probe in self.passing() else "probe", of_probe
            yield "measures", of_run
            yield from atlas.spelled_out(self, run, of_run)
        yield from (("measure_table", {"measure": name}) for name in atlas.switched_on(self.config))
        yield from (("figure", {"figure": str(number)}) for number in range(1, 8))
        yield from (("beside_figure", {"beside": name}) for name in atlas.figures(self.config))
        ends = (
            "collect",
            "training_curves",
            "claims",
            *(["later_claims"] if atlas.judged(self.config) else []),
            "published",
            *(["choices"] if self.config["choices"] else []),
            "report",
        )
        yield from ((rule, {}) for rule in ends)

    def told(self, rule: str) -> Callable[[Wildcards], str]:
        """Return what tells a job of a rule its specification: the text, or the file that holds a long one.

        The file is named by its content, so that Snakemake, which compares what is returned here, sees every change.
        """
        return lambda wildcards: self.word(getattr(self, rule)(wildcards))

    def word(self, spec: str) -> str:
        """Return a specification as it stands on a command line: the text, or the name of the file for a long one."""
        if len(spec) <= LONGEST:
            return spec
        return f"{self.results}/.specs/{hashlib.sha256(spec.encode()).hexdigest()[:32]}.json"

    # Specifications, one per stage.

    def prepare(self, wildcards: Wildcards) -> str:
        """One data set: how it is loaded, its geometry."""
        name = wildcards["dataset"]
        known = datasets.entry(self.config, name)
        entry = {key: value for key, value in known.items() if key not in ("options", "images")}
        options = {k: v for k, v in self.config["datasets"][name].items() if k not in datasets.NOT_STORED}
        if "root" in options:
            root, alone = options["root"], entry["loader"] == "features"
            options["fingerprint"] = given.labels_of(root) if alone else datasets.fingerprint(root)
        return specification("prepare.py", f"data/loaders/{entry['loader']}", dataset=name, **(entry | options))

    def labels(self, wildcards: Wildcards) -> str:
        """One label set: which images, true or random labels, the seed where one is used."""
        run = self.experiment.labels(wildcards)
        return specification("labels.py", labels=run.labels, randomize=run.randomize, subset=run.subset, seed=run.seed)

    def train(self, wildcards: Wildcards) -> str:
        """One network's training."""
        run = self.experiment.run(wildcards)
        stream = self._streaming(run.dataset)
        return specification(
            "train.py",
            *modules(run.network),
            *stream,
            network=run.network,
            training=run.training | {"steps": run.steps},
            seed=run.seed,
            checkpoints=run.checkpoints,
            accuracy_at=sorted({*run.evaluations} - {*run.checkpoints}),
            **({"stream": True} if stream else {}),
        )

    def features(self, wildcards: Wildcards) -> str:
        """The extraction of one shard; empty for features that were given, which are never extracted."""
        run, shard = self.experiment.run(wildcards), self.experiment.shard(wildcards)
        if run.given is not None:
            return "{}"
        return specification(
            "features.py",
            *modules(run.network),
            *self._streaming(run.dataset),
            run=run.path,
            network=run.network,
            precision=run.training["precision"],
            batch_size=self.config["jobs"]["evaluation_batch"],
            compile=self.config["jobs"]["evaluation_compile"] and "networks/named" not in modules(run.network),
            steps=shard.steps,
            layers=["embedding"] if shard.layers == "embedding" else shard.layers,
            input_layer=self.config["layer_input"],
            **self._evaluated(run.dataset),
        )

    def _evaluated(self, dataset: str) -> dict[str, Any]:
        """Return how a data set's images are evaluated where they are read from disk, nothing where they lie in memory."""
        entry = datasets.entry(self.config, dataset)
        return {"stream": True, "cpu_batch": datasets.cpu_batch(entry)} if datasets.streamed(entry) else {}

    def _streaming(self, dataset: str) -> list[str]:
        """Return the module that reads a data set's images from disk, none where they lie in memory."""
        return ["data/streaming"] if datasets.streamed(datasets.entry(self.config, dataset)) else []

    def measures(self, wildcards: Wildcards) -> str:
        """All measures of one run."""
        run = self.experiment.run(wildcards)
        measures = self.config["measures"]
        return specification(
            "measures.py",
            *votes(self.probes),
            *([] if run.logits else ["measures/alone"]),
            run=named(run),
            shards=[
                {"name": s.name, "steps": s.steps, "layers": ["embedding"] if s.layers == "embedding" else None}
                for s in self.experiment.shards(run)
            ],
            probes={name: read_off(options) for name, options in self.probes.items()},
            bootstrap={"replicates": measures["replicates"], "seed": measures["seed"]},
            memorized=measures["memorized"],
            nearly_memorized=measures["nearly_memorized"],
            **({} if run.logits else {"alone": True}),
            **given.measured(run.given),
        )

    def collect(self, _wildcards: Wildcards) -> str:
        """The experiment's tables, put together from its runs'."""
        return specification("collect.py", runs=list(self.experiment.runs))

    def figure(self, wildcards: Wildcards) -> str:
        """One figure of the paper: which runs it shows, and its look."""
        number = int(wildcards["figure"])
        more: dict[str, Any] = {}
        if number == 4:
            more["input_layer"] = self.config["layer_input"]
            more["published"] = [
                {"dataset": entry["dataset"], "architecture": entry["architecture"], "layer": layer, "accuracy": value}
                for entry in published()["layer_test_accuracy"]
                for layer, value in zip(entry["layers"], entry["code"], strict=True)
                if entry["dataset"] in self.config["datasets"]
                and entry["architecture"] == self.config["figures"]["architecture"]
            ]
        return specification(
            "figure.py",
            f"figures/figure{number}",
            figure=number,
            style=self.config["figures"]["style"],
            probes=list(self.config["probes"]),
            **self._runs_of(number),
            **self._titles(),
            **more,
        )

    def stored(self) -> list[str]:
        """Return the data sets of the experiment's runs."""
        return list(dict.fromkeys(run.dataset for run in self.experiment.runs.values()))

    def training_curves(self, _wildcards: Wildcards) -> str:
        """The training curves of all runs."""
        return specification(
            "training_curves.py",
            style=self.config["figures"]["style"],
            runs=list(self.experiment.runs),
            **self._titles(),
        )

    def claims(self, _wildcards: Wildcards) -> str:
        """The verdicts on the paper's claims."""
        return specification(
            "claims.py", claims=self.config["claims"], probes=list(self.config["probes"]), **self._shown()
        )

    def choices(self, _wildcards: Wildcards) -> str:
        """The claims judged again for every choice, the configuration's own probes first."""
        own = list(self.config["probes"])
        choices = [{"name": "as configured", "roles": {name: name for name in own}, "divergence": "d_kl"}]
        for name, what in self.config["choices"].items():
            fitted = {probe: f"{probe}--{name}" for probe in what["probes"]}
            roles = {probe: fitted.get(probe, what["roles"].get(probe, probe)) for probe in own}
            choices.append({"name": name, "roles": roles, "divergence": what["divergence"]})
        return specification(
            "choices.py",
            choices=choices,
            claims=self.config["claims"],
            style=self.config["figures"]["style"],
            **self._shown(),
        )

    def published(self, _wildcards: Wildcards) -> str:
        """The experiment's numbers beside the published ones."""
        kinds = {options["kind"]: name for name, options in reversed(self.config["probes"].items())}
        return specification(
            "published.py", published=published(), labels=self._shown()["labels"], knn=kinds.get("knn")
        )

    def report(self, _wildcards: Wildcards) -> str:
        """The experiment's page, which shows the configuration but for what only says how jobs run."""
        apart = ("data", "device", "jobs", "shards")
        shown = {key: value for key, value in self.config.items() if key not in apart}
        # What is switched off makes no page stale.
        off = atlas.switched_off(self.config)
        shown["measures"] = {key: value for key, value in shown["measures"].items() if key not in off}
        # Nor does what has no part in any number.
        shown["keep"] = {key: value for key, value in shown["keep"].items() if key != "probabilities"}
        if not atlas.judged(self.config):
            del shown["later_claims"]
        page = {path.name: sha256(path) for path in sorted((SCRIPTS.parent / "report").glob("page.*"))}
        return specification("report.py", config=shown, page=page)

    # Inputs.

    def of_run(self, pattern: str) -> Any:
        """Return an input function: `pattern` once for every shard of the job's run."""

        def inputs(wildcards: Wildcards) -> list[str]:
            run = self.experiment.run(wildcards)
            names = [shard.name for shard in self.experiment.shards(run)]
            probes = list(self.probes) if "{probe}" in pattern else [""]
            return [f"{self.results}/{run.path}/{pattern.format(shard=n, probe=p)}" for n in names for p in probes]

        return inputs

    def of_runs(self, pattern: str) -> list[str]:
        """Return `pattern` in the folder of every run of the experiment."""
        return [f"{self.results}/{path}/{pattern}" for path in self.experiment.runs]

    def diagram(self, wildcards: Wildcards) -> list[str]:
        """Return the training manifest whose network figure 4 (g) draws: none for other figures."""
        name = self.config["figures"]["architecture"]
        runs = [run for run in self.experiment.runs.values() if run.architecture == name]
        return [f"{self.results}/{runs[0].path}/training.json"] if int(wildcards["figure"]) == 4 and runs else []

    # What figures and claims show.

    def _shown(self) -> dict[str, Any]:
        figures, config = self.config["figures"], self.config
        return {
            "architectures": sorted(networks.names(config), key=lambda name: networks.depth_of(config, name)),
            "datasets": list(self.config["datasets"]),
            "architecture": figures["architecture"],
            "labels": {
                "true": figures["true_labels"],
                "random": figures["random_labels"],
                "random_layers": figures["random_layers"] or figures["random_labels"],
                "overfit": figures["overfit_labels"],
            },
        }

    def _titles(self) -> dict[str, Any]:
        """Return what figures call data sets and networks, where the configuration says."""
        found = titles(self.config)
        return {"titles": found} if found else {}

    def _runs_of(self, number: int) -> dict[str, Any]:
        """Return the runs that a figure shows, and which of them (without their seeds) are not configured."""
        shown, kinds = self._shown(), FIGURES[number]
        datasets, labels = shown["datasets"], [shown["labels"][kind] for kind in kinds]
        networks = shown["architectures"] if number in EVERY_NETWORK else [shown["architecture"]]
        have = {f"{r.dataset}/{r.architecture}/{r.labels}": r for r in self.experiment.runs.values()}
        wanted = [f"{d}/{a}/{name}" for name in labels for d in datasets for a in networks]
        missing = [name for name in wanted if name not in have or (number == 4 and have[name].layers != "all")]
        return {"architectures": networks, "datasets": datasets, "labels": labels, "missing": missing}
