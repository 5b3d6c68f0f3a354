"""Prompts become tensors once each, and are refused before any of them costs the model a second."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from mstar.errors import ModelError
from mstar.models.family import Encoded, Family
from mstar.stages.protocols import Prompted

KEPT_BYTES = 1 << 30
"""Image tensors that training keeps in memory; those of further prompts are made again when needed."""

_CHUNK = 64

Key = tuple[str, str]


def encode_distinct(family: Family, prompts: Sequence[Prompted]) -> list[Encoded]:
    """Each prompt's encoding; prompts of one query and text (prefixes, samples) share theirs."""
    first: dict[Key, Prompted] = {}
    for prompt in prompts:
        first.setdefault(_key(prompt), prompt)
    encoded = dict(zip(first, family.encode(list(first.values())), strict=True))
    return [encoded[_key(prompt)] for prompt in prompts]


class PromptStore:
    """Encodings of more prompts than memory may hold: every length is known, image tensors up to a budget."""

    def __init__(
        self, family: Family, prompts: Sequence[Prompted], *, kept_bytes: int = KEPT_BYTES
    ) -> None:
        self.family = family
        self._lengths: dict[Key, int] = {}
        self._kept: dict[Key, Encoded] = {}
        room = kept_bytes
        for start in range(0, len(prompts), _CHUNK):
            chunk = [p for p in prompts[start : start + _CHUNK] if _key(p) not in self._lengths]
            for prompt, code in zip(chunk, encode_distinct(family, chunk), strict=True):
                key = _key(prompt)
                if key in self._lengths:
                    continue
                self._lengths[key] = len(code.tokens)
                room -= sum(tensor.nbytes for tensor in code.images.values())
                if room >= 0:
                    # A view of the chunk's tensors would keep all of them in memory.
                    images = {name: tensor.clone() for name, tensor in code.images.items()}
                    self._kept[key] = replace(code, images=images)

    def length(self, prompt: Prompted) -> int:
        """Tokens of the prompt."""
        return self._lengths[_key(prompt)]

    def fetch(self, prompts: Sequence[Prompted]) -> list[Encoded]:
        """The prompts' encodings, in order."""
        absent = [prompt for prompt in prompts if _key(prompt) not in self._kept]
        made = dict(zip(map(_key, absent), encode_distinct(self.family, absent), strict=True))
        return [self._kept.get(_key(p)) or made[_key(p)] for p in prompts]


def check_fits(family: Family, query_id: str, prompt: int, answer: int) -> None:
    """Refuse a prompt whose answer would leave the model's context; nothing is ever cut."""
    if prompt + answer > family.context:
        raise ModelError(
            f"query {query_id}: a prompt of {prompt} tokens (its image included) and a response of up to {answer} make "
            f"{prompt + answer}, but the model in {family.path} has a context of {family.context}. "
            "Shorten the prompt, shrink the image, or lower max_new_tokens."
        )


def _key(prompt: Prompted) -> Key:
    return prompt.query_id, prompt.text
