"""Prompts become tensors once each, and are refused before any of them costs the model a second."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from mstar.core.records import Example
from mstar.errors import ModelError
from mstar.models.family import Encoded, Family
from mstar.stages.protocols import Prompted, TrainingRow

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


class EncodedRows:
    """Training rows as tensors, of which memory holds what fits: image tensors are kept up to a budget.

    ``rows`` may decode an image whenever a row is asked for, so a row is asked for once, and again only when its
    tensors were not kept.
    """

    def __init__(
        self, family: Family, rows: Sequence[TrainingRow], *, kept_bytes: int = KEPT_BYTES
    ) -> None:
        self._family = family
        self._rows = rows
        self._room = kept_bytes
        self._keys: list[Key] = []
        self._lengths: dict[Key, int] = {}
        self._kept: dict[Key, Encoded] = {}

    def read(self) -> Iterator[tuple[Example, int]]:
        """Each row's example and the length of its prompt, in order."""
        for start in range(0, len(self._rows), _CHUNK):
            chunk = [self._rows[at] for at in range(start, min(start + _CHUNK, len(self._rows)))]
            prompts = {_key(row.prompt): row.prompt for row in chunk}
            fresh = [prompt for key, prompt in prompts.items() if key not in self._lengths]
            for prompt, code in zip(fresh, self._family.encode(fresh), strict=True):
                self._remember(_key(prompt), code)
            for row in chunk:
                self._keys.append(_key(row.prompt))
                yield row.example, self._lengths[self._keys[-1]]

    def fetch(self, indices: Sequence[int]) -> list[Encoded]:
        """The encoded prompts of rows that were read."""
        absent = {self._keys[i]: i for i in indices if self._keys[i] not in self._kept}
        again = self._family.encode([self._rows[index].prompt for index in absent.values()])
        found = self._kept | dict(zip(absent, again, strict=True)) if absent else self._kept
        return [found[self._keys[index]] for index in indices]

    def _remember(self, key: Key, code: Encoded) -> None:
        self._lengths[key] = len(code.tokens)
        self._room -= sum(tensor.nbytes for tensor in code.images.values())
        if self._room >= 0:
            # A view of tensors that were processed together would keep all of them in memory.
            images = {name: tensor.clone() for name, tensor in code.images.items()}
            self._kept[key] = replace(code, images=images)


def check_all_fit(family: Family, prompts: Sequence[Prompted], answers: Sequence[int]) -> None:
    """Refuse the first prompt whose ``answers[i]`` tokens would leave the context, before any image is processed."""
    longest: dict[Key, tuple[Prompted, int]] = {}
    for prompt, answer in zip(prompts, answers, strict=True):
        _, known = longest.get(_key(prompt), (prompt, -1))
        longest[_key(prompt)] = prompt, max(known, answer)
    measured = family.measure([prompt for prompt, _ in longest.values()])
    for (prompt, answer), (length, image) in zip(longest.values(), measured, strict=True):
        check_fits(family, prompt.query_id, length, answer, image=image)


def check_fits(
    family: Family, query_id: str, prompt: int, answer: int, *, image: int | None = None
) -> None:
    """Refuse a prompt whose answer would leave the model's context; nothing is ever cut."""
    if prompt + answer > family.context:
        parts = "its image included" if image is None else f"{image} of them its image"
        raise ModelError(
            f"query {query_id}: a prompt of {prompt} tokens ({parts}) and a response of up to {answer} make "
            f"{prompt + answer}, but the model in {family.path} has a context of {family.context}. "
            f"Shorten the prompt, shrink the image, lower {family.image_limit}, or lower max_new_tokens."
        )


def _key(prompt: Prompted) -> Key:
    return prompt.query_id, prompt.text
