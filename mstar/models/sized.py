"""Families whose image tokens follow from an image's size: what a prompt costs is known before a pixel is read.

Such a family says what its processor puts in the place of an image of some size, computed from the *model's*
configuration. So a processor that makes other tokens than the model needs features is found when a folder is opened,
and a prompt that cannot fit is refused before any work.
"""

from __future__ import annotations

import re
from abc import abstractmethod
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from PIL import Image

from mstar.errors import ModelError
from mstar.models.family import MAX_PIXELS, Asked
from mstar.models.native import NativeFamily

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

_ABSENT = object()


@dataclass(frozen=True, slots=True)
class _Trial:
    """What a processor is tried with when a folder is opened."""

    query_id: str = "a blank picture (tried when the model was opened)"
    text: str = "?"
    image: Image.Image = field(default_factory=lambda: Image.new("RGB", (40, 32), "gray"))


class SizedFamily(NativeFamily):
    """A native family that can tell an image's tokens from its width and height."""

    def __init__(self, path: Path, *, max_pixels: int = MAX_PIXELS) -> None:
        super().__init__(path, max_pixels=max_pixels)
        word = self.tokenizer.convert_ids_to_tokens(self.placeholder)
        if not isinstance(word, str):
            raise ModelError(
                f"the tokenizer in {path} has no token {self.placeholder}, which stands for an image by config.json. "
                "Its files are missing or another model's: put the model's own tokenizer beside the weights."
            )
        self.image_word: str = word
        self._runs = re.compile(f"(?:{re.escape(self.image_word)})+")
        self._check_processor()

    @abstractmethod
    def image_text(self, width: int, height: int) -> str:
        """What stands in a prompt for an image of this size; ``ValueError`` when the model can take none such."""

    @abstractmethod
    def agreements(self) -> Mapping[str, object]:
        """What the model's configuration asks of attributes of its processor."""

    def check(self, prompts: Sequence[Asked]) -> None:
        """Refuse images over the limits and text that holds a placeholder; takes no time."""
        super().check(prompts)
        for prompt in prompts:
            count = self.image_tokens(prompt)
            if count >= self.context:
                width, height = prompt.image.size
                raise ModelError(
                    f"query {prompt.query_id}: its image of {width} x {height} pixels alone makes {count} tokens, but "
                    f"the model in {self.path} has a context of {self.context}. Shrink the image, or lower "
                    f"{self.image_limit}."
                )

    def image_tokens(self, prompt: Asked) -> int:
        """How many tokens stand for the image of a prompt."""
        return self._image_text(prompt).count(self.image_word)

    def measure(self, prompts: Sequence[Asked]) -> list[tuple[int, int]]:
        """Of each prompt how many tokens it has, and how many of those stand for its image; no pixel is read."""
        measured = []
        for prompt in prompts:
            rendered = self.rendered(prompt.text)
            image = self._image_text(prompt)
            whole = rendered.replace(self.image_word, image, 1)
            # A placeholder is a token of its own however many there are: one of a row is read, the others counted.
            short = self._runs.sub(self.image_word, whole)
            dropped = (len(whole) - len(short)) // len(self.image_word)
            special = self.adds_special_tokens(rendered)
            ids = self.tokenizer(short, add_special_tokens=special)["input_ids"]
            measured.append((len(ids) + dropped, image.count(self.image_word)))
        return measured

    def count_images(self, prompt: Asked, tokens: Sequence[int]) -> int:
        """How many of a prompt's tokens stand for its image; ``ModelError`` when the model needs another number."""
        found, needed = tokens.count(self.placeholder), self.image_tokens(prompt)
        if found != needed:
            width, height = prompt.image.size
            raise self._misfit(
                f"of the image of {prompt.query_id}, {width} x {height} pixels, it makes {found} tokens and the model "
                f"{needed} features"
            )
        return found

    def _image_text(self, prompt: Asked) -> str:
        width, height = prompt.image.size
        try:
            return self.image_text(width, height)
        except ValueError as error:
            raise ModelError(
                f"query {prompt.query_id}: the model in {self.path} takes no image of {width} x {height} pixels: "
                f"{error}. Cut the image, or drop the query."
            ) from error

    def _check_processor(self) -> None:
        for name, needed in self.agreements().items():
            found = _look_up(self.processor, name)
            if found is _ABSENT:
                raise self._misfit(f"it has no {name}, which the model needs to be {needed!r}")
            if _plain(found) != _plain(needed):
                raise self._misfit(f"its {name} is {found!r}, and the model needs {needed!r}")
        count = self.render("?").count(self.image_word)
        if count != 1:
            raise self._misfit(
                f"its chat template puts {count} times {self.image_word!r} into a prompt of one image"
            )
        self._encode_one(_Trial())

    def _misfit(self, what: str) -> ModelError:
        return ModelError(
            f"the processor in {self.path} does not fit the model: {what}. They are of different versions or models; "
            "take the processor's files from where the weights were published."
        )


def _look_up(holder: Any, name: str) -> Any:
    """An attribute, or a key, by its dotted name."""
    for part in name.split("."):
        is_dict = isinstance(holder, dict)
        holder = holder.get(part, _ABSENT) if is_dict else getattr(holder, part, _ABSENT)
    return holder


def _plain(value: object) -> object:
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value
