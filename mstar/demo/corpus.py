"""From samples of the planted corpus to the tensors that pre-training needs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from mstar.demo.digits import SIDE, Picture, render_pixels
from mstar.demo.model import MERGE, PATCH

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt
    from transformers import Qwen2VLProcessor

    from mstar.demo.rationales import Sample

IMAGE_TOKENS = (SIDE // (PATCH * MERGE)) ** 2
"""How many tokens a picture becomes: one a digit."""

IGNORED = -100
"""The label of positions that carry no loss."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """A tokenised sample: prompt, response and end token; the loss begins at `answer_from`."""

    tokens: tuple[int, ...]
    answer_from: int
    picture: Picture


def encode_samples(
    samples: Sequence[Sample], pictures: Sequence[Picture], processor: Qwen2VLProcessor
) -> list[Example]:
    """Tokenise samples as the processor's chat template and image expansion would."""
    tokenizer = processor.tokenizer
    marker = "\0"
    content = [{"type": "image"}, {"type": "text", "text": marker}]
    # Rendered once, not once a sample: the template only puts things before and after the text.
    frame = processor.apply_chat_template([{"role": "user", "content": content}])
    before, after = frame.split(marker)
    before = before.replace(processor.image_token, processor.image_token * IMAGE_TOKENS)
    heads = tokenizer([f"{before}{sample.prompt}{after}" for sample in samples]).input_ids
    tails = tokenizer([sample.response for sample in samples]).input_ids
    return [
        Example(
            tokens=(*head, *tail, tokenizer.eos_token_id), answer_from=len(head), picture=picture
        )
        for head, tail, picture in zip(heads, tails, pictures, strict=True)
    ]


def patches(
    pictures: Sequence[npt.NDArray[np.uint8]], processor: Qwen2VLProcessor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return what the image processor makes of pictures of grey levels, many at a time.

    The pixel values have shape (pictures * 16, 384), the grid shape (pictures, 3).
    """
    images = processor.image_processor
    grey = torch.from_numpy(np.stack(pictures)).float().div(255).sub(0.5).div(0.5)
    colour = grey[:, None].expand(-1, 3, -1, -1)
    values, height, width = images.patchify(
        colour, images.patch_size, images.merge_size, images.temporal_patch_size
    )
    return values.flatten(0, 1), torch.tensor([[1, height, width]] * len(pictures))


def pad_examples(
    examples: Sequence[Example], processor: Qwen2VLProcessor
) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    """Pad on the right; return the model's inputs and the labels, shape (examples, length)."""
    length = max(len(example.tokens) for example in examples)
    ids = torch.full((len(examples), length), processor.tokenizer.pad_token_id)
    labels = torch.full_like(ids, IGNORED)
    mask = torch.zeros_like(ids)
    for row, example in enumerate(examples):
        end = len(example.tokens)
        ids[row, :end] = torch.tensor(example.tokens)
        labels[row, example.answer_from : end] = ids[row, example.answer_from : end]
        mask[row, :end] = 1
    values, grid = patches([render_pixels(example.picture) for example in examples], processor)
    inputs = {
        "input_ids": ids,
        "attention_mask": mask,
        "mm_token_type_ids": (ids == processor.image_token_id).int(),
        "pixel_values": values,
        "image_grid_thw": grid,
    }
    return inputs, labels
