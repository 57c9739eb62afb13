"""Checkouts of the project for the tests of the workflow."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from project import Project


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """A fresh checkout without results."""
    return Project(tmp_path / "project")


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    """A checkout in which the tiny experiment has run to its end, once for all tests."""
    made = Project(tmp_path_factory.mktemp("finished") / "project")
    made.log = made.snakemake("--cores", "2")
    yield made
