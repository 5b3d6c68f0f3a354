"""InternVL2 in its published form (``internvl_chat``): tiles of 448 pixels, each read as ``<IMG_CONTEXT>`` tokens.

Its forward wants an image at every call, so decoding could not go on from a cache; the front asks its parts instead.
The language model inside differs by size: InternLM2 (2B) keeps keys and values as tuples.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import torch
from transformers import AutoTokenizer

from mstar.errors import ModelError
from mstar.models.family import MAX_PIXELS, Asked, Encoded
from mstar.models.legacy.base import LegacyFamily
from mstar.models.legacy.front import Front
from mstar.models.legacy.remote import TRUSTED, explained, load_attribute
from mstar.models.legacy.tiles import count_tiles, cut_tiles

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

CONTEXT, START, END = "<IMG_CONTEXT>", "<img>", "</img>"

TUPLES, CACHES = ("InternLM2ForCausalLM",), ("LlamaForCausalLM", "Qwen2ForCausalLM")
"""Language models that go on from a cache: one of tuples, or transformers' own. Others are read whole at each token."""


class InternVLChatFront(Front):
    """InternVLChatModel: ``extract_feature`` reads tiles, which replace the embeddings of ``<IMG_CONTEXT>``."""

    def __init__(self, remote: Any, *, context_token: int, pairs: bool) -> None:
        super().__init__(remote)
        self.context_token = context_token
        self.pairs = pairs

    @property
    def language(self) -> Any:
        """The language model, head included."""
        return self.remote.language_model

    def embed(self, input_ids: torch.Tensor, **images: torch.Tensor) -> torch.Tensor:
        """The language model's input."""
        embedded = self.get_input_embeddings()(input_ids)
        if not images:
            return embedded
        seen = self.remote.extract_feature(images["pixel_values"].to(self.dtype))
        places = (input_ids == self.context_token)[..., None]
        return embedded.masked_scatter(places, seen.to(embedded.dtype))


class InternVLChatFamily(LegacyFamily):
    """Prompts of one image each for InternVL2."""

    feature = CONTEXT
    around = (START, END)
    image_limit = "max_dynamic_patch of config.json"

    def __init__(self, path: Path, *, max_pixels: int = MAX_PIXELS) -> None:
        super().__init__(path, max_pixels=max_pixels)
        vision = self.config.vision_config
        side = int(self.config.force_image_size or vision.image_size)
        patches = (side // int(vision.patch_size)) ** 2
        self.tile_tokens = int(patches * float(self.config.downsample_ratio) ** 2)
        self.tiling: dict[str, Any] = {
            "side": side,
            "fewest": int(self.config.min_dynamic_patch),
            "most": int(self.config.max_dynamic_patch) if self.config.dynamic_image_size else 1,
            "thumbnail": bool(self.config.use_thumbnail),
        }
        self.architecture = self.config.llm_config.architectures[0]
        self.shares_prefix = self.architecture in TUPLES + CACHES

    def open_processor(self) -> Any:
        """A tokenizer and the chat template of the folder's conversation.py; there is no processor."""
        tokenizer = AutoTokenizer.from_pretrained(self.path, **TRUSTED)
        self.chat = load_attribute(self.path, "conversation.get_conv_template")
        return SimpleNamespace(tokenizer=tokenizer)

    def render(self, text: str) -> str:
        """The chat prompt of one image and the user's text, up to where the model answers."""
        chat = self._template()
        chat.append_message(chat.roles[0], f"<image>\n{text}")
        chat.append_message(chat.roles[1], None)
        prompt: str = chat.get_prompt()
        return prompt

    def measure(self, prompts: Sequence[Asked]) -> list[tuple[int, int]]:
        """Of each prompt how many tokens it has, and how many of those stand for its image."""
        sizes = [self.tile_tokens * count_tiles(p.image.size, **self.tiling) for p in prompts]
        return [
            (len(self._tokens(prompt, size)), size)
            for prompt, size in zip(prompts, sizes, strict=True)
        ]

    def read(self, prompt: Asked) -> Encoded:
        """One prompt's tokens and tiles."""
        tiles = cut_tiles(prompt.image, **self.tiling)
        count = self.tile_tokens * len(tiles)
        tokens = self._tokens(prompt, count)
        found = tokens.count(self.placeholder)
        if found != count:
            raise ModelError(
                f"query {prompt.query_id}: {len(tiles)} tiles need {count} image tokens, and the tokenizer in "
                f"{self.path} made {found}; tokenizer and model differ"
            )
        return Encoded(
            tokens=tokens,
            images={"pixel_values": tiles},
            next_position=len(tokens),
            image_tokens=count,
        )

    def _tokens(self, prompt: Asked, image: int) -> tuple[int, ...]:
        text = self.render(prompt.text).replace("<image>", START + CONTEXT * image + END, 1)
        return tuple(self.tokenizer(text)["input_ids"])

    def front(self, remote: Any) -> Front:
        """The remote model behind the interface that the backends use."""
        return InternVLChatFront(
            remote, context_token=self.placeholder, pairs=self.architecture in TUPLES
        )

    def _template(self) -> Any:
        with explained(self.path, f"find the chat template {self.config.template!r}"):
            return self.chat(self.config.template)

    def text_config(self) -> Any:
        """The language model's configuration."""
        return self.config.llm_config

    def _end_tokens(self) -> tuple[int, ...]:
        # What the template puts after each turn ends the assistant's, too.
        self.endings = (self._template().sep.strip(),)
        return super()._end_tokens()
