"""Put two experiments side by side: accuracies, measures at the end, verdicts, what differs in the configuration.

    python workflow/scripts/results.py compare results/a results/b [--output comparison.html]

Prints the tables, and writes them as a page that opens from disk (default: <a>-beside-<b>.html beside the first folder).
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from ..measures import tables as tidy
from ..measures.tables import RUN_KEYS
from ..plan.schema import in_yaml
from ..plan.staleness import differing
from ..runtime.errors import UserError
from ..runtime.files import read_json, write_text

#: Blocks of the configuration that only say how jobs run.
APART = ("data", "device", "jobs", "shards", "experiment")
MISSING = "–"


class Table(NamedTuple):
    """A titled table of texts; what differs between the two experiments is marked."""

    title: str
    head: list[str]
    rows: list[list[str]]
    differs: list[bool]  #: row by row


class Experiment(NamedTuple):
    """What is compared of an experiment."""

    name: str
    measures: Any  #: the tidy table
    runs: Any  #: a row per run
    claims: list[dict[str, Any]]
    config: dict[str, Any]


def main(command: str, words: list[str]) -> int:
    """Compare the experiments in two results folders."""
    parser = argparse.ArgumentParser(
        prog="results.py compare", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folders", nargs=2, type=Path, metavar="results/<experiment>")
    parser.add_argument("--output", type=Path, help="the page to write")
    args = parser.parse_args(words)
    one, other = map(read, args.folders)
    output = args.output or args.folders[0].parent / f"{one.name}-beside-{other.name}.html"
    if one.name == other.name:  # of two checkouts
        one, other = (e._replace(name=str(folder)) for e, folder in zip((one, other), args.folders, strict=True))
    found = tables(one, other)
    print("\n\n".join(map(text, found)))
    write_text(output, page(one.name, other.name, found))
    print(f"\nThe same as a page: {output.resolve().as_uri()}")
    return 0


def read(folder: Path) -> Experiment:
    """Return an experiment's results; raise `UserError` if some are not there."""
    existing(folder, "measures/measures.json", "claims/claims.json")
    return Experiment(
        folder.resolve().name,
        tidy.read(folder / "measures"),
        tidy.read_runs(folder / "measures"),
        read_json(folder / "claims" / "claims.json")["claims"],
        configuration(folder),
    )


def existing(folder: Path, *parts: str) -> None:
    """Raise `UserError` if one of the results in an experiment's folder is not there."""
    for part in parts:
        if not (folder / part).is_file():
            raise UserError(f"{folder} has no {part}; make it with snakemake first, or name another results folder")


def configuration(folder: Path) -> dict[str, Any]:
    """Return the configuration of an experiment: as its page has it, or as Snakemake started with it."""
    for name, key in (("report.provenance.json", "spec"), (".frozen.json", None)):
        if (folder / name).is_file():
            record = read_json(folder / name)
            config = (record[key] if key else record)["config"]
            return {name: value for name, value in config.items() if name not in APART}
    raise UserError(f"{folder} has neither report.provenance.json nor .frozen.json; make its page with snakemake first")


def tables(one: Experiment, other: Experiment) -> list[Table]:
    """Return everything that is compared."""
    return [_accuracies(one, other), _endings(one, other), _verdicts(one, other), _configurations(one, other)]


def _accuracies(one: Experiment, other: Experiment) -> Table:
    """The runs: their accuracies at the end, and when they had memorized their training set."""
    columns = {"train": "final_train_accuracy", "test": "final_test_accuracy", "memorized at": "memorization_step"}
    pairs = _paired([_rows(e.runs, RUN_KEYS, columns.values()) for e in (one, other)])
    rows = []
    for key, (left, right) in pairs.items():
        cells = []
        for column in columns.values():
            show = _step if column == "memorization_step" else percent
            cells += [show(left.get(column)), show(right.get(column))]
        rows.append([_run(key), *cells])
    head = [f"{title} {name}" for title in columns for name in (one.name, other.name)]
    return _table("Accuracies at the end", ["run", *head], rows)


