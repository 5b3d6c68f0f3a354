"""Numbers that are not known well."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mstar.estimate.ranges import Range, total

POSITIVE = st.floats(0.001, 1e9)
RANGES = st.tuples(POSITIVE, POSITIVE).map(lambda ends: Range(min(ends), max(ends)))


def test_sums_and_products_are_of_equal_ends():
    assert Range(1, 2) + Range(10, 20) == Range(11, 22)
    assert Range(1, 2) * Range(10, 20) == Range(10, 40)
    assert Range(1, 2) * 3 + 1 == Range(4, 7)
    assert total([Range(1, 2), Range(3, 4)]) == Range(4, 6)


def test_a_quotient_is_least_over_most():
    assert Range(1, 4) / Range(2, 4) == Range(0.25, 2)


@given(RANGES, RANGES)
def test_whatever_is_computed_the_low_end_stays_below(one, other):
    for found in (one + other, one * other, one / other, one.least(other), one.most(other)):
        assert found.low <= found.high


@given(RANGES, RANGES)
def test_the_middle_lies_inside(one, other):
    assert one.low * (1 - 1e-9) <= one.middle <= one.high * (1 + 1e-9)


@pytest.mark.parametrize("ends", [(2, 1), (-1, 1), (0, float("inf")), (float("nan"), 1)])
def test_what_is_no_range_is_a_defect(ends):
    with pytest.raises(ValueError, match="no range"):
        Range(*ends)
