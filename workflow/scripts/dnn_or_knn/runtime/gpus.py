"""Where a job computes: the CPU, or one GPU of its own.

Each job takes a lease on one GPU: an exclusive `flock` on a file that is named after it. The kernel drops the lock when
the process ends, however it ends. The leased GPU becomes the only one that the process sees, before CUDA starts.

A GPU has one lease for training or extraction, which fill it, and some for probes, which compute on the CPU half of their
time: so that neither waits for the other.
"""

from __future__ import annotations

import fcntl
import logging
import os
import re
import subprocess
import tempfile
import time
from collections.abc import Callable, MutableMapping
from pathlib import Path
from typing import IO, ParamSpec, TypeVar

import torch

from .errors import UserError

log = logging.getLogger("dnn_or_knn")
#: How long to wait before every GPU is tried again, and between two lines about it, in seconds.
RETRY, REMIND = 0.05, 60.0
_leases: dict[Path, IO[str]] = {}
P = ParamSpec("P")
R = TypeVar("R")


def resolve(
    wanted: str,
    *,
    environment: MutableMapping[str, str] = os.environ,
    list_gpus: Callable[[], list[str]] | None = None,
    fault: Callable[[torch.device], str | None] | None = None,
    folder: Path | None = None,
    wait: float | None = None,
    share: int = 0,
) -> torch.device:
    """Return the device of this job; lease a GPU if it is one of several jobs that could use it.

    `cpu`: GPUs are ignored. `cuda`: a GPU, or an error. `auto`: likewise if one was granted (``DNN_OR_KNN_GPUS``, set by
    the workflow's rules, or SLURM's variables), else a GPU if the machine has a working one, else the CPU. If all
    GPUs are leased the job waits for one.

    Parameters
    ----------
    wanted: "auto", "cpu" or "cuda".
    environment: read, and given ``CUDA_VISIBLE_DEVICES``; a set of devices that is already narrowed is respected.
    list_gpus: returns the UUIDs of the machine's GPUs in the order of the PCI bus (default: nvidia-smi's).
    fault: says in words why torch cannot use a GPU, None if it can (default: `gpu_fault`).
    folder: where the lease files lie (default: one a user in the folder for temporary files).
    wait: seconds to wait for a GPU before giving up (default: no limit).
    share: how many jobs like this one a GPU takes beside a training; 0: this job takes a training's place.

    Raises
    ------
    UserError: a GPU was asked for or granted and none can be used.
    """
    if wanted == "cpu":
        return torch.device("cpu")
    if wanted not in ("auto", "cuda"):
        raise UserError(f"device is '{wanted}' but must be auto, cpu or cuda; correct `device`")
    reason = "device is 'cuda'" if wanted == "cuda" else _grant(environment)
    device, chosen = torch.device("cuda", 0), None
    if not (_slurm_grant(environment) and len(_entries(environment)) == 1):  # else this GPU is this job's alone already
        gpus = visible_gpus(environment, list_gpus or nvidia_smi)
        if gpus:
            environment["CUDA_VISIBLE_DEVICES"] = chosen = lease(
                gpus, folder or default_folder(), wait=wait, share=share
            )
        elif list_gpus is None and torch.cuda.is_available():
            device, chosen = _by_number(_entries(environment), folder or default_folder(), wait=wait, share=share)
        else:
            return _no_gpu(reason, "this job sees no GPU; check `nvidia-smi`")
    found = (fault or gpu_fault)(device)
    if found is None:
        return device
    if chosen is not None:
        release(chosen, folder or default_folder())
    if reason is None:
        log.warning("computing on the CPU: %s", found)
    return _no_gpu(reason, found)


def _no_gpu(reason: str | None, fault: str) -> torch.device:
    if reason:
        raise UserError(f"{reason}, but {fault}, or set `device: cpu`")
    return torch.device("cpu")


