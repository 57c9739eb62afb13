"""The words of a verdict, from what decides a claim most to what decides it least, and how each is shown everywhere."""

from __future__ import annotations

from typing import NamedTuple

NOT_SUPPORTED, TOO_SMALL, INCONCLUSIVE, SUPPORTED = "not supported", "too small", "inconclusive", "supported"


class Look(NamedTuple):
    """How a verdict is shown: colour and marker in figures (shapes differ, for grey print), colour in a terminal."""

    colour: str
    marker: str
    terminal: str


VERDICTS = {
    NOT_SUPPORTED: Look("#c62f24", "X", "31"),
    TOO_SMALL: Look("#7a5200", "s", "35"),
    INCONCLUSIVE: Look("#6b6b6b", "o", "33"),
    SUPPORTED: Look("#005f4b", "o", "32"),
}
#: Place of each in a conjunction: the lowest decides.
RANK = {verdict: rank for rank, verdict in enumerate(VERDICTS)}


def wanted(relation: str, threshold: float) -> str:
    """Return what a rule wants of an effect, such as "above 0.5"."""
    return f"{relation} {'±' if relation == 'within' else ''}{threshold:g}"
