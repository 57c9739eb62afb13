"""No file from outside is executed: how the sources read pickles, archives and YAML."""

from __future__ import annotations

import ast
from collections.abc import Iterator

import pytest
from conftest import ROOT, SCRIPTS

#: Function → the keyword that makes it safe.
GUARDED = {
    "torch.load": ("weights_only", True),
    "np.load": ("allow_pickle", False),
    "np.savez": ("allow_pickle", False),
}
FORBIDDEN = (
    "pickle.load",
    "pickle.loads",
    "yaml.load",
    "yaml.unsafe_load",
    "joblib.load",
    "pd.read_pickle",
    "eval",
    "exec",
)
SOURCES = [*sorted(SCRIPTS.rglob("*.py")), *sorted((ROOT / "benchmarks").glob("*.py"))]


def calls(text: str) -> Iterator[tuple[str, dict[str, object]]]:
    """Yield every call in a program: the function's name and its constant keywords."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Call):
            constants = {k.arg: k.value.value for k in node.keywords if k.arg and isinstance(k.value, ast.Constant)}
            yield ast.unparse(node.func), constants


def unsafe(text: str) -> list[str]:
    """Return the names of a program's unsafe calls."""
    return [
        name
        for name, keywords in calls(text)
        if name in FORBIDDEN
        or (name in GUARDED and keywords.get(GUARDED[name][0]) is not GUARDED[name][1])
        or (name.endswith(".extractall") and keywords.get("filter") != "data")
    ]


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.name)
def test_nothing_is_read_in_a_way_that_could_execute_it(path) -> None:
    assert unsafe(path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    "text",
    [
        "torch.load(f)",
        "torch.load(f, weights_only=False)",
        "np.load(f, allow_pickle=True)",
        "tar.extractall('.')",
        "pickle.load(f)",
    ],
)
def test_what_could_is_found(text: str) -> None:
    assert unsafe(text)
