"""What training keeps: ``H`` of the paper's ``R = H(1(correct) * R_p)`` (section 3.3).

Every rule filters by correctness first. Random choices are draws by priority: each response has one that only the
seed and its own identity decide, and the lowest win. So the choice does not depend on order, shards or memory.
"""

import heapq
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Generic, Literal, TypeVar

from mstar.core.records import Response, Scored
from mstar.core.reward import process_reward
from mstar.core.seeds import Part, unit
from mstar.core.steps import split_steps

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class SelectionRule:
    """Which right responses to keep.

    ``all``; ``random``: any ``k`` of a query; ``threshold``: those of a process reward above ``alpha``; ``top_k``: the
    ``k`` of the highest process reward of a query. ``per_query`` caps, by draw, what a query gives under ``all`` and
    ``threshold``; ``limit`` caps the whole selection, by draw. Before the rule, ``min_steps`` drops responses of fewer
    steps and ``deduplicate`` keeps one of each text.
    """

    rule: Literal["all", "random", "threshold", "top_k"]
    k: int | None = None
    alpha: float | None = None
    per_query: int | None = None
    limit: int | None = None
    min_steps: int = 1
    deduplicate: bool = False

    def __post_init__(self) -> None:
        if self.rule in {"random", "top_k"} and self.k is None:
            raise ValueError(f"rule {self.rule} needs k")
        if self.rule == "threshold" and self.alpha is None:
            raise ValueError("rule threshold needs alpha")


def select(
    scored: Iterable[Scored], rule: SelectionRule, *, seed: int, separator: str = "\n"
) -> Iterator[Scored]:
    """What ``rule`` keeps of a stream in which the responses to a query come together, in the stream's order.

    Memory holds one query's responses, and with a ``limit`` that many more; then nothing comes before the stream ends.
    Raises ``ValueError`` when the rule ranks by the PRM and a right response has no finite step scores.
    """
    kept = (
        item
        for group in by_query(scored)
        for item in select_responses(group, rule, seed=seed, separator=separator)
    )
    if rule.limit is None:
        yield from kept
        return
    draw: Draw[Scored] = Draw(rule.limit)
    for item in kept:
        draw.offer(item, priority(item.response, seed, "limit"))
    yield from draw.kept()


def select_responses(
    scored: Sequence[Scored], rule: SelectionRule, *, seed: int, separator: str = "\n"
) -> list[Scored]:
    """What ``rule``, its ``limit`` aside, keeps of the responses to one query, by sample index. Raises as ``select``.

    ``top_k`` breaks ties by sample index, the lowest first; so does ``deduplicate``.
    """
    right = sorted((item for item in scored if item.grade.correct), key=_identity)
    if rule.min_steps > 1:
        right = [s for s in right if len(split_steps(s.response.text, separator)) >= rule.min_steps]
    if rule.deduplicate:
        right = unique_texts(right)
    if rule.rule == "top_k":
        ranked = sorted(right, key=_ranking, reverse=True)  # stable: equal ones stay by sample
        return sorted(ranked[: rule.k], key=_identity)
    if rule.rule == "threshold" and rule.alpha is not None:
        right = [item for item in right if _ranking(item) > rule.alpha]
    at_most = rule.k if rule.rule == "random" else rule.per_query
    if at_most is None:
        return right
    drawn = sorted(right, key=lambda item: priority(item.response, seed, "query"))[:at_most]
    return sorted(drawn, key=_identity)


def unique_texts(scored: Iterable[Scored]) -> list[Scored]:
    """The first response of each text, spaces around it aside."""
    first: dict[str, Scored] = {}
    for item in scored:
        first.setdefault(item.response.text.strip(), item)
    return list(first.values())


def by_query(scored: Iterable[Scored]) -> Iterator[list[Scored]]:
    """The responses to each query, as long as they come one after another in the stream."""
    for _, group in groupby(scored, key=lambda item: item.response.query_id):
        yield list(group)


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


def _identity(item: Scored) -> tuple[int, str, int, str]:
    # The index, and what makes it unique once responses of several generate steps are pooled.
    response = item.response
    return response.sample, response.prefix, response.seed, response.text


def _ranking(item: Scored) -> float:
    try:
        return process_reward(item.step_scores)
    except ValueError as error:
        raise ValueError(
            f"query {item.response.query_id}, sample {item.response.sample}: {error}"
        ) from None
