"""Draws that neither order, shards nor memory change: each response has a priority, and the lowest win."""

import heapq
from typing import Generic, TypeVar

from mstar.core.records import Response
from mstar.core.seeds import Part, unit

T = TypeVar("T")


def priority(response: Response, seed: int, purpose: Part) -> float:
    """A response's place in a draw, in [0, 1): the lowest win. Different purposes draw independently."""
    return unit(seed, purpose, response.query_id, response.sample, response.prefix, response.seed)


class Draw(Generic[T]):
    """The ``size`` items of the lowest priority ever offered, in memory for ``size`` items."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._heap: list[tuple[float, int, T]] = []
        self._offered = 0

    def offer(self, item: T, priority: float) -> None:
        """Keep ``item`` unless ``size`` others have a lower priority; of equal ones the first offered stays."""
        self._offered += 1
        # heapq keeps the smallest in front, so both are negated: in front is what goes first.
        entry = (-priority, -self._offered, item)
        if len(self._heap) < self._size:
            heapq.heappush(self._heap, entry)
        elif self._heap and entry[:2] > self._heap[0][:2]:
            heapq.heapreplace(self._heap, entry)

    def kept(self) -> list[T]:
        """The items, in the order they were offered."""
        return [item for _, _, item in sorted(self._heap, key=lambda entry: -entry[1])]

    def lowest(self, size: int) -> list[T]:
        """The ``size`` kept items of the lowest priority, lowest first."""
        return [item for _, _, item in sorted(self._heap, key=lambda e: e[:2], reverse=True)[:size]]

    def __len__(self) -> int:
        return len(self._heap)
