"""What happens in the Snakefile before any rule: check the configuration, freeze it, count GPUs.

Remote jobs (SLURM) parse the Snakefile again on their node, where the configuration and the code may have been
edited since. So the head writes what it started with to `results/<experiment>/.frozen.json`, and a remote job takes
its configuration from there and stops if the code is not the one that the head saw.
"""

from __future__ import annotations

import glob
import hashlib
import os
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml
from snakemake.utils import update_config

from .code import SCRIPTS, code_digest
from .errors import UserError
from .experiment import Experiment, create
from .files import bring_dates_back, read_json, write_json
from .jobs import Jobs

WORKFLOW = SCRIPTS.parent


def start(config: dict[str, Any], given: Mapping[str, Any], *, remote: bool) -> Jobs:
    """Return the jobs of the configured experiment; in a remote job, of the one that the head froze.

    Parameters
    ----------
    config: merged from all sources.
    given: what `--config` gave of it, where Snakemake takes what stands in brackets for text: typed here, in `config`.
    """
    os.environ["PATH"] = os.pathsep.join([os.path.dirname(sys.executable), os.environ.get("PATH", "")])
    if not remote:
        update_config(config, typed(given))
        return Jobs(create(config))
    frozen = read_json(_frozen(str(config.get("experiment"))))
    if frozen["code"] != workflow_digest():
        raise UserError("the code under workflow/ changed while Snakemake was running; stop it and start it again")
    return Jobs(create(frozen["config"]))


def typed(value: Any) -> Any:
    """Return a configuration with each text that means a number, true, false or null in YAML replaced by that."""
    if isinstance(value, Mapping):
        return {key: typed(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [typed(entry) for entry in value]
    if not isinstance(value, str):
        return value
    try:
        meant = yaml.safe_load(value)
    except yaml.YAMLError:
        return value
    return meant if meant is None or isinstance(meant, bool | int | float) else value


def freeze(experiment: Experiment) -> None:
    """Write down the configuration and the code that this run of Snakemake uses; mend dates that lie in the future."""
    moved = bring_dates_back(experiment.results)
    if moved:
        print(f"{experiment.results}: {moved} files were dated in the future; they are dated now", file=sys.stderr)
    frozen = {"config": experiment.config, "code": workflow_digest()}
    # In the order of the configuration, which is the order in figures.
    write_json(_frozen(experiment.config["experiment"]), frozen, sort_keys=False)


def _frozen(experiment: str) -> Path:
    return Path("results") / experiment / ".frozen.json"


def workflow_digest() -> str:
    """Return the digest of all rules and all code."""
    scripts = sorted(path.relative_to(SCRIPTS).as_posix() for path in SCRIPTS.rglob("*.py"))
    rules = [WORKFLOW.parent / "Snakefile", *sorted((WORKFLOW / "rules").glob("*.smk"))]
    parts = [code_digest(*scripts), *(path.read_text(encoding="utf-8") for path in rules)]
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
