"""What a plan needs to know of a model: how many parameters, in which shape, and how many tokens an image makes."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from mstar.errors import ModelError
from mstar.estimate.ranges import Range

VISION = ("visual", "vision", "vpm", "img_processor", "image_tower")
"""How the names of a vision tower's weights go, in the families that are known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFacts:
    """One model. ``source`` says where the numbers are from.

    ``image_tokens`` is None when nothing is known of how it reads images. A vision tower works on ``patches`` patches
    for each image token that the language model reads.
    """

    name: str
    source: str
    parameters: float
    vision_parameters: float
    layers: int
    hidden: int
    kv_heads: int
    head_size: int
    vocabulary: int
    vision_layers: int = 27
    vision_hidden: int = 1152
    patches: float = 4.0
    image_tokens: Range | None = None
    stored_bytes: float | None = None

    @property
    def language_parameters(self) -> float:
        """All but the vision tower's."""
        return self.parameters - self.vision_parameters

    @property
    def file_bytes(self) -> float:
        """What its folder takes: measured, or two bytes a parameter."""
        return self.stored_bytes or 2 * self.parameters

    def cache_bytes(self, width: float) -> float:
        """Bytes of keys and values that a token leaves, at ``width`` bytes a number."""
        return 2 * self.layers * self.kv_heads * self.head_size * width


def _known(
    name: str, parameters: float, vision: float, shape: tuple[int, int, int, int, int], **more: Any
) -> ModelFacts:
    layers, hidden, kv_heads, head_size, vocabulary = shape
    return ModelFacts(
        name=name,
        source="the table of known models",
        parameters=parameters,
        vision_parameters=vision,
        layers=layers,
        hidden=hidden,
        kv_heads=kv_heads,
        head_size=head_size,
        vocabulary=vocabulary,
        **more,
    )


KNOWN: Mapping[str, ModelFacts] = {
    facts.name.lower(): facts
    for facts in (
        # Llama-3-8B, SigLIP-400M and a resampler to 96 queries a slice of 1,024 patches; 1 to 9 slices and the whole.
        _known(
            "MiniCPM-Llama3-V-2_5", 8.54e9, 0.43e9, (32, 4096, 8, 128, 128_256),
            patches=1024 / 96, image_tokens=Range(96, 960),
        ),
        # Phi-3.5-mini and CLIP ViT-L/14-336: 144 tokens a crop, and line ends; up to 16 crops and the whole.
        _known(
            "Phi-3.5-vision-instruct", 4.15e9, 0.30e9, (32, 3072, 32, 96, 32_064),
            vision_layers=24, vision_hidden=1024, image_tokens=Range(313, 2509),
        ),
        # InternLM2-1.8B and InternViT-300M: 256 tokens a tile of 1,024 patches; 1 to 6 tiles and the whole.
        _known(
            "InternVL2-2B", 2.21e9, 0.30e9, (24, 2048, 8, 128, 92_553),
            vision_layers=24, vision_hidden=1024, image_tokens=Range(256, 1792),
        ),
        # Qwen2.5-7B and a vision tower of 0.68B: a token for 28 x 28 pixels; pictures of 250 x 200 to 900 x 900.
        _known(
            "Qwen2.5-VL-7B-Instruct", 8.29e9, 0.68e9, (28, 3584, 4, 128, 152_064),
            vision_layers=32, vision_hidden=1280, image_tokens=Range(64, 1024),
        ),
    )
}  # fmt: skip
"""The paper's three and the recipe's other, by the name of the folder that holds them."""


def known_model(folder: str) -> ModelFacts | None:
    """The known model whose name is that of the folder."""
    return KNOWN.get(folder.rstrip("/").rpartition("/")[2].lower())


