"""Which device a job gets: grants, leases, narrowed visibility; no GPU is needed."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import IO

import numpy as np
import pytest
import torch
from conftest import SCRIPTS
from dnn_or_knn import numerics
from dnn_or_knn.probes.solvers import neighbours
from dnn_or_knn.runtime import files, gpus
from dnn_or_knn.runtime.errors import Interrupted, UserError

GPUS = ["GPU-aaaa-1", "GPU-bbbb-2", "GPU-cccc-3"]
SLURMS_OWN = {"SLURM_JOB_GPUS": "2", "CUDA_VISIBLE_DEVICES": "0"}
LISTING = """GPU 0: NVIDIA H200 (UUID: GPU-aaaa-1)
GPU 1: NVIDIA A100 (UUID: GPU-bbbb-2)
  MIG 3g.20gb     Device  0: (UUID: MIG-11-x)
  MIG 3g.20gb     Device  1: (UUID: MIG-22-y)
GPU 2: NVIDIA H200 (UUID: GPU-cccc-3)
"""
HOLDER = """
import sys, time
from pathlib import Path
from dnn_or_knn.runtime import gpus
environment = {"DNN_OR_KNN_GPUS": "1"}
gpus.resolve("auto", environment=environment, list_gpus=lambda: sys.argv[2:], fault=lambda _: None, folder=Path(sys.argv[1]))
print(environment["CUDA_VISIBLE_DEVICES"], flush=True)
time.sleep(600)
"""


@pytest.fixture(autouse=True)
def _give_back():
    yield
    for file in gpus._leases.values():
        file.close()
    gpus._leases.clear()


def resolve(wanted: str, folder: Path, environment: dict, uuids: list[str] = GPUS, works: bool = True) -> torch.device:
    def fault(_: torch.device) -> str | None:
        return None if works else "torch cannot use it"

    return gpus.resolve(wanted, environment=environment, list_gpus=lambda: uuids, fault=fault, folder=folder, wait=0)


def start(folder: Path, *uuids: str) -> subprocess.Popen:
    """Start a process that leases one of the GPUs and says which."""
    return subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(folder), *uuids], cwd=SCRIPTS, stdout=subprocess.PIPE, text=True
    )


def hold(folder: Path, gpu: str) -> IO[str]:
    """Hold a GPU's lease as another process would, through a file handle of its own."""
    file = (folder / f"{gpu}.lock").open("a")
    fcntl.flock(file, fcntl.LOCK_EX)
    return file


def test_cpu_ignores_a_granted_gpu(tmp_path):
    environment = {"DNN_OR_KNN_GPUS": "1", "SLURM_JOB_GPUS": "0"}
    assert resolve("cpu", tmp_path, environment) == torch.device("cpu")
    assert "CUDA_VISIBLE_DEVICES" not in environment and not list(tmp_path.iterdir())


def test_auto_takes_a_gpu_where_there_is_one_and_else_the_cpu(tmp_path):
    environment: dict[str, str] = {}
    assert resolve("auto", tmp_path, environment) == torch.device("cuda", 0)
    assert environment["CUDA_VISIBLE_DEVICES"] == GPUS[0]
    assert resolve("auto", tmp_path, {}, uuids=[]) == torch.device("cpu")
    assert resolve("auto", tmp_path, {"DNN_OR_KNN_GPUS": "0"}, uuids=[]) == torch.device("cpu")


@pytest.mark.parametrize(
    "wanted, environment, words",
    [
        ("cuda", {}, "device is 'cuda'"),
        ("auto", {"DNN_OR_KNN_GPUS": "1"}, "the workflow granted"),
        ("auto", {"SLURM_JOB_GPUS": "3"}, "SLURM granted"),
        ("auto", {"SLURM_STEP_GPUS": "3", "CUDA_VISIBLE_DEVICES": "0"}, "SLURM granted"),
        ("auto", {"SLURM_GPUS_ON_NODE": "1"}, "SLURM granted"),
    ],
)
@pytest.mark.parametrize("uuids", [[], GPUS])
def test_a_job_that_was_to_have_a_gpu_and_cannot_use_one_stops(tmp_path, wanted, environment, words, uuids):
    with pytest.raises(UserError, match=words) as caught:
        resolve(wanted, tmp_path, dict(environment), uuids=uuids, works=False)
    assert "\n" not in str(caught.value) and "device: cpu" in str(caught.value)
    assert not gpus._leases  # a GPU that does not work is given back


def test_a_gpu_that_torch_cannot_use_leaves_auto_on_the_cpu(tmp_path):
    assert resolve("auto", tmp_path, {}, works=False) == torch.device("cpu")
    assert not gpus._leases


def test_unknown_devices_are_refused():
    with pytest.raises(UserError, match="'gpu'"):
        gpus.resolve("gpu")


