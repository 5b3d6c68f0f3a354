"""Any other vision-language model that transformers supports natively and whose positions simply count.

The processor is called a prompt at a time, because what it returns for a batch differs from family to family; its
tensors of one prompt are joined along their first axis.
"""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

from transformers import AutoModelForImageTextToText

from mstar.errors import ModelError
from mstar.models.family import MAX_PIXELS, Asked, Encoded
from mstar.models.native import NativeFamily

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import torch

_TEXT_KEYS = ("input_ids", "attention_mask")


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

    def encode(self, prompts: Sequence[Asked]) -> list[Encoded]:
        """Render and tokenise prompts; ``ModelError`` for an image the model cannot take."""
        return [self._encode_one(prompt) for prompt in prompts]

    def _encode_one(self, prompt: Asked) -> Encoded:
        output = self.process([prompt], return_tensors="pt")
        tokens = tuple(output["input_ids"][0].tolist())
        images: dict[str, torch.Tensor] = {}
        token_inputs: dict[str, tuple[int, ...]] = {}
        for name, value in output.items():
            if name.endswith("token_type_ids"):
                token_inputs[name] = tuple(value[0].tolist())
            elif name not in _TEXT_KEYS:
                images[name] = value
        return Encoded(
            tokens=tokens, images=images, token_inputs=token_inputs, next_position=len(tokens)
        )


def _computes_positions(model_class: Any) -> bool:
    """Whether the architecture's module derives positions from the image (``get_rope_index``)."""
    module = inspect.getmodule(model_class)
    return any(
        hasattr(item, "get_rope_index") for item in vars(module).values() if isinstance(item, type)
    )
