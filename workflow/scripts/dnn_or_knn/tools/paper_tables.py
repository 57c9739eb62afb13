"""Print an experiment's numbers as tables in Markdown, beside the published ones.

    python workflow/scripts/results.py tables results/cpu

Figures 1 and 2 at the last step (accuracy, P_SAME, D_KL of every cell), figure 4 (accuracy by layer), and where the runs of
figures 6 and 7 memorized. Several seeds: the mean, with the smallest and the largest in brackets. README.md and
docs/reproduction.md hold what this prints of results/reference/.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import yaml

from ..figures.words import TITLES, architecture_title, dataset_title, model_title
from ..measures import tables as tidy
from ..measures.learned import of_learned
from ..plan.configuration import PAPER
from ..plan.told import titles
from .compare import MISSING, at_the_end, configuration, existing, percent

PUBLISHED = PAPER.parent / "workflow" / "resources" / "published.yaml"
CELL = ["dataset", "architecture"]


class Table(NamedTuple):
    """A table of texts with a sentence before it."""

    title: str
    head: list[str]
    rows: list[list[str]]


class Experiment(NamedTuple):
    """What the tables are made of."""

    last: pd.DataFrame  #: the measures at each run's last step
    at_memorization: pd.DataFrame  #: the measures at the step at which each run had memorized
    runs: pd.DataFrame  #: a row per run
    failed: list[dict[str, Any]]  #: the rows of the runs that are left out: with another seed they learned
    config: dict[str, Any]
    published: dict[str, Any]

    def labels(self, kind: str) -> str:
        """Return the name of the label set of a kind of run: true, random, overfit."""
        return str(self.config["figures"][f"{kind}_labels"])

    def theirs(self, block: str, dataset: str, architecture: str) -> dict[str, Any]:
        """Return what a block of the published numbers says of a cell; empty if it says nothing."""
        cell = [dataset, _papers(architecture)]
        return next((entry for entry in self.published[block] if [entry[key] for key in CELL] == cell), {})

    def probes(self) -> list[str]:
        """Return the probes that stand for the paper's, in its order."""
        there = set(self.last.model)
        return [name for name in ("knn", "svm", "lr") if name in there]


def main(command: str, words: list[str]) -> int:
    """Print the tables of an experiment."""
    parser = argparse.ArgumentParser(
        prog=f"results.py {command}", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, metavar="results/<experiment>")
    args = parser.parse_args(words)
    experiment = read(args.folder)
    made = (accuracies(experiment), agreement(experiment), *layers(experiment), memorization(experiment))
    first, *others = [markdown(table) for table in made if table.rows] or [""]
    print("\n\n".join(filter(None, [first, left_out(experiment), *others])))
    return 0


def read(folder: Path) -> Experiment:
    """Return an experiment's numbers; raise `UserError` if its measures are not there."""
    existing(folder, "measures/measures.json")
    measures, runs, failed = of_learned(tidy.read(folder / "measures"), tidy.read_runs(folder / "measures"))
    config = configuration(folder)
    TITLES.update(titles(config))
    steps = runs[[*tidy.RUN_KEYS, "memorization_step"]].rename(columns={"memorization_step": "step"}).dropna()
    memorized = measures.merge(steps.astype({"step": "int64"}))
    published = yaml.safe_load(PUBLISHED.read_text(encoding="utf-8"))
    return Experiment(at_the_end(measures), memorized, runs, failed, config, published)


# Figures 1 and 2.


def accuracies(e: Experiment) -> Table:
    """Figure 1 at the last step: the test accuracies of every cell, beside the published ones."""
    of = _where(e.last, labels=e.labels("true"), split="test", layer="embedding")
    rows = []
    for dataset, architecture in _cells(e, of):
        cell = _where(of, dataset=dataset, architecture=architecture)
        ours = [_over_seeds(_where(cell, model=model).accuracy, percent) for model in ("dnn", *e.probes())]
        paper, their_knn = _published(e, dataset, architecture)
        rows.append([dataset_title(dataset), _beside_the_papers(architecture), *ours, paper, their_knn])
    head = ["test accuracy", "", "network", *map(model_title, e.probes()), "the paper's network", "the authors' k-NN"]
    return Table("Figure 1, at the last step.", head, rows)