def test_jobs_spread_over_the_gpus_and_never_share(tmp_path):
    children = [start(tmp_path, *GPUS[:2]) for _ in range(2)]
    try:
        got = [child.stdout.readline().strip() for child in children]
        assert set(got) == set(GPUS[:2])
        with pytest.raises(UserError, match="all 2 GPUs are in use"):
            resolve("cuda", tmp_path, {}, uuids=GPUS[:2])
        third: dict[str, str] = {}
        resolve("cuda", tmp_path, third)
        assert third["CUDA_VISIBLE_DEVICES"] == GPUS[2]
        children[0].send_signal(signal.SIGKILL)  # the kernel gives the lease back
        children[0].wait()
        assert gpus.lease(GPUS[:2], tmp_path, wait=0) == got[0]
    finally:
        for child in children:
            child.kill()
            child.communicate()


def test_probes_have_places_beside_a_training(tmp_path):
    with hold(tmp_path, GPUS[0]):  # by a training
        probes = [gpus.lease(GPUS[:1], tmp_path, wait=0, share=2)]
        with open(tmp_path / f"{GPUS[0]}.shared1.lock", "a") as second:
            fcntl.flock(second, fcntl.LOCK_EX | fcntl.LOCK_NB)  # by another probe: the place was free
            gpus.release(GPUS[0], tmp_path)
            assert gpus.lease(GPUS[:1], tmp_path, wait=0, share=2) == probes[0]
            # A job that holds a GPU has it for whatever it does besides, such as making features again.
            assert gpus.lease(GPUS[:1], tmp_path, wait=0) == GPUS[0]
            gpus.release(GPUS[0], tmp_path)
            with open(tmp_path / f"{GPUS[0]}.shared0.lock", "a") as first:
                fcntl.flock(first, fcntl.LOCK_EX | fcntl.LOCK_NB)
                with pytest.raises(UserError, match="in use"):
                    gpus.lease(GPUS[:1], tmp_path, wait=0, share=2)
                assert gpus.lease(GPUS[:2], tmp_path, wait=0, share=1) == GPUS[1]


def test_a_job_waits_for_a_gpu_and_gets_it(tmp_path, monkeypatch):
    other = hold(tmp_path, GPUS[0])
    slept = []

    def end_the_other(seconds: float) -> None:
        slept.append(seconds)
        other.close()

    monkeypatch.setattr(gpus.time, "sleep", end_the_other)
    assert gpus.lease(GPUS[:1], tmp_path) == GPUS[0]
    assert slept == [gpus.RETRY]


def test_a_job_that_waits_for_a_gpu_can_be_stopped(tmp_path, monkeypatch):
    def interrupt(seconds: float) -> None:
        raise Interrupted("SIGTERM")

    monkeypatch.setattr(gpus.time, "sleep", interrupt)
    with hold(tmp_path, GPUS[0]), pytest.raises(Interrupted):
        gpus.lease(GPUS[:1], tmp_path)


def test_asking_twice_gives_the_same_gpu(tmp_path):
    environment: dict[str, str] = {}
    for _ in range(2):
        assert resolve("cuda", tmp_path, environment) == torch.device("cuda", 0)
    assert environment["CUDA_VISIBLE_DEVICES"] == GPUS[0]
    assert len(gpus._leases) == 1


@pytest.mark.parametrize(
    "visible, expected",
    [
        (None, GPUS),
        ("", []),
        ("-1", []),
        ("1", [GPUS[1]]),
        ("2, 0", [GPUS[2], GPUS[0]]),
        ("GPU-bb", [GPUS[1]]),
        ("0,7,1", [GPUS[0]]),
        ("0,0", [GPUS[0]]),
        ("GPU", []),
        ("NoDevFiles", []),
    ],
)
def test_narrowed_visibility_is_respected(tmp_path, visible, expected):
    environment = {} if visible is None else {"CUDA_VISIBLE_DEVICES": visible}
    assert gpus.visible_gpus(environment, lambda: GPUS) == expected
    device = resolve("auto", tmp_path, environment)
    assert device.type == ("cuda" if expected else "cpu")
    if expected:
        assert environment["CUDA_VISIBLE_DEVICES"] == expected[0]


def test_a_gpu_that_slurm_gave_to_this_job_alone_needs_no_lease(tmp_path):
    environment = {"SLURM_JOB_GPUS": "2", "CUDA_VISIBLE_DEVICES": "0"}
    assert resolve("auto", tmp_path / "leases", environment) == torch.device("cuda", 0)
    assert environment["CUDA_VISIBLE_DEVICES"] == "0" and not (tmp_path / "leases").exists()
    several = {"SLURM_JOB_GPUS": "2,3", "CUDA_VISIBLE_DEVICES": "0,1"}
    resolve("auto", tmp_path / "leases", several)
    assert several["CUDA_VISIBLE_DEVICES"] == GPUS[0] and len(gpus._leases) == 1


