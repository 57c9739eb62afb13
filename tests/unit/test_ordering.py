"""One order of names out of several: every row keeps it, and what no row says goes by the first."""

from __future__ import annotations

import random
from itertools import pairwise

import pytest
from dnn_or_knn.ordering import merged


@pytest.mark.parametrize(
    ("rows", "wanted"),
    [
        ([], ""),
        (["abc", "abc"], "abc"),
        (["b", "abc"], "abc"),
        (["ac", "bc", "abc"], "abc"),
        (["abd", "cd"], "abcd"),
        (["ab", "", "c"], "abc"),
        (["ab", "ba"], "ab"),
        (["ba", "ab", "xb"], "xba"),
    ],
)
def test_rows_are_merged(rows: list[str], wanted: str) -> None:
    assert "".join(merged(rows)) == wanted


def test_every_row_keeps_its_order() -> None:
    draw = random.Random(0)
    for _ in range(200):
        rows = ["".join(sorted(draw.sample("abcdefgh", draw.randint(1, 6)))) for _ in range(draw.randint(1, 5))]
        found = "".join(merged(rows))
        assert sorted(found) == sorted(set("".join(rows)))
        assert all(found.index(one) < found.index(other) for row in rows for one, other in pairwise(row)), (rows, found)
