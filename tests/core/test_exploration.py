import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mstar.core.exploration import choose_temperature, temperature_grid

PAPER = [0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.1, 1.2, 1.3, 1.4, 1.5, 1.6]


def test_the_papers_grid_has_no_drift():
    assert temperature_grid(0.3, 1.6, 0.1) == PAPER


def test_a_grid_stops_at_or_below_its_end():
    assert temperature_grid(0.5, 1.2, 0.3) == [0.5, 0.8, 1.1]
    assert temperature_grid(1.0, 1.0, 0.1) == [1.0]
    assert temperature_grid(1, 3, 1) == [1.0, 2.0, 3.0]


@pytest.mark.parametrize(
    ("low", "high", "step"),
    [
        (1.0, 0.5, 0.1),
        (0.3, 1.6, 0.0),
        (0.3, 1.6, -0.1),
        (0.3, math.inf, 0.1),
        (math.nan, 1, 0.1),
        (0, 1, 1e-9),
    ],
)
def test_an_impossible_grid_is_refused(low, high, step):
    with pytest.raises(ValueError, match="temperatures from"):
        temperature_grid(low, high, step)


@given(
    st.lists(st.tuples(st.sampled_from(PAPER), st.sampled_from([0.5, 0.6, 0.7])), min_size=1),
    st.sampled_from(PAPER),
)
def test_the_chosen_temperature_is_measured_and_none_is_better(points, current):
    chosen = choose_temperature(points, current)
    best = max(found for _, found in points)
    assert (chosen, best) in points
    assert choose_temperature(points[::-1], current) == chosen
    assert all(
        abs(t - current) > abs(chosen - current) - 1e-9 for t, found in points if found == best
    )


def test_of_equal_temperatures_the_nearest_wins_then_the_lower():
    assert choose_temperature([(t, 0.5) for t in PAPER], 0.8) == 0.8
    for current in PAPER[1:-1]:
        sides = [(round(current + 0.1, 1), 0.5), (round(current - 0.1, 1), 0.5)]
        assert choose_temperature(sides, current) == round(current - 0.1, 1)


def test_a_choice_without_numbers_is_refused():
    with pytest.raises(ValueError, match="no temperature"):
        choose_temperature([], 1.0)
    with pytest.raises(ValueError, match="not a number"):
        choose_temperature([(1.0, math.nan)], 1.0)