def gpu_fault(device: torch.device) -> str | None:
    """Return in words why torch cannot use a GPU and what to do, None if it can."""
    if not torch.cuda.is_available():
        return f"torch {torch.__version__} cannot use the GPU; check the driver with `nvidia-smi`"
    try:
        capability, built = torch.cuda.get_device_capability(device), torch.cuda.get_arch_list()
    except RuntimeError as error:  # such as a GPU whose mode lets one process in, and another is there
        return f"CUDA does not start ({str(error).splitlines()[0]}); check the GPU with `nvidia-smi`"
    if any(has_code_for(target, capability) for target in built):
        return None
    return (
        f"torch {torch.__version__} has no code for {torch.cuda.get_device_name(device)} (compute capability "
        f"{capability[0]}.{capability[1]}; it was built for {', '.join(built)}); install a build that has, or name another GPU in "
        "CUDA_VISIBLE_DEVICES"
    )


def has_code_for(target: str, capability: tuple[int, int]) -> bool:
    """Say whether what was compiled for a target, as "sm_90", runs on GPUs of a compute capability, as (9, 0).

    Machine code ("sm") runs on the same generation from its own minor number on, with an "a" on exactly its own; PTX ("compute")
    on anything newer. Targets of other makers (ROCm) are believed.
    """
    found = re.fullmatch(r"(sm|compute)_(\d+)(\d)([af]?)", target)
    if found is None:
        return True
    built = int(found[2]), int(found[3])
    if found[4] == "a":
        return built == capability
    return built <= capability and (built[0] == capability[0] or (found[1] == "compute" and not found[4]))


def _grant(environment: MutableMapping[str, str]) -> str | None:
    """Return in words who granted this job a GPU, None if nobody did."""
    if environment.get("DNN_OR_KNN_GPUS", "0").strip() not in ("", "0"):
        return "the workflow granted this job a GPU"
    return "SLURM granted this job a GPU" if _slurm_grant(environment) else None


def _slurm_grant(environment: MutableMapping[str, str]) -> bool:
    names = ("SLURM_JOB_GPUS", "SLURM_STEP_GPUS")
    on_node = environment.get("SLURM_GPUS_ON_NODE", "0").strip()
    return any(environment.get(name, "").strip() for name in names) or on_node not in ("", "0")


def nvidia_smi() -> list[str]:
    """Return the UUIDs of the GPUs (or of their MIG slices) that this process may use, without starting CUDA."""
    try:
        done = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return []
    return parse_nvidia_smi(done.stdout) if done.returncode == 0 else []


def parse_nvidia_smi(text: str) -> list[str]:
    """Return the UUIDs in the output of ``nvidia-smi -L``; a GPU that is split into MIG slices gives those."""
    gpus: list[list[str]] = []
    for line in text.splitlines():
        found = re.search(r"UUID: ((GPU|MIG)-[^)\s]+)", line)
        if found and (found[2] == "GPU" or not gpus):
            gpus.append([found[1]])
        elif found:
            gpus[-1].append(found[1])
    return [uuid for gpu in gpus for uuid in (gpu[1:] or gpu)]


def visible_gpus(environment: MutableMapping[str, str], list_gpus: Callable[[], list[str]]) -> list[str]:
    """Return the UUIDs of the GPUs that ``CUDA_VISIBLE_DEVICES`` leaves visible, in its order.

    Numbers count in the order of the PCI bus, as nvidia-smi's do; like CUDA, the list ends at the first entry that names
    no GPU.
    """
    named = environment.get("CUDA_VISIBLE_DEVICES")
    gpus = list_gpus()
    if named is None:
        return gpus
    chosen: list[str] = []
    for entry in map(str.strip, named.split(",")):
        if entry.isdecimal():
            matches = gpus[int(entry) : int(entry) + 1]
        else:
            matches = [uuid for uuid in gpus if entry and uuid.startswith(entry)]
        if len(matches) != 1 or matches[0] in chosen:
            break
        chosen += matches
    return chosen


def _entries(environment: MutableMapping[str, str]) -> list[str]:
    """Return the entries of ``CUDA_VISIBLE_DEVICES``."""
    return [entry.strip() for entry in environment.get("CUDA_VISIBLE_DEVICES", "").split(",") if entry.strip()]


