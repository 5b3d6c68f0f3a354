"""In which order rows are trained on, and which of them are computed together: pure functions of the rows.

The order is one of the seed, the epoch and the rows' lengths alone. How a batch is cut for ranks and memory is no part
of it: what is computed differs by rounding only.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Hashable, Iterable, Sequence
from typing import TypeVar

T = TypeVar("T")

SORTED_TOGETHER = 8
"""Batches whose rows are sorted by length together, so that little of a batch is padding."""

WORTH = 0.8
"""Two forwards of fewer tokens cost more than one of as many; this share of the tokens is clearly worth it."""


def plan_epoch(
    lengths: Sequence[int],
    batch_size: int,
    *,
    seed: int,
    epoch: int,
    prompts: Sequence[Hashable] | None = None,
) -> list[list[int]]:
    """Every row once: shuffled, sorted by length within a few batches, and those shuffled again.

    With ``prompts``, rows of equal prompts are shuffled and sorted as one, by the longest of them, and so come to lie
    in one batch, or two that are cut between them. The last batch drawn may be smaller. Nothing about devices or ranks
    is asked, so it is the same for all.
    """
    rng = random.Random(f"{seed}/{epoch}")
    groups = [[row] for row in range(len(lengths))] if prompts is None else together(prompts)
    rng.shuffle(groups)
    order = list(itertools.chain.from_iterable(groups))
    # Rows of a group compare by its longest and then by its place, so that sorting keeps them together.
    longest = [max(lengths[row] for row in group) for group in groups]
    rank = {row: (longest[at], at) for at, group in enumerate(groups) for row in group}
    planned: list[list[int]] = []
    span = batch_size * SORTED_TOGETHER
    for start in range(0, len(order), span):
        block = sorted(order[start : start + span], key=rank.__getitem__)
        batches = [block[at : at + batch_size] for at in range(0, len(block), batch_size)]
        rng.shuffle(batches)
        planned += batches
    return planned


def together(prompts: Sequence[Hashable]) -> list[list[int]]:
    """The places of equal prompts together, in the order in which each prompt comes first."""
    groups: dict[Hashable, list[int]] = {}
    for place, prompt in enumerate(prompts):
        groups.setdefault(prompt, []).append(place)
    return list(groups.values())


def pack(groups: Iterable[Sequence[T]], size: int) -> list[list[T]]:
    """Batches of at most ``size`` items, in order; a group is cut only when no batch could hold it whole."""
    packed: list[list[T]] = [[]]
    for group in groups:
        if len(packed[-1]) + len(group) > size and packed[-1]:
            packed.append([])
        for start in range(0, len(group), size):
            if start:
                packed.append([])
            packed[-1] += group[start : start + size]
    return [batch for batch in packed if batch]


def rank_shares(
    groups: Sequence[Sequence[T]], world: int, micro: int | None
) -> list[list[list[T]]]:
    """The micro-batches that each rank computes of a batch, as many for every rank, some of them empty.

    ``groups`` are the batch's rows, those of one prompt together: they go to one rank, and into one micro-batch where
    that holds them.
    """
    shares = [groups[rank::world] for rank in range(world)]
    most = max(1, *(sum(map(len, share)) for share in shares))
    packed = [pack(share, micro or most) for share in shares]
    count = max(map(len, packed))
    return [[*mine, *([] for _ in range(count - len(mine)))] for mine in packed]


def worth_sharing(
    micro_batches: Iterable[Sequence[int]],
    prompts: Sequence[Hashable],
    prompt_lengths: Sequence[int],
    answer_lengths: Sequence[int],
) -> bool:
    """Whether clearly fewer tokens are computed when each micro-batch reads a prompt once for all its answers.

    Asked of the micro-batches of all ranks, so that all of them decide alike: under ZeRO stage 3 ranks that read
    differently often would wait for each other for ever.
    """
    alone = shared = 0
    for rows in micro_batches:
        alone += sum(prompt_lengths[row] + answer_lengths[row] for row in rows)
        shared += sum(answer_lengths[row] for row in rows)
        shared += sum({prompts[row]: prompt_lengths[row] for row in rows}.values())
    return shared <= WORTH * alone
