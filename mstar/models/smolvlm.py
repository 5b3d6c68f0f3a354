"""SmolVLM and SmolVLM2: an image is scaled to a given long edge, cut into a grid of tiles, and shown whole after them.

Each tile is named by its row and column. Tiles of a batch are padded with black ones, which the model takes out
again; it checks that a row's image tokens are whole tiles, not that they are all: the family does that.
"""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING

from mstar.models.family import MAX_PIXELS
from mstar.models.sized import SizedFamily

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

LARGEST = 4096
"""The processor never makes an image larger than this on either side."""
FAKE, WHOLE = "<fake_token_around_image>", "<global-img>"
_TILE = re.compile(r"<row_\d+_col_\d+>")


class SmolVLMFamily(SizedFamily):
    """Prompts of one image each for SmolVLM."""

    def __init__(self, path: Path, *, max_pixels: int = MAX_PIXELS) -> None:
        super().__init__(path, max_pixels=max_pixels)
        most = self.processor.image_processor.size["longest_edge"]
        self.image_limit = f"size.longest_edge of {self.settings_file} (now {most} pixels)"

    def render(self, text: str) -> str:
        """The chat prompt of one image and the user's text, up to where the model answers."""
        # Not by the processor, which warns at each prompt about settings for videos that it adds itself.
        content = [{"type": "image"}, {"type": "text", "text": text}]
        prompt: str = self.tokenizer.apply_chat_template(
            [{"role": "user", "content": content}],
            chat_template=self.processor.chat_template,
            add_generation_prompt=True,
            tokenize=False,
        )
        return prompt

    def image_text(self, width: int, height: int) -> str:
        """The tiles row by row, each named, and the whole image last."""
        rows, columns = self._grid(width, height)
        tile = self.image_word * self._tile_tokens()
        lines = [
            "".join(f"{FAKE}<row_{row + 1}_col_{column + 1}>{tile}" for column in range(columns))
            for row in range(rows)
        ]
        above = "".join(f"{line}\n" for line in lines) + ("\n" if lines else "")
        return f"{above}{FAKE}{WHOLE}{tile}{FAKE}"

    def image_words(self) -> Iterable[str]:
        """The words around tiles."""
        known = self.tokenizer.get_added_vocab()
        return [FAKE, WHOLE, *(word for word in known if _TILE.fullmatch(word))]

    def agreements(self) -> Mapping[str, object]:
        """A tile must be what the vision tower sees, and have the tokens that it makes features."""
        return {
            "image_token_id": self.placeholder,
            "image_seq_len": self._tile_tokens(),
            "image_processor.max_image_size.longest_edge": self.config.vision_config.image_size,
        }

    def _grid(self, width: int, height: int) -> tuple[int, int]:
        """Rows and columns of tiles; (0, 0) for an image that is shown whole only."""
        image_processor = self.processor.image_processor
        if not image_processor.do_image_splitting:
            return 0, 0
        side = self.config.vision_config.image_size
        long, short = max(width, height), min(width, height)
        if image_processor.do_resize:
            long, short = _scale(long, short, image_processor.size["longest_edge"])
        tiles = math.ceil(long / side)
        across = math.ceil(int(tiles * side * (short / long)) / side)
        if tiles == across == 1:
            return 0, 0
        return (across, tiles) if width >= height else (tiles, across)

    def _tile_tokens(self) -> int:
        vision = self.config.vision_config
        return int((vision.image_size // vision.patch_size) ** 2 / self.config.scale_factor**2)


def _scale(long: int, short: int, edge: int) -> tuple[int, int]:
    """Both sides when the longer becomes ``edge``: the shorter is made even, and neither exceeds ``LARGEST``."""
    short = int(edge * (short / long))
    short = max(short + short % 2, 1)
    if edge > LARGEST:
        return LARGEST, max(int(LARGEST * (short / edge)), 1)
    return edge, short
