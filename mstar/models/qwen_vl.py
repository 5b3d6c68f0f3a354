"""Qwen2-VL, Qwen2.5-VL and Qwen3-VL: patches of all images in one list, and positions on three axes (M-RoPE).

Text counts equally on the three axes; the tokens of an image keep one time and count rows and columns; text goes on
after the largest of them. Positions are computed here and always passed: without ``mm_token_type_ids`` transformers
5 refuses a Qwen2-VL batch and silently drops a Qwen2.5-VL's image positions.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from mstar.models.family import Asked, Encoded
from mstar.models.native import NativeFamily

if TYPE_CHECKING:
    from collections.abc import Sequence

MODEL_TYPES = ("qwen2_vl", "qwen2_5_vl", "qwen3_vl")

PROCESSED_AT_ONCE = 64
"""Prompts given to the processor together: it resizes images of one size as one tensor."""


class QwenVLFamily(NativeFamily):
    """Prompts of one image each for the Qwen-VL models."""

    def encode(self, prompts: Sequence[Asked]) -> list[Encoded]:
        """Render and tokenise prompts; ``ModelError`` for an image the model cannot take."""
        encoded: list[Encoded] = []
        for start in range(0, len(prompts), PROCESSED_AT_ONCE):
            encoded += self._encode_together(prompts[start : start + PROCESSED_AT_ONCE])
        return encoded

    def _encode_together(self, prompts: Sequence[Asked]) -> list[Encoded]:
        output = self.process(prompts)
        grids = output["image_grid_thw"]
        patches = output["pixel_values"].split(grids.prod(dim=1).tolist())
        encoded = []
        for index in range(len(prompts)):
            tokens = tuple(output["input_ids"][index])
            types = tuple(output["mm_token_type_ids"][index])
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
                )
            )
        return encoded

    def _merged_size(self, grid: torch.Tensor) -> tuple[int, int]:
        merge = int(self.config.vision_config.spatial_merge_size)
        _, rows, columns = grid.tolist()
        return rows // merge, columns // merge


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
