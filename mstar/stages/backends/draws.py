"""Sampling a token from its own number: the draw at a position depends on the row's seed and on nothing else.

A generator shared by a batch would make a response depend on what it was batched with. Here a hash of (seed,
position) gives one uniform number, which the inverse of the cumulative distribution turns into a token.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_FIRST = np.uint64(0xBF58476D1CE4E5B9)
_SECOND = np.uint64(0x94D049BB133111EB)

_CHUNK = 1 << 26
"""Most probabilities held at once: a large vocabulary is sampled some rows at a time."""


def uniforms(seeds: Sequence[int], offsets: Sequence[int], count: int) -> torch.Tensor:
    """Numbers in [0, 1), one row a seed: row ``i`` holds those of positions ``offsets[i]`` to ``+ count``."""
    with np.errstate(over="ignore"):
        keys = _mix(np.asarray(seeds, dtype=np.uint64) + _GOLDEN)[:, None]
        starts = np.asarray(offsets, dtype=np.uint64)[:, None]
        positions = starts + np.arange(1, count + 1, dtype=np.uint64)[None, :]
        bits = _mix(keys + positions * _GOLDEN)
    # 24 bits: what a float32 holds exactly.
    return torch.from_numpy((bits >> np.uint64(40)).astype(np.float32) * np.float32(2**-24))


def _mix(
    x: np.ndarray[tuple[int, ...], np.dtype[np.uint64]],
) -> np.ndarray[tuple[int, ...], np.dtype[np.uint64]]:
    """The finaliser of splitmix64."""
    x = (x ^ (x >> np.uint64(30))) * _FIRST
    x = (x ^ (x >> np.uint64(27))) * _SECOND
    return x ^ (x >> np.uint64(31))


def pick(
    logits: torch.Tensor, numbers: torch.Tensor, *, temperature: float, top_p: float
) -> torch.Tensor:
    """One token a row of ``logits``; temperature 0 takes the most probable and needs no number.

    A row from which none can be drawn (NaN, or an infinite logit) gets the number after the last token's.
    """
    if temperature == 0:
        token = logits.argmax(dim=-1)
        # The search for the largest stops at a NaN.
        best = logits.gather(-1, token[:, None])[:, 0]
        return token.where(best < torch.inf, logits.shape[-1])
    rows = max(1, _CHUNK // logits.shape[-1])
    chosen = [
        _invert(torch.softmax(part.float() / temperature, dim=-1), number, top_p)
        for part, number in zip(logits.split(rows), numbers.split(rows), strict=True)
    ]
    return torch.cat(chosen)


def _invert(probabilities: torch.Tensor, numbers: torch.Tensor, top_p: float) -> torch.Tensor:
    if top_p < 1:
        probabilities = _nucleus(probabilities, top_p)
    cumulative = probabilities.cumsum(dim=-1)
    total = cumulative[:, -1:]
    # Rounding must not carry the target to the very end, past the last token that has any probability.
    target = torch.minimum(numbers[:, None] * total, total * (1 - 2**-22))
    # No comparison with NaN holds, so the search among such numbers ends behind the last.
    return torch.searchsorted(cumulative, target, right=True).squeeze(-1)


def _nucleus(probabilities: torch.Tensor, top_p: float) -> torch.Tensor:
    """Zero all but the most probable tokens that together reach ``top_p``."""
    ordered, order = probabilities.sort(dim=-1, descending=True, stable=True)
    beyond = ordered.cumsum(dim=-1) - ordered >= top_p
    return probabilities.scatter(-1, order, ordered.masked_fill(beyond, 0.0))
