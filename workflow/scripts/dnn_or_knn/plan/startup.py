"""What happens in the Snakefile before any rule: check the configuration, freeze it, count GPUs.

Remote jobs (SLURM) parse the Snakefile again on their node, where the configuration and the code may have been
edited since. So the head writes what it started with to `results/<experiment>/.frozen.json`, and a remote job takes
its configuration from there and stops if the code is not the one that the head saw.
"""

from __future__ import annotations

import contextlib
import copy
import glob
import hashlib
import os
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml
from snakemake.utils import update_config

from ..runtime.code_digest import NOT_CODE, SCRIPTS, code_digest
from ..runtime.errors import UserError
from ..runtime.files import bring_dates_back, read_json, write_json
from .configuration import PAPER, load_overlays, refuse_repeated_keys
from .runs import Experiment, create
from .specifications import Jobs

WORKFLOW = SCRIPTS.parent
#: Tells remote jobs which experiment the head runs, even if its name is edited meanwhile.
EXPERIMENT = "DNN_OR_KNN_EXPERIMENT"


def start(config: Mapping[str, Any], files: Iterable[str | Path], given: Mapping[str, Any], *, remote: bool) -> Jobs:
    """Return the jobs of the configured experiment; in a remote job, of the one that the head froze.

    Parameters
    ----------
    config: the files' configuration and, on top, what the command line gave.
    files: those files.
    given: what the command line gave, from `--config`.
    """
    os.environ["PATH"] = os.pathsep.join([os.path.dirname(sys.executable), os.environ.get("PATH", "")])
    if not remote:
        for file in files:
            refuse_repeated_keys(file)
        complete = copy.deepcopy(dict(config))
        update_config(complete, as_in_a_file(given))
        return Jobs(create(in_order(complete, load_overlays())))
    frozen = read_json(_frozen(os.environ.get(EXPERIMENT, str(config.get("experiment")))))
    if frozen["code"] != workflow_digest():
        raise UserError("the code under workflow/ changed while Snakemake was running; stop it and start it again")
    return Jobs(create(frozen["config"]))


def in_order(value: Any, pattern: Any) -> Any:
    """Return mappings, however deep, with their keys in the order of `pattern`'s, and after them those that it lacks.

    Snakemake puts the keys of overlays and of `--config` first, and figures follow the order of the keys.
    """
    if not (isinstance(value, Mapping) and isinstance(pattern, Mapping)):
        return value
    return {key: in_order(value[key], pattern.get(key)) for key in [*pattern, *value] if key in value}


def as_in_a_file(value: Any) -> Any:
    """Return a value of `--config` as a file would hold it: Snakemake reads whatever is in brackets as text."""
    if isinstance(value, Mapping):
        return {key: as_in_a_file(item) for key, item in value.items()}
    if isinstance(value, list):
        return [as_in_a_file(item) for item in value]
    if not isinstance(value, str):
        return value
    with contextlib.suppress(yaml.YAMLError):
        read = yaml.safe_load(value)
        return read if read is None or isinstance(read, bool | int | float) else value
    return value


def freeze(experiment: Experiment) -> None:
    """Write down the configuration and the code that this run of Snakemake uses; mend dates that lie in the future."""
    moved = bring_dates_back(experiment.results)
    if moved:
        print(f"{experiment.results}: {moved} files were dated in the future; they are dated now", file=sys.stderr)
    os.environ[EXPERIMENT] = experiment.config["experiment"]
    frozen = {"config": experiment.config, "code": workflow_digest()}
    # In the order of the configuration, which is the order in figures.
    write_json(_frozen(experiment.config["experiment"]), frozen, sort_keys=False)


def _frozen(experiment: str) -> Path:
    return Path("results") / experiment / ".frozen.json"


def workflow_digest() -> str:
    """Return the digest of all rules, all code, and all tables that specifications are made from."""
    scripts = sorted(path.relative_to(SCRIPTS).as_posix() for path in SCRIPTS.rglob("*.py"))
    tables = [*NOT_CODE, *(WORKFLOW / "resources").glob("*.yaml"), *(WORKFLOW / "schemas").glob("*.yaml")]
    texts = [WORKFLOW.parent / "Snakefile", *sorted([*tables, *(WORKFLOW / "rules").glob("*.smk")])]
    parts = [code_digest(*scripts), *(path.read_text(encoding="utf-8") for path in texts)]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def overlays(configfiles: Iterable[str | Path]) -> str:
    """Return the overlays in use, separated by spaces; "config.yaml" without any."""
    return " ".join(os.path.relpath(name) for name in configfiles if Path(name) != PAPER) or PAPER.name


def scripts() -> str:
    """Return the folder of the stages' programs: as a short path in a checkout, else as an absolute one."""
    return str(SCRIPTS.relative_to(Path.cwd()) if SCRIPTS.is_relative_to(Path.cwd()) else SCRIPTS)


def local_gpus() -> int:
    """Return the number of NVIDIA GPUs that this machine shows, without starting CUDA."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return len([name for name in visible.split(",") if name.strip() not in ("", "-1")])
    return len(glob.glob("/dev/nvidia[0-9]*"))


def gpu(device: str, local: Callable[[], bool]) -> dict[str, Any]:
    """Return the resources by which training, extraction and probe jobs ask for a GPU each, or for none.

    On a cluster `auto` asks for one: the machine that Snakemake runs on tells nothing of the nodes. Where none is asked for,
    none of a model is, whatever a profile's `default-resources` say.

    Parameters
    ----------
    device: "auto", "cpu" or "cuda".
    local: says, once jobs are planned, whether they run on this machine.
    """
    if device == "cpu":
        return {"gpu": 0, "gpu_model": ""}
    return {"gpu": lambda wildcards: int(device == "cuda" or not local() or local_gpus() > 0)}
