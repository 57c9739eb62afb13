"""Write the experiment's page: verdicts, figures, training curves, numbers beside the paper, provenance.

The page holds everything in itself and opens from disk without a network.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from dnn_or_knn.claims.words import VERDICTS, wanted
from dnn_or_knn.report import page
from dnn_or_knn.runtime import command_line, files, provenance

FIGURES = [f"figure{number}" for number in range(1, 8)]
SECTIONS = {
    "verdicts": "Verdicts",
    "figures": "Figures",
    "training": "Training",
    "beside": "Beside the paper",
    "choices": "Choices",
    "gaps": "Not converged, not reached, missing",
    "provenance": "Provenance",
    "configuration": "Configuration",
}


def main(args: argparse.Namespace) -> None:
    """Write report.html, and its manifest and provenance beside it."""
    results: Path = args.results
    overlays = "" if args.overlays == "config.yaml" else f" --configfile {args.overlays}"
    inputs = [
        results / "claims" / "claims.json",
        results / "claims" / "beside.json",
        results / "measures" / "measures.json",
        *args.choices,
    ]
    inputs += [results / "figures" / f"{name}.json" for name in [*FIGURES, "training"]]
    for path in inputs:
        files.check(path.parent, files.read_json(path)["files"])
    bodies = {
        "verdicts": verdicts(results, overlays),
        "figures": figures(results, FIGURES, overlays),
        "training": figures(results, ["training"], overlays),
        "beside": beside(results),
        "choices": "".join(choices(manifest, overlays) for manifest in args.choices),
        "gaps": gaps(results, args.spec["config"]),
        "provenance": runs(results),
        "configuration": configuration(args.spec["config"]),
    }
    bodies = {key: body for key, body in bodies.items() if key != "choices" or body}
    links = "".join(f'<li><a href="#{key}">{SECTIONS[key]}</a></li>' for key in bodies)
    experiment = args.spec["config"]["experiment"]
    head = (
        "<header><h1>DNN or k-NN? Generalize or memorize?</h1>"
        f"<p>The experiment <strong>{page.text(experiment)}</strong>: "
        "Cohen, Sapiro and Giryes (arXiv 1805.06822), reproduced from the data sets to the claims.</p></header>"
        f'<nav aria-label="Sections"><ul>{links}</ul></nav>'
    )
    sections = "".join(
        f'<section id="{key}" aria-labelledby="{key}-title"><h2 id="{key}-title">{SECTIONS[key]}</h2>{body}</section>'
        for key, body in bodies.items()
    )
    files.write_text(
        args.output, page.page(f"DNN or k-NN? {experiment}", f'{head}<main id="main" tabindex="-1">{sections}</main>')
    )
    manifest = args.output.with_suffix(".json")
    files.write_json(manifest, {"files": files.listing(args.output.parent, [args.output.name])})
    provenance.write(args.output.with_suffix(".provenance.json"), args, inputs=inputs, results=[manifest])


def verdicts(results: Path, overlays: str) -> str:
    """Return the table of verdicts, the figure of all effects, and each claim's effects folded away."""
    judged = files.read_json(results / "claims" / "claims.json")["claims"]
    rows = []
    for claim in judged:
        kind = claim["verdict"].replace(" ", "-")
        said = claim["verdict"] + (" (one run)" if claim["one_run"] else "")
        named = "; ".join(claim["reasons"]) or f"closest: {claim['decided']}"
        rows.append(
            [
                f"{claim['claim']}. {claim['title']}",
                page.Raw(f'<span class="{kind}">{page.text(said)}</span>'),
                f"{claim['supported']} of {claim['deciding']}",
                named,
            ]
        )
    folder = results / "claims"
    head = ["claim", "verdict", "supporting", "what decides it, or why it cannot be told"]
    counts = ", ".join(f"{sum(claim['verdict'] == word for claim in judged)} {word}" for word in reversed(VERDICTS))
    intervals = dict.fromkeys(claim["interval"] for claim in judged if claim["seeds"])
    told = ", ".join(f"claim {c['claim']} {c['verdict']} ({c['supported']} of {c['deciding']} effects)" for c in judged)
    alt = f"Every effect behind the verdicts with its confidence interval and its threshold: {told}."
    command = f"snakemake --cores all {folder.as_posix()}/claims.json{overlays}"
    picture = page.figure(
        "claims-figure",
        folder / "claims.png",
        f"Every effect, its interval ({'; '.join(intervals) or 'none'}) and its threshold; words where none could be computed. "
        "In brackets: reported, decides nothing.",
        alt,
        folder / "claims.csv",
        command,
    )
    return (
        f"<p>{counts}.</p>" + page.table("Verdicts", head, rows, stacked=True) + picture + "".join(map(effects, judged))
    )


