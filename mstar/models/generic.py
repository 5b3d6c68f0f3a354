"""Any other vision-language model that transformers supports natively and whose positions simply count.

No module was written for it, so nothing is known of its image tokens before its processor has run. It is the fallback:
``mstarctl doctor --model`` says whether a folder works with it.
"""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

from transformers import AutoModelForImageTextToText

from mstar.errors import ModelError
from mstar.models.family import MAX_PIXELS, Asked
from mstar.models.native import NativeFamily

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


class GenericFamily(NativeFamily):
    """Prompts of one image each for models without positions of their own."""

    def __init__(self, path: Path, *, max_pixels: int = MAX_PIXELS) -> None:
        super().__init__(path, max_pixels=max_pixels)
        model_class = AutoModelForImageTextToText._model_mapping[type(self.config)]  # noqa: SLF001 (no public lookup)
        if _computes_positions(model_class):
            raise ModelError(
                f"{path}: {self.config.model_type!r} computes its own image positions, which the generic family would "
                "lose. Add a family for it beside mstar/models/qwen_vl.py."
            )

    def measure(self, prompts: Sequence[Asked]) -> list[tuple[int, int]]:
        """Of each prompt how many tokens it has, and how many stand for its image; each image is processed for it."""
        return [
            (len(code.tokens), code.image_tokens)
            for prompt in prompts
            for code in self.encode([prompt])
        ]


def _computes_positions(model_class: Any) -> bool:
    """Whether the architecture's module derives positions from the image (``get_rope_index``)."""
    module = inspect.getmodule(model_class)
    return any(
        hasattr(item, "get_rope_index") for item in vars(module).values() if isinstance(item, type)
    )
