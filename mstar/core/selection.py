"""What training keeps: right responses, of them what the rule keeps, of that at most so many (section 3.3).

Every rule filters by correctness first. Random choices are draws by priority, so the choice does not depend on order,
shards or memory. The rules are in ``core.rules``.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

from mstar.core.draws import Draw, priority
from mstar.core.records import Scored
from mstar.core.rules import Ask, find_rule
from mstar.core.steps import split_steps


@dataclass(frozen=True, slots=True, kw_only=True)
class SelectionRule:
    """Which right responses to keep: a rule of ``core.rules`` with its parameters, and caps.

    ``per_query`` caps, by draw, what a query gives under a rule without a ``k`` of its own; ``limit`` caps the whole
    selection, by draw. Before the rule, ``min_steps`` drops responses of fewer steps and ``deduplicate`` keeps one of
    each text. Raises ``ValueError`` for an unknown rule, or one without a parameter that it needs.
    """

    rule: str
    k: int | None = None
    alpha: float | None = None
    per_query: int | None = None
    limit: int | None = None
    min_steps: int = 1
    deduplicate: bool = False

    def __post_init__(self) -> None:
        for name in find_rule(self.rule).needs:
            if getattr(self, name) is None:
                raise ValueError(f"rule {self.rule} needs {name}")


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

    Rules break ties by sample index, the lowest first; so does ``deduplicate``.
    """
    right = sorted((item for item in scored if item.grade.correct), key=_identity)
    if rule.min_steps > 1:
        right = [s for s in right if len(split_steps(s.response.text, separator)) >= rule.min_steps]
    if rule.deduplicate:
        right = unique_texts(right)
    how = find_rule(rule.rule)
    ask = Ask(k=rule.k or 0, alpha=rule.alpha or 0.0, seed=seed, separator=separator)
    kept = how.keep(right, ask)
    if rule.per_query is not None and "k" not in how.needs:
        drawn = sorted(kept, key=lambda item: priority(item.response, seed, "query"))
        kept = drawn[: rule.per_query]
    return sorted(kept, key=_identity)


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


def _identity(item: Scored) -> tuple[int, str, int, str]:
    # The index, and what makes it unique once responses of several generate steps are pooled.
    response = item.response
    return response.sample, response.prefix, response.seed, response.text
