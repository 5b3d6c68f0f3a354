"""The ``k`` right responses of most steps: a control, to see whether the PRM knows more than length."""

from collections.abc import Sequence

from mstar.core.records import Scored
from mstar.core.rules import Ask, Rule, length


def keep(right: Sequence[Scored], ask: Ask) -> Sequence[Scored]:
    """Of equally many steps those of more tokens, then the lowest sample index: the sort is stable."""
    return sorted(right, key=lambda item: length(item, ask.separator), reverse=True)[: ask.k]


RULE = Rule(keep=keep, says="the {k} longest right responses", needs=("k",))
