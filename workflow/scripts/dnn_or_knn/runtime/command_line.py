"""What every stage's command line shares: arguments, log file, pinned threads, one sentence on bad input."""

from __future__ import annotations

import argparse
import atexit
import contextlib
import ctypes
import gc
import json
import logging
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from .code_digest import code_digest, runtime_digest
from .errors import Interrupted, UserError
from .files import DISK_ERRORS, WRITE_ERRORS, refused

#: Exit statuses: bad input (one sentence on stderr), and stopped by a signal with the state saved.
EXIT_USER_ERROR = 2
EXIT_INTERRUPTED = 75
#: Holds the digest of `runtime/` that Snakemake started with.
RUNTIME = "DNN_OR_KNN_RUNTIME"
#: Set by the logger plugin, which shows people what a job's log says.
QUIET = "DNN_OR_KNN_QUIET"
#: The keys that a stage's specification must have; its --help says what they mean.
KEYS = {
    "prepare.py": ("dataset", "loader", "channels", "size", "classes"),
    "labels.py": ("labels", "randomize", "subset", "seed"),
    "train.py": ("network", "training", "seed", "checkpoints", "accuracy_at"),
    "import_weights.py": ("network", "weights"),
    "import_features.py": ("run", "steps", "layers", "given", "logits"),
    "given_features.py": ("run", "steps", "layers", "given", "logits"),
    "features.py": ("run", "network", "precision", "batch_size", "compile", "layers", "steps", "input_layer"),
    "probe.py": ("kind", "module", "options", "steps", "layers", "seed", "run"),
    "measures.py": ("run", "shards", "probes", "bootstrap", "memorized", "nearly_memorized"),
    "collect.py": ("runs",),
    "measure.py": ("measure", "module", "run", "shards", "probes", "knn"),
    "measure_table.py": ("measure", "parts"),
    "beside_figure.py": ("figure", "measure", "datasets"),
    "training_curves.py": ("runs",),
    "figure.py": ("figure", "architectures", "datasets", "labels", "probes", "missing"),
    "claims.py": ("claims", "architectures", "datasets", "labels", "architecture", "probes"),
    "later_claims.py": ("claims", "bootstrap", "architectures", "datasets", "labels", "architecture"),
    "choices.py": ("choices", "claims", "architectures", "datasets", "labels", "architecture"),
    "published.py": ("published", "labels", "knn"),
    "report.py": ("config",),
}
#: New objects between two looks for cycles among them; Python's own number is for programs that do not import a million.
COLLECT_EVERY = 5_000
#: Options of glibc's `mallopt`.
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS")
log = logging.getLogger("dnn_or_knn")


class Parser(argparse.ArgumentParser):
    """A parser whose errors are one sentence, without the usage."""

    def error(self, message: str) -> NoReturn:
        self.exit(EXIT_USER_ERROR, f"error: {message}; `{self.prog} --help` says more\n")


def parser(description: str | None, **manifests: str) -> argparse.ArgumentParser:
    """Return a parser with the options that all stages have, and one for each manifest that has to be given, with its help."""
    arguments = Parser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    arguments.add_argument(
        "--spec", required=True, type=specification, help="the job's values: JSON, or a file that holds it"
    )
    arguments.add_argument("--threads", type=int, default=1, help="CPU threads, pinned (default: 1)")
    arguments.add_argument("--log", type=Path, help="log file, tracebacks included (default: stderr alone)")
    for name, told in manifests.items():
        arguments.add_argument(f"--{name}", type=Path, required=True, metavar="JSON", help=told)
    return arguments


def add_device(arguments: argparse.ArgumentParser) -> None:
    """Add the option that says where to compute."""
    arguments.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto", help="default: auto")


