import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mstar.core.records import Grade
from mstar.core.reward import process_reward, reward

FINITE = st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1)


@given(FINITE)
def test_the_process_reward_is_the_lowest_step_score(scores):
    assert process_reward(scores) in scores
    assert all(process_reward(scores) <= score for score in scores)


@given(FINITE)
def test_a_wrong_response_has_no_reward_and_a_right_one_its_process_reward(scores):
    assert reward(Grade(answer="1", correct=False), scores) == 0
    assert reward(Grade(answer="1", correct=True), scores) == process_reward(scores)


@pytest.mark.parametrize("scores", [(), (math.nan,), (0.5, math.nan), (math.inf, 0.5)])
def test_missing_and_non_finite_scores_are_refused(scores):
    with pytest.raises(ValueError, match="step scores"):
        process_reward(scores)