def effects(claim: dict[str, Any]) -> str:
    """Return one claim's statement, rule and effects, folded away."""
    rows = []
    for effect in claim["effects"]:
        known = effect["value"] is not None
        rows.append(
            [
                effect["part"],
                effect["cell"],
                f"{effect['value']:.4g} {effect['unit']}" if known else "–",
                f"{effect['low']:.4g} … {effect['high']:.4g}" if known else "–",
                wanted(effect["relation"], effect["threshold"]),
                effect["verdict"] + ("" if effect["decides"] else " (reported only)"),
                effect["note"],
            ]
        )
    head = ["part", "cell", "effect", "interval", "supports if", "verdict", "remark"]
    said = f"<p>{page.text(claim['statement'])}</p><p>Rule: {page.text(claim['rule'])}</p><p class='soft'>Intervals: {page.text(claim['interval'])}.</p>"
    return page.details(
        f"Claim {claim['claim']}: {claim['title']}",
        said + page.table(f"Effects of claim {claim['claim']}", head, rows),
        printed=True,
    )


def figures(results: Path, names: list[str], overlays: str) -> str:
    """Return figures in order, each with its caption, numbers and command."""
    parts = []
    for name in names:
        stem = results / "figures" / name
        facts = files.read_json(stem.with_suffix(".json"))
        command = f"snakemake --cores all {stem.as_posix()}.pdf{overlays}"
        if name.startswith("figure"):
            parts.append(f"<h3>Figure {name.removeprefix('figure')}</h3>")
        identifier = name if name.startswith("figure") else f"{name}-figure"
        parts.append(
            page.figure(
                identifier, stem.with_suffix(".png"), facts["caption"], facts["alt"], stem.with_suffix(".csv"), command
            )
        )
    return "".join(parts)


def beside(results: Path) -> str:
    """Return the table beside the published numbers; rows without a number here are folded away."""
    head, _, *lines = (results / "claims" / "beside.md").read_text(encoding="utf-8").splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    names = [cell.strip() for cell in head.strip("|").split("|")]
    here = names.index("here")
    known, unknown = [row for row in cells if row[here]], [row for row in cells if not row[here]]
    note = (
        "<p>Published values read from the figures, and printed by the authors' code. A difference to an interval "
        "counts from its nearer end.</p>"
    )
    first = (
        page.table("Beside the paper", names, known)
        if known
        else "<p>None of the published networks and data sets is in this experiment.</p>"
    )
    rest = page.details(
        f"{len(unknown)} published numbers without a run here", page.table("Without a run here", names, unknown)
    )
    return note + first + (rest if unknown else "")


def choices(manifest: Path, overlays: str) -> str:
    """Return the figure and the verdicts of all choices, those that a choice changes in bold, and what changes.

    Parameters
    ----------
    manifest: choices.json; the figure and its numbers lie beside it.
    """
    facts = files.read_json(manifest)
    first, *others = facts["choices"]
    rows = []
    for choice in facts["choices"]:
        cells: list[str] = []
        for found, configured in zip(choice["verdicts"], first["verdicts"], strict=True):
            said = f"{found['verdict']} {found['supported']}/{found['deciding']}"
            kind = found["verdict"].replace(" ", "-")
            flipped = found["verdict"] != configured["verdict"]
            cells.append(page.Raw(f'<strong class="{kind}">{page.text(said)}</strong>') if flipped else said)
        rows.append([choice["name"], *cells])
    head = ["choice", *(f"claim {claim['claim']}" for claim in facts["claims"])]
    moved = [[choice["name"], "; ".join(choice["changes"])] for choice in others if choice["changes"]]
    calm = len(others) - len(moved)
    said = (
        f"<p>{calm} of {len(others)} choices change no verdict. A fraction is the effects that support the claim.</p>"
    )
    command = f"snakemake --cores all {manifest.as_posix()}{overlays}"
    picture = page.figure(
        "choices-figure",
        manifest.with_suffix(".png"),
        facts["caption"],
        facts["alt"],
        manifest.with_suffix(".csv"),
        command,
    )
    changed = page.table("What changes", ["choice", "what changes"], moved) if moved else ""
    return said + picture + page.table("Verdicts under each choice", head, rows) + changed


