"""What a model family promises, and which module serves a model folder.

A family adapts tensors, never control flow: it turns (text, image) into token ids, image tensors and positions, and
rows of those into a batch. Prefill, decoding, scoring and training are written once, over any family.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from importlib import import_module
from typing import TYPE_CHECKING, Literal, Protocol

from mstar.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    import torch
    from PIL.Image import Image
    from transformers import PreTrainedModel

Side = Literal["left", "right"]
Group = Literal["vision", "language", "embeddings"]

FAMILIES = {
    "qwen2_vl": "mstar.models.qwen2_vl:Qwen2VLFamily",
    "qwen2_5_vl": "mstar.models.qwen2_5_vl:Qwen25VLFamily",
    "qwen3_vl": "mstar.models.qwen3_vl:Qwen3VLFamily",
    "internvl": "mstar.models.internvl:InternVLFamily",
    "smolvlm": "mstar.models.smolvlm:SmolVLMFamily",
    "llava_onevision": "mstar.models.llava_onevision:LlavaOnevisionFamily",
    "minicpmv": "mstar.models.legacy.minicpm:MiniCPMFamily",
    "phi3_v": "mstar.models.legacy.phi3v:Phi3VFamily",
    "internvl_chat": "mstar.models.legacy.internvl:InternVLChatFamily",
}
"""Which class serves a ``model_type``, as module:class. A module is imported when a folder asks for it."""

REMOTE_CODE = frozenset({"minicpmv", "phi3_v", "internvl_chat"})
"""The model types whose folders hold code that must run."""

FALLBACK = "mstar.models.generic:GenericFamily"
"""What serves any other model that transformers knows: no module was written for it, and no test has seen it."""

MAX_PIXELS = 12_845_056
"""Largest image taken (width x height) unless an execution says otherwise; Qwen2-VL's own default."""


class Asked(Protocol):
    """What a family needs of a prompt: a name for messages, the user's text, and the image."""

    @property
    def query_id(self) -> str: ...
    @property
    def text(self) -> str: ...
    @property
    def image(self) -> Image: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Encoded:
    """One prompt as a model reads it.

    ``tokens`` hold the expanded image placeholders. ``images`` are tensors that a batch joins along their first axis,
    ``token_inputs`` have one value a token (0 for any token that follows the prompt). ``positions`` has shape
    (axes, tokens), None where positions simply count; the first token after the prompt is at ``next_position``.
    ``image_tokens`` of the tokens stand for one image feature each.
    """

    tokens: tuple[int, ...]
    images: Mapping[str, torch.Tensor]
    token_inputs: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    positions: torch.Tensor | None = None
    next_position: int
    image_tokens: int = 0


class Family(Protocol):
    """The tensors of one model folder: its processor and configuration, without weights until ``load``."""

    path: Path
    context: int
    """Most tokens that a sequence may have, prompt and response together."""
    eos: tuple[int, ...]
    """Tokens that end a response; the first is the one that training appends."""
    banned: tuple[int, ...]
    """Tokens that must never be sampled: image and video placeholders, pad, bos, unk."""
    pad: int
    vocabulary: int
    """Tokens that the tokenizer knows; a model may have more embeddings than that."""
    image_limit: str
    """Which setting of the model folder bounds an image's tokens, for messages."""
    shares_prefix: bool
    """Whether the model goes on from a cache, so that a prompt is read once for all that follows it."""

    def check(self, prompts: Sequence[Asked]) -> None:
        """Refuse, before any work, images over the limits and text that holds a placeholder (``ModelError``)."""

    def measure(self, prompts: Sequence[Asked]) -> list[tuple[int, int]]:
        """Of each prompt how many tokens it has, and how many of those stand for its image; no pixel is read."""

    def render(self, text: str) -> str:
        """The chat prompt of one image and the user's text, up to where the model answers."""

    def encode(self, prompts: Sequence[Asked]) -> list[Encoded]:
        """Render and tokenise prompts; ``ModelError`` for an image the model cannot take."""

    def collate(
        self, prompts: Sequence[Encoded], answers: Sequence[Sequence[int]], *, pad: Side
    ) -> dict[str, torch.Tensor]:
        """A batch of rows ``prompt + answer`` as keyword arguments of the model's forward.

        ``ModelError`` when a row has other than its prompt's ``image_tokens``: no sequence is cut inside its image.
        """

    def load(self, *, dtype: torch.dtype, device: torch.device) -> PreTrainedModel:
        """Read the weights from the folder; ``ModelError`` when any are missing or unusable."""

    def parameters(self, model: PreTrainedModel, group: Group) -> list[torch.nn.Parameter]:
        """The parameters of one group, for freezing."""

    def tokenize(self, text: str) -> tuple[int, ...]:
        """The tokens of a response's text, without any special ones around it."""

    def retokenize(self, text: str) -> tuple[int, ...]:
        """The tokens of a text that another model wrote: as ``tokenize``, without what this one could not have drawn.

        Spelt-out placeholders and end tokens, and characters that the tokenizer does not know, are left out. One text
        has one result; of what this model wrote itself it is the tokens that were drawn if it drew them as its
        tokenizer cuts them, and else other tokens of the same text.
        """

    def decode(self, tokens: Sequence[int], *, prefix: Sequence[int] = ()) -> str:
        """The text that ``tokens`` add after ``prefix``, without special tokens."""

    def pieces(self, tokens: Sequence[int]) -> list[str]:
        """The text of each token alone, for splitting a response into steps."""

    def save_processor(self, folder: Path) -> None:
        """Write tokenizer, image processor and chat template beside saved weights."""


def load_family(path: Path, *, max_pixels: int = MAX_PIXELS, remote_code: bool = False) -> Family:
    """The family that serves a local model folder, by the ``model_type`` of its config; nothing is downloaded.

    Code in the folder runs only with ``remote_code``; ``ModelError`` when the model needs it and may not.
    """
    found = model_type(path)
    if found in REMOTE_CODE and not remote_code:
        raise ModelError(
            f"{path} holds a {found!r} model, which runs Python code from its own folder. Read the *.py files there, "
            "and if you trust them set execution.remote_code: true."
        )
    # Imported by name so that reading this protocol costs no import of torch, and one family none of another's.
    module, _, name = FAMILIES.get(found, FALLBACK).partition(":")
    family: Family = getattr(import_module(module), name)(path, max_pixels=max_pixels)
    return family


def model_type(path: Path) -> str:
    """The ``model_type`` in a model folder's config.json; ``ModelError`` when the folder is not a model."""
    config = path / "config.json"
    hint = "Give a folder written by save_pretrained: config.json, *.safetensors, and the processor's files."
    if not config.is_file():
        found = "the folder has no config.json" if path.is_dir() else "there is no such folder"
        raise ModelError(f"{path} is not a model folder: {found}. {hint}")
    try:
        found_type = json.loads(config.read_bytes()).get("model_type")
    except (ValueError, AttributeError) as error:
        raise ModelError(f"{config} is not a JSON object ({error}). {hint}") from error
    if not isinstance(found_type, str):
        raise ModelError(f"{config} names no model_type. {hint}")
    return found_type
