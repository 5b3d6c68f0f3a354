"""Any ``k`` right responses, by draw (the paper's control of Top-k, table 2)."""

from collections.abc import Sequence

from mstar.core.draws import priority
from mstar.core.records import Scored
from mstar.core.rules import Ask, Rule


def keep(right: Sequence[Scored], ask: Ask) -> Sequence[Scored]:
    """The ``k`` of the lowest priority."""
    return sorted(right, key=lambda item: priority(item.response, ask.seed, "query"))[: ask.k]


RULE = Rule(keep=keep, says="{k} right responses at random", needs=("k",))
