"""The device, number format and threads that an execution asks for."""

import torch

from mstar.errors import ModelError
from mstar.execution import Execution


def choose_device(execution: Execution) -> torch.device:
    """The execution's device; ``auto`` is CUDA, else Apple's MPS, else the CPU."""
    available = {
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
    }
    if execution.device == "auto":
        return torch.device(next(name for name, there in available.items() if there))
    if not available[execution.device]:
        raise ModelError(
            f"the execution asks for device {execution.device!r}, but torch {torch.__version__} finds none here. "
            "Set execution.device (of doctor, --device) to auto or cpu."
        )
    return torch.device(execution.device)


def choose_dtype(device: torch.device) -> torch.dtype:
    """The number format for sampling and scoring: bfloat16 on CUDA, float32 elsewhere."""
    return torch.bfloat16 if device.type == "cuda" else torch.float32


def set_threads(execution: Execution) -> None:
    """Give torch the execution's threads; without any it keeps its own choice."""
    if execution.threads is not None:
        torch.set_num_threads(execution.threads)
