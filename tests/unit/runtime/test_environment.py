"""Whatever the user's environment holds, jobs run."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import SCRIPTS

#: What a figure's job does: imports, draws, saves, and logs a sentence with the field's letters.
JOB = """
import sys
from pathlib import Path
from dnn_or_knn.runtime import command_line, files

def main(args):
    from dnn_or_knn.figures import style
    from matplotlib.figure import Figure
    figure = Figure()
    figure.add_subplot().plot([0, 1])
    figure.savefig(args.spec["file"])
    files.write_text(args.spec["file"] + ".txt", "λ ≤ 1 … ± ✓")
    command_line.log.info("λ ≤ 1 … ± ✓")

sys.exit(command_line.run(main, command_line.parser(None)))
"""


@pytest.mark.parametrize(
    "environment",
    [
        {"MPLBACKEND": "module://matplotlib_inline.backend_inline"},
        {"MPLBACKEND": "nonsense"},
        {"MPLBACKEND": "TkAgg", "DISPLAY": ""},
        {"MPLCONFIGDIR": "/proc/none", "XDG_CONFIG_HOME": "/proc/none", "XDG_CACHE_HOME": "/proc/none"},
        {"HOME": None, "USER": None, "LOGNAME": None},
        {"HOME": "/proc/none"},
        {"TMPDIR": "/proc/none", "TEMP": "/proc/none"},
        {"LC_ALL": "C", "LANG": None, "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
        {"LC_ALL": "xx_XX.nonsense", "PYTHONIOENCODING": "ascii"},
        {"PYTHONOPTIMIZE": "2"},
        {"OMP_NUM_THREADS": "nonsense", "MKL_NUM_THREADS": "0"},
        {"NO_COLOR": "1", "PYTHONWARNINGS": "error"},
    ],
    ids=lambda environment: " ".join(environment),
)
def test_a_job_runs_in_any_environment(tmp_path: Path, environment: dict[str, str | None]) -> None:
    given = {name: value for name, value in ({**os.environ, **environment}).items() if value is not None}
    given["PYTHONPATH"] = str(SCRIPTS)
    (tmp_path / "job.py").write_text(JOB, encoding="utf-8")
    words = [
        sys.executable,
        tmp_path / "job.py",
        "--spec",
        f'{{"file": "{tmp_path}/a.png"}}',
        "--log",
        tmp_path / "log",
    ]
    done = subprocess.run(words, env=given, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode(errors="replace")
    assert (tmp_path / "a.png").stat().st_size and "λ ≤ 1" in (tmp_path / "log").read_text(encoding="utf-8")
    assert b"Traceback" not in done.stderr