def left_out(e: Experiment) -> str:
    """Return a sentence on the seeds that all tables leave out, nothing if there are none."""
    told = [
        f"{architecture_title(run['architecture'])} on {dataset_title(run['dataset'])} ({run['labels']}) with seed {run['seed']}"
        f", right for {percent(run['final_train_accuracy'])} of its training images at the end"
        for run in e.failed
    ]
    return f"Left out, since the network did not learn: {'; '.join(told)}." if told else ""


def agreement(e: Experiment) -> Table:
    """Figure 2 at the last step: P_SAME of every cell, eq. (2), and D_KL, eq. (1), in nats, on test."""
    of = _where(e.last, labels=e.labels("true"), split="test", layer="embedding")
    rows = []
    for dataset, architecture in _cells(e, of):
        cell = _where(of, dataset=dataset, architecture=architecture)
        for measure in ("p_same", "d_kl"):
            title = {"p_same": "P_SAME", "d_kl": "D_KL"}[measure]
            values = [_over_seeds(_where(cell, model=model)[measure], thousandths) for model in e.probes()]
            rows.append([dataset_title(dataset), architecture_title(architecture), title, *values])
    head = ["test images", "", "", *map(model_title, e.probes())]
    return Table("Figure 2 and D_KL (nats), at the last step.", head, rows)


def _published(e: Experiment, dataset: str, architecture: str) -> tuple[str, str]:
    """Return a cell's published accuracies, of the network by figure 1 and of the authors' k-NN."""
    span = e.theirs("final_test_accuracy", dataset, architecture).get("paper")
    layers = e.theirs("layer_test_accuracy", dataset, architecture)
    knn = dict(zip(layers.get("layers", []), layers.get("code", []), strict=True)).get("embedding")
    return MISSING if span is None else f"{span[0]:g} to {span[1]:g} %", MISSING if knn is None else f"{knn:.2f} %"


def _papers(architecture: str) -> str:
    """Return the paper's network that one of this name stands for: its wide ResNet for any other."""
    return "wrn-28-10" if architecture.startswith("wrn-") else architecture


def _beside_the_papers(architecture: str) -> str:
    papers, title = _papers(architecture), architecture_title(architecture)
    return title if papers == architecture else f"{title} (the paper: {architecture_title(papers)})"


# Figure 4.


def layers(e: Experiment) -> list[Table]:
    """Figure 4 by layer: test accuracy with true labels, train accuracy with random ones, a table per data set."""
    made = []
    for kind, split in (("true", "test"), ("random", "train")):
        of = _where(e.last, labels=e.labels(kind), split=split, architecture=e.config["figures"]["architecture"])
        for dataset in _in_order(e, "dataset", of.dataset):
            table = _by_layer(e, _where(of, dataset=dataset), published=kind == "true")
            title = f"Figure 4, {dataset_title(dataset)}, {kind} labels, {split} accuracy by layer, in percent."
            made += [Table(title, *table)] if len(table[0]) > 2 else []
    return made


def _by_layer(e: Experiment, of: pd.DataFrame, published: bool) -> tuple[list[str], list[list[str]]]:
    names = list(dict.fromkeys(of[of.model != "dnn"].sort_values("layer_index").layer))
    rows = [
        [model_title(model), *(_over_seeds(_where(of, model=model, layer=name).accuracy, tenths) for name in names)]
        for model in e.probes()
    ]
    entry = e.theirs("layer_test_accuracy", of.dataset.iloc[0], of.architecture.iloc[0]) if published else {}
    if entry:
        theirs = dict(zip(entry["layers"], entry["code"], strict=True))
        if e.config["layer_input"] != "mean":  # the authors' input is the mean of each channel
            del theirs["input"]
        shown = [f"{theirs[name]:.1f}" if name in theirs else MISSING for name in names]
        rows.insert(0, ["k-NN, the authors'", *shown])
    return ["", *(name.removeprefix("unit_").replace("_", " ") for name in names)], rows


