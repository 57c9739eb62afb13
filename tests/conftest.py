"""Shared by all tests: the library is importable from beside the stage scripts, without installation."""

from __future__ import annotations

import sys
from pathlib import Path

from hypothesis import settings

ROOT = Path(__file__).resolve().parent.parent
SCRIPTS = ROOT / "workflow" / "scripts"
sys.path[:0] = [str(SCRIPTS), str(Path(__file__).parent)]

# The same examples in every run, lest a change be refused for a rare one that it has nothing to do with. Others are looked
# for by `pytest --hypothesis-profile=explore`. How long one takes is up to what else the machine does.
settings.register_profile("fixed", derandomize=True, deadline=None)
settings.register_profile("explore", derandomize=False, deadline=None)
settings.load_profile("fixed")