def from_parameters(name: str, parameters: float) -> ModelFacts:
    """Facts from nothing but a number of parameters: a usual shape of that size."""
    layers = 32 if parameters > 3e9 else 24
    hidden = max(64, round(math.sqrt(parameters / (12 * layers)) / 64) * 64)
    return ModelFacts(
        name=name,
        source="its number of parameters, in a usual shape",
        parameters=parameters,
        vision_parameters=min(0.4e9, 0.2 * parameters),
        layers=layers,
        hidden=hidden,
        kv_heads=max(1, hidden // 512),
        head_size=128,
        vocabulary=128_000,
    )


def from_config(name: str, config: Mapping[str, Any]) -> ModelFacts:
    """Facts from a model's ``config.json`` alone; parameters are counted as in a decoder with gated layers.

    Raises ``ModelError`` when it does not give the decoder's shape.
    """
    text = next(
        (config[key] for key in ("text_config", "llm_config") if isinstance(config.get(key), dict)),
        config,
    )
    try:
        layers, hidden = int(text["num_hidden_layers"]), int(text["hidden_size"])
        heads, wide = int(text["num_attention_heads"]), int(text["intermediate_size"])
        vocabulary = int(text.get("vocab_size") or config["vocab_size"])
    except (KeyError, TypeError, ValueError):
        raise ModelError(
            f"{name}: its config.json does not say the decoder's shape (num_hidden_layers, hidden_size, "
            "num_attention_heads, intermediate_size, vocab_size); give --parameters, such as --parameters 8.5e9"
        ) from None
    kv_heads = int(text.get("num_key_value_heads") or heads)
    head_size = int(text.get("head_dim") or hidden // heads)
    attention = hidden * head_size * (2 * heads + 2 * kv_heads)
    tied = config.get("tie_word_embeddings", text.get("tie_word_embeddings", False))
    decoder = layers * (attention + 3 * hidden * wide) + vocabulary * hidden * (1 if tied else 2)
    tower = config.get("vision_config")
    depth, width, ratio = _tower(tower if isinstance(tower, dict) else {})
    vision = depth * (4 + 2 * ratio) * width**2
    return ModelFacts(
        name=name,
        source="config.json, counted by its shape",
        parameters=decoder + vision,
        vision_parameters=vision,
        layers=layers,
        hidden=hidden,
        kv_heads=kv_heads,
        head_size=head_size,
        vocabulary=vocabulary,
        vision_layers=max(1, depth),
        vision_hidden=max(1, width),
        patches=float(_number(tower, ("spatial_merge_size",), 2)) ** 2,
    )


def with_weights(
    facts: ModelFacts, shapes: Mapping[str, tuple[int, ...]], size: float
) -> ModelFacts:
    """The same with parameters counted in the weights' own headers: shapes by name, ``size`` bytes in all."""
    counts = {name: math.prod(shape) for name, shape in shapes.items()}
    vision = sum(
        count for name, count in counts.items() if any(word in name.lower() for word in VISION)
    )
    return replace(
        facts,
        source="config.json and the headers of its weights",
        parameters=float(sum(counts.values())),
        vision_parameters=float(vision),
        stored_bytes=size,
    )


def _tower(tower: Mapping[str, Any]) -> tuple[int, int, float]:
    """Depth, width and the ratio of the wide layer of a vision tower; zeros where there is none."""
    depth = int(_number(tower, ("depth", "num_hidden_layers"), 0))
    # Qwen2-VL calls the language model's width hidden_size, and its own embed_dim.
    width = int(_number(tower, ("embed_dim", "hidden_size"), 0))
    wide = _number(tower, ("intermediate_size",), 0)
    ratio = wide / width if wide and width else float(_number(tower, ("mlp_ratio",), 4))
    return depth, width, ratio


def _number(group: Any, keys: tuple[str, ...], default: float) -> float:
    if isinstance(group, Mapping):
        for key in keys:
            value = group.get(key)
            if isinstance(value, list):  # one for each axis, all alike
                value = value[0] if value else None
            if isinstance(value, int | float) and not isinstance(value, bool):
                return value
    return default
