"""A key-value cache for many responses to few prompts: filled once a prompt, then repeated for its samples.

Caches differ: transformers 5 has one of layers, those before it one of tensors, and models that run their own code may
have one of theirs.
"""

from __future__ import annotations

from typing import Any

import torch
from transformers import DynamicCache


def new_cache(model: Any) -> Any:
    """An empty cache for a model's forward."""
    own = getattr(model, "new_cache", None)
    return own() if own else DynamicCache(config=model.config.get_text_config())


def repeat_rows(cache: Any, rows: torch.Tensor) -> None:
    """Turn a prompt cache into one whose row ``i`` is the prompt ``rows[i]``, with room to grow where it has layers."""
    if hasattr(cache, "layers"):
        from mstar.stages.backends.roomy import give_room

        give_room(cache, rows)
    else:
        cache.batch_select_indices(rows)
