import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mstar.core.metrics import (
    area_under_curve,
    bootstrap_interval,
    mean,
    mean_pass_at_k,
    mean_squared_error,
    pass_at_k,
    reward_pass_at_k,
    wilson_interval,
)
from tests.core.making import groups, scored


@pytest.mark.parametrize("samples", range(1, 9))
def test_pass_at_k_is_the_share_of_all_draws_that_hold_a_right_one(samples):
    for correct, k in itertools.product(range(samples + 1), range(1, samples + 1)):
        draws = list(itertools.combinations([i < correct for i in range(samples)], k))
        assert math.isclose(pass_at_k(samples, correct, k), sum(map(any, draws)) / len(draws))


def test_pass_at_k_is_stable_for_many_samples():
    assert pass_at_k(100_000, 1, 1) == 1e-5
    assert pass_at_k(10_000, 5_000, 5_001) == 1.0
    assert 0 < pass_at_k(10**6, 1, 2) < 1e-5


@pytest.mark.parametrize(
    ("samples", "correct", "k"), [(4, 1, 5), (4, 5, 1), (4, -1, 1), (4, 1, 0), (0, 0, 1)]
)
def test_pass_at_k_beyond_its_samples_is_refused(samples, correct, k):
    with pytest.raises(ValueError, match="not defined"):
        pass_at_k(samples, correct, k)


def test_pass_at_k_is_averaged_over_queries():
    assert mean_pass_at_k([(4, 4), (4, 0), (4, 1), (4, 2)], 2) == pytest.approx(
        (1 + 0 + 1 / 2 + 5 / 6) / 4
    )


@given(groups(min_size=1), st.integers(1, 12))
def test_reward_pass_lies_between_best_of_n_and_pass(group, k):
    ranked = sorted(group, key=lambda item: (-min(item.step_scores), item.response.sample))
    assert reward_pass_at_k(group, k) == any(item.grade.correct for item in ranked[:k])
    assert reward_pass_at_k(group, len(group)) == any(item.grade.correct for item in group)


def test_reward_pass_breaks_ties_by_sample():
    group = [scored(1, correct=True), scored(0)]
    assert not reward_pass_at_k(group, 1)
    assert reward_pass_at_k(group, 2)


@pytest.mark.parametrize(
    ("correct", "total", "low", "high"),
    [
        (0, 10, 0.0, 0.2775),
        (10, 10, 0.7225, 1.0),
        (5, 10, 0.2366, 0.7634),
        (1, 100, 0.0018, 0.0545),
        (0, 0, 0, 1),
    ],
)
def test_wilson_intervals_have_their_published_values(correct, total, low, high):
    assert wilson_interval(correct, total) == pytest.approx((low, high), abs=5e-5)


@given(st.integers(0, 2000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_intervals_hold_the_share(counts):
    low, high = wilson_interval(*counts)
    share = counts[0] / counts[1] if counts[1] else 0.5
    assert 0 <= low <= share <= high <= 1


def test_bootstrap_intervals_hold_the_mean_and_follow_the_seed():
    values = [float(index % 3 == 0) for index in range(300)]
    low, high = bootstrap_interval(values, seed=1, resamples=400)
    assert low < mean(values) < high
    assert (low, high) == bootstrap_interval(values, seed=1, resamples=400)
    assert (low, high) != bootstrap_interval(values, seed=2, resamples=400)
    # On a share, it should say about what Wilson says.
    assert (low, high) == pytest.approx(wilson_interval(100, 300), abs=0.02)


def test_bootstrap_intervals_of_a_constant_are_that_constant():
    assert bootstrap_interval([0.25] * 7, seed=0, resamples=20) == (0.25, 0.25)
    assert bootstrap_interval([0.25], seed=0, resamples=1) == (0.25, 0.25)


def test_squared_error_is_averaged():
    assert mean_squared_error([0.0, 0.5, 1.0], [0.0, 1.0, 0.0]) == pytest.approx(1.25 / 3)


@given(st.lists(st.tuples(st.integers(0, 5), st.booleans()), max_size=12))
def test_area_under_the_curve_counts_pairs(items):
    scores, positive = [float(s) for s, _ in items], [p for _, p in items]
    pairs = [(a > b) + (a == b) / 2 for a, p in items for b, q in items if p and not q]
    area = area_under_curve(scores, positive)
    assert area == (pytest.approx(sum(pairs) / len(pairs)) if pairs else None)


def test_statistics_of_nothing_are_refused():
    for statistic in (
        lambda: mean([]),
        lambda: mean_squared_error([], []),
        lambda: reward_pass_at_k([], 2),
    ):
        with pytest.raises(ValueError, match="not defined"):
            statistic()
    with pytest.raises(ValueError, match="no interval"):
        bootstrap_interval([], seed=0)
    with pytest.raises(ValueError, match="no interval"):
        wilson_interval(2, 1)
