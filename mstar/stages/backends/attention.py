"""Which attention a model uses: to train, what fits the device; to decode one token a row, one of our own.

With grouped-query attention transformers copies keys and values once a query head, at every token. A single query has
no order to keep, so the heads of a group can stand where queries stand, and nothing is copied. This is registered
under transformers' attention interface; anything but one masked query a row goes to its own ``sdpa``.
"""

from __future__ import annotations

from typing import Any

import torch
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask
from transformers.utils import is_flash_attn_2_available

from mstar.errors import MissingDependency, ModelError
from mstar.execution import Execution

NAME = "mstar_grouped"
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
        if fits and model._supports_flash_attn:  # noqa: SLF001 (no public way to ask)
            _set(model, FLASH)
    elif asked == FLASH:
        _check_flash(device, dtype)
        _set(model, FLASH)
    else:
        _set(model, asked)
    return str(model.config._attn_implementation)  # noqa: SLF001 (no public way to ask)


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


def grouped_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """Scaled dot-product attention; output has shape (rows, queries, heads, size)."""
    rows, heads, queries, size = query.shape
    groups = key.shape[1]
    if queries != 1 or heads == groups or kwargs.get("position_bias") is not None:
        output: tuple[torch.Tensor, None] = sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **kwargs
        )
        return output
    grouped = query.reshape(rows, groups, heads // groups, size)
    attended = torch.nn.functional.scaled_dot_product_attention(
        grouped, key, value, attn_mask=attention_mask, dropout_p=dropout, scale=scaling
    )
    return attended.reshape(rows, 1, heads, value.shape[-1]), None


def decode_grouped(model: PreTrainedModel) -> None:
    """Make a model's language part use grouped attention, where it uses torch's now."""
    decoder = model.get_decoder()
    config = decoder.config
    if config._attn_implementation == "sdpa" and decoder._can_set_attn_implementation():  # noqa: SLF001 (no public way to ask)
        AttentionInterface.register(NAME, grouped_attention)
        AttentionMaskInterface.register(NAME, sdpa_mask)
        decoder.set_attn_implementation(NAME)
