"""What the three families share: opening the folder, what ends a turn, what is never drawn, what is saved."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Any

from mstar.errors import ModelError
from mstar.models.family import MAX_PIXELS, Asked, Encoded
from mstar.models.legacy.remote import copy_description, explained, load_config, load_model
from mstar.models.native import UNLIMITED, NativeFamily, check_vocabulary

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import torch

    from mstar.models.legacy.front import Front


class LegacyFamily(NativeFamily):
    """Prompts of one image each for a model whose code lies in its folder; positions count, one a token."""

    endings: tuple[str, ...] = ()
    """Tokens that end the assistant's turn, beside the tokenizer's eos; the first is the one that training appends."""
    feature: str
    """The token that stands for one feature of an image."""
    around: tuple[str, ...] = ()
    """Tokens that stand before and after an image's."""
    attention: str | None = None
    """The attention implementation to ask for; None leaves the choice to the code."""

    def __init__(self, path: Path, *, max_pixels: int = MAX_PIXELS) -> None:
        # Not the native constructor: it asks transformers alone, and these folders are read by code of their own.
        self.path = path
        self.max_pixels = max_pixels
        self.config = load_config(path)
        with explained(path, "read the tokenizer and processor"):
            self.processor = self.open_processor()
        self.tokenizer = self.processor.tokenizer
        self.vocabulary = len(self.tokenizer)
        self.context = self._context()
        check_vocabulary(path, self.vocabulary, self.text_config())
        self.placeholder = self._placeholder()
        self.reserved = self._reserved_tokens()
        self.eos = self._end_tokens()
        self.banned = self._banned_tokens()
        pad = self.tokenizer.pad_token_id
        self.pad = int(self.eos[0] if pad is None else pad)
        self._pieces: dict[int, str] = {}

    @abstractmethod
    def open_processor(self) -> Any:
        """Something with a ``tokenizer``; whatever it raises is explained to the user."""

    @abstractmethod
    def render(self, text: str) -> str:
        """The chat prompt of one image and the user's text, up to where the model answers."""

    @abstractmethod
    def front(self, remote: Any) -> Front:
        """The remote model behind the interface that the backends use."""

    @abstractmethod
    def read(self, prompt: Asked) -> Encoded:
        """One prompt's tokens and image tensors; whatever it raises is explained to the user."""

    def encode(self, prompts: Sequence[Asked]) -> list[Encoded]:
        """Render and tokenise prompts; ``ModelError`` for an image the model cannot take."""
        self.check(prompts)
        encoded = []
        for prompt in prompts:
            with explained(self.path, f"read the image or text of query {prompt.query_id}"):
                encoded.append(self.read(prompt))
        return encoded

    def load(self, *, dtype: torch.dtype, device: torch.device) -> Front:
        """Read the weights from the folder; ``ModelError`` when any are missing or unusable."""
        options = {} if self.attention is None else {"attn_implementation": self.attention}
        return self.front(load_model(self.path, self.config, dtype=dtype, device=device, **options))

    def save_processor(self, folder: Path) -> None:
        """Copy code, configuration, tokenizer and processor beside saved weights, as they were."""
        copy_description(self.path, folder)

    def token(self, text: str) -> int:
        """The id of a token that the model cannot do without."""
        found = self.tokenizer.convert_tokens_to_ids(text)
        if not isinstance(found, int) or found in {None, self.tokenizer.unk_token_id}:
            raise ModelError(
                f"the tokenizer in {self.path} has no token {text!r}: it belongs to another model than the "
                f"{self.config.model_type!r} that config.json names"
            )
        return found

    def text_config(self) -> Any:
        """The language model's configuration."""
        return self.config

    def _context(self) -> int:
        return int(getattr(self.text_config(), "max_position_embeddings", None) or UNLIMITED)

    def _placeholder(self) -> int:
        return self.token(self.feature)

    def _reserved_tokens(self) -> tuple[int, ...]:
        return tuple(sorted(self.token(text) for text in (self.feature, *self.around)))

    def _end_tokens(self) -> tuple[int, ...]:
        own = [self.token(text) for text in self.endings]
        eos = self.tokenizer.eos_token_id
        return tuple(dict.fromkeys(own if eos is None else [*own, int(eos)]))
