"""In which order rows are trained on: a pure function of the seed, the epoch and the rows' lengths."""

from __future__ import annotations

import random
from collections.abc import Sequence

SORTED_TOGETHER = 8
"""Batches whose rows are sorted by length together, so that little of a batch is padding."""


def plan_epoch(
    lengths: Sequence[int], batch_size: int, *, seed: int, epoch: int
) -> list[list[int]]:
    """Every row once: shuffled, sorted by length within a few batches, and those shuffled again.

    The last batch drawn may be smaller. Nothing about devices or ranks is asked, so it is the same for all.
    """
    rng = random.Random(f"{seed}/{epoch}")
    order = list(range(len(lengths)))
    rng.shuffle(order)
    planned: list[list[int]] = []
    span = batch_size * SORTED_TOGETHER
    for start in range(0, len(order), span):
        block = sorted(order[start : start + span], key=lambda row: lengths[row])
        batches = [block[at : at + batch_size] for at in range(0, len(block), batch_size)]
        rng.shuffle(batches)
        planned += batches
    return planned


def rank_share(batch: Sequence[int], rank: int, world: int, micro: int | None) -> list[list[int]]:
    """The micro-batches that one rank computes of a batch; every rank gets as many, some of them empty."""
    shares = [list(batch[start::world]) for start in range(world)]
    longest = len(shares[0])
    size = micro or max(longest, 1)
    return [shares[rank][start : start + size] for start in range(0, longest, size)]
