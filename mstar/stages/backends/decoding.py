"""Read prompts once, then decode all their samples together, dropping rows as they finish.

Public transformers interfaces only: the model's forward, with its cache. Prompts are padded on the left, so the next
token of every row is computed at the last place. Taking waiting rows in whenever others finish was tried and was
slower here: each time the whole cache is copied, and a batch of many rows is nearly as well used without it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import PreTrainedModel

from mstar.errors import ModelError
from mstar.models.family import Encoded, Family
from mstar.stages.backends.cache import new_cache, repeat_rows
from mstar.stages.backends.draws import pick, uniforms
from mstar.tasks import Sampling

DROP_SHARE = 0.2
"""Finished rows are dropped when they are this share of the batch; dropping copies the cache."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One response to draw: its prompt, the response tokens it goes on from, its seed."""

    prompt: Encoded
    prefix: tuple[int, ...]
    seed: int


@dataclass(slots=True, kw_only=True)
class State:
    """The rows being decoded: ``index`` is each one's place in the batch, ``logits`` say what comes next.

    That is at position ``following``; it is the same distance from the start of the response for all rows.
    """

    cache: Any
    mask: torch.Tensor
    following: torch.Tensor
    logits: torch.Tensor
    index: torch.Tensor


class Decoder:
    """Draws responses from one model. ``banned`` tokens are never drawn."""

    def __init__(self, model: PreTrainedModel, family: Family, *, banned: Sequence[int]) -> None:
        self.model = model
        self.family = family
        self.device = model.device
        self.banned = self._integers(banned)
        self.eos = self._integers(family.eos)

    @torch.inference_mode()
    def decode(
        self, rows: Sequence[Row], sampling: Sampling, finished: Callable[[Sequence[int]], None]
    ) -> list[tuple[int, ...]]:
        """The tokens drawn for each row of one batch, an end token included when there is one.

        ``finished`` is told the places of rows as they end. ``ModelError`` where the model says no numbers.
        """
        offsets = [len(row.prefix) for row in rows]
        numbers = uniforms([row.seed for row in rows], offsets, sampling.max_new_tokens)
        numbers = numbers.to(self.device)
        drawn = torch.full(numbers.shape, -1, device=self.device)
        state = self._start(rows)
        over = torch.zeros_like(state.index, dtype=torch.bool)
        for step in range(sampling.max_new_tokens):
            token = self._draw(state, numbers[state.index, step], sampling)
            drawn[state.index, step] = token.masked_fill(over, -1)
            over = over | torch.isin(token, self.eos)
            # One wait for the device, whatever is asked of it.
            ended, last = torch.stack((over.sum(), token.max())).tolist()
            if last >= state.logits.shape[-1]:
                raise ModelError(
                    f"the model in {self.family.path} says NaN or infinity where token {step + 1} of a response is "
                    "to be drawn: its weights are broken, or the training before ran away. `mstarctl doctor --model "
                    f"{self.family.path}` looks at the weights; a lower learning_rate and clip keep training in bounds."
                )
            if ended == len(over) or step + 1 == sampling.max_new_tokens:
                break
            if ended >= DROP_SHARE * len(over):
                finished(state.index[over].tolist())
                keep = (~over).nonzero()[:, 0]
                _drop_others(state, keep)
                token, over = token[keep], over[keep]
            self._step(state, token)
        finished(state.index.tolist())
        return [tuple(token for token in row if token >= 0) for row in drawn.tolist()]

    def _draw(self, state: State, numbers: torch.Tensor, sampling: Sampling) -> torch.Tensor:
        logits = state.logits.index_fill(1, self.banned, -torch.inf)
        return pick(logits, numbers, temperature=sampling.temperature, top_p=sampling.top_p)

    def _start(self, rows: Sequence[Row]) -> State:
        """Read the different prompts of the rows in one forward, and give each row its own copy of what was read."""
        firsts, owners = distinct(rows)
        prompts, prefixes = [row.prompt for row in firsts], [row.prefix for row in firsts]
        batch = self.family.collate(prompts, prefixes, pad="left")
        batch = {name: tensor.to(self.device) for name, tensor in batch.items()}
        cache = new_cache(self.model)
        output = self.model(**batch, past_key_values=cache, use_cache=True, logits_to_keep=1)
        owner = self._integers(owners)
        repeat_rows(cache, owner)
        following = [row.prompt.next_position + len(row.prefix) for row in firsts]
        return State(
            cache=cache,
            mask=batch["attention_mask"][owner],
            following=self._integers(following)[owner],
            logits=output.logits[:, -1][owner],
            index=torch.arange(len(rows), device=self.device),
        )

    def _step(self, state: State, token: torch.Tensor) -> None:
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
        state.logits = output.logits[:, -1]

    def _integers(self, values: Sequence[int]) -> torch.Tensor:
        return torch.tensor(values, dtype=torch.long, device=self.device)


def never_drawn(model: PreTrainedModel, family: Family) -> tuple[int, ...]:
    """Banned tokens, and the rows of an embedding matrix padded beyond the tokenizer, which mean nothing."""
    return (*family.banned, *range(family.vocabulary, len(model.get_input_embeddings().weight)))


def _drop_others(state: State, rows: torch.Tensor) -> None:
    """Keep some rows of a state; their logits are not needed any more."""
    state.cache.batch_select_indices(rows)
    state.mask = state.mask[rows]
    state.following = state.following[rows]
    state.index = state.index[rows]


def distinct(rows: Sequence[Row]) -> tuple[list[Row], list[int]]:
    """The first row of each (prompt, prefix), and which of them each row goes on from."""
    place: dict[tuple[int, tuple[int, ...]], int] = {}
    firsts: list[Row] = []
    for row in rows:
        key = (id(row.prompt), row.prefix)
        if key not in place:
            place[key] = len(firsts)
            firsts.append(row)
    return firsts, [place[id(row.prompt), row.prefix] for row in rows]
