"""A Qwen2-VL of two billion parameters, or of any other size, with random weights and the demo's words.

Sizes are Qwen2-VL-2B's own: its vision tower, layers, heads and vocabulary. Only the tokenizer is the demo's, whose few
words are what prompts are made of; the other rows of the embeddings are never drawn.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, Qwen2VLForConditionalGeneration

from bench.sampling import BASE

FULL: dict[str, Any] = {
    "hidden_size": 1536,
    "intermediate_size": 8960,
    "num_hidden_layers": 28,
    "num_attention_heads": 12,
    "num_key_value_heads": 2,
    "vocab_size": 151_936,
    "max_position_embeddings": 32_768,
}
FULL_VISION: dict[str, Any] = {"depth": 32, "embed_dim": 1280, "num_heads": 16, "mlp_ratio": 4}
PATCH = 14
SECTIONS = [16, 24, 24]
"""Rotary pairs for time, height and width of a head of 128."""

TINY: dict[str, Any] = {"max_position_embeddings": 4096}


def build(folder: Path, *, side: int, full: bool, device: str) -> int:
    """Write a model folder that sees pictures of ``side`` x ``side`` pixels as they are; its number of parameters.

    Without ``full`` the demo's own sizes, so that the same steps can be tried on a laptop. Weights are drawn on
    ``device`` and stored in bfloat16 where that is no CPU.
    """
    config = AutoConfig.from_pretrained(BASE)
    text, vision = config.text_config, config.vision_config
    for holder, numbers in ((text, FULL if full else TINY), (vision, FULL_VISION if full else {})):
        for name, number in numbers.items():
            setattr(holder, name, number)
    if full:
        vision.hidden_size, vision.patch_size = FULL["hidden_size"], PATCH
        text.layer_types = ["full_attention"] * FULL["num_hidden_layers"]
        text.rope_parameters = {
            "rope_type": "default",
            "rope_theta": 1e6,
            "mrope_section": SECTIONS,
        }
    torch.manual_seed(0)
    dtype = torch.float32 if device == "cpu" else torch.bfloat16
    with torch.device(device):
        model = Qwen2VLForConditionalGeneration(config).to(dtype)
    model.save_pretrained(folder)
    count = sum(weight.numel() for weight in model.parameters())
    del model
    if device == "cuda":
        torch.cuda.empty_cache()  # what follows measures other processes
    for path in BASE.iterdir():
        if path.name not in {"config.json", "model.safetensors"}:
            shutil.copy2(path, folder)
    settings = json.loads((folder / "processor_config.json").read_text())
    for part in ("image_processor", "video_processor"):
        settings[part]["size"] = {"shortest_edge": side * side, "longest_edge": side * side}
        if full:
            settings[part]["patch_size"] = PATCH
    (folder / "processor_config.json").write_text(json.dumps(settings))
    return int(count)
