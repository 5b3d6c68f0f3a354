"""Selection rules: ``H`` of the paper's ``R = H(1(correct) * R_p)`` (section 3.3), one module a rule.

A module's name is the rule's name in a spec, and the module defines ``RULE``; nothing else lists it. A rule chooses
among the right responses to one query, which it is given by sample index.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache

from mstar.core.records import Scored
from mstar.core.registry import modules_of, named
from mstar.core.reward import process_reward
from mstar.core.steps import split_steps


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """What a rule is asked with: the spec's parameters, and the seed of every draw."""

    k: int
    alpha: float
    seed: int
    separator: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One way to choose.

    ``keep`` gives a part of the right responses, in any order. ``says`` is a title for people, with the names of
    parameters in braces. ``needs`` names the parameters (``k``, ``alpha``) that the rule has no meaning without,
    ``tuned`` those of them which validation can choose when a spec leaves them out. ``by_prm``: whether it asks for
    step scores.
    """

    keep: Callable[[Sequence[Scored], Ask], Sequence[Scored]]
    says: str
    needs: tuple[str, ...] = ()
    tuned: tuple[str, ...] = ()
    by_prm: bool = False


@cache
def rules() -> dict[str, Rule]:
    """All rules by name."""
    return modules_of(__name__, "RULE", Rule)


def find_rule(name: str) -> Rule:
    """The rule called ``name``; ``ValueError`` when there is none, naming those there are."""
    return named(rules(), name, "selection rule")


def length(item: Scored, separator: str) -> tuple[int, int]:
    """Steps of a response, then its tokens."""
    return len(split_steps(item.response.text, separator)), item.response.token_count


def ranking(item: Scored) -> float:
    """The process reward. Raises ``ValueError`` that names the response when it has no finite step scores."""
    try:
        return process_reward(item.step_scores)
    except ValueError as error:
        response = item.response
        raise ValueError(f"query {response.query_id}, sample {response.sample}: {error}") from None