def _by_number(entries: list[str], folder: Path, *, wait: float | None, share: int) -> tuple[torch.device, str]:
    """Lease one of the GPUs that torch counts, where nvidia-smi is missing (in some containers); return its name as well.

    Counting has started CUDA with all of them in sight, so that the job is told its own by number.
    """
    gpus = entries or [str(number) for number in range(torch.cuda.device_count())]
    chosen = lease(gpus, folder, wait=wait, share=share)
    torch.cuda.set_device(gpus.index(chosen))
    return torch.device("cuda", gpus.index(chosen)), chosen


def default_folder() -> Path:
    """Return the folder of this user's leases."""
    try:
        return Path(tempfile.gettempdir()) / f"dnn-or-knn-gpus-{os.getuid()}"
    except FileNotFoundError as error:
        raise UserError(
            f"jobs lease GPUs in the folder for temporary files, and there is none: {error.strerror}"
        ) from error


def lease(gpus: list[str], folder: Path, *, wait: float | None = None, share: int = 0) -> str:
    """Return the first of the GPUs that has a lease left, and hold it until this process ends or releases it.

    A GPU that this process already holds is returned again. If all are held, tries again and again.

    Parameters
    ----------
    share: how many leases of this kind a GPU has beside a training's; 0: the one that trainings take.

    Raises
    ------
    UserError: nothing was free for `wait` seconds, or the folder cannot be used.
    """
    for gpu in gpus:
        if _file(gpu, folder) in _leases:
            return gpu
    started = time.monotonic()
    reminded = 0.0
    while True:
        for place in [f".shared{number}" for number in range(share)] or [""]:
            for gpu in gpus:
                if _try_lease(gpu, folder, place):
                    return gpu
        waited = time.monotonic() - started
        if wait is not None and waited >= wait:
            raise UserError(f"all {len(gpus)} GPUs are in use by other jobs (leases in {folder}); wait for one to end")
        if waited - reminded >= REMIND:
            log.info("waiting for a GPU: all %d are in use by other jobs (leases in %s)", len(gpus), folder)
            reminded = waited
        time.sleep(RETRY)


def release(gpu: str, folder: Path) -> None:
    """Give back a GPU that this process has leased, if it has."""
    if file := _leases.pop(_file(gpu, folder), None):
        file.close()


def _file(gpu: str, folder: Path, place: str = "") -> Path:
    return folder / f"{gpu.replace('/', '-')}{place}.lock"


def _try_lease(gpu: str, folder: Path, place: str) -> bool:
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        file = open(_file(gpu, folder, place), "a")  # noqa: SIM115 (held until the process ends)
    except OSError as error:
        raise UserError(
            f"{folder}, where jobs lease GPUs, cannot be used ({error}); remove it or set TMPDIR"
        ) from error
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        return False
    except OSError as error:
        file.close()
        raise UserError(
            f"{folder}, where jobs lease GPUs, is on a file system without locks ({error}); set TMPDIR to a folder on a local disk"
        ) from error
    _leases[_file(gpu, folder)] = file
    return True


# Speed.


def float64_rate(device: torch.device, side: int = 1024) -> float:
    """Return the floating-point operations per second of products in float64, the best of three."""
    one = torch.ones((side, side), dtype=torch.float64, device=device)
    best = 0.0
    for _ in range(4):  # the first one starts the library
        started = time.perf_counter()
        float((one @ one)[0, 0])  # waits for a GPU
        best = max(best, 2 * side**3 / (time.perf_counter() - started))
    return best


def warn_if_float64_is_slow(device: torch.device) -> None:
    """Log one line where a GPU's products in float64, in which linear probes are fitted, are slower than this job's CPU's."""
    if device.type != "cuda":
        return
    there, here = float64_rate(device), float64_rate(torch.device("cpu"))
    if there < here:
        log.warning(
            "this GPU makes %.0f GFLOP/s of float64 products, the CPU with %d threads %.0f: fits of this probe would be faster "
            "with `device: cpu`",
            there / 1e9,
            torch.get_num_threads(),
            here / 1e9,
        )
