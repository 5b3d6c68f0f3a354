"""A remote model behind the interface of transformers' own: what trainer, scorer and sampler call.

Remote forwards differ in what they take, compute logits of every token, and one of them cannot go on from a cache. So
the front asks a model for its parts: the embeddings of a batch with its images in place (``embed``), the language
model without its head (``body``), and the head. ``tests/legacy`` holds that to what the remote forward itself computes.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from huggingface_hub import save_torch_state_dict
from transformers import DynamicCache

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

INNER = "remote."
"""What the names of a remote model's weights begin with here, and not in its files."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Hidden:
    """The last layer's output, shape (rows, tokens, width)."""

    last_hidden_state: torch.Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """Logits of the tokens asked for, shape (rows, tokens, vocabulary), in float32."""

    logits: torch.Tensor


class PairCache:
    """The keys and values of a language model that takes and returns them as tuples, one pair a layer."""

    def __init__(self) -> None:
        self.pairs: tuple[tuple[torch.Tensor, torch.Tensor], ...] | None = None

    def batch_select_indices(self, indices: torch.Tensor) -> None:
        """Make row ``i`` what row ``indices[i]`` was; a row may be taken several times."""
        if self.pairs is not None:
            self.pairs = tuple((keys[indices], values[indices]) for keys, values in self.pairs)


class Front(torch.nn.Module, ABC):
    """A remote model that answers as transformers' own do. Arguments that are not text are its images."""

    pairs = False
    """Whether the language model keeps keys and values as tuples."""

    def __init__(self, remote: Any) -> None:
        super().__init__()
        self.remote = remote
        self.recomputing = False

    @abstractmethod
    def embed(self, input_ids: torch.Tensor, **images: torch.Tensor) -> torch.Tensor:
        """The language model's input, shape (rows, tokens, width): images in place, or text alone without them."""

    @property
    def language(self) -> Any:
        """The language model, head included."""
        return self.remote

    @property
    def body(self) -> Any:
        """The language model without its head."""
        return self.language.model

    def forward(self, input_ids: torch.Tensor, *, logits_to_keep: int = 0, **inputs: Any) -> Said:
        """Logits of the last ``logits_to_keep`` tokens, of all for 0."""
        hidden = self.hidden(input_ids, **inputs).last_hidden_state
        return Said(logits=self.get_output_embeddings()(hidden[:, -logits_to_keep:]).float())

    def hidden(
        self,
        input_ids: torch.Tensor,
        *,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        past_key_values: Any = None,
        use_cache: bool = False,
        **images: torch.Tensor,
    ) -> Hidden:
        """The last layer's output; with ``use_cache``, ``past_key_values`` (of ``new_cache``) grows by these tokens."""
        kept = past_key_values.pairs if self.pairs and use_cache else past_key_values
        embedded = self.embed(input_ids, **images)
        if self.recomputing and torch.is_grad_enabled() and not embedded.requires_grad:
            # Some remote code computes layers again only if what they are given needs a gradient.
            embedded.requires_grad_()
        output = self.body(
            inputs_embeds=embedded,
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=kept if use_cache else None,
            use_cache=use_cache,
            return_dict=True,
        )
        if self.pairs and use_cache:
            past_key_values.pairs = output.past_key_values
        return Hidden(last_hidden_state=output.last_hidden_state)

    def new_cache(self) -> Any:
        """An empty cache for ``past_key_values``."""
        return PairCache() if self.pairs else DynamicCache()

    @property
    def base_model(self) -> Any:
        """Called as the model is, it gives the last layer's output."""
        return self.hidden

    @property
    def config(self) -> Any:
        """The remote model's configuration."""
        return self.remote.config

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """The weights' number format."""
        return next(self.parameters()).dtype

    def get_decoder(self) -> Any:
        """The language model without its head."""
        return self.body

    def get_input_embeddings(self) -> torch.nn.Embedding:
        """The embeddings of tokens."""
        embeddings: torch.nn.Embedding = self.language.get_input_embeddings()
        return embeddings

    def get_output_embeddings(self) -> torch.nn.Linear:
        """The head: from the last layer's output to logits."""
        head: torch.nn.Linear = self.language.get_output_embeddings()
        return head

    @property
    def supports_gradient_checkpointing(self) -> bool:
        """Whether the language model can compute activations again; InternVL's whole may say that it knows of none."""
        return bool(self.language.supports_gradient_checkpointing)

    def gradient_checkpointing_enable(self, options: dict[str, Any]) -> None:
        """Compute activations again in the backward pass; ``options`` are torch's, for code that asks for them."""
        self.language.gradient_checkpointing_enable(options)
        if hasattr(self.language, "_require_grads_hook"):
            # It would mark what the embedding layer gives, which MiniCPM's code then writes images into.
            self.language.disable_input_require_grads()
        self.recomputing = True

    def save_pretrained(self, folder: Path, *, state_dict: Mapping[str, torch.Tensor]) -> None:
        """Write weights alone, under the names that the remote code reads; ``save_processor`` copies the rest."""
        weights = {name.removeprefix(INNER): tensor for name, tensor in state_dict.items()}
        save_torch_state_dict(weights, folder, metadata={"format": "pt"})
