"""Every bad input ends in one sentence that names what is wrong and where, before any job, with no file left."""

from __future__ import annotations

import copy
import re
import sys
from pathlib import Path

import pytest
from bad_inputs import TOGETHER, cases
from conftest import ROOT
from dnn_or_knn.plan import startup
from dnn_or_knn.plan.configuration import PAPER
from dnn_or_knn.plan.reading import mistake_in
from dnn_or_knn.runtime.errors import UserError
from project import Project
from snakemake.cli import parse_config
from snakemake.common.configfile import load_configfile
from snakemake.common.configfile import load_configfile as load
from snakemake.utils import update_config

pytestmark = pytest.mark.slow

TINY = ROOT / "tests" / "workflow" / "tiny.yaml"
CASES = cases()
TWO = ("bad.yaml", "tiny.yaml", "config.yaml", "config: ")
#: Python's words for what YAML has others for.
PYTHON = re.compile(r"\bNone\b|\bTrue\b|\bFalse\b|\{'\w|datetime|Traceback|does not match|regex|\^\[")
#: One by one through Snakemake itself; the others through what its Snakefile calls.
THROUGH_SNAKEMAKE = ("probes.lr.penalty is l1", "no GPU", "mnits", "evaluate_every is 31")


@pytest.fixture
def read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the paper's and the tiny experiment's files be read once, not for each case."""
    stored = {path: load_configfile(path) for path in (PAPER, TINY)}
    monkeypatch.setattr(startup, "readable", lambda file: None)  # `refusal` asks it of the only file that is new
    monkeypatch.setattr(startup, "load_overlays", lambda: stored[PAPER])
    for module in (startup, sys.modules[__name__]):
        monkeypatch.setattr(
            module, "load_configfile", lambda name: copy.deepcopy(stored[name]) if name in stored else load(name)
        )


def refusal(file: Path) -> str:
    """Return the sentence for a file on top of the tiny experiment, as the Snakefile and the logger make it."""
    if said := mistake_in(file):
        return said
    config: dict = {}
    for name in (PAPER, TINY, file):
        update_config(config, load_configfile(name))
    with pytest.raises(UserError) as caught:
        startup.start(config, [PAPER, TINY, file], {}, remote=False, local=True)
    return str(caught.value)


def test_there_are_five_hundred() -> None:
    assert len({case.text for case in CASES}) >= 500


def test_each_is_refused_in_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, read_once: None) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    file, wrong = Path("bad.yaml"), []
    for case in CASES:
        file.write_bytes(case.text if isinstance(case.text, bytes) else case.text.encode())
        try:
            said = refusal(file)
        except (Exception, pytest.fail.Exception) as error:
            said = f"{type(error).__name__}: {error}\nno sentence"
        # Where two files disagree, the sentence names one of them, or neither.
        where = TWO if case.name in TOGETHER else ("bad.yaml",)
        good = "\n" not in said and any(map(said.__contains__, where)) and case.names in said and len(said) < 400
        if not good or PYTHON.search(said):
            wrong.append(f"{case.name}: {said.strip()[:300]}")
    assert not wrong, f"{len(wrong)} of {len(CASES)}:\n" + "\n".join(wrong)
    assert [path.name for path in tmp_path.iterdir()] == ["bad.yaml"]


@pytest.mark.parametrize("text", ["sedes=1", "seeds=[a]", "training={batch_size: .nan}", "device=gpu", "seeds={"])
def test_the_command_lines_own_values_are_named_as_such(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    given = parse_config([text])
    config: dict = {}
    for content in (load_configfile(PAPER), load_configfile(TINY), given):
        update_config(config, content)
    with pytest.raises(UserError, match=r"^--config: ") as caught:
        startup.start(config, [PAPER, TINY], given, remote=False, local=True)
    assert not PYTHON.search(str(caught.value)) and "\n" not in str(caught.value)


@pytest.mark.parametrize("names", THROUGH_SNAKEMAKE)
def test_snakemake_says_it_once_and_leaves_nothing(
    names: str, project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    case = next(case for case in CASES if case.names == names)
    (project.folder / "bad.yaml").write_text(str(case.text))
    before = {path.name for path in project.folder.iterdir()}
    child = project.start("--cores", "1", overlays=("tiny.yaml", "bad.yaml"))
    output, _ = child.communicate()
    assert child.returncode == 1
    errors = [line for line in output.splitlines() if not line.startswith("Using workflow specific profile")]
    assert len(errors) == 1 and errors[0].startswith("error: bad.yaml: ") and names in errors[0], output
    assert {path.name for path in project.folder.iterdir()} - {".snakemake"} == before


@pytest.mark.parametrize(
    ("words", "overlay", "said"),
    [
        ([], "nix.yaml", "there is no configuration file nix.yaml"),
        ([], "config", "config is a folder"),
        ([], "bad.yaml", "bad.yaml, line 2: "),
        (["--config", "seeds"], "tiny.yaml", "--config has 'seeds', which is no key=value"),
        (["--config", "a.b=1"], "tiny.yaml", "--config has 'a.b=1', which is no key=value"),
        (["figur6"], "tiny.yaml", "there is no target 'figur6' (did you mean figure6?)"),
    ],
)
def test_a_wrong_command_line_is_one_sentence(words: list[str], overlay: str, said: str, project: Project) -> None:
    (project.folder / "bad.yaml").write_text("seeds:\n\t- 1\n")
    child = project.start("--dry-run", *words, overlays=(overlay,))
    output, _ = child.communicate()
    errors = [line for line in output.splitlines() if not line.startswith("Using workflow specific profile")]
    assert child.returncode == 1 and len(errors) == 1 and errors[0].startswith(f"error: {said}"), output
