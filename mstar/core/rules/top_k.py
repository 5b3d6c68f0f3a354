"""The ``k`` right responses of the highest process reward: the PRM as a reranker (section 3.3)."""

from collections.abc import Sequence

from mstar.core.records import Scored
from mstar.core.rules import Ask, Rule, ranking


def keep(right: Sequence[Scored], ask: Ask) -> Sequence[Scored]:
    """Equal ones by sample index, the lowest first: the sort is stable."""
    return sorted(right, key=ranking, reverse=True)[: ask.k]


RULE = Rule(keep=keep, says="PRM Top-{k}", needs=("k",), by_prm=True)
