"""Phi-3.5-vision: image positions are negative token ids, and an image is at most 16 crops and a small copy.

Its rotary positions change for a whole batch as soon as one row is longer than ``original_max_position_embeddings``
(4,096): then what a cache holds is wrong, and a row's neighbours change what it means. So that is its context here; an
image of 16 crops takes 2,509 to 2,653 of it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from transformers import AutoProcessor

from mstar.errors import ModelError
from mstar.models.family import Asked, Encoded, Group
from mstar.models.legacy.base import LegacyFamily
from mstar.models.legacy.front import Front
from mstar.models.legacy.remote import TRUSTED

if TYPE_CHECKING:
    from collections.abc import Sequence

CROPS = 16
"""What the model's makers advise for a single image."""


class Phi3VFront(Front):
    """Phi3VForCausalLM: its embedding layer puts images where token ids are negative."""

    def embed(self, input_ids: torch.Tensor, **images: torch.Tensor) -> torch.Tensor:
        """The language model's input."""
        if not images:
            return self.get_input_embeddings()(input_ids)
        # Some revisions of the code write into the ids they are given.
        return self.body.vision_embed_tokens(
            input_ids.clone(),
            pixel_values=images["pixel_values"].to(self.dtype),
            image_sizes=images["image_sizes"],
        )


class Phi3VFamily(LegacyFamily):
    """Prompts of one image each for Phi-3.5-vision."""

    endings = ("<|end|>",)
    feature = "<|image|>"
    image_limit = f"the crops of an image (always up to {CROPS} for this model)"
    # Flash attention, which config.json names, is not in the image; the code knows no other but eager.
    attention = "eager"

    def open_processor(self) -> Any:
        """The folder's own processor, with crops for a single image."""
        return AutoProcessor.from_pretrained(self.path, num_crops=CROPS, **TRUSTED)

    def render(self, text: str) -> str:
        """The chat prompt of one image and the user's text, up to where the model answers."""
        prompt: str = self.tokenizer.apply_chat_template(
            [{"role": "user", "content": f"<|image_1|>\n{text}"}],
            tokenize=False,
            add_generation_prompt=True,
        )
        return prompt

    def read(self, prompt: Asked) -> Encoded:
        """One prompt's tokens and image tensors."""
        output = self.processor(
            self.render(prompt.text), [prompt.image.convert("RGB")], return_tensors="pt"
        )
        tokens = tuple(output["input_ids"][0].tolist())
        return Encoded(
            tokens=tokens,
            images={
                "pixel_values": output["pixel_values"],
                "image_sizes": torch.as_tensor(output["image_sizes"]).reshape(1, 2),
            },
            next_position=len(tokens),
            image_tokens=tokens.count(self.placeholder),
        )

    def front(self, remote: Any) -> Front:
        """The remote model behind the interface that the backends use."""
        return Phi3VFront(remote)

    def measure(self, prompts: Sequence[Asked]) -> list[tuple[int, int]]:
        """Of each prompt how many tokens it has, and how many of those stand for its image."""
        found = []
        for prompt in prompts:
            image = int(self.processor.calc_num_image_tokens_from_image_size(*prompt.image.size))
            parts = self.render(prompt.text).split("<|image_1|>")
            found.append((image + sum(len(self.tokenizer(p).input_ids) for p in parts), image))
        return found

    def parameters(self, model: Any, group: Group) -> list[torch.nn.Parameter]:
        """The parameters of one group, for freezing; what embeds images lies inside the language model here."""
        seen = {id(p): p for p in model.body.vision_embed_tokens.parameters()}
        embeddings = super().parameters(model, "embeddings")
        if group == "vision":
            held = {id(parameter) for parameter in embeddings}
            return [parameter for key, parameter in seen.items() if key not in held]
        found = embeddings if group == "embeddings" else super().parameters(model, group)
        return [p for p in found if group == "embeddings" or id(p) not in seen]

    def _placeholder(self) -> int:
        # The first image's places; the token that is written <|image|> never occurs.
        return -1

    def _reserved_tokens(self) -> tuple[int, ...]:
        return (self.token(self.feature),)

    def _context(self) -> int:
        return int(
            getattr(self.config, "original_max_position_embeddings", None) or super()._context()
        )

    def _check_text(self, prompt: Asked) -> None:
        super()._check_text(prompt)
        if "<|image_" in prompt.text:
            raise ModelError(
                f"the text of query {prompt.query_id} holds '<|image_', which stands for an image to this model. "
                "Remove it: the image is placed before the text."
            )
