"""The documentation names only what exists."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from conftest import ROOT, SCRIPTS

PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")])
#: Files that a page tells its reader to write.
TO_WRITE = {
    "centroid.py",
    "embed.py",
    "generalization.py",
    "margin.py",
    "mine.py",
    "patches.py",
    "strided.py",
    "train_mine.py",
}
NAMED = re.compile(r"`((?:[\w.-]+/)*[\w-]+\.(?:py|smk|j2|css))`")


def places(name: str) -> list[Path]:
    """Return where a file of this name, relative to the repository, its scripts or its library, could be."""
    return [base / name for base in (ROOT, ROOT / "docs", ROOT / "config", SCRIPTS, SCRIPTS / "dnn_or_knn")]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_page_names_files_that_exist(page: Path) -> None:
    for name in NAMED.findall(page.read_text(encoding="utf-8")):
        found = any(path.is_file() for path in places(name))
        found = found or ("/" not in name and any(SCRIPTS.rglob(name)))
        assert found or Path(name).name in TO_WRITE, f"{page.name} names {name}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text(encoding="utf-8")):
        assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_functions_that_the_architecture_names_are_where_it_says() -> None:
    text = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
    found = re.findall(r"`([A-Za-z_][\w.]*)`(?: and `(\w+)`)?\s+(?:in|of)\s+`((?:\w+/)+\w+\.py)`", text)
    assert len(found) > 15
    for first, second, file in found:
        code = (SCRIPTS / "dnn_or_knn" / file).read_text(encoding="utf-8")
        for name in filter(None, (first, second)):
            leaf = name.rpartition(".")[2]
            assert re.search(rf"^\s*(?:def|class) {leaf}\b|^{leaf}\b", code, re.M), f"{name} is not in {file}"
