"""What the Qwen-VL models share: patches of all images in one list, and positions on three axes (M-RoPE).

Text counts equally on the three axes; the tokens of an image keep one time and count rows and columns; text goes on
after the largest of them. Positions are computed here and always passed: without ``mm_token_type_ids`` transformers
5 refuses a Qwen2-VL batch and silently drops a Qwen2.5-VL's image positions.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from mstar.models.family import MAX_PIXELS, Asked, Encoded
from mstar.models.sized import SizedFamily

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

PROCESSED_AT_ONCE = 64
"""Prompts given to the processor together: it resizes images of one size as one tensor."""


class QwenVLFamily(SizedFamily):
    """Prompts of one image each for the Qwen-VL models."""

    def __init__(self, path: Path, *, max_pixels: int = MAX_PIXELS) -> None:
        super().__init__(path, max_pixels=max_pixels)
        most = self.processor.image_processor.size["longest_edge"]
        self.image_limit = f"size.longest_edge of {self.settings_file} (now {most} pixels)"

    def image_text(self, width: int, height: int) -> str:
        """One token for each square of merged patches; the processor's pixel limits say how many those are."""
        patches = self.processor.image_processor.get_number_of_image_patches(height, width)
        count: int = patches // self._merge() ** 2
        return self.image_word * count

    def agreements(self) -> Mapping[str, object]:
        """Patches are cut by the processor and merged by the model."""
        vision = self.config.vision_config
        return {
            "image_token_id": self.placeholder,
            "image_processor.patch_size": vision.patch_size,
            "image_processor.merge_size": vision.spatial_merge_size,
            "image_processor.temporal_patch_size": vision.temporal_patch_size,
        }

    def encode(self, prompts: Sequence[Asked]) -> list[Encoded]:
        """Render and tokenise prompts; ``ModelError`` for an image the model cannot take."""
        self.check(prompts)
        encoded: list[Encoded] = []
        for start in range(0, len(prompts), PROCESSED_AT_ONCE):
            encoded += self._encode_together(prompts[start : start + PROCESSED_AT_ONCE])
        return encoded

    def _encode_one(self, prompt: Asked) -> Encoded:
        return self._encode_together([prompt])[0]

    def _encode_together(self, prompts: Sequence[Asked]) -> list[Encoded]:
        output = self.process(prompts)
        grids = output["image_grid_thw"]
        patches = output["pixel_values"].split(grids.prod(dim=1).tolist())
        encoded = []
        for index, prompt in enumerate(prompts):
            tokens = tuple(output["input_ids"][index])
            types = tuple(output["mm_token_type_ids"][index])
            count = self.count_images(prompt, tokens)
            rows, columns = self._merged_size(grids[index])
            positions, following = mrope_positions(len(tokens), types.index(1), rows, columns)
            encoded.append(
                Encoded(
                    tokens=tokens,
                    images={
                        "pixel_values": patches[index],
                        "image_grid_thw": grids[index : index + 1],
                    },
                    token_inputs={"mm_token_type_ids": types},
                    positions=positions,
                    next_position=following,
                    image_tokens=count,
                )
            )
        return encoded

    def _merged_size(self, grid: torch.Tensor) -> tuple[int, int]:
        _, rows, columns = grid.tolist()
        return rows // self._merge(), columns // self._merge()

    def _merge(self) -> int:
        return int(self.config.vision_config.spatial_merge_size)


def mrope_positions(length: int, start: int, rows: int, columns: int) -> tuple[torch.Tensor, int]:
    """Positions (3, length) of a prompt whose image tokens begin at ``start``, and the position after it."""
    count, following = rows * columns, start + max(rows, columns)
    before = torch.arange(start).expand(3, -1)
    time = torch.full((count,), start)
    row = torch.arange(rows).repeat_interleave(columns) + start
    column = torch.arange(columns).repeat(rows) + start
    after = (torch.arange(length - start - count) + following).expand(3, -1)
    positions = torch.cat([before, torch.stack([time, row, column]), after], dim=1)
    return positions, following + length - start - count