@pytest.mark.parametrize("number", sorted(files.UNSUPPORTED | {errno.EIO}))
def test_a_file_system_without_locks_is_not_taken_for_gpus_in_use(tmp_path, monkeypatch, number):
    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(gpus.fcntl, "flock", refuse)
    with pytest.raises(UserError, match=r"without locks .*; set TMPDIR") as caught:
        gpus.lease(GPUS, tmp_path)
    assert str(tmp_path) in str(caught.value) and not gpus._leases


def test_no_folder_for_temporary_files_is_one_sentence(monkeypatch):
    def nowhere() -> str:
        raise FileNotFoundError(errno.ENOENT, "No usable temporary directory found in ['/tmp']")

    monkeypatch.setattr(gpus.tempfile, "gettempdir", nowhere)
    with pytest.raises(UserError, match=r"and there is none: No usable temporary directory found"):
        gpus.resolve("cuda", environment={}, list_gpus=lambda: GPUS, wait=0)
    assert gpus.resolve("auto", environment={}, list_gpus=list) == torch.device("cpu")


BUILT = ["sm_75", "sm_80", "sm_86", "sm_90a", "sm_100f", "sm_120", "compute_120"]


@pytest.mark.parametrize(
    ("capability", "expected"),
    [
        ((6, 1), False),
        ((7, 0), False),
        ((7, 5), True),
        ((8, 0), True),
        ((8, 9), True),
        ((9, 0), True),
        ((9, 1), False),
        ((10, 3), True),
        ((11, 0), False),
        ((12, 1), True),
        ((13, 0), True),
    ],
)
def test_a_card_that_the_wheel_has_no_code_for_is_named(tmp_path, monkeypatch, caplog, capability, expected):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_arch_list", lambda: BUILT)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "Tesla V100")
    given = {"list_gpus": lambda: GPUS, "folder": tmp_path, "wait": 0}
    if expected:
        assert gpus.resolve("cuda", environment={}, **given) == torch.device("cuda", 0)
        return
    for wanted, environment in (("cuda", {}), ("auto", {"DNN_OR_KNN_GPUS": "1"}), ("auto", SLURMS_OWN)):
        with pytest.raises(
            UserError, match=r"has no code for Tesla V100 \(compute capability \d+\.\d; .* `device: cpu`$"
        ):
            gpus.resolve(wanted, environment=dict(environment), **given)
    caplog.clear()
    with caplog.at_level("WARNING", "dnn_or_knn"):
        assert gpus.resolve("auto", environment={}, **given) == torch.device("cpu")
    assert "has no code for Tesla V100" in caplog.text and not gpus._leases


def test_a_gpu_on_which_cuda_does_not_start_is_one_sentence(tmp_path, monkeypatch):
    def busy(_: torch.device) -> None:
        raise RuntimeError("CUDA error: CUDA-capable device(s) is/are busy or unavailable\nFor debugging consider")

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", busy)
    with pytest.raises(UserError, match=r"CUDA does not start \(CUDA error: .* unavailable\); check") as caught:
        gpus.resolve("cuda", environment={}, list_gpus=lambda: GPUS, folder=tmp_path, wait=0)
    assert "\n" not in str(caught.value)


def test_what_a_rocm_build_holds_is_believed():
    assert gpus.has_code_for("gfx90a", (9, 0))


def test_a_folder_that_cannot_hold_leases_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="TMPDIR"):
        gpus.lease(GPUS, tmp_path / "file")


def test_the_listing_of_nvidia_smi_is_read_with_slices():
    assert gpus.parse_nvidia_smi(LISTING) == ["GPU-aaaa-1", "MIG-11-x", "MIG-22-y", "GPU-cccc-3"]
    assert gpus.parse_nvidia_smi("No devices found.\n") == []


def test_precision_on_the_cpu():
    cpu = torch.device("cpu")
    try:
        assert numerics.set_precision("auto", cpu) == "float32"
        for name, allowed in (("tf32", True), ("bf16", False), ("float64", False), ("float32", False)):
            assert numerics.set_precision(name, cpu) == name
            assert torch.backends.cuda.matmul.allow_tf32 is allowed
            assert torch.backends.cudnn.allow_tf32 is allowed
        with pytest.raises(UserError, match="'half'"):
            numerics.set_precision("half", cpu)
    finally:
        numerics.set_precision("float32", cpu)
    x = torch.ones(2, 2)
    for name, expected in (("bf16", torch.bfloat16), ("float32", torch.float32), ("tf32", torch.float32)):
        with numerics.autocast(name, cpu):
            assert (x @ x).dtype == expected
    assert numerics.dtype("float64") == torch.float64 and numerics.dtype("bf16") == torch.float32


