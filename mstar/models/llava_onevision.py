"""LLaVA-OneVision: an image is fitted into the best of given resolutions and cut into tiles, its padding dropped.

After the whole image in one tile come the rows of all tiles together, without the padding, each row ended by a
learned token; above ``anyres_max_N`` tiles' worth they are scaled down. Positions simply count. The model computes
this anew from ``image_sizes``, the size of the image before any scaling.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from transformers.image_processing_utils import select_best_resolution

from mstar.models.family import MAX_PIXELS
from mstar.models.sized import SizedFamily

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

SCALED_ABOVE = 1.1
"""How far, as a ratio of sides, tiles may exceed the most before they are scaled down."""


class LlavaOnevisionFamily(SizedFamily):
    """Prompts of one image each for LLaVA-OneVision."""

    def __init__(self, path: Path, *, max_pixels: int = MAX_PIXELS) -> None:
        super().__init__(path, max_pixels=max_pixels)
        most = self.config.vision_aspect_ratio
        self.image_limit = (
            f"vision_aspect_ratio (now {most}) in config.json and processor_config.json"
        )

    def image_text(self, width: int, height: int) -> str:
        """The tokens of the whole image, then those of the rows of its tiles."""
        tower = self.config.vision_config
        side = tower.image_size // tower.patch_size
        best = select_best_resolution((height, width), self.config.image_grid_pinpoints)
        rows, columns = (side * (length // tower.image_size) for length in best)
        rows, columns = _without_padding(width, height, rows, columns)
        most = int(self.config.vision_aspect_ratio.removeprefix("anyres_max_"))
        ratio = math.sqrt(rows * columns / (most * side**2))
        if ratio > SCALED_ABOVE:
            rows, columns = int(rows // ratio), int(columns // ratio)
        return self.image_word * (side**2 + rows * (columns + 1))

    def agreements(self) -> Mapping[str, object]:
        """Processor and model both compute how an image is cut."""
        tower = self.config.vision_config
        return {
            "image_token_id": self.placeholder,
            "num_image_tokens": (tower.image_size // tower.patch_size) ** 2,
            "vision_feature_select_strategy": self.config.vision_feature_select_strategy,
            "vision_aspect_ratio": self.config.vision_aspect_ratio,
            "image_processor.image_grid_pinpoints": self.config.image_grid_pinpoints,
            "image_processor.size.height": tower.image_size,
            "image_processor.size.width": tower.image_size,
        }


def _without_padding(width: int, height: int, rows: int, columns: int) -> tuple[int, int]:
    """The grid of tokens that an image covers when it is centred in a grid of another shape."""
    if width / height > columns / rows:
        covered = int(round(height * (columns / width), 7))
        return rows - (rows - covered) // 2 * 2, columns
    covered = int(round(width * (rows / height), 7))
    return rows, columns - (columns - covered) // 2 * 2
