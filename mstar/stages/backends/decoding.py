"""Prefill prompts once, then decode all their samples together, dropping rows as they finish.

Public transformers interfaces only: the model's forward, with its cache. Rows are prompts with padding on the left,
so the next token of every row is computed at the last place.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import Cache, DynamicCache, PreTrainedModel

from mstar.models.family import Encoded, Family
from mstar.stages.backends.cache import repeat_rows
from mstar.stages.backends.draws import pick, uniforms
from mstar.tasks import Sampling

DROP_SHARE = 0.2
"""Finished rows are dropped when they are this share of the batch; dropping copies the cache."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One response to draw: its prompt, the response tokens it begins with, its seed."""

    prompt: Encoded
    prefix: tuple[int, ...]
    seed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Prefilled:
    """Prompts read by the model: what decoding goes on from, one row a prompt."""

    cache: Cache
    mask: torch.Tensor
    following: torch.Tensor
    logits: torch.Tensor


class Decoder:
    """Draws responses in batches from one model. ``banned`` tokens are never drawn."""

    def __init__(self, model: PreTrainedModel, family: Family, *, banned: Sequence[int]) -> None:
        self.model = model
        self.family = family
        self.device = model.device
        self.banned = torch.tensor(banned, dtype=torch.long, device=self.device)
        self.eos = torch.tensor(family.eos, dtype=torch.long, device=self.device)

    @torch.inference_mode()
    def decode(
        self, rows: Sequence[Row], sampling: Sampling, finished: Callable[[Sequence[int]], None]
    ) -> list[tuple[int, ...]]:
        """The tokens drawn for each row, an end token included when there is one.

        ``finished`` is told the indices of rows as they end.
        """
        prompts, owners = _distinct(rows)
        start = self.prefill(prompts)
        owner = torch.tensor(owners, device=self.device)
        repeat_rows(start.cache, owner)
        state = _State(
            cache=start.cache,
            mask=start.mask.index_select(0, owner),
            following=start.following.index_select(0, owner),
            alive=torch.arange(len(rows), device=self.device),
        )
        offsets = [len(row.prefix) for row in rows]
        numbers = uniforms([row.seed for row in rows], offsets, sampling.max_new_tokens)
        numbers = numbers.to(self.device)
        drawn = torch.full((len(rows), sampling.max_new_tokens), -1, dtype=torch.long)
        drawn = drawn.to(self.device)
        logits = start.logits.index_select(0, owner)
        done = torch.zeros(len(rows), dtype=torch.bool, device=self.device)
        for step in range(sampling.max_new_tokens):
            logits = logits.index_fill(1, self.banned, -torch.inf)
            number = numbers[state.alive, step]
            token = pick(logits, number, temperature=sampling.temperature, top_p=sampling.top_p)
            drawn[state.alive, step] = token.masked_fill(done, -1)
            done = done | torch.isin(token, self.eos)
            ended = int(done.sum())
            if ended == len(done) or step + 1 == sampling.max_new_tokens:
                break
            if ended >= DROP_SHARE * len(done):
                finished(state.alive[done].tolist())
                keep = (~done).nonzero().squeeze(-1)
                state.keep(keep)
                token, done = token[keep], done[keep]
            logits = self._step(state, token)
        finished(state.alive.tolist())
        return [tuple(token for token in row if token >= 0) for row in drawn.tolist()]

    def prefill(self, prompts: Sequence[tuple[Encoded, tuple[int, ...]]]) -> Prefilled:
        """Read prompts and what their responses begin with, in one forward."""
        encoded = [prompt for prompt, _ in prompts]
        prefixes = [prefix for _, prefix in prompts]
        batch = self.family.collate(encoded, prefixes, pad="left")
        batch = {name: tensor.to(self.device) for name, tensor in batch.items()}
        cache = DynamicCache(config=self.model.config.get_text_config())
        output = self.model(**batch, past_key_values=cache, use_cache=True, logits_to_keep=1)
        following = [prompt.next_position + len(prefix) for prompt, prefix in prompts]
        return Prefilled(
            cache=cache,
            mask=batch["attention_mask"],
            following=torch.tensor(following, device=self.device),
            logits=output.logits[:, -1],
        )

    def _step(self, state: _State, token: torch.Tensor) -> torch.Tensor:
        state.mask = torch.cat([state.mask, state.mask.new_ones((len(token), 1))], dim=1)
        output: Any = self.model(
            input_ids=token[:, None],
            attention_mask=state.mask,
            position_ids=state.following[:, None],
            past_key_values=state.cache,
            use_cache=True,
            logits_to_keep=1,
        )
        state.following = state.following + 1
        logits: torch.Tensor = output.logits[:, -1]
        return logits


@dataclass(slots=True, kw_only=True)
class _State:
    """Rows still being decoded; ``alive`` holds their indices in the batch as it began."""

    cache: Cache
    mask: torch.Tensor
    following: torch.Tensor
    alive: torch.Tensor

    def keep(self, rows: torch.Tensor) -> None:
        """Go on with some rows only."""
        self.cache.batch_select_indices(rows)
        self.mask = self.mask.index_select(0, rows)
        self.following = self.following.index_select(0, rows)
        self.alive = self.alive.index_select(0, rows)


def _distinct(rows: Sequence[Row]) -> tuple[list[tuple[Encoded, tuple[int, ...]]], list[int]]:
    """The different (prompt, prefix) among rows, and which of them each row has."""
    index: dict[tuple[int, tuple[int, ...]], int] = {}
    found: list[tuple[Encoded, tuple[int, ...]]] = []
    owners = []
    for row in rows:
        key = (id(row.prompt), row.prefix)
        if key not in index:
            index[key] = len(found)
            found.append((row.prompt, row.prefix))
        owners.append(index[key])
    return found, owners
