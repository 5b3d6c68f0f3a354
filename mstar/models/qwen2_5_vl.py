"""Qwen2.5-VL: as Qwen2-VL, but most layers of its vision tower look at windows of whole tokens."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mstar.errors import ModelError
from mstar.models.family import MAX_PIXELS
from mstar.models.qwen_vl import QwenVLFamily

if TYPE_CHECKING:
    from pathlib import Path


class Qwen25VLFamily(QwenVLFamily):
    """Images go in as in Qwen2-VL; the model sorts their tokens into windows and back."""

    def __init__(self, path: Path, *, max_pixels: int = MAX_PIXELS) -> None:
        super().__init__(path, max_pixels=max_pixels)
        vision = self.config.vision_config
        side = vision.patch_size * vision.spatial_merge_size
        if vision.window_size % side:
            # transformers rounds down here, and the windows would be others than those that were trained.
            raise ModelError(
                f"{path / 'config.json'}: a vision window of {vision.window_size} pixels is no whole number of merged "
                f"patches of {side}. Take config.json from where the weights were published."
            )
