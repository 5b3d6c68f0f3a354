"""Pseudo-labels: what the vote decides, and that it never sees the true answer."""

from dataclasses import replace

from hypothesis import given

from mstar.core.answers import canonical_answer
from mstar.core.pseudo import vote_label
from tests.core.making import groups, scored


def test_the_heavier_answer_wins_and_conflicting_responses_are_wrong():
    group = [
        scored(0, answer="7", scores=(0.9,)),
        scored(1, answer="8", scores=(0.5,), correct=True),
        scored(2, answer="8.0", scores=(0.5,), correct=True),
        scored(3, answer=None, scores=(1.0,)),
    ]
    voted = vote_label(group)
    assert voted.label == "8"
    assert voted.true
    assert [item.grade.correct for item in voted.responses] == [False, True, True, False]


@given(groups())
def test_true_answers_decide_nothing(group):
    flipped = [
        replace(item, grade=replace(item.grade, correct=not item.grade.correct)) for item in group
    ]
    one, other = vote_label(group), vote_label(flipped)
    assert one.label == other.label
    assert one.responses == other.responses


@given(groups())
def test_right_is_exactly_what_agrees_with_the_label(group):
    voted = vote_label(group)
    for item, before in zip(voted.responses, group, strict=True):
        assert item.response == before.response
        answer = before.grade.answer
        if voted.label is None or answer is None:
            assert not item.grade.correct
        else:
            same = canonical_answer(answer) == canonical_answer(voted.label)
            assert item.grade.correct == same


def test_without_answers_or_scores_nothing_is_right():
    nothing = [scored(0, answer=None), scored(1, answer="3", scores=(), correct=True)]
    voted = vote_label(nothing)
    assert (voted.label, voted.true) == (None, False)
    assert not any(item.grade.correct for item in voted.responses)
    assert vote_label([]).responses == ()
