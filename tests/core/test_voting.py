import pytest
from hypothesis import given
from hypothesis import strategies as st

from mstar.core.answers import canonical_answer
from mstar.core.reward import process_reward
from mstar.core.voting import best_of_n, majority_vote, weighted_vote
from tests.core.making import groups, scored

VOTES = st.sampled_from([best_of_n, weighted_vote, majority_vote])


@given(VOTES, groups(min_size=1))
def test_a_response_without_an_answer_wins_only_when_none_has_one(vote, group):
    winner = vote(group)
    assert winner in group
    answered = any(item.grade.answer is not None for item in group)
    assert (winner.grade.answer is not None) == answered


@given(groups(min_size=1))
def test_best_of_n_has_the_highest_reward_of_those_that_answered(group):
    answered = [item for item in group if item.grade.answer is not None] or group
    best = process_reward(best_of_n(group).step_scores)
    assert best == max(process_reward(item.step_scores) for item in answered)


@given(groups(min_size=1), st.booleans())
def test_votes_go_to_the_answer_of_most_weight_first_seen_first(group, weighted):
    weights: dict[str, float] = {}
    for item in group:
        if item.grade.answer is not None:
            answer = canonical_answer(item.grade.answer)
            weight = process_reward(item.step_scores) if weighted else 1
            weights[answer] = weights.get(answer, 0) + weight
    winner = (weighted_vote if weighted else majority_vote)(group)
    if weights:
        # Scores are multiples of 1/4 here, so the sums above are exact and ties are real ties.
        first_best = max(weights, key=weights.__getitem__)
        assert canonical_answer(winner.grade.answer or "") == first_best
        first = next(
            i for i in group if i.grade.answer and canonical_answer(i.grade.answer) == first_best
        )
        assert winner is first


def test_answers_count_together_when_they_are_equal():
    group = [scored(0, answer="3"), scored(1, answer="1/2"), scored(2, answer="0.50")]
    assert majority_vote(group).response.sample == 1


def test_letters_and_texts_of_options_count_together():
    group = [scored(0, answer="B"), scored(1, answer="A"), scored(2, answer="7")]
    assert majority_vote(group, ("7", "9")).response.sample == 1
    assert majority_vote(group).response.sample == 0


def test_weights_overrule_numbers():
    group = [scored(0, answer="1", scores=(0.1,)), scored(1, answer="1", scores=(0.2, 0.9))]
    group.append(scored(2, answer="2", scores=(0.4,)))
    assert majority_vote(group).grade.answer == "1"
    assert weighted_vote(group).grade.answer == "2"


@pytest.mark.parametrize("vote", [best_of_n, weighted_vote, majority_vote])
def test_no_responses_are_refused(vote):
    with pytest.raises(ValueError, match="no responses"):
        vote([])
