"""The claims judged under every choice, and what is written of it: table, Markdown, caption."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from ..runtime.errors import UserError, nearest
from . import paper_claims
from .choices import REFERENCE, Claim, Panel, changes, parts, verdict_of, weakest
from .effects import Data
from .study import ROLES, Study
from .words import wanted

DIVERGENCES = ("d_kl", "d_kl_column")
COLUMNS = [
    *("choice", "claim", "title", "verdict", "one_run", "supported", "deciding", "changed", "failing", "undecided"),
    *("part", "cell", "value", "low", "high", "relation", "threshold", "unit", "explains", "cells", "note"),
]


def checked(spec: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the choices by name, "as configured" first; a bad one raises `UserError`."""
    choices = {what["name"]: {key: what[key] for key in ("roles", "divergence")} for what in spec["choices"]}
    if next(iter(choices), None) != REFERENCE:
        raise UserError(
            f"the specification's choices have no '{REFERENCE}' in front, with which the others are compared; add it"
        )
    for name, what in choices.items():
        for role in what["roles"]:
            if role not in ROLES:
                raise UserError(
                    f"choice '{name}' gives a model to '{role}'{nearest(role, ROLES)}; the claims judge knn, svm and lr"
                )
        if what["divergence"] not in DIVERGENCES:
            raise UserError(
                f"choice '{name}' has the divergence '{what['divergence']}'{nearest(what['divergence'], DIVERGENCES)}; "
                "give d_kl or d_kl_column"
            )
    return choices


def judge(data: Data, spec: Mapping[str, Any], choices: Mapping[str, Mapping[str, Any]]) -> dict[str, list[Claim]]:
    """Return the judged claims of every choice, all from the same tables."""
    return {
        name: paper_claims.judge(
            Study(
                data=data,
                architectures=spec["architectures"],
                datasets=spec["datasets"],
                labels=spec["labels"],
                architecture=spec["architecture"],
                probes=dict(what["roles"]),
                thresholds=spec["claims"],
                divergence=what["divergence"],
            )
        )
        for name, what in choices.items()
    }


def verdicts(claims: list[Claim]) -> list[dict[str, Any]]:
    """Return the verdicts of one choice as plain values."""
    return [{key: claim[key] for key in ("claim", "verdict", "one_run", "supported", "deciding")} for claim in claims]


def table(shown: list[Panel]) -> pd.DataFrame:
    """Return one row per choice and claim: the verdict, what changed, and what the figure shows of it."""
    rows = []
    for position in range(len(shown[0].rows)):
        for panel in shown:
            row = panel.rows[position]
            claim = row.claim
            rule = parts(claim)[panel.part][0] if panel.part else {}
            rows.append(
                {key: claim[key] for key in ("claim", "title", "verdict", "one_run", "supported", "deciding")}
                | {key: (row.effect or {}).get(key) for key in ("cell", "value", "low", "high")}
                | {key: rule.get(key) for key in ("relation", "threshold", "unit")}
                | {
                    "choice": row.choice,
                    "changed": f"{row.was} → {claim['verdict']}" if row.was else "",
                    "failing": "; ".join(claim["failing"]),
                    "undecided": "; ".join(claim["undecided"]),
                    "part": panel.part,
                    "explains": row.explained,
                    "cells": " ".join(f"{value:.6g}" for value in row.values),
                    "note": row.effect["note"] if row.effect else row.note,
                }
            )
    return pd.DataFrame(rows, columns=COLUMNS)


def markdown(judged: Mapping[str, list[Claim]]) -> str:
    """Return the verdicts choice by claim, what changed, and each claim's parts, weakest cells named."""
    reference = next(iter(judged.values()))
    flips = changes(judged)
    lines = ["# The claims under other choices", "", "Verdict, and how many of the deciding effects support it."]
    lines += [f"**Bold**: another verdict than as configured.{_one_run(judged)}", ""]
    lines += _head(["choice", *(f"{claim['claim']}. {claim['title']}" for claim in reference)])
    for name, claims in judged.items():
        cells = [_verdict(new, old) for new, old in zip(claims, reference, strict=True)]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    lines += ["", "## What changes", ""]
    lines += [f"- {name}: {'; '.join(found) or 'no verdict changes'}" for name, found in flips.items()]
    for number, claim in enumerate(reference):
        names = list(parts(claim))
        lines += ["", f"## {claim['claim']}. {claim['title']}", ""]
        lines += ["The weakest cell of each part, its interval and verdict.", ""]
        lines += _head(["choice", *(_rule(part, claim) for part in names)])
        for name, claims in judged.items():
            found = parts(claims[number])
            lines.append(f"| {name} | {' | '.join(_weakest(found.get(part, [])) for part in names)} |")
    return "\n".join(lines) + "\n"


def _head(names: list[str]) -> list[str]:
    return [f"| {' | '.join(names)} |", "|" + "---|" * len(names)]


def _verdict(claim: Claim, reference: Claim) -> str:
    said = f"{claim['verdict']} {claim['supported']}/{claim['deciding']}"
    return said if claim["verdict"] == reference["verdict"] else f"**{said}**"


def _rule(part: str, claim: Claim) -> str:
    rule = parts(claim)[part][0]
    return f"{part}, {wanted(rule['relation'], rule['threshold'])} {rule['unit']}".strip()


def _weakest(effects: list[dict[str, Any]]) -> str:
    """Return a part's weakest cell in words, and how many of its cells cannot be computed."""
    if not effects:
        return "–"
    effect = weakest(effects)
    unknown = [other for other in effects if other["value"] is None]
    said = []
    if effect:
        span = f"{effect['low']:.3g} … {effect['high']:.3g}"
        said.append(f"{effect['value']:.3g} ({span}) {effect['cell']}: {effect['verdict']}")
    if unknown:
        said.append(f"{len(unknown)} of {len(effects)} {verdict_of(unknown)}: {unknown[0]['note']}")
    return "; ".join(said)


def caption(judged: Mapping[str, list[Claim]], thresholds: Mapping[str, Any]) -> str:
    """Return the figure's caption."""
    intervals = dict.fromkeys(claim["interval"] for claims in judged.values() for claim in claims if claim["seeds"])
    how = f" ({'; '.join(intervals)})" if intervals else ""
    return (
        "How each claim's effect moves across the choices that the paper leaves open; nothing was retrained. "
        "A panel shows the part of the claim that its verdict hinges on (the one whose own verdict is most often the "
        f"claim's; among equals the one that moves most towards or from its threshold): the mark is the cell that decides it, with its {thresholds['confidence']:.0%} interval{how}, ticks are the other "
        "cells. At the right the verdict on the whole claim, bold where the choice changes it; † where another part, or "
        f"an effect that could not be computed, decides it. Pale: the choice does not touch the claim.{_one_run(judged)}"
    )


def _one_run(judged: Mapping[str, list[Claim]]) -> str:
    """Return what is to be said where every run was trained with one seed."""
    told = [claim["one_run"] for claims in judged.values() for claim in claims if claim["seeds"]]
    return " One run each: another training could come out differently." if told and all(told) else ""


def alt(judged: Mapping[str, list[Claim]]) -> str:
    """Return what the figure shows in words."""
    reference = next(iter(judged.values()))
    words = ", ".join(f"claim {claim['claim']} {claim['verdict']}" for claim in reference)
    flips = [f"{name}: {'; '.join(found)}" for name, found in changes(judged).items() if found]
    moved = f"Changed verdicts: {'. '.join(flips)}." if flips else "No choice changes a verdict."
    return f"{len(reference)} panels, one per claim, each with {len(judged)} choices. As configured: {words}. {moved}"
