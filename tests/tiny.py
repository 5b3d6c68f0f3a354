"""Tiny models for tests, shipped once: stock architectures with random weights, built in a fraction of a second.

``build_tiny_model`` is a Qwen2-VL (what the loop trains); the others exist to hold the code to more than one family.
All speak ASCII, a character a token, and see a 16x16 image as four tokens.
"""

import json
import math
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

SIDE = 16
PATCH = 4
SPECIAL = ("<pad>", "<unk>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>")
IMAGE, VIDEO = "<|image_pad|>", "<|video_pad|>"
CHARACTERS = ("\n", *(chr(code) for code in range(32, 127)))
QWEN_CHAT = (
    "{% for message in messages %}<|im_start|>{% for part in message['content'] %}"
    "{% if part['type'] == 'text' %}{{ part['text'] }}{% else %}<|vision_start|><|image_pad|><|vision_end|>{% endif %}"
    "{% endfor %}{% endfor %}{% if add_generation_prompt %}{{ '\n' }}{% endif %}"
)
LLAVA_CHAT = QWEN_CHAT.replace("<|vision_start|>", "").replace("<|vision_end|>", "")


def build_tiny_model(
    folder: Path, *, seed: int = 0, kind: str = "qwen2_vl", width: int = 32
) -> Path:
    """Write a model folder and return it. ``kind``: qwen2_vl, qwen2_5_vl, qwen3_vl or llava.

    Of the Qwens, one of ``width`` 128 has attention heads that vLLM takes on a CPU.
    """
    import torch
    from transformers.utils import logging

    logging.disable_progress_bar()
    torch.manual_seed(seed)
    model, processor = _llava() if kind == "llava" else _qwen(kind, width)
    _spread(model)
    model.generation_config.eos_token_id = processor.tokenizer.eos_token_id
    model.generation_config.pad_token_id = processor.tokenizer.pad_token_id
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def draw_image(seed: int = 0, size: tuple[int, int] = (SIDE, SIDE)) -> Image.Image:
    """An image of noise; another seed, another image."""
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def write_tensors(file: Path, shapes: Mapping[str, Sequence[int]], **notes: str) -> None:
    """A safetensors file of zeros without torch; ``notes`` are its metadata."""
    header: dict[str, Any] = {"__metadata__": notes} if notes else {}
    end = 0
    for name, shape in shapes.items():
        start, end = end, end + 4 * math.prod(shape)
        header[name] = {"dtype": "F32", "shape": list(shape), "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    file.write_bytes(struct.pack("<Q", len(text)) + text + bytes(end))


def encode_text(text: str) -> tuple[int, ...]:
    """A response's tokens, one a character."""
    return tuple(len(SPECIAL) + 2 + CHARACTERS.index(character) for character in text)


def _tokenizer() -> Any:
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    tokens = (*SPECIAL, IMAGE, VIDEO, *CHARACTERS)
    vocabulary = {token: index for index, token in enumerate(tokens)}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    backend.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token="<pad>",
        unk_token="<unk>",
        bos_token="<|im_start|>",
        eos_token="<|im_end|>",
        additional_special_tokens=[*SPECIAL[4:], IMAGE, VIDEO],
        clean_up_tokenization_spaces=False,
        model_max_length=512,
    )


def _text_config(tokenizer: Any, width: int = 32) -> dict[str, Any]:
    return {
        "vocab_size": len(tokenizer),
        "hidden_size": width,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 512,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
        "tie_word_embeddings": True,
    }


def _qwen(kind: str, width: int) -> tuple[Any, Any]:
    import transformers as hf

    tokenizer = _tokenizer()
    prefix = {"qwen2_vl": "Qwen2VL", "qwen2_5_vl": "Qwen2_5_VL", "qwen3_vl": "Qwen3VL"}[kind]
    text = _text_config(tokenizer, width)
    third = width // 8 // 3
    text["rope_parameters"] = {
        "rope_type": "default",
        "rope_theta": 10000.0,
        "mrope_section": [width // 8 - 2 * third, third, third],
        "mrope_interleaved": kind == "qwen3_vl",
    }
    vision: dict[str, Any] = {
        "depth": 1,
        "num_heads": 2,
        "patch_size": PATCH,
        "spatial_merge_size": 2,
    }
    if kind == "qwen2_vl":
        vision |= {"embed_dim": 16, "hidden_size": width, "mlp_ratio": 2}
    else:
        vision |= {"hidden_size": 16, "out_hidden_size": width, "intermediate_size": 32}
    if kind == "qwen2_5_vl":
        vision |= {"window_size": 16, "fullatt_block_indexes": [0]}
    if kind == "qwen3_vl":
        text["head_dim"] = width // 4
        vision |= {"deepstack_visual_indexes": [0], "num_position_embeddings": 64}
    names = {"image": IMAGE, "video": VIDEO, "vision_start": "<|vision_start|>"}
    names["vision_end"] = "<|vision_end|>"
    ids = {f"{k}_token_id": tokenizer.convert_tokens_to_ids(v) for k, v in names.items()}
    config = getattr(hf, f"{prefix}Config")(
        text_config=text, vision_config=vision, tie_word_embeddings=True, **ids
    )
    model = getattr(hf, f"{prefix}ForConditionalGeneration")(config)
    pixels = {"patch_size": PATCH, "merge_size": 2, "image_mean": [0.5] * 3, "image_std": [0.5] * 3}
    pixels["size"] = {"shortest_edge": SIDE * SIDE, "longest_edge": 16 * SIDE * SIDE}
    processor = getattr(hf, f"{prefix}Processor")(
        image_processor=hf.Qwen2VLImageProcessor(**pixels),
        tokenizer=tokenizer,
        video_processor=hf.Qwen2VLVideoProcessor(**pixels),
        chat_template=QWEN_CHAT,
    )
    return model, processor


def _llava() -> tuple[Any, Any]:
    import transformers as hf

    tokenizer = _tokenizer()
    tokenizer.image_token = IMAGE
    vision = hf.CLIPVisionConfig(
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        image_size=SIDE,
        patch_size=SIDE // 2,
    )
    config = hf.LlavaConfig(
        vision_config=vision,
        text_config=hf.LlamaConfig(**_text_config(tokenizer)),
        image_token_index=tokenizer.convert_tokens_to_ids(IMAGE),
        image_seq_length=4,
        vision_feature_layer=-1,
        tie_word_embeddings=True,
    )
    processor = hf.LlavaProcessor(
        image_processor=hf.CLIPImageProcessor(
            size={"height": SIDE, "width": SIDE}, do_center_crop=False
        ),
        tokenizer=tokenizer,
        patch_size=SIDE // 2,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        image_token=IMAGE,
        chat_template=LLAVA_CHAT,
    )
    return hf.LlavaForConditionalGeneration(config), processor


def _spread(model: Any) -> None:
    """Make random weights large enough that tokens, images and positions change what is predicted."""
    import torch

    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(4)
