"""Qwen3-VL: as Qwen2-VL, with patches of 16 pixels, interleaved rotary sections, and features of several layers.

Features of the vision tower's ``deepstack_visual_indexes`` are added to the image's tokens in the language model's
first layers, one layer each.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mstar.errors import ModelError
from mstar.models.family import MAX_PIXELS
from mstar.models.qwen_vl import QwenVLFamily

if TYPE_CHECKING:
    from pathlib import Path


class Qwen3VLFamily(QwenVLFamily):
    """Images go in as in Qwen2-VL; where their features enter is the model's own matter."""

    def __init__(self, path: Path, *, max_pixels: int = MAX_PIXELS) -> None:
        super().__init__(path, max_pixels=max_pixels)
        taken = len(self.config.vision_config.deepstack_visual_indexes)
        layers = self.config.get_text_config().num_hidden_layers
        if taken > layers:
            # transformers drops what has no layer to go to.
            raise ModelError(
                f"{path / 'config.json'}: the vision tower gives features for {taken} layers of the language model, "
                f"which has {layers}. Take config.json from where the weights were published."
            )
