"""InternVL as transformers has it (``-hf``): an image is cut into tiles of one size, and a thumbnail goes with them.

Tiles are laid out as the nearest of the aspect ratios that at most ``max_patches`` tiles can make; each tile is the
same number of tokens, and all stand between one pair of ``<img>`` and ``</img>``. Positions simply count.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mstar.models.family import MAX_PIXELS
from mstar.models.sized import SizedFamily

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path


class InternVLFamily(SizedFamily):
    """Prompts of one image each for InternVL."""

    def __init__(self, path: Path, *, max_pixels: int = MAX_PIXELS) -> None:
        super().__init__(path, max_pixels=max_pixels)
        most = self.processor.image_processor.max_patches
        self.image_limit = f"max_patches of {self.settings_file} (now {most} tiles)"

    def image_text(self, width: int, height: int) -> str:
        """All tiles' tokens in a row, between the words that begin and end an image."""
        tiles = self.processor.image_processor.get_number_of_image_patches(
            # Its processor always cuts into tiles, whatever the image processor's own settings say.
            height,
            width,
            {"crop_to_patches": True},
        )
        first, last = self.image_words()
        return first + self.image_word * (tiles * self._tile_tokens()) + last

    def image_words(self) -> Sequence[str]:
        """The words that begin and end an image."""
        return self.tokenizer.start_image_token, self.tokenizer.end_image_token

    def agreements(self) -> Mapping[str, object]:
        """A tile must be what the vision tower sees, and have the tokens that it makes features."""
        height, width = self.config.vision_config.image_size
        return {
            "image_token_id": self.placeholder,
            "image_seq_length": self._tile_tokens(),
            "image_processor.size.height": height,
            "image_processor.size.width": width,
        }

    def _tile_tokens(self) -> int:
        vision = self.config.vision_config
        rows, columns = (
            int(side // patch * self.config.downsample_ratio)
            for side, patch in zip(vision.image_size, vision.patch_size, strict=True)
        )
        return rows * columns
