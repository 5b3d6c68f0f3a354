"""The process reward model as a verifier: which of a query's responses to believe (paper, sections 3.3 and 4.1).

Each function takes the responses to one query and returns the one that stands for the winning answer, so that its
``grade`` says whether the vote was right and its ``grade.answer`` is a pseudo-label. Answers count together when
``canonical_answer`` makes them equal, or whatever other ``name`` is given. A response without an answer wins only when
none has one. Ties go to whichever came first. All raise ``ValueError`` for no responses.
"""

from collections.abc import Callable, Sequence
from math import fsum

from mstar.core.answers import canonical_answer
from mstar.core.records import Scored
from mstar.core.reward import process_reward

Namer = Callable[[str, Sequence[str]], str]
"""The one text of all answers to a query that are the same, given an answer and the query's options."""


def best_of_n(scored: Sequence[Scored]) -> Scored:
    """The response of the highest process reward. Raises ``ValueError`` when one has no finite step scores."""
    return max(_candidates(scored), key=lambda item: process_reward(item.step_scores))


def weighted_vote(
    scored: Sequence[Scored], options: Sequence[str] = (), name: Namer = canonical_answer
) -> Scored:
    """The first response of the answer whose process rewards sum to the most.

    Raises ``ValueError`` when a response has no finite step scores.
    """
    return _vote(scored, options, name, lambda item: process_reward(item.step_scores))


def majority_vote(
    scored: Sequence[Scored], options: Sequence[str] = (), name: Namer = canonical_answer
) -> Scored:
    """The first response of the most frequent answer."""
    return _vote(scored, options, name, lambda _: 1.0)


def _vote(
    scored: Sequence[Scored],
    options: Sequence[str],
    name: Namer,
    weight: Callable[[Scored], float],
) -> Scored:
    groups: dict[str, list[Scored]] = {}
    for item in _candidates(scored):
        answer = item.grade.answer
        groups.setdefault("" if answer is None else name(answer, options), []).append(item)
    # fsum, because a sum that depends on the order of its terms would break ties by rounding.
    return max(groups.values(), key=lambda group: fsum(map(weight, group)))[0]


def _candidates(scored: Sequence[Scored]) -> Sequence[Scored]:
    if not scored:
        raise ValueError("no responses to choose from")
    return [item for item in scored if item.grade.answer is not None] or scored
