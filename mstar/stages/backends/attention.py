"""Attention for decoding one token a row: heads that share keys ask together.

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

NAME = "mstar_grouped"


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