def gaps(results: Path, config: dict[str, Any]) -> str:
    """Return what was not converged, never memorized, or is missing from the figures."""
    from dnn_or_knn.measures import tables

    measures = tables.read(results / "measures")
    missed = measures[~measures.converged & (measures.split == "train")]
    parts = []
    if len(missed):
        rows = [
            [
                tables.run_name({str(key): value for key, value in row.items()}),
                row["step"],
                row["layer"],
                row["model"],
                f"{row['gap']:.2g}",
            ]
            for row in missed.to_dict("records")
        ]
        shown = page.table("Not converged", ["run", "step", "layer", "probe", "relative gap"], rows)
        parts.append(f"<p>{len(rows)} fits missed their tolerance.</p>" + page.details("Which", shown))
    else:
        fits = measures[(measures.model != "dnn") & (measures.split == "train")]
        worst = fits.gap.max()
        parts.append(
            f"<p>All {len(fits)} fits reached their tolerance; the largest certified relative gap is {worst:.1g}.</p>"
        )
    table = tables.read_runs(results / "measures")
    never = [
        tables.run_name({str(key): value for key, value in row.items()})
        for row in table.to_dict("records")
        if row["memorization_step"] is None or row["memorization_step"] != row["memorization_step"]
    ]
    if never:
        parts.append(
            f"<p>Runs that never reached {config['measures']['memorized']:.2%} train accuracy: {page.text(', '.join(never))}.</p>"
        )
    for name in FIGURES:
        missing = files.read_json(results / "figures" / f"{name}.json").get("missing")
        if missing:
            parts.append(f"<p>Figure {name.removeprefix('figure')} lacks {page.text(', '.join(missing))}.</p>")
    return "".join(parts)


STAGES = {"training": "train", "features": "features", "probes": "probe", "measures": "measure"}


def runs(results: Path) -> str:
    """Return the provenance run by run and job by job: time, energy where it could be read, memory, device, code."""
    records = []
    for path in sorted(results.rglob("*.provenance.json")):
        if path.parent == results or ".state" in path.parts:
            continue
        records.append((path.relative_to(results).as_posix().removesuffix(".provenance.json"), files.read_json(path)))
    by_run: dict[str, list[tuple[str, dict[str, Any]]]] = {}
    for name, record in records:
        parts = name.split("/")
        of_run = len(parts) > 4 and parts[1] != "labels"
        by_run.setdefault("/".join(parts[:4]) if of_run else "all else", []).append((name, record))
    rows = [
        [name, len(found), *_stages(found), *_costs([record for _, record in found])] for name, found in by_run.items()
    ]
    rows.sort(key=lambda row: row[0] == "all else")
    jobs = [
        [name, f"{record['wall_seconds']:.1f}", *_costs([record]), record["threads"], _commit(record)]
        for name, record in records
    ]
    total = sum(record["wall_seconds"] for _, record in records)
    costs = ["energy (J)", "memory (MB)", "GPU memory (MB)", "device"]
    versions: dict[str, str] = max((record["libraries"] for _, record in records), key=len, default={})
    libraries = ", ".join(f"{name} {version}" for name, version in versions.items())
    commits = ", ".join(sorted({_commit(record) for _, record in records}))
    return (
        f"<p>{len(records)} jobs, {total / 60:.1f} minutes of their time together, with the code of commit "
        f"{page.text(commits)}. Memory is that of the largest job. "
        f"Verify every digest: <code>python workflow/scripts/verify.py {results.as_posix()}</code>.</p>"
        + page.table("Run by run", ["run", "jobs", *(f"{stage} (s)" for stage in STAGES.values()), *costs], rows)
        + page.details("Job by job", page.table("Provenance", ["result", "seconds", *costs, "threads", "commit"], jobs))
        + f"<p class='soft'>{page.text(libraries)}</p>"
    )


def _stages(found: list[tuple[str, dict[str, Any]]]) -> list[str]:
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


def _commit(record: dict[str, Any]) -> str:
    return f"{(record['git']['commit'] or 'no git')[:10]}{' + changes' if record['git']['dirty'] else ''}"


def configuration(config: dict[str, Any]) -> str:
    """Return the complete configuration as YAML."""
    import yaml

    text = yaml.safe_dump(config, sort_keys=False, width=100)
    return page.details("The complete configuration", f'<pre tabindex="0">{page.html.escape(text)}</pre>')


if __name__ == "__main__":
    parser = command_line.parser(__doc__)
    parser.add_argument("--results", type=Path, required=True, help="the experiment's folder")
    parser.add_argument("--output", type=Path, required=True, help="the page to write")
    parser.add_argument(
        "--choices", type=Path, nargs="*", default=[], help="choices.json, where the configuration has choices"
    )
    parser.add_argument(
        "--overlays", default="config.yaml", help="overlays for the commands on the page, separated by spaces"
    )
    sys.exit(command_line.run(main, parser))
