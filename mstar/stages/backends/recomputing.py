"""Decoding for models that cannot go on from a cache: every row is read from its start at every token.

Slow, and right: it draws what the model's forward says, as the cached way does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from mstar.models.family import Encoded
from mstar.stages.backends.decoding import Decoder, Row, State


@dataclass(slots=True)
class Texts:
    """What stands in the place of a cache: the rows themselves, as far as they are drawn."""

    prompts: list[Encoded]
    answers: list[tuple[int, ...]]

    def batch_select_indices(self, indices: torch.Tensor) -> None:
        """Keep the rows ``indices``."""
        kept = indices.tolist()
        self.prompts = [self.prompts[row] for row in kept]
        self.answers = [self.answers[row] for row in kept]


class RecomputingDecoder(Decoder):
    """Draws responses from one model, without a cache."""

    def _start(self, rows: Sequence[Row]) -> State:
        texts = Texts([row.prompt for row in rows], [row.prefix for row in rows])
        none = torch.empty((len(rows), 0), device=self.device)
        return State(
            cache=texts,
            mask=none,
            following=none,
            logits=self._logits(texts),
            index=torch.arange(len(rows), device=self.device),
        )

    def _step(self, state: State, token: torch.Tensor) -> None:
        texts: Texts = state.cache
        drawn = zip(texts.answers, token.tolist(), strict=True)
        texts.answers = [(*answer, last) for answer, last in drawn]
        state.logits = self._logits(texts)

    def _logits(self, texts: Texts) -> torch.Tensor:
        batch = self.family.collate(texts.prompts, texts.answers, pad="left")
        batch = {name: tensor.to(self.device) for name, tensor in batch.items()}
        logits: torch.Tensor = self.model(**batch, use_cache=False, logits_to_keep=1).logits[:, -1]
        return logits
