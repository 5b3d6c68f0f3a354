"""Intervals over few trainings and many questions: by hand, and by how often they hold the truth."""

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mstar.core.comparison import (
    crossed_estimate,
    interpolate,
    mean_estimate,
    paired_estimate,
    share_estimate,
    student_quantile,
)
from mstar.core.metrics import wilson_interval

TABLES = st.integers(2, 5).flatmap(
    lambda questions: st.lists(
        st.lists(st.booleans(), min_size=questions, max_size=questions), min_size=1, max_size=4
    )
)


@pytest.mark.parametrize(
    ("freedom", "quantile"),
    [(1, 12.7062), (2, 4.3027), (3, 3.1824), (5, 2.5706), (10, 2.2281), (30, 2.0423), (1000, 1.96)],
)
def test_student_quantiles_are_those_of_the_tables(freedom, quantile):
    assert student_quantile(freedom) == pytest.approx(quantile, abs=5e-4)


def test_the_interval_of_three_values_is_students():
    found = mean_estimate([0.5, 0.6, 0.7])
    half = 4.302653 * 0.1 / 3**0.5
    assert found.mean == pytest.approx(0.6)
    assert found.n == 3
    assert found.low == pytest.approx(0.6 - half)
    assert found.high == pytest.approx(0.6 + half)


def test_one_value_has_no_interval():
    assert mean_estimate([0.5]).low is None


def test_a_crossed_interval_by_hand():
    # Rows .75 and .25, columns .5 1 .5 0: what is left over is .25 in two of the eight squares, twice.
    values = [[1, 1, 1, 0], [0, 1, 0, 0]]
    found = crossed_estimate(values)
    assert found.high is not None
    rows, columns, grand = [0.75, 0.25], [0.5, 1.0, 0.5, 0.0], 0.5
    of_rows = ((0.25**2) * 2 / 1) / 2
    of_columns = (sum((c - grand) ** 2 for c in columns) / 3) / 4
    rest = sum(
        (values[i][j] - rows[i] - columns[j] + grand) ** 2 for i in range(2) for j in range(4)
    )
    variance = of_rows + of_columns - rest / 3 / 8
    freedom = int((of_rows + of_columns) ** 2 / (of_rows**2 / 1 + of_columns**2 / 3))
    half = student_quantile(freedom) * variance**0.5
    assert found.mean == grand
    assert found.high - found.mean == pytest.approx(half)


def test_one_training_has_wilsons_interval():
    found = share_estimate([[True] * 3 + [False] * 7])
    assert (found.low, found.high) == wilson_interval(3, 10)


def test_trainings_that_are_all_right_are_not_certain():
    found = share_estimate([[True] * 20] * 3)
    assert found.mean == found.high == 1
    assert found.low is not None
    assert found.low < 0.9


def test_the_difference_to_itself_is_none_and_other_questions_might_show_one():
    answers = [[True, False, True], [False, False, True]]
    found = paired_estimate(answers, answers)
    reach = wilson_interval(0, 3)[1]
    assert (found.mean, found.low, found.high) == (0, -reach, reach)


def test_pairing_by_question_narrows_the_difference_of_like_methods():
    random = Random(1)
    theirs = [[random.random() < 0.5 for _ in range(200)] for _ in range(3)]
    ours = [[right or random.random() < 0.1 for right in row] for row in theirs]
    paired = paired_estimate(ours, theirs)
    apart = share_estimate(ours)
    assert paired.low is not None
    assert paired.high is not None
    assert apart.low is not None
    assert apart.high is not None
    assert paired.low > 0
    assert paired.high - paired.low < apart.high - apart.low


@given(TABLES)
def test_an_interval_of_shares_holds_the_mean_and_stays_a_share(table):
    found = share_estimate(table)
    assert found.low is not None
    assert found.high is not None
    assert 0 <= found.low <= found.mean + 1e-12
    assert found.mean - 1e-12 <= found.high <= 1


@given(TABLES)
def test_the_order_of_trainings_and_of_questions_does_not_matter(table):
    turned = [list(reversed(row)) for row in reversed(table)]
    first, second = crossed_estimate(table), crossed_estimate(turned)
    assert first.low == pytest.approx(second.low)
    assert first.high == pytest.approx(second.high)


@given(TABLES)
def test_the_opposite_difference_has_the_opposite_interval(table):
    other = [[not right for right in row] for row in table]
    there, back = paired_estimate(table, other), paired_estimate(other, table)
    assert there.mean == pytest.approx(-back.mean)
    assert there.low is not None
    assert back.high is not None
    assert there.low == pytest.approx(-back.high)


def simulated(random, trainings, questions, of_training, of_question):
    """Right or wrong, where trainings differ in skill and questions in difficulty; the expected share is .5."""
    skills = [random.gauss(0, of_training) for _ in range(trainings)]
    hard = [random.gauss(0, of_question) for _ in range(questions)]
    return [[skill + level + random.gauss(0, 1) > 0 for level in hard] for skill in skills]


def covered(trainings, questions, of_training, of_question, times=300):
    random = Random(trainings)
    held = 0
    for _ in range(times):
        found = share_estimate(simulated(random, trainings, questions, of_training, of_question))
        assert found.low is not None
        assert found.high is not None
        held += found.low <= 0.5 <= found.high
    return held / times


@pytest.mark.parametrize(
    ("trainings", "of_training", "of_question"),
    [(2, 0.3, 1.0), (3, 0.0, 1.0), (3, 0.3, 1.0), (3, 1.0, 0.3), (6, 0.3, 1.0)],
)
def test_about_19_of_20_intervals_hold_the_truth(trainings, of_training, of_question):
    # Few trainings that differ much are not normal: a share is flat between 0 and 1.
    assert covered(trainings, 60, of_training, of_question) >= 0.87


def test_intervals_are_not_wider_than_they_need_be():
    assert covered(6, 60, 0.5, 0.5) <= 0.985


def test_the_variance_is_that_of_resampling_both_trainings_and_questions():
    random = Random(7)
    table = simulated(random, 12, 80, 0.7, 0.7)
    means = []
    for _ in range(400):
        rows = [random.randrange(12) for _ in range(12)]
        columns = [random.randrange(80) for _ in range(80)]
        means.append(sum(table[r][c] for r in rows for c in columns) / 960)
    grand = sum(means) / len(means)
    spread = (sum((mean - grand) ** 2 for mean in means) / len(means)) ** 0.5
    found = share_estimate(table)
    assert found.high is not None
    ours = (found.high - found.mean) / student_quantile(14)
    assert ours == pytest.approx(spread, rel=0.15)


def test_between_two_points_a_curve_is_a_line():
    curve = [(0.0, 0.2), (10.0, 0.4), (30.0, 0.5)]
    assert interpolate(curve, 5) == pytest.approx(0.3)
    assert interpolate(curve, 20) == pytest.approx(0.45)
    assert interpolate(curve, 30) == 0.5


@pytest.mark.parametrize("at", [-1, 31])
def test_outside_of_what_was_measured_a_curve_has_no_value(at):
    assert interpolate([(0.0, 0.2), (30.0, 0.5)], at) is None


@pytest.mark.parametrize("values", [[], [[]], [[1.0], [1.0, 0.0]]])
def test_trainings_without_common_questions_have_no_mean(values):
    with pytest.raises(ValueError, match="trainings"):
        crossed_estimate(values)
