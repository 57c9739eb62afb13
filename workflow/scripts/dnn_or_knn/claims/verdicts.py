"""The verdicts in words: claims.md."""

from __future__ import annotations

from typing import Any

from .words import wanted


def verdict(claim: dict[str, Any]) -> str:
    """Return a verdict in words; one seed is said to be one run."""
    return claim["verdict"] + (" (one run)" if claim["one_run"] else "")


def markdown(judged: list[dict[str, Any]], title: str = "The paper's claims") -> str:
    """Return the verdicts as one table under a title, and every effect of each claim below it."""
    lines = [
        f"# {title}",
        "",
        "| claim | verdict | supporting effects | what decides it, or why it is undecided |",
    ]
    lines.append("|---|---|---|---|")
    for claim in judged:
        named = "; ".join(claim["reasons"]) or f"closest: {claim['decided']}"
        count = f"{claim['supported']} of {claim['deciding']}"
        lines.append(f"| {claim['claim']}. {claim['title']} | **{verdict(claim)}** | {count} | {named} |")
    for claim in judged:
        lines += ["", f"## {claim['claim']}. {claim['title']}: {verdict(claim)}", "", claim["statement"], ""]
        lines += [f"Rule: {claim['rule']}", "", f"Intervals: {claim['interval']}.", ""]
        lines += [
            "| part | cell | effect | interval | supports if | verdict | remark |",
            "|---|---|---|---|---|---|---|",
        ]
        for effect in claim["effects"]:
            lines.append(f"| {' | '.join(row(effect))} |")
    return "\n".join(lines) + "\n"


def row(effect: dict[str, Any]) -> list[str]:
    """Return one effect as the cells of a table."""
    number, limits = "–", "–"
    if effect["value"] is not None:
        number = f"{effect['value']:.4g} {effect['unit']}".strip()
        limits = f"{effect['low']:.4g} … {effect['high']:.4g}"
    found = effect["verdict"] if effect["decides"] else f"({effect['verdict']}; reported only)"
    rule = wanted(effect["relation"], effect["threshold"])
    return [effect["part"], effect["cell"], number, limits, rule, found, effect["note"] or "–"]
