"""A tiny, randomly initialised Qwen2-VL and its processor: stock classes, small numbers.

Nothing here is custom code: the saved folder opens with `AutoProcessor` and
`AutoModelForImageTextToText`, as a model of eight billion parameters would. A 32x32 picture
becomes 16 patches and, merged two by two, four image tokens: one a digit.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from transformers import (
    Qwen2VLConfig,
    Qwen2VLForConditionalGeneration,
    Qwen2VLImageProcessor,
    Qwen2VLProcessor,
    Qwen2VLVideoProcessor,
)

from mstar.demo.digits import SIDE
from mstar.demo.tokenizer import (
    BOS,
    EOS,
    IMAGE_PAD,
    PAD,
    VIDEO_PAD,
    VISION_END,
    VISION_START,
    build_tokenizer,
)

if TYPE_CHECKING:
    from pathlib import Path

PATCH = 8
MERGE = 2
HEAD = 32
VISION_HIDDEN = 64
VISION_DEPTH = 1
VISION_HEADS = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """The language model's own numbers; the vision tower is the same in each."""

    hidden: int
    layers: int
    heads: int
    key_value_heads: int
    intermediate: int


SIZES = {
    "base": Size(hidden=128, layers=4, heads=4, key_value_heads=2, intermediate=256),
    "small": Size(hidden=96, layers=3, heads=3, key_value_heads=1, intermediate=192),
}
"""By name, with the number of parameters: base 0.8 million, small 0.4 million."""

CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for part in message['content'] %}"
    "{% if part['type'] == 'text' %}{{ part['text'] }}"
    "{% else %}" + VISION_START + IMAGE_PAD + VISION_END + "{% endif %}"
    "{% endfor %}{% endif %}{% endfor %}{{ '\n' }}"
)
"""The picture, the text, a newline: no roles, for the model holds no conversations."""


def build_processor() -> Qwen2VLProcessor:
    """Return the processor: a 32x32 picture is kept as it is and becomes four image tokens."""
    sizes = {"shortest_edge": SIDE * SIDE, "longest_edge": SIDE * SIDE}
    pixels = {"patch_size": PATCH, "merge_size": MERGE, "size": sizes}
    pixels |= {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}
    return Qwen2VLProcessor(
        image_processor=Qwen2VLImageProcessor(**pixels),
        tokenizer=build_tokenizer(),
        video_processor=Qwen2VLVideoProcessor(**pixels),
        chat_template=CHAT_TEMPLATE,
    )


def build_model(
    processor: Qwen2VLProcessor, *, seed: int, size: str = "base"
) -> Qwen2VLForConditionalGeneration:
    """Return a freshly initialised model in float32, of one of ``SIZES``.

    Sets torch's global random state, from which transformers draws the initial weights.
    """
    tokenizer = processor.tokenizer
    ids = {name: tokenizer.convert_tokens_to_ids(name) for name in tokenizer.get_vocab()}
    numbers = SIZES[size]
    config = Qwen2VLConfig(
        text_config={
            "vocab_size": len(tokenizer),
            "hidden_size": numbers.hidden,
            "intermediate_size": numbers.intermediate,
            "num_hidden_layers": numbers.layers,
            "num_attention_heads": numbers.heads,
            "num_key_value_heads": numbers.key_value_heads,
            "max_position_embeddings": 256,
            "initializer_range": 0.04,
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 10000.0,
                # Rotary pairs for time, height and width: half a head's size in all.
                "mrope_section": [HEAD // 8, 3 * HEAD // 16, 3 * HEAD // 16],
            },
            "bos_token_id": ids[BOS],
            "eos_token_id": ids[EOS],
            "pad_token_id": ids[PAD],
        },
        vision_config={
            "depth": VISION_DEPTH,
            "embed_dim": VISION_HIDDEN,
            "hidden_size": numbers.hidden,
            "num_heads": VISION_HEADS,
            "mlp_ratio": 2,
            "patch_size": PATCH,
            "spatial_merge_size": MERGE,
        },
        image_token_id=ids[IMAGE_PAD],
        video_token_id=ids[VIDEO_PAD],
        vision_start_token_id=ids[VISION_START],
        vision_end_token_id=ids[VISION_END],
        tie_word_embeddings=True,
        bos_token_id=ids[BOS],
        eos_token_id=ids[EOS],
        pad_token_id=ids[PAD],
    )
    torch.manual_seed(seed)
    model = Qwen2VLForConditionalGeneration(config)
    model.generation_config.eos_token_id = ids[EOS]
    model.generation_config.pad_token_id = ids[PAD]
    model.generation_config.bos_token_id = ids[BOS]
    return model


def save_model(
    folder: Path, model: Qwen2VLForConditionalGeneration, processor: Qwen2VLProcessor
) -> None:
    """Write model and processor as one Hugging Face model folder (about 5 MB at most)."""
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
