"""How the verdicts move across choices: the part of each claim that its verdict hinges on, what flips.

Throughout, `judged` is one entry per choice, the configuration as it is first: its name, and the nine claims as
`paper_claims.judge` returns them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from .effects import Effect
from .words import INCONCLUSIVE, RANK

#: The first entry: the probes and the divergence of the configuration itself.
REFERENCE = "as configured"
#: A claim as `paper_claims.judge` returns it, and one of its effects.
Claim = dict[str, Any]
Cell = dict[str, Any]
Judged = Mapping[str, list[Claim]]


class Row(NamedTuple):
    """What one choice shows of one claim."""

    choice: str
    claim: Claim
    effect: Cell | None  #: the weakest that could be computed of the part that is shown
    values: list[float]  #: of all cells of that part
    note: str  #: why there is no effect
    explained: bool  #: whether that effect alone has the claim's verdict
    touched: bool  #: whether any effect of the claim differs from the reference
    was: str | None  #: the reference's verdict where this one is another


class Panel(NamedTuple):
    """One claim: the part that is shown (none if the claim has no deciding effect), and a row for each choice."""

    number: int
    title: str
    part: str | None
    rows: list[Row]


def panels(judged: Judged) -> list[Panel]:
    """Return what the figure and the table show of each claim."""
    names = list(judged)
    made = []
    for claims in zip(*judged.values(), strict=True):
        part = hinge(claims)
        rows = [_row(name, claim, claims[0], part) for name, claim in zip(names, claims, strict=True)]
        made.append(Panel(claims[0]["claim"], claims[0]["title"], part, rows))
    return made


def _row(choice: str, claim: Claim, reference: Claim, part: str | None) -> Row:
    of_part = parts(claim).get(part, []) if part else []
    effect = weakest(of_part)
    notes = [other["note"] for other in of_part if other["value"] is None]
    return Row(
        choice,
        claim,
        effect,
        values=[other["value"] for other in of_part if other["value"] is not None],
        note=notes[0] if effect is None and notes else "",
        explained=(effect["verdict"] if effect else verdict_of(of_part)) == claim["verdict"],
        touched=_numbers(claim) != _numbers(reference),
        was=None if claim["verdict"] == reference["verdict"] else reference["verdict"],
    )


def _numbers(claim: Claim) -> list[tuple[Any, ...]]:
    return [(effect["value"], effect["low"], effect["high"]) for effect in claim["effects"]]


def parts(claim: Claim) -> dict[str, list[Cell]]:
    """Return the deciding effects of a claim by its parts, in its order."""
    found: dict[str, list[Cell]] = {}
    for effect in claim["effects"]:
        if effect["decides"]:
            found.setdefault(effect["part"], []).append(effect)
    return found


def verdict_of(effects: Sequence[Cell]) -> str:
    """Return the verdict of effects that must all be supported, as that of a claim is found."""
    return min((effect["verdict"] for effect in effects), key=RANK.__getitem__, default=INCONCLUSIVE)


def hinge(claims: Sequence[Claim]) -> str | None:
    """Return the part whose own verdict is the claim's for most choices: what the claim's verdict hinges on.

    At a tie the part whose weakest cell moves most over the choices, compared with its distance from the threshold;
    then the first in the claim's order. None if there are no deciding effects.
    """
    by_part: dict[str, list[tuple[str, list[Cell]]]] = {}
    for claim in claims:
        for part, effects in parts(claim).items():
            by_part.setdefault(part, []).append((claim["verdict"], effects))

    def weight(part: str) -> tuple[int, float]:
        found = by_part[part]
        return sum(verdict_of(effects) == verdict for verdict, effects in found), movement([e for _, e in found])

    return max(by_part, key=weight, default=None)


def movement(choices: Sequence[Sequence[Cell]]) -> float:
    """Return by how much a part's weakest margin differs between choices, as a share of the largest margin."""
    margins = [margin(effect) for effects in choices if (effect := weakest(effects))]
    largest = max(map(abs, margins), default=0.0)
    return round((max(margins) - min(margins)) / largest, 9) if largest else 0.0


def weakest(effects: Sequence[Cell]) -> Cell | None:
    """Return the effect that decides a part: the worst verdict, then the least margin; of those that have a value."""
    known = [effect for effect in effects if effect["value"] is not None]
    return min(known, key=lambda effect: (RANK[effect["verdict"]], margin(effect)), default=None)


def margin(effect: Cell) -> float:
    """Return by how much an effect is on the supporting side of its threshold, in its own unit."""
    return Effect(**effect).margin


def changes(judged: Judged) -> dict[str, list[str]]:
    """Return, for every choice but the reference, its flips in words: which claim, from what to what, and where."""
    reference, *others = judged.items()
    found: dict[str, list[str]] = {}
    for name, claims in others:
        pairs = zip(reference[1], claims, strict=True)
        found[name] = [flip(old, new) for old, new in pairs if old["verdict"] != new["verdict"]]
    return found


def flip(old: Claim, new: Claim) -> str:
    """Return one flip in words, with the first cell that makes it: one that is worse now, or was before."""
    better = RANK[new["verdict"]] > RANK[old["verdict"]]
    worse = old if better else new
    cells = worse["failing"] or worse["undecided"]
    more = f" and {len(cells) - 1} more" if len(cells) > 1 else ""
    where = f" ({'no longer ' if better else ''}{cells[0]}{more})" if cells else ""
    return f"claim {new['claim']}: {old['verdict']} → {new['verdict']}{where}"
