"""The device, number format and threads that an execution asks for."""

import os
from pathlib import Path

import torch

from mstar.errors import ModelError, SpecError
from mstar.execution import Execution

DRIVER = Path("/dev/nvidiactl")
"""There where NVIDIA's driver is."""


def choose_device(execution: Execution) -> torch.device:
    """The execution's device; ``auto`` is CUDA, else Apple's MPS, else the CPU."""
    available = {
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
    }
    if execution.device == "auto":
        if not available["cuda"]:
            _refuse_idle_gpu()
        return torch.device(next(name for name, there in available.items() if there))
    if not available[execution.device]:
        raise ModelError(
            f"the execution asks for device {execution.device!r}, but torch {torch.__version__} finds none here. "
            "Set execution.device (of doctor, --device) to auto or cpu."
        )
    return torch.device(execution.device)


def _refuse_idle_gpu() -> None:
    """``ModelError`` where a GPU is at hand that torch cannot use: a slow run on the CPU would hold it for nothing."""
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES") in {"", "-1"}
    if torch.version.cuda and DRIVER.exists() and not hidden:
        raise ModelError(
            f"an NVIDIA GPU is here, and torch {torch.__version__} (CUDA {torch.version.cuda}) cannot use it: its "
            "driver is too old (CUDA 13 needs 580 or newer), or libcuda.so.1 is not where the linker looks "
            "(LD_LIBRARY_PATH). Set execution.device (of doctor, --device) to cpu to run without it."
        )


def check_ranks(execution: Execution, processes: int) -> None:
    """``SpecError`` when ranks would have to share a GPU."""
    if choose_device(execution).type == "cuda" and processes > (there := torch.cuda.device_count()):
        raise SpecError(
            f"execution.deepspeed.processes is {processes}, and {there} GPUs are here. Lower it, or give the stage "
            "more GPUs (in a cluster: cluster.stages.train.resources.limits)."
        )


def choose_dtype(device: torch.device) -> torch.dtype:
    """The number format for sampling and scoring: bfloat16 on CUDA, float32 elsewhere."""
    return torch.bfloat16 if device.type == "cuda" else torch.float32


def set_threads(execution: Execution) -> None:
    """Give torch the execution's threads; without any it keeps its own choice."""
    if execution.threads is not None:
        torch.set_num_threads(execution.threads)
