"""What the page shows, as plain values from the results' JSON, and the page itself, by Jinja2 from its template.

A cell of a table is text, or a mapping of ``tag``, ``verdict`` and ``text`` where a verdict is set apart.
"""

from __future__ import annotations

import base64
import gzip
import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any, cast

import jinja2
import pandas as pd
import yaml

from ..claims.published import COLUMNS
from ..claims.words import VERDICTS, wanted
from ..figures.words import LABELS, MODELS, architecture_title, dataset_title
from ..measures import tables
from ..measures.learned import at_chance, failed, of_learned
from ..runtime.code_digest import SCRIPTS
from ..runtime.files import read_json

#: The folder of the page's template and stylesheet.
FOLDER = SCRIPTS.parent / "report"
FIGURES = [f"figure{number}" for number in range(1, 8)]
STAGES = ("training", "features", "probes", "measures")
#: Bytes above which a table is compressed in the page: that of the training curves would be half of it.
LARGE_TABLE = 256 * 1024


def render(
    results: Path,
    config: Mapping[str, Any],
    choices: Path | None,
    overlays: str,
    *,
    later: Path | None = None,
    beside: Sequence[Path] = (),
) -> str:
    """Return the whole page of an experiment.

    Parameters
    ----------
    results: the experiment's folder.
    config: the configuration that the page shows.
    choices: choices.json, None where the configuration has no choices.
    overlays: what follows the file in the commands on the page.
    later: later.json, None where the later claims are not judged.
    beside: the figures' manifests of the measures beside the paper's.
    """
    judged = read_json(results / "claims" / "claims.json")["claims"]
    drawn = {name: read_json(results / "figures" / f"{name}.json") for name in [*FIGURES, "training"]}
    measures, runs = tables.read(results / "measures"), tables.read_runs(results / "measures")
    whole, good, _ = of_learned(measures, runs)
    found = ends(whole, good)
    return template().render(
        experiment=config["experiment"],
        date=date.today().isoformat(),
        answer=answer(found, good, config["figures"]),
        runs=accuracies(found, good),
        verdicts=verdicts(judged)
        | {"figure": figure(results / "claims" / "claims.json", claims_words(judged), overlays)},
        figures=[figure(results / "figures" / f"{name}.json", drawn[name], overlays) for name in FIGURES],
        training=figure(results / "figures" / "training.json", drawn["training"], overlays),
        published=published(read_json(results / "claims" / "published.json")["rows"]),
        choices=choices_table(choices, overlays) if choices else None,
        later=later_work(later, beside, overlays) if later or beside else None,
        gaps=gaps(measures, runs, config["measures"]["memorized"], drawn),
        provenance=provenance(results),
        configuration=yaml.safe_dump(dict(config), sort_keys=False, width=100),
    )


def template() -> jinja2.Template:
    """Return the page's template; what it names and is not given is an error."""
    loader = jinja2.FileSystemLoader(FOLDER)
    environment = jinja2.Environment(loader=loader, autoescape=True, undefined=jinja2.StrictUndefined)
    environment.filters["slug"] = lambda text: re.sub(r"\W+", "-", text)
    return environment.get_template("page.html.j2")


def figure(manifest: Path, facts: Mapping[str, Any], overlays: str) -> dict[str, Any]:
    """Return a figure that lies beside its manifest, its words, its numbers, and the command that makes it again."""
    image, csv, pdf = (manifest.with_suffix(f".{kind}") for kind in ("png", "csv", "pdf"))
    made = pdf if manifest.parent.name == "figures" else manifest
    return {
        "id": manifest.stem if manifest.stem in FIGURES else f"{manifest.stem}-figure",
        **{"png": data_uri(image, "image/png"), "inches": inches(image)},
        "files": dict([(pdf.name, data_uri(pdf, "application/pdf")), table_uri(csv)]),
        **{"caption": facts["caption"], "alt": facts["alt"]},
        "command": f"snakemake --cores all {made.as_posix()}{overlays}",
    }


def data_uri(path: Path, kind: str) -> str:
    """Return a file as a data: address."""
    return _uri(path.read_bytes(), kind)