def test_precisions_may_follow_one_another_with_exact_products_between():
    features = np.random.default_rng(0).normal(size=(20, 3)).astype(np.float32)
    try:
        for name in ("tf32", "float32", "tf32", "tf32", "bf16"):
            numerics.set_precision(name, torch.device("cpu"))
            neighbours.search(features, None, 3)
            assert torch.backends.cuda.matmul.allow_tf32 is (name == "tf32")
    finally:
        numerics.set_precision("float32", torch.device("cpu"))


def test_compilation_falls_back_once_and_for_good():
    calls = []

    def fast(x: int) -> int:
        calls.append("fast")
        raise ValueError("no C compiler")

    function = numerics.with_fallback(fast, lambda x: x + 1)
    assert [function(1), function(2)] == [2, 3]
    assert calls == ["fast"]


def test_where_bits_count_nothing_takes_the_place_of_compiled_code(monkeypatch):
    def no_compiler(*_: object, **__: object) -> None:
        raise RuntimeError("Failed to find C compiler.\nPlease specify one")

    monkeypatch.setattr(torch, "compile", lambda *_, **__: no_compiler)
    assert numerics.compiled(abs, torch.device("cuda"))(-1) == 1
    function = numerics.compiled(abs, torch.device("cuda"), same_bits=True)
    for _ in range(2):
        with pytest.raises(
            UserError, match=r"\(Failed to find C compiler\.\).*`jobs\.evaluation_compile: false`"
        ) as caught:
            function(-1)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("error", [Interrupted("SIGTERM"), torch.OutOfMemoryError("CUDA out of memory")])
def test_compilation_does_not_swallow_what_is_not_its_fault(error):
    def fast() -> None:
        raise error

    with pytest.raises(type(error)):
        numerics.with_fallback(fast, lambda: None)()


def test_a_stop_request_in_a_compilation_is_not_taken_for_its_failure():
    """SIGTERM arrives while torch.compile works, which turns every exception into one of its own."""

    def backend(*_: object) -> None:
        raise Interrupted("SIGTERM")

    function = numerics.with_fallback(torch.compile(lambda x: x + 1, backend=backend), lambda x: x)
    with pytest.raises(Interrupted):
        function(torch.ones(2))


def test_an_error_after_the_first_success_is_the_functions_own():
    answers = iter([1])
    function = numerics.with_fallback(lambda: next(answers), lambda: 5)
    assert function() == 1
    with pytest.raises(StopIteration):
        function()


def test_nothing_is_compiled_for_the_cpu():
    def function(x: int) -> int:
        return x

    assert numerics.compiled(function, torch.device("cpu")) is function


@pytest.mark.parametrize("same_bits", [False, True])
def test_compilation_leaves_no_choice_to_a_stopwatch_where_bits_count(monkeypatch, same_bits):
    from torch._inductor import compile_fx

    seen = []

    def compile_inner(*_: object, **__: object) -> None:
        seen.append(torch._inductor.config.deterministic)
        raise ValueError("no GPU")

    monkeypatch.setattr(compile_fx, "_compile_fx_inner", compile_inner)
    compiled = numerics.compiled(lambda x: x.mean(1), torch.device("cuda"), same_bits=same_bits)
    with contextlib.suppress(UserError):  # without same_bits the plain function takes over
        assert compiled(torch.ones(2, 3)).tolist() == [1.0, 1.0] and not same_bits
    torch.compiler.reset()
    assert seen == [same_bits]


@pytest.mark.parametrize(
    "error, expected",
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), True),
        (MemoryError(), True),
        (
            RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
            True,
        ),
        (RuntimeError("CUDA error: out of memory"), True),
        (RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"), True),
        (RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED"), True),
        (RuntimeError("Triton Error [CUDA]: out of memory"), True),
        (RuntimeError("Triton Error [CUDA]: invalid argument"), False),
        (RuntimeError("shape mismatch"), False),
        (ValueError("can't allocate memory"), False),
    ],
)
def test_out_of_memory_is_recognised(error, expected):
    assert numerics.is_out_of_memory(error) is expected


@pytest.mark.gpu
def test_a_real_gpu_is_leased_and_is_the_only_one_seen():
    if not gpus.nvidia_smi():
        pytest.skip("no NVIDIA GPU here")
    code = (
        "import json, os, torch; from dnn_or_knn.runtime import gpus; d = gpus.resolve('cuda');"
        "print(json.dumps([str(d), torch.cuda.device_count(), os.environ['CUDA_VISIBLE_DEVICES']]))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=SCRIPTS, capture_output=True, text=True, check=True)
    device, count, visible = json.loads(done.stdout)
    assert (device, count) == ("cuda:0", 1) and visible in gpus.nvidia_smi()