def _endings(one: Experiment, other: Experiment) -> Table:
    """P_SAME and D_KL of each probe on the test set, on the embedding at the last step."""
    keys, columns = ["dataset", "architecture", "labels", "seed", "model"], ["p_same", "d_kl"]

    def last(experiment: Experiment) -> dict[tuple[Any, ...], dict[str, Any]]:
        table = experiment.measures
        table = table[(table.split == "test") & (table.layer == "embedding") & (table.model != "dnn")]
        return _rows(at_the_end(table), keys, columns)

    rows = []
    for key, (left, right) in _paired([last(one), last(other)]).items():
        same = [percent(side.get("p_same")) for side in (left, right)]
        apart = [_number(side.get("d_kl")) for side in (left, right)]
        rows.append([_run(key[:4]), str(key[4]), *same, *apart])
    head = [f"{title} {name}" for title in ("P_SAME", "D_KL (nats)") for name in (one.name, other.name)]
    return _table("Measures on the test set at the end", ["run", "probe", *head], rows)


def _verdicts(one: Experiment, other: Experiment) -> Table:
    """The verdicts, with how many of the effects that decide support the claim."""
    left, right = ({claim["claim"]: claim for claim in experiment.claims} for experiment in (one, other))
    rows = []
    for number in sorted({*left, *right}):
        title = (left.get(number) or right[number])["title"]
        rows.append([f"{number}. {title}", *(_verdict(side.get(number)) for side in (left, right))])
    return _table("Verdicts", ["claim", one.name, other.name], rows)


def _configurations(one: Experiment, other: Experiment) -> Table:
    """Every value of the configuration that differs."""
    rows = [[key, in_yaml(old, 200), in_yaml(new, 200)] for key, old, new in differing(one.config, other.config)]
    return Table("What differs in the configuration", ["key", one.name, other.name], rows, [True] * len(rows))


# Rows and cells.


def at_the_end(measures: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of each run's last step."""
    return measures[measures.step == measures.groupby(RUN_KEYS, observed=True).step.transform("max")]


def _rows(table: Any, keys: Sequence[str], columns: Iterable[str]) -> dict[tuple[Any, ...], dict[str, Any]]:
    wanted = list(columns)
    return {tuple(row[key] for key in keys): {c: row[c] for c in wanted} for row in table.to_dict("records")}


def _paired(sides: Sequence[Mapping[Any, dict[str, Any]]]) -> dict[Any, list[dict[str, Any]]]:
    """Return both sides' rows by key, in the order of the first; a row that a side lacks is empty."""
    return {key: [side.get(key, {}) for side in sides] for key in {**sides[0], **sides[1]}}


def _table(title: str, head: list[str], rows: list[list[str]]) -> Table:
    """Return a table whose cells at the end come in pairs, one of each experiment."""
    labels = 2 if head[1] == "probe" else 1
    differs = [any(a != b for a, b in zip(row[labels::2], row[labels + 1 :: 2], strict=True)) for row in rows]
    return Table(title, head, rows, differs)


def _run(key: Sequence[Any]) -> str:
    return f"{key[0]} {key[1]} {key[2]} seed{key[3]}"


def _missing(value: Any) -> bool:
    return value is None or bool(pd.isna(value))


def percent(value: Any) -> str:
    """Return a share in percent, to a hundredth; a dash for what is missing."""
    return MISSING if _missing(value) else f"{100 * value:.2f} %"


def _number(value: Any) -> str:
    return MISSING if _missing(value) else f"{value:.4f}"


def _step(value: Any) -> str:
    return MISSING if _missing(value) else f"step {int(value)}"


def _verdict(claim: Mapping[str, Any] | None) -> str:
    return MISSING if claim is None else f"{claim['verdict']} ({claim['supported']} of {claim['deciding']})"


# How it is shown.


def text(table: Table) -> str:
    """Return a table for a terminal; rows that differ begin with a star."""
    if not table.rows:
        return f"{table.title}: nothing"
    lines = [["", *table.head]]
    lines += [["*" if differs else "", *row] for differs, row in zip(table.differs, table.rows, strict=True)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    shown = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines]
    return "\n".join([f"{table.title} (* differs)", *shown])


def page(one: str, other: str, found: Sequence[Table]) -> str:
    """Return the tables as a page that holds all it needs."""
    import jinja2

    from ..report.page import FOLDER

    loader = jinja2.FileSystemLoader(FOLDER)
    environment = jinja2.Environment(loader=loader, autoescape=True, undefined=jinja2.StrictUndefined)
    return environment.get_template("compare.html.j2").render(one=one, other=other, tables=found)
