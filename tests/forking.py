"""Run stage scripts again and again without paying for their imports each time: one fork of this process a run.

Reads lines of JSON, `{"folder": …, "words": [script, argument, …], "kill_after": seconds or null}`, and answers each with
`[exit status, what it said, seconds]`.
"""

from __future__ import annotations

import importlib
import json
import os
import runpy
import signal
import sys
import tempfile
import threading
import time
import traceback
from pathlib import Path
from typing import NoReturn

SCRIPTS = Path("workflow/scripts").resolve()


def load() -> None:
    """Import what the stages import, and start no thread: they would not outlive a fork."""
    sys.path.insert(0, str(SCRIPTS))
    ours = [path.relative_to(SCRIPTS).with_suffix("") for path in sorted((SCRIPTS / "dnn_or_knn").rglob("*.py"))]
    for name in ("pandas", "pyarrow.parquet", "torch", *(".".join(path.parts) for path in ours)):
        importlib.import_module(name)
    assert threading.active_count() == 1


def become(folder: str, words: list[str], said: int) -> NoReturn:
    """Run a script in this process, and end it."""
    os.dup2(said, 1)
    os.dup2(said, 2)
    status = 1
    sys.argv = words
    try:
        os.chdir(folder)
        runpy.run_path(words[0], run_name="__main__")
        status = 0
    except SystemExit as error:
        status = error.code if isinstance(error.code, int) else 1
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def main() -> None:
    load()
    for line in sys.stdin:
        asked = json.loads(line)
        with tempfile.TemporaryFile("w+") as said:
            started = time.monotonic()
            child = os.fork()
            if not child:
                become(asked["folder"], asked["words"], said.fileno())
            if asked["kill_after"] is not None:
                time.sleep(asked["kill_after"])
                os.kill(child, signal.SIGKILL)
            _, status = os.waitpid(child, 0)
            seconds = time.monotonic() - started
            said.seek(0)
            print(json.dumps([os.waitstatus_to_exitcode(status), said.read(), seconds]), flush=True)


if __name__ == "__main__":
    main()
