"""The digest of a job's code: meaning counts, looks do not."""

from __future__ import annotations

from pathlib import Path

import pytest
from dnn_or_knn.runtime import code_digest

SOURCE = '''"""A module."""
from __future__ import annotations

from dnn_or_knn import helper


def double(x: int) -> int:
    """Twice x."""
    return 2 * helper.one(x)
'''


@pytest.fixture
def scripts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small project: stage.py imports dnn_or_knn.helper, which imports .deep inside a function."""
    package = tmp_path / "dnn_or_knn"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "helper.py").write_text(
        "from .runtime import files\ndef one(x):\n    from .deep import f\n    return f(x)\n"
    )
    (package / "deep.py").write_text("def f(x):\n    return x\n")
    (package / "unrelated.py").write_text("x = 1\n")
    (package / "registry.py").write_text("TABLE = {}\n")
    (package / "runtime").mkdir()
    (package / "runtime" / "__init__.py").write_text("")
    (package / "runtime" / "files.py").write_text("SAID = 'gone'\n")
    (package / "kinds").mkdir()
    (package / "kinds" / "__init__.py").write_text("")
    (package / "kinds" / "one.py").write_text("from ..deep import f\nx: int = f(1)\n")
    (tmp_path / "stage.py").write_text(SOURCE)
    monkeypatch.setattr(code_digest, "SCRIPTS", tmp_path)
    monkeypatch.setattr(code_digest, "NOT_CODE", {package / "registry.py", package / "runtime"})
    return tmp_path


def digest(*entries: str) -> str:
    code_digest.code_digest.cache_clear()
    code_digest._meaning.cache_clear()
    return code_digest.code_digest(*entries)


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("stage.py", "Twice x.", "Two times x."),
        ("stage.py", '"""A module."""', '# A comment.\n"""Another docstring."""'),
        ("stage.py", "2 * helper.one(x)", "(2   *\n        helper.one(x))"),
        ("dnn_or_knn/unrelated.py", "x = 1", "x = 2"),
        ("dnn_or_knn/registry.py", "{}", "{1: 2}"),
        ("dnn_or_knn/runtime/files.py", "'gone'", "'missing'"),
        ("dnn_or_knn/runtime/__init__.py", "", "import os\n"),
    ],
)
def test_looks_and_unrelated_modules_do_not_count(scripts: Path, file: str, old: str, new: str) -> None:
    before = digest("stage.py")
    text = (scripts / file).read_text()
    assert old in text
    (scripts / file).write_text(text.replace(old, new))
    assert digest("stage.py") == before


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("stage.py", "2 *", "3 *"),
        ("dnn_or_knn/helper.py", "f(x)", "f(-x)"),
        ("dnn_or_knn/deep.py", "return x", "return x + 1"),
        ("dnn_or_knn/__init__.py", "", "import os\n"),
    ],
)
def test_meaning_counts_however_deep(scripts: Path, file: str, old: str, new: str) -> None:
    before = digest("stage.py")
    text = (scripts / file).read_text()
    (scripts / file).write_text(text.replace(old, new) if old else new)
    assert digest("stage.py") != before


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("dnn_or_knn/kinds/one.py", "f(1)", "f(2)"),
        ("dnn_or_knn/kinds/one.py", "int", "float"),
        ("dnn_or_knn/kinds/one.py", "x: int", "@f\ndef g(): pass\nx: int"),
        ("dnn_or_knn/deep.py", "return x", "return x + 1"),
        ("dnn_or_knn/kinds/__init__.py", "", "import os\n"),
        ("dnn_or_knn/__init__.py", "", "import os\n"),
    ],
    ids=["constant", "annotation", "decorator", "relative import", "its package", "the package around that"],
)
def test_a_module_loaded_by_name_counts_with_its_packages(scripts: Path, file: str, old: str, new: str) -> None:
    before = digest("dnn_or_knn/kinds/one.py")
    text = (scripts / file).read_text()
    assert old in text
    (scripts / file).write_text(text.replace(old, new) if old else new)
    assert digest("dnn_or_knn/kinds/one.py") != before


def test_a_module_loaded_by_name_counts_where_it_is_named(scripts: Path) -> None:
    before = digest("stage.py", "dnn_or_knn/unrelated.py")
    (scripts / "dnn_or_knn/unrelated.py").write_text("x = 2\n")
    assert digest("stage.py", "dnn_or_knn/unrelated.py") != before


def test_an_edit_that_only_opens_a_door_counts_as_none(scripts: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before, file = digest("stage.py"), scripts / "dnn_or_knn/deep.py"
    old = code_digest._meaning(file)[0]
    file.write_text("def f(x, more=None):\n    return more(x) if more else x\n")
    assert digest("stage.py") != before
    monkeypatch.setattr(code_digest, "SAME", {code_digest._meaning(file)[0]: old})
    assert digest("stage.py") == before
    file.write_text("def f(x, more=None):\n    return more(x) if more else x + 1\n")
    assert digest("stage.py") != before


def test_each_stage_has_its_own_code() -> None:
    """Probes do not run the networks' code, training does not run the figures'."""
    seen = {stage: set(code_digest.code_files(f"{stage}.py")) for stage in ("train", "probe", "figure", "measures")}
    assert "dnn_or_knn/training/run.py" in seen["train"]
    assert not any(
        "/training/" in name or "/networks/" in name for name in seen["probe"] | seen["figure"] | seen["measures"]
    )
    assert not any("/figures/" in name or "/probes/" in name for name in seen["train"])
    assert all(
        "dnn_or_knn/plan/configuration.py" not in files and "dnn_or_knn/plan/specifications.py" not in files
        for files in seen.values()
    )


def test_how_jobs_run_leans_on_nothing_of_what_they_compute() -> None:
    """Else code that changes results could hide from the digests behind it."""
    for path in (code_digest.PACKAGE / "runtime").glob("*.py"):
        outside = [file for file in code_digest._meaning(path)[1] if file.parent != path.parent]
        assert set(outside) <= {code_digest.PACKAGE / "__init__.py"}, path.name


def test_no_job_counts_how_it_runs_as_its_code() -> None:
    for stage in code_digest.SCRIPTS.glob("*.py"):
        assert not any("/runtime/" in name for name in code_digest.code_files(stage.name))


def test_every_file_that_counts_as_before_is_there() -> None:
    """An edit of one makes its entry dead, and all results that it held together stale, unless it is renewed."""
    there = {code_digest._meaning(path)[0] for path in code_digest.SCRIPTS.rglob("*.py")}
    assert code_digest.SAME.keys() <= there, "an entry of SAME is of no file: renew it, or take it out"
