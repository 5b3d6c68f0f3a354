"""Pseudo-labels for queries without an answer: weighted voting, and conflicting responses are wrong (section 3.4)."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from mstar.core.answers import canonical_answer
from mstar.core.records import Scored
from mstar.core.voting import Namer, weighted_vote


@dataclass(frozen=True, slots=True, kw_only=True)
class Voted:
    """The responses to one query, graded by the vote and no longer by the true answer.

    ``label`` is the winning answer, None when no response gave one. ``true``: whether the winner was graded right by
    the answer that the vote did not see, which says how far to trust it and decides nothing.
    """

    label: str | None
    true: bool
    responses: tuple[Scored, ...]


def vote_label(
    scored: Sequence[Scored], options: Sequence[str] = (), name: Namer = canonical_answer
) -> Voted:
    """One query's pseudo-label, and its responses graded by whether they agree with it: have the same ``name``.

    Only responses with step scores vote, and only they can agree: one without any token has no step to judge. Raises
    ``ValueError`` when a step score is not finite.
    """
    judged = [item for item in scored if item.step_scores]
    winner = weighted_vote(judged, options, name) if judged else None
    label = winner.grade.answer if winner else None
    wanted = None if label is None else name(label, options)

    def agrees(item: Scored) -> bool:
        answer = item.grade.answer
        if wanted is None or answer is None or not item.step_scores:
            return False
        return name(answer, options) == wanted

    return Voted(
        label=label,
        true=bool(label is not None and winner and winner.grade.correct),
        responses=tuple(
            replace(item, grade=replace(item.grade, correct=agrees(item))) for item in scored
        ),
    )
