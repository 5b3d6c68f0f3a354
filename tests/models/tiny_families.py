"""A tiny model of each family, built as its makers publish theirs, in a fraction of a second and without a download.

``build(name, folder)`` writes what ``save_pretrained`` writes of the family's own classes: random weights, a byte-level
tokenizer trained here, the family's special tokens, image processor and chat template (for one user's turn; the makers'
templates also serve videos and tools). An image tile has 16 x 16 pixels.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.tiny import draw_image

__all__ = ["FAMILIES", "TEXT", "TILE", "build", "draw_image"]

TILE = 16
"""Pixels a side: of a tile where a family cuts images into tiles."""
PATCH = 4
CONTEXT = 1024

TEXT = "What is the sum of the two digits? Read both, then add them. The answer is \\boxed{12}.\n"
"""What the tokenizers are trained on, besides all bytes."""

SYSTEM = "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
QWEN = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<|vision_start|><|image_pad|><|vision_end|>{% else %}{{ part['text'] }}{% endif %}"
    "{% endfor %}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
INTERNVL = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}{{ '<IMG_CONTEXT>\n' }}{% else %}{{ part['text'] }}{% endif %}"
    "{% endfor %}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
SMOLVLM = (
    "<|im_start|>{% for message in messages %}{{ message['role'] | capitalize }}"
    "{% if message['content'][0]['type'] == 'image' %}:{% else %}{{ ': ' }}{% endif %}"
    "{% for part in message['content'] %}{% if part['type'] == 'image' %}<image>{% else %}{{ part['text'] }}"
    "{% endif %}{% endfor %}<end_of_utterance>\n"
    "{% endfor %}{% if add_generation_prompt %}Assistant:{% endif %}"
)
ONEVISION = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + ' ' }}{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<image>{% endif %}{% endfor %}{% for part in message['content'] %}"
    "{% if part['type'] == 'text' %}{{ '\n' + part['text'] }}{% endif %}{% endfor %}<|im_end|>"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def build(name: str, folder: Path, *, seed: int = 0, width: int = 64) -> Path:
    """Write a model folder of the family ``name`` (one of ``FAMILIES``) and return it.

    ``width`` is the language model's; with 128 its attention heads are of a size that vLLM takes on a CPU.
    """
    import torch
    from transformers.utils import logging

    logging.disable_progress_bar()
    torch.manual_seed(seed)
    model, processor = _BUILDERS[name](width)
    _spread(model)
    tokenizer = processor.tokenizer
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    if name == "llava_onevision":
        _name_as_published(folder / "model.safetensors")
    return folder


def _name_as_published(weights: Path) -> None:
    """Call the vision tower's tensors what the published models call them, which vLLM asks for.

    transformers keeps the names that it read, so a trained model has them too; a new one has shorter names.
    """
    from safetensors.torch import load_file, save_file

    tensors = {
        key.replace("vision_tower.", "vision_tower.vision_model."): tensor
        for key, tensor in load_file(weights).items()
    }
    save_file(tensors, weights, metadata={"format": "pt"})


def _qwen2_vl(width: int) -> tuple[Any, Any]:
    vision = {"embed_dim": 32, "hidden_size": width, "mlp_ratio": 2}
    return _qwen("Qwen2VL", width, vision, chat=SYSTEM + QWEN)


def _qwen2_5_vl(width: int) -> tuple[Any, Any]:
    vision = {
        "hidden_size": 32,
        "out_hidden_size": width,
        "intermediate_size": 64,
        "window_size": 4 * PATCH,
        "fullatt_block_indexes": [1],
    }
    return _qwen("Qwen2_5_VL", width, vision, chat=SYSTEM + QWEN)


def _qwen3_vl(width: int) -> tuple[Any, Any]:
    vision = {
        "hidden_size": 32,
        "out_hidden_size": width,
        "intermediate_size": 64,
        "deepstack_visual_indexes": [0, 1],
        "num_position_embeddings": 64,
    }
    return _qwen("Qwen3VL", width, vision, chat=QWEN)


def _qwen(prefix: str, width: int, vision: dict[str, Any], chat: str) -> tuple[Any, Any]:
    import transformers as hf

    special = {"image": "<|image_pad|>", "video": "<|video_pad|>"}
    special |= {"vision_start": "<|vision_start|>", "vision_end": "<|vision_end|>"}
    tokenizer = _tokenizer(
        ["<|endoftext|>", "<|im_start|>", "<|im_end|>", *special.values()],
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
    )
    text = _text(tokenizer, width)
    third = width // 8 // 3
    text["rope_parameters"] = {
        "rope_type": "default",
        "rope_theta": 10000.0,
        "mrope_section": [width // 8 - 2 * third, third, third],
    }
    if prefix == "Qwen3VL":
        text["head_dim"] = width // 4
        text["rope_parameters"]["mrope_interleaved"] = True
    tied = prefix == "Qwen2VL"
    vision |= {"depth": 2, "num_heads": 2, "patch_size": PATCH, "spatial_merge_size": 2}
    ids = {f"{key}_token_id": tokenizer.convert_tokens_to_ids(t) for key, t in special.items()}
    config = getattr(hf, f"{prefix}Config")(
        text_config=text | {"tie_word_embeddings": tied},
        vision_config=vision,
        tie_word_embeddings=tied,
        **ids,
    )
    pixels = {"patch_size": PATCH, "merge_size": 2, "image_mean": [0.5] * 3, "image_std": [0.5] * 3}
    pixels["size"] = {"shortest_edge": TILE * TILE, "longest_edge": 16 * TILE * TILE}
    processor = getattr(hf, f"{prefix}Processor")(
        image_processor=hf.Qwen2VLImageProcessor(**pixels),
        tokenizer=tokenizer,
        video_processor=hf.Qwen2VLVideoProcessor(**pixels),
        chat_template=chat,
    )
    return getattr(hf, f"{prefix}ForConditionalGeneration")(config), processor


def _internvl(width: int) -> tuple[Any, Any]:
    import transformers as hf

    named = {
        "start_image_token": "<img>",
        "end_image_token": "</img>",
        "context_image_token": "<IMG_CONTEXT>",
        "video_token": "<video>",
    }
    tokenizer = _tokenizer(
        ["<|endoftext|>", "<|im_start|>", "<|im_end|>", *named.values()],
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        extra_special_tokens=named,
    )
    config = hf.InternVLConfig(
        text_config=_text(tokenizer, width) | {"model_type": "qwen2", "tie_word_embeddings": False},
        vision_config={
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "image_size": [TILE, TILE],
            "patch_size": [PATCH, PATCH],
        },
        image_token_id=tokenizer.convert_tokens_to_ids("<IMG_CONTEXT>"),
        image_seq_length=4,
        tie_word_embeddings=False,
    )
    size = {"height": TILE, "width": TILE}
    processor = hf.InternVLProcessor(
        image_processor=hf.GotOcr2ImageProcessor(
            size=size, crop_to_patches=True, min_patches=1, max_patches=6
        ),
        tokenizer=tokenizer,
        video_processor=hf.InternVLVideoProcessor(size=size),
        image_seq_length=4,
        chat_template=INTERNVL,
    )
    return hf.InternVLForConditionalGeneration(config), processor


def _smolvlm(width: int) -> tuple[Any, Any]:
    import transformers as hf

    rows = [f"<row_{row}_col_{column}>" for row in range(1, 4) for column in range(1, 4)]
    named = {
        "fake_image_token": "<fake_token_around_image>",
        "image_token": "<image>",
        "end_of_utterance_token": "<end_of_utterance>",
        "global_image_token": "<global-img>",
    }
    tokenizer = _tokenizer(
        ["<|endoftext|>", "<|im_start|>", "<|im_end|>", *named.values(), *rows],
        bos_token="<|im_start|>",
        eos_token="<end_of_utterance>",
        pad_token="<|im_end|>",
        unk_token="<|endoftext|>",
        extra_special_tokens=named,
    )
    config = hf.SmolVLMConfig(
        text_config=_text(tokenizer, width) | {"model_type": "llama", "tie_word_embeddings": False},
        vision_config={
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "image_size": TILE,
            "patch_size": PATCH,
        },
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
        pad_token_id=tokenizer.pad_token_id,
        scale_factor=2,
        tie_word_embeddings=False,
    )
    pixels: dict[str, Any] = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}
    pixels["size"] = {"longest_edge": 3 * TILE}
    pixels["max_image_size"] = {"longest_edge": TILE}
    processor = hf.SmolVLMProcessor(
        image_processor=hf.SmolVLMImageProcessor(**pixels),
        tokenizer=tokenizer,
        video_processor=hf.SmolVLMVideoProcessor(**pixels),
        image_seq_len=4,
        chat_template=SMOLVLM,
    )
    return hf.SmolVLMForConditionalGeneration(config), processor


def _llava_onevision(width: int) -> tuple[Any, Any]:
    import transformers as hf

    tokenizer = _tokenizer(
        ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<image>", "<video>"],
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        extra_special_tokens={"image_token": "<image>", "video_token": "<video>"},
    )
    pinpoints = [[TILE * rows, TILE * columns] for rows in (1, 2, 3, 4) for columns in (1, 2, 3, 4)]
    config = hf.LlavaOnevisionConfig(
        text_config=_text(tokenizer, width) | {"model_type": "qwen2", "tie_word_embeddings": True},
        vision_config={
            "model_type": "siglip_vision_model",
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "image_size": TILE,
            "patch_size": PATCH,
            "vision_use_head": False,
        },
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        video_token_index=tokenizer.convert_tokens_to_ids("<video>"),
        image_grid_pinpoints=pinpoints,
        vision_aspect_ratio="anyres_max_9",
        tie_word_embeddings=True,
    )
    size = {"height": TILE, "width": TILE}
    processor = hf.LlavaOnevisionProcessor(
        image_processor=hf.LlavaOnevisionImageProcessor(size=size, image_grid_pinpoints=pinpoints),
        tokenizer=tokenizer,
        video_processor=hf.LlavaOnevisionVideoProcessor(size=size),
        num_image_tokens=(TILE // PATCH) ** 2,
        vision_feature_select_strategy="full",
        vision_aspect_ratio="anyres_max_9",
        chat_template=ONEVISION,
    )
    return hf.LlavaOnevisionForConditionalGeneration(config), processor


def _tokenizer(special: list[str], **named: Any) -> Any:
    """Byte-level BPE, as all of these families have; special tokens come after the words, as in theirs."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=320,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator([TEXT] * 4, trainer)
    backend.add_special_tokens([AddedToken(token, normalized=False) for token in special])
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        clean_up_tokenization_spaces=False,
        model_max_length=CONTEXT,
        **named,
    )


def _text(tokenizer: Any, width: int) -> dict[str, Any]:
    return {
        # Rows beyond the tokenizer's, as the published models have.
        "vocab_size": len(tokenizer) + 3,
        "hidden_size": width,
        "intermediate_size": 2 * width,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": CONTEXT,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }


def _spread(model: Any) -> None:
    """Make random weights large enough that tokens, images and positions change what is predicted."""
    import torch

    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(4)


_BUILDERS: dict[str, Callable[[int], tuple[Any, Any]]] = {
    "qwen2_vl": _qwen2_vl,
    "qwen2_5_vl": _qwen2_5_vl,
    "qwen3_vl": _qwen3_vl,
    "internvl": _internvl,
    "smolvlm": _smolvlm,
    "llava_onevision": _llava_onevision,
}
FAMILIES = tuple(_BUILDERS)
"""The ``model_type`` of each family with a module of its own that transformers knows."""
