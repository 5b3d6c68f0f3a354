"""Which attention a model is trained with: what is asked for, or what fits the device.

Apart from decoding's attention, which needs a newer transformers than some models are trained under.
"""

from __future__ import annotations

import logging

import torch
import transformers
from transformers import PreTrainedModel
from transformers.utils import is_flash_attn_2_available

from mstar.errors import MissingDependency, ModelError
from mstar.execution import Execution

log = logging.getLogger(__name__)

FLASH = "flash_attention_2"


def attend_as_asked(
    model: PreTrainedModel, execution: Execution, device: torch.device, dtype: torch.dtype
) -> str:
    """Set the attention that a model is trained with, and return its name; ``dtype`` is what it computes in.

    ``auto`` is flash attention where the package is installed, the device is CUDA, the format bfloat16 and the model
    knows it; else what transformers chose for the model (sdpa, or eager where the family requires it).
    """
    asked = execution.attention
    if asked == "auto":
        fits = device.type == "cuda" and dtype == torch.bfloat16 and is_flash_attn_2_available()
        if fits and getattr(model, "_supports_flash_attn", False):
            _try_flash(model)
    elif asked == FLASH:
        _check_flash(device, dtype)
        _set(model, FLASH)
    else:
        _set(model, asked)
    return str(model.config._attn_implementation)  # noqa: SLF001 (no public way to ask)


def _try_flash(model: PreTrainedModel) -> None:
    """A part of the model may not know what the whole says it knows."""
    before = model.config._attn_implementation  # noqa: SLF001 (no public way to ask)
    try:
        _set(model, FLASH)
    except ModelError as error:
        log.warning("attention stays %s: %s", before, error)
        model.set_attn_implementation(before)


def _check_flash(device: torch.device, dtype: torch.dtype) -> None:
    if device.type != "cuda" or dtype != torch.bfloat16:
        name = str(dtype).removeprefix("torch.")
        raise ModelError(
            f"execution.attention is {FLASH}, which computes in bfloat16 on a CUDA device, but this step computes in "
            f"{name} on {device.type}. Set optimization.dtype to bfloat16, or execution.attention to auto."
        )
    if not is_flash_attn_2_available():
        raise MissingDependency(
            f"execution.attention is {FLASH}, but the package flash-attn (2.3.3 or newer) is not installed. Install it "
            "where the trainer runs, or set execution.attention to auto."
        )


def _set(model: PreTrainedModel, name: str) -> None:
    if not hasattr(model, "set_attn_implementation"):
        raise ModelError(
            f"transformers {transformers.__version__} does not let the attention of a loaded model be chosen. Set "
            "execution.attention to auto."
        )
    try:
        model.set_attn_implementation(name)
    except (ValueError, ImportError) as error:
        raise ModelError(
            f"{type(model).__name__} cannot attend by {name} ({error}). Set execution.attention to auto."
        ) from error
    found = model.config._attn_implementation  # noqa: SLF001 (no public way to ask)
    if found != name:
        raise ModelError(
            f"{type(model).__name__} does not let its attention be set to {name}; it stays {found}. Set "
            "execution.attention to auto."
        )
