"""Programs as forks of one process that has imported what is installed: alone, each would import for seconds.

`python()` returns the path of a `python` that hands its words, folder, environment and open files to that process, and ends as
the fork does. Killed, it takes the fork with it. A Snakemake that it runs takes it for its jobs, too. The project's own modules are
imported by each fork from its checkout, unless those of one checkout are asked for.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import importlib
import json
import os
import runpy
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import traceback
from pathlib import Path
from typing import NoReturn

INSTALLED = ("matplotlib.pyplot", "pandas", "pyarrow.parquet", "seaborn", "sklearn.datasets", "snakemake.cli", "torch")
#: The `python`. What is neither a script nor a module runs as ever.
PYTHON = f"""#!{sys.executable} -IS
import json, os, socket, sys
if sys.argv[1] != "-m" and sys.argv[1].startswith("-"):
    os.execv("{sys.executable}", ["{sys.executable}", *sys.argv[1:]])  # by its name a Python finds its environment
with socket.socket(socket.AF_UNIX) as connection:
    connection.connect(os.path.join(os.path.dirname(__file__), "socket"))
    request = {{"folder": os.getcwd(), "words": sys.argv[1:], "env": dict(os.environ)}}
    socket.send_fds(connection, [json.dumps(request).encode() + b"\\n"], [0, 1, 2])
    status = int(connection.makefile().readline() or -9)
sys.exit(status if status >= 0 else 128 - status)
"""


@functools.cache
def python(checkout: Path | None = None) -> str:
    """Return the path of the `python`, after starting its process once; it ends with this one.

    Parameters
    ----------
    checkout: a checkout whose modules are imported beforehand; it must not change.
    """
    folder = Path(tempfile.mkdtemp(prefix="forks-"))
    (folder / "python").write_text(PYTHON)
    (folder / "python").chmod(0o755)
    command = [sys.executable, __file__, str(folder), *([str(checkout)] if checkout else [])]
    env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    process = subprocess.Popen(command, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdin is not None and process.stdout is not None
    assert process.stdout.readline() == b"ready\n"

    def end() -> None:
        process.stdin.close()
        process.wait()
        shutil.rmtree(folder)

    atexit.register(end)
    return str(folder / "python")


def main(folder: str, *checkouts: str) -> None:
    """Fork for each connection to `folder`/socket, until this process's input ends."""
    load(*checkouts)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for what attends
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(f"{folder}/socket")
        listener.listen(64)
        print("ready", flush=True)
        while sys.stdin not in select.select([listener, sys.stdin], [], [])[0]:
            connection, _ = listener.accept()
            if not os.fork():
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                listener.close()
                attend(connection, f"{folder}/python")
                os._exit(0)
            connection.close()


def load(*checkouts: str) -> None:
    """Import what programs import, and start no thread: it would not outlive a fork."""
    names = list(INSTALLED)
    for checkout in checkouts:
        scripts = Path(checkout) / "workflow" / "scripts"
        sys.path.insert(0, str(scripts))
        ours = [path.relative_to(scripts).with_suffix("") for path in sorted((scripts / "dnn_or_knn").rglob("*.py"))]
        names += [".".join(path.parts) for path in ours]
    for name in names:
        importlib.import_module(name)
    assert threading.active_count() == 1


def attend(connection: socket.socket, executable: str) -> None:
    """Fork the program that a connection asks for and answer with its exit status; kill it if the connection ends."""
    text, files, _, _ = socket.recv_fds(connection, 1 << 16, 3)
    stream = connection.makefile("rb")
    request = json.loads(text if text.endswith(b"\n") else text + stream.readline())
    child = os.fork()
    if not child:
        connection.close()
        for number, file in enumerate(files):
            os.dup2(file, number)
        become(request["folder"], request["words"], request["env"], executable)
    for file in files:
        os.close(file)

    def watch() -> None:
        stream.read()
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)

    threading.Thread(target=watch, daemon=True).start()
    _, status = os.waitpid(child, 0)
    with contextlib.suppress(OSError):
        connection.sendall(f"{os.waitstatus_to_exitcode(status)}\n".encode())


def become(folder: str, words: list[str], env: dict[str, str], executable: str) -> NoReturn:
    """Run a program in this process, and end it."""
    status = 1
    try:
        os.chdir(folder)
        os.environ.clear()
        os.environ.update(env)
        if words[0] == "-m":
            sys.argv, sys.executable = words[1:], executable
            sys.path.insert(0, folder)
            runpy.run_module(words[1], run_name="__main__", alter_sys=True)
        else:
            sys.argv = words
            sys.path.insert(0, str(Path(words[0]).resolve().parent))
            runpy.run_path(words[0], run_name="__main__")
        status = 0
    except SystemExit as error:
        status = error.code if isinstance(error.code, int) else int(error.code is not None)
        if isinstance(error.code, str):
            print(error.code, file=sys.stderr)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


if __name__ == "__main__":
    main(*sys.argv[1:])
