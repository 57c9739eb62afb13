"""What the configuration wants of the machine that Snakemake runs on, before any job starts."""

from __future__ import annotations

import glob
import os
from collections.abc import Mapping
from typing import Any

from ..runtime.errors import UserError
from . import datasets


def local_gpus() -> int:
    """Return the number of NVIDIA GPUs that this machine shows, without starting CUDA."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return len([name for name in visible.split(",") if name.strip() not in ("", "-1")])
    return len(glob.glob("/dev/nvidia[0-9]*"))


def refuse(config: Mapping[str, Any], runs: Mapping[str, Any], *, local: bool) -> None:
    """Raise `UserError` for a GPU or a folder that is not here.

    Parameters
    ----------
    config, runs: of an `Experiment`.
    local: whether jobs run on this machine.
    """
    if local and config["device"] == "cuda" and not local_gpus():
        raise UserError(
            "config: device is 'cuda', but this machine shows no GPU; set device: auto, or name a cluster's --profile"
        )
    read = [run.dataset for run in runs.values() if datasets.entry(config, run.dataset)["loader"] == "torchvision"]
    root, download = config["data"]["root"], config["data"]["download"]
    if not read or (os.path.isdir(root) and os.access(root, os.R_OK | os.X_OK)):
        return
    if os.path.exists(root):
        raise UserError(
            f"config: data.root is '{root}', which is no folder that can be read; {read[0]} is looked for there"
        )
    if not download:
        raise UserError(
            f"config: data.root is '{root}', which is not there; name the folder that holds {read[0]}, or set data.download: true"
        )
    if not os.access(_there(root), os.W_OK | os.X_OK):
        raise UserError(
            f"config: data.root is '{root}', which cannot be made in {_there(root)}; name a folder to download into"
        )


def _there(path: str) -> str:
    """Return the part of a path that exists."""
    path = os.path.abspath(path)
    while not os.path.exists(path):
        path = os.path.dirname(path)
    return path
