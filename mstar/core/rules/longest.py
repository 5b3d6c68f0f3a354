"""The ``k`` right responses of most steps: a control, to see whether the PRM knows more than length."""

from collections.abc import Sequence

from mstar.core.records import Scored
from mstar.core.rules import Ask, Rule
from mstar.core.steps import split_steps


def keep(right: Sequence[Scored], ask: Ask) -> Sequence[Scored]:
    """Of equally many steps those of more tokens, then the lowest sample index: the sort is stable."""

    def length(item: Scored) -> tuple[int, int]:
        return len(split_steps(item.response.text, ask.separator)), item.response.token_count

    return sorted(right, key=length, reverse=True)[: ask.k]


RULE = Rule(keep=keep, says="the {k} longest right responses", needs=("k",))