def table_uri(csv: Path) -> tuple[str, str]:
    """Return a table's name in the page and its data: address; a large one is compressed, as pandas and R read it too."""
    data = csv.read_bytes()
    if len(data) <= LARGE_TABLE:
        return csv.name, _uri(data, "text/csv")
    return f"{csv.name}.gz", _uri(gzip.compress(data, mtime=0), "application/gzip")


def _uri(data: bytes, kind: str) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


def inches(image: Path) -> float:
    """Return the width of a PNG in inches, by the resolution that it states (200 dots per inch if none)."""
    data = image.read_bytes()
    stated = data.find(b"pHYs")
    return int.from_bytes(data[16:20]) / (int.from_bytes(data[stated + 4 : stated + 8]) * 0.0254 if stated > 0 else 200)


def verdicts(judged: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the table of verdicts, and each claim with its effects."""
    rows = [
        [
            f"{claim['claim']}. {claim['title']}",
            verdict("span", claim["verdict"], claim["verdict"] + (" (one run)" if claim["one_run"] else "")),
            f"{claim['supported']} of {claim['deciding']}",
            deciding(claim),
        ]
        for claim in judged
    ]
    counts = ", ".join(f"{sum(claim['verdict'] == word for claim in judged)} {word}" for word in reversed(VERDICTS))
    return {
        "counts": counts,
        "rows": rows,
        "claims": [claim | {"rows": list(map(_effect, claim["effects"]))} for claim in judged],
    }


def deciding(claim: Mapping[str, Any]) -> str:
    """Return what decides a claim, with its numbers, and how many effects beside it do."""
    others = len(claim["failing"] or claim["undecided"]) - 1
    return claim["decided"] + (f"; and {others} more" if others > 0 else "")


def verdict(tag: str, kind: str, text: str) -> dict[str, str]:
    """Return a cell that sets a verdict apart."""
    return {"tag": tag, "verdict": kind, "text": text}


def _effect(effect: Mapping[str, Any]) -> list[str]:
    known = effect["value"] is not None
    return [
        *(effect["part"], effect["cell"]),
        f"{effect['value']:.4g} {effect['unit']}" if known else "–",
        f"{effect['low']:.4g} … {effect['high']:.4g}" if known else "–",
        wanted(effect["relation"], effect["threshold"]),
        effect["verdict"] + ("" if effect["decides"] else " (reported only)"),
        effect["note"],
    ]


def claims_words(judged: list[dict[str, Any]]) -> dict[str, str]:
    """Return caption and alternative text of the claims' figure."""
    intervals = dict.fromkeys(claim["interval"] for claim in judged if claim["seeds"])
    told = ", ".join(f"claim {c['claim']} {c['verdict']} ({c['supported']} of {c['deciding']} effects)" for c in judged)
    return {
        "caption": f"Every effect, its interval ({'; '.join(intervals) or 'none'}) and its threshold; words where none "
        "could be computed. In brackets: reported, decides nothing.",
        "alt": f"Every effect behind the verdicts with its confidence interval and its threshold: {told}.",
    }


def published(rows: list[dict[str, Any]]) -> dict[str, list[list[str]]]:
    """Return the published numbers as cells: those with a number here, and those without."""

    def cells(row: Mapping[str, Any]) -> list[str]:
        return ["" if v is None else f"{v:.2f}" if isinstance(v, float) else str(v) for v in map(row.get, COLUMNS)]

    return {
        "known": [cells(row) for row in rows if row["here"] is not None],
        "unknown": [cells(row) for row in rows if row["here"] is None],
    }


def choices_table(manifest: Path, overlays: str) -> dict[str, Any]:
    """Return the figure and the verdicts of all choices, those that a choice changes in bold, and what changes."""
    facts = read_json(manifest)
    first, *others = facts["choices"]
    rows = []
    for choice in facts["choices"]:
        cells: list[Any] = [choice["name"]]
        for found, configured in zip(choice["verdicts"], first["verdicts"], strict=True):
            said = f"{found['verdict']} {found['supported']}/{found['deciding']}"
            flipped = found["verdict"] != configured["verdict"]
            cells.append(verdict("strong", found["verdict"], said) if flipped else said)
        rows.append(cells)
    moved = [[choice["name"], "; ".join(choice["changes"])] for choice in others if choice["changes"]]
    return {
        **{"count": len(others), "calm": len(others) - len(moved), "moved": moved, "rows": rows},
        "head": ["choice", *(f"claim {claim['claim']}" for claim in facts["claims"])],
        "figure": figure(manifest, facts, overlays),
    }


def later_work(later: Path | None, beside: Sequence[Path], overlays: str) -> dict[str, Any]:
    """Return the verdicts on the later claims, where they are judged, and the figures of the measures beside the paper's."""
    judged = read_json(later)["claims"] if later else []
    shown = verdicts(judged) if judged else None
    if shown is not None and later is not None:
        shown["figure"] = figure(later, claims_words(judged), overlays)
    return {"verdicts": shown, "figures": [figure(path, read_json(path), overlays) for path in beside]}


def ends(measures: pd.DataFrame, runs: pd.DataFrame) -> pd.DataFrame:
    """Return accuracy and P_SAME on each run's embedding at its last step, the means over seeds, in the order of `runs`.

    The index is data set, architecture, labels, split, model.
    """
    rows = runs[[*tables.RUN_KEYS, "last_step"]].merge(measures[measures["layer"] == "embedding"], sort=False)
    rows = rows[rows["step"] == rows["last_step"]]
    return rows.groupby([*tables.RUN_KEYS[:3], "split", "model"], sort=False)[["accuracy", "p_same"]].mean()


def accuracies(found: pd.DataFrame, runs: pd.DataFrame) -> dict[str, list[Any]]:
    """Return the table of final accuracies and of memorization: its head and its rows, one a run."""
    shown = [name for name in MODELS if name in found.index.get_level_values("model")]
    head = ["run", "DNN, train (%)", *(f"{MODELS[name]}, test (%)" for name in shown), "memorized at step"]
    rows = []
    for run, steps in runs.groupby(tables.RUN_KEYS[:3], sort=False)["memorization_step"]:
        dataset, architecture, labels = map(str, cast(tuple[str, str, str], run))
        reached = [f"{step:.0f}" for step in steps.dropna().sort_values().unique()]
        never = f"never ({steps.isna().sum()} of {len(steps)} seeds)" if len(steps) > 1 else "never"
        cells = [
            100 * found["accuracy"].get((dataset, architecture, labels, *of), float("nan"))
            for of in [("train", "dnn"), *(("test", name) for name in shown)]
        ]
        title = f"{dataset_title(dataset)}, {architecture_title(architecture)}, {LABELS.get(labels, labels).lower()}"
        when = ", ".join([*reached, *([never] if steps.isna().any() else [])])
        known = [not pd.isna(cell) for cell in cells]
        rows.append(
            [title, *(f"{c:.1f}" if k else "–" for c, k in zip(cells, known, strict=True)), when if known[0] else "–"]
        )
    return {"head": head, "rows": rows}


def answer(found: pd.DataFrame, runs: pd.DataFrame, figures: Mapping[str, Any]) -> str:
    """Return the sentence that answers the title's question for the network of the figures; numbers are means of data sets.

    It generalizes if its test accuracy is above chance, and memorizes if it reached memorization, in every one of `runs`.
    """
    network, did, told = figures["architecture"], list[str](), list[str]()
    for verb, kind, split in (("generalize", "true", "test"), ("memorize", "random", "training")):
        labels = figures[f"{kind}_labels"]
        those = runs[(runs["architecture"] == network) & (runs["labels"] == labels) & answered(runs)]
        if those.empty:
            continue
        above = ~at_chance(those["final_test_accuracy"], those["classes"])
        done = bool((above if kind == "true" else those["memorization_step"].notna()).all())
        did += [verb] if done else []
        mean = found.xs((network, labels), level=("architecture", "labels")).groupby(["split", "model"]).mean()
        same = [
            f"as {MODELS[m]} on {100 * mean['p_same']['test', m]:.0f} %"
            for m in ("knn", "svm", "lr")
            if ("test", m) in mean.index
        ]
        right = mean["accuracy"][split.removesuffix("ing"), "dnn"]
        told.append(
            f"trained on {kind} labels {architecture_title(network)} {verb + 's' if done else f'does not {verb}'} "
            f"({100 * right:.1f} % of the {split} images right) and answers {', '.join(same)} of the test images"
        )
    word = {"generalize memorize": "Both: ", "generalize": "It generalizes: ", "memorize": "It memorizes: "}
    sentence = f"{word.get(' '.join(did), '')}{'; '.join(told) or 'no run of this experiment could tell'}."
    return sentence[0].upper() + sentence[1:]


def answered(runs: pd.DataFrame) -> pd.Series:
    """Return which runs have a network's answers: all but those of features alone without logits."""
    return runs["final_train_accuracy"].notna()


def gaps(measures: pd.DataFrame, runs: pd.DataFrame, memorized: float, drawn: Mapping[str, Any]) -> dict[str, Any]:
    """Return what was not converged, never memorized, or is missing from the figures."""
    fits = measures[(measures.model != "dnn") & (measures.split == "train")]
    missed = measures[~measures.converged & (measures.split == "train")]
    return {
        **{"fits": len(fits), "worst": fits.gap.max(), "memorized": f"{memorized:.2%}"},
        "missed": [
            [tables.run_name(row), row["step"], row["layer"], row["model"], f"{row['gap']:.2g}"]
            for row in _records(missed)
        ],
        "never": [tables.run_name(row) for row in _records(runs[runs.memorization_step.isna() & answered(runs)])],
        "failed": [tables.run_name(row) for row in _records(runs[failed(runs)])],
        "missing": {name.removeprefix("figure"): drawn[name]["missing"] for name in FIGURES if drawn[name]["missing"]},
    }


def _records(table: Any) -> Iterable[dict[str, Any]]:
    return ({str(key): value for key, value in row.items()} for row in table.to_dict("records"))


def provenance(results: Path) -> dict[str, Any]:
    """Return the provenance run by run and job by job: time, energy where it could be read, memory, device, code."""
    records: list[tuple[str, dict[str, Any]]] = []
    for path in sorted(results.rglob("*.provenance.json")):
        if path.parent != results and ".state" not in path.parts:
            name = path.relative_to(results).as_posix().removesuffix(".provenance.json")
            records.append((name, read_json(path)))
    by_run: dict[str, list[tuple[str, dict[str, Any]]]] = {}
    for name, record in records:
        parts = name.split("/")
        of_run = len(parts) > 4 and parts[1] != "labels"
        by_run.setdefault("/".join(parts[:4]) if of_run else "all else", []).append((name, record))
    by_run = dict(sorted(by_run.items(), key=lambda item: item[0] == "all else"))
    versions: dict[str, str] = max((record["libraries"] for _, record in records), key=len, default={})
    return {
        "minutes": sum(record["wall_seconds"] for _, record in records) / 60,
        "commits": ", ".join(sorted({_commit(record) for _, record in records})),
        "verify": f"python workflow/scripts/results.py verify {results.as_posix()}",
        "libraries": ", ".join(f"{name} {version}" for name, version in versions.items()),
        "runs": [[n, len(found), *_seconds(found), *_costs([r for _, r in found])] for n, found in by_run.items()],
        "jobs": [
            [name, f"{record['wall_seconds']:.1f}", *_costs([record]), record["threads"], _commit(record)]
            for name, record in records
        ],
    }


def _seconds(found: list[tuple[str, dict[str, Any]]]) -> list[str]:
    """Return the seconds that the jobs of a run took, stage by stage."""
    seconds = dict.fromkeys(STAGES, 0.0)
    for name, record in found:
        stage = name.split("/")[4] if name.count("/") > 3 else ""
        if stage in seconds:
            seconds[stage] += record["wall_seconds"]
    return [f"{value:.1f}" if value else "–" for value in seconds.values()]


def _costs(records: list[dict[str, Any]]) -> list[str]:
    """Return the energy of jobs where it was read, the largest memory, the largest GPU memory, and the devices."""
    energy = [record["energy_joules"] for record in records if record.get("energy_joules") is not None]
    gpu = max(record.get("peak_gpu_memory_bytes") or 0 for record in records)
    return [
        f"{sum(energy):.0f}" if energy else "–",
        f"{max(record['peak_memory_bytes'] for record in records) / 1e6:.0f}",
        f"{gpu / 1e6:.0f}" if gpu else "–",
        ", ".join(sorted({record.get("device", "cpu") for record in records})),
    ]


def _commit(record: Mapping[str, Any]) -> str:
    return f"{(record['git']['commit'] or 'no git')[:10]}{' + changes' if record['git']['dirty'] else ''}"