# Figures 6 and 7.


def memorization(e: Experiment) -> Table:
    """When each run on random labels or a subset had memorized it, and the network's test accuracy then and at the end."""
    rows = []
    for kind in ("random", "overfit"):
        of = _where(e.runs, labels=e.labels(kind))
        for dataset, architecture in _cells(e, of):
            where = {"dataset": dataset, "architecture": architecture}
            runs = _where(of, **where)
            then = _where(
                e.at_memorization, **where, labels=e.labels(kind), model="dnn", split="test", layer="embedding"
            )
            theirs = _published_memorization(e, dataset, architecture) if kind == "overfit" else MISSING
            rows.append(
                [
                    *(dataset_title(dataset), f"{architecture_title(architecture)}, {e.labels(kind)}"),
                    f"{runs.train_count.iloc[0]:,}",
                    *(_over_seeds(runs[column], whole) for column in ("memorization_step", "last_step")),
                    _over_seeds(then.accuracy, percent),
                    _over_seeds(runs.final_test_accuracy, percent),
                    theirs,
                ]
            )
    head = ["", "", "images", "memorized at step", "of", "test accuracy then", "at the end", "the paper's"]
    return Table("Figures 6 and 7: memorization.", head, rows)


def _published_memorization(e: Experiment, dataset: str, architecture: str) -> str:
    entry = e.theirs("memorization", dataset, architecture)
    return f"{entry['test_accuracy']:g} % at step {entry['step']:,}" if entry else MISSING


# Rows and cells.


def _where(table: pd.DataFrame, **values: str) -> pd.DataFrame:
    for name, value in values.items():
        table = table[table[name] == value]
    return table


def _cells(e: Experiment, of: pd.DataFrame) -> list[tuple[str, str]]:
    """Return the cells that there are, data set by data set, in the paper's order."""
    there = set(zip(of.dataset, of.architecture, strict=True))
    datasets, architectures = (_in_order(e, name, of[name]) for name in CELL)
    return [(d, a) for d in datasets for a in architectures if (d, a) in there]


def _in_order(e: Experiment, what: str, there: pd.Series) -> list[str]:
    """Return the data sets or networks that there are: those of the paper in its order, then the others."""
    papers = [entry[what] for entry in e.published["final_test_accuracy"]]
    place = {name: papers.index(name) for name in dict.fromkeys(papers)}
    return sorted(set(there), key=lambda name: (place.get(_papers(name), len(papers)), name))


def _over_seeds(values: pd.Series, show: Callable[[float], str]) -> str:
    """Return the mean over seeds, with the smallest and the largest if there are several; what is missing is a dash."""
    there = values.dropna()
    if there.empty:
        return MISSING
    mean = show(float(there.mean()))
    if len(values) == 1:
        return mean
    lost = "" if len(there) == len(values) else f", {len(values) - len(there)} without"
    return f"{mean} ({show(float(there.min()))} to {show(float(there.max()))}{lost})"


def tenths(value: float) -> str:
    """Return a share in percent, to a tenth, without the sign."""
    return f"{100 * value:.1f}"


def thousandths(value: float) -> str:
    """Return a number to a thousandth."""
    return f"{value:.3f}"


def whole(value: float) -> str:
    """Return a step."""
    return f"{value:,.0f}"


def markdown(table: Table) -> str:
    """Return a table in Markdown under its title."""
    lines = [table.head, ["---"] * len(table.head), *table.rows]
    return "\n".join([table.title, "", *(f"| {' | '.join(line)} |" for line in lines)])
