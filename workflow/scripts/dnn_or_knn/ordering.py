"""One order of names out of several."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def merged(rows: Iterable[Sequence[str]]) -> list[str]:
    """Return the names of some rows in an order that every row keeps; where no row says which of two comes first, an earlier row's does.

    Where rows contradict each other there is no such order: the earliest row decides.
    """
    waiting, found = [list(dict.fromkeys(row)) for row in rows], []
    while waiting := [row for row in waiting if row]:
        free = (row[0] for row in waiting if not any(row[0] in other[1:] for other in waiting))
        found.append(next(free, waiting[0][0]))
        waiting = [[name for name in row if name != found[-1]] for row in waiting]
    return found
