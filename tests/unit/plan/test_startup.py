"""What the Snakefile does first."""

from __future__ import annotations

import pytest
from dnn_or_knn.plan import startup


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ({"seeds": ["0", "1", "2"]}, {"seeds": [0, 1, 2]}),
        ({"data": {"root": "/datasets", "download": "false"}}, {"data": {"root": "/datasets", "download": False}}),
        ({"figures": {"random_layers": "null"}}, {"figures": {"random_layers": None}}),
        ({"training": {"learning_rate": "1.0e-3"}}, {"training": {"learning_rate": 0.001}}),
        ({"more": {"empty": ""}}, {"more": {"empty": None}}),
        ({"experiment": "seeds", "more": ["2026-01-01", "x: y", "[1", "1e-3"]}, "the same"),
        ({"seeds": [0], "device": True}, "the same"),
    ],
)
def test_values_from_the_command_line_are_what_they_mean_in_yaml(given, meant):
    assert startup.as_in_a_file(given) == (given if meant == "the same" else meant)