def specification(text: str) -> dict[str, Any]:
    """Return the job specification given as JSON or as the path of a JSON file."""
    try:
        value = json.loads(text if text.lstrip().startswith(("{", "[")) else Path(text).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise argparse.ArgumentTypeError(f"is neither JSON nor a JSON file: {error}") from error
    if not isinstance(value, dict):
        raise argparse.ArgumentTypeError("must be a JSON object")
    return value


def run(
    main: Callable[[argparse.Namespace], None], arguments: argparse.ArgumentParser, argv: Sequence[str] | None = None
) -> int:
    """Parse the command line, pin threads, open the log, call `main`, and return the exit status.

    `UserError`, or a disk that is full or refuses, becomes one sentence on stderr and status 2; SIGTERM raises
    `Interrupted` in the main thread, status 75; any other exception is a fault of ours: its traceback goes to the log and
    stderr, status 1.
    """
    args = arguments.parse_args(argv)
    pin_threads(args.threads)
    collect_less()
    keep_memory()
    signal.signal(signal.SIGTERM, _interrupt)
    started = time.monotonic()
    try:
        start_log(args.log)
        check_keys(arguments.prog, args.spec)
        check_code(args.spec)
        main(args)
    except UserError as error:
        log.debug("%s", traceback.format_exc())
        log.error("error: %s", error)
        return EXIT_USER_ERROR
    except (Interrupted, KeyboardInterrupt) as error:
        log.error("stopped: %s; run again to resume", str(error) or "interrupted")
        return EXIT_INTERRUPTED
    except MemoryError:
        log.debug("%s", traceback.format_exc())
        log.error("error: out of memory; give the job more memory (mem_mb) or lower its chunk or batch size")
        return EXIT_USER_ERROR
    except Exception as error:
        if isinstance(error, OSError) and error.errno in DISK_ERRORS:
            log.debug("%s", traceback.format_exc())
            what = "written" if error.errno in WRITE_ERRORS else "read or written"
            log.error("error: %s", refused(error.filename, error.errno, what))
            return EXIT_USER_ERROR
        log.error("%s", traceback.format_exc())
        return 1
    log.info("done in %.1f s", time.monotonic() - started)
    return 0


def check_keys(program: str, spec: dict[str, Any]) -> None:
    """Raise `UserError` if a stage's specification lacks keys, naming all of them."""
    missing = [key for key in KEYS.get(program, ()) if key not in spec]
    if missing:
        names = ", ".join(f"'{key}'" for key in missing)
        raise UserError(f"--spec lacks {names}; `{program} --help` says what {'each' if missing[1:] else 'it'} is")


def check_code(spec: dict[str, Any]) -> None:
    """Stop a job whose code was edited after Snakemake had planned it: its record would name the wrong code."""
    code, runtime = spec.get("code"), os.environ.get(RUNTIME)
    if (code and code_digest(*code["files"]) != code["digest"]) or (runtime and runtime_digest() != runtime):
        raise UserError("the code of this job changed after Snakemake started; run again")


def _interrupt(number: int, _frame: object) -> None:
    raise Interrupted(signal.Signals(number).name)


def pin_threads(threads: int) -> None:
    """Pin the thread pools of OpenMP, MKL and OpenBLAS, before the libraries are loaded, and torch's if it is."""
    if threads < 1:
        raise SystemExit("--threads must be at least 1")
    for name in THREAD_VARIABLES:
        os.environ[name] = str(threads)
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(threads)


def collect_less() -> None:
    """Look for cycles among objects less often, and not at all when the process ends.

    Nearly all objects are those of libraries, which stay. Python looks through all of them when it ends: with torch that took a
    quarter of the processor time of starting and ending.
    """
    gc.set_threshold(COLLECT_EVERY, *gc.get_threshold()[1:])
    atexit.register(_keep_cycles)


def _keep_cycles() -> None:
    """Leave cycles to the system, but where bindings count at the end what is left of theirs, and complain."""
    if "triton._C.libtriton" not in sys.modules:
        gc.freeze()


def keep_memory() -> None:
    """Keep freed arrays for the next ones: a batch on its way through a network frees and takes the same few again and again.

    glibc would give them back to the system each time, and the system clear their pages: a fifth of the processor time of the
    demo's extractions. Other C libraries stay as they are.
    """
    with contextlib.suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        # Arrays from 32 MiB on, the most that it allows, go back at once.
        mallopt(M_MMAP_THRESHOLD, 2**25)
        mallopt(M_TRIM_THRESHOLD, 2**28)


def start_log(path: Path | None) -> None:
    """Send plain lines to stderr, unless Snakemake's logger reads the log, and everything, with times, to the log file."""
    log.setLevel(logging.DEBUG)
    log.propagate = False
    for handler in list(log.handlers):
        log.removeHandler(handler)
    if path is None or QUIET not in os.environ:
        console = logging.StreamHandler(sys.stderr)
        console.setLevel(logging.INFO)
        console.setFormatter(logging.Formatter("%(message)s"))
        log.addHandler(console)
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = LogFile(path, mode="a", encoding="utf-8")
        file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
        log.addHandler(file)


class LogFile(logging.FileHandler):
    """A log file that says nothing when the disk is full: the sentence on stderr does."""

    def handleError(self, record: logging.LogRecord) -> None:
        if not isinstance(sys.exc_info()[1], OSError):
            super().handleError(record)
