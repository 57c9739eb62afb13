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
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml
from snakemake.utils import update_config

from ..runtime.code_digest import NOT_CODE, SCRIPTS, code_digest
from ..runtime.errors import UserError
from ..runtime.files import bring_dates_back, read_json, write_json
from .runs import Experiment, create
from .specifications import Jobs

WORKFLOW = SCRIPTS.parent
#: Tells remote jobs which experiment the head runs, even if its name is edited meanwhile.
EXPERIMENT = "DNN_OR_KNN_EXPERIMENT"


def start(config: Mapping[str, Any], given: Mapping[str, Any], *, remote: bool) -> Jobs:
    """Return the jobs of the configured experiment; in a remote job, of the one that the head froze.

    Parameters
    ----------
    config: the files' configuration and, on top, what the command line gave.
    given: what the command line gave, from `--config`.
    """
    os.environ["PATH"] = os.pathsep.join([os.path.dirname(sys.executable), os.environ.get("PATH", "")])
    if not remote:
        complete = copy.deepcopy(dict(config))
        update_config(complete, as_in_a_file(given))
        return Jobs(create(complete))
    frozen = read_json(_frozen(os.environ.get(EXPERIMENT, str(config.get("experiment")))))
    if frozen["code"] != workflow_digest():
        raise UserError("the code under workflow/ changed while Snakemake was running; stop it and start it again")
    return Jobs(create(frozen["config"]))


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
    names = [os.path.relpath(name) for name in configfiles]
    return " ".join([name for name in names if name != "config.yaml"] or ["config.yaml"])


def local_gpus() -> int:
    """Return the number of NVIDIA GPUs that this machine shows, without starting CUDA."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return len([name for name in visible.split(",") if name.strip() not in ("", "-1")])
    return len(glob.glob("/dev/nvidia[0-9]*"))


def gpus_per_job(device: str) -> int:
    """Return how many GPUs a training, extraction or probe job asks for: 0 or 1."""
    return int(device == "cuda" or (device == "auto" and local_gpus() > 0))
