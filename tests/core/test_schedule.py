import pytest
from hypothesis import given
from hypothesis import strategies as st

from mstar.core.schedule import (
    interval_count,
    iteration_slice,
    planned_steps,
    slice_indices,
    warmup_steps,
)

TOTALS = st.integers(1, 30)
SHUFFLES = st.none() | st.integers(0, 5)


@given(TOTALS, SHUFFLES, st.integers(0, 5))
def test_every_pass_is_a_permutation(total, shuffle, number):
    order = slice_indices(total, number * total, total, shuffle)
    assert sorted(order) == list(range(total))
    if shuffle is None:
        assert order == list(range(total))


@given(TOTALS, SHUFFLES, st.lists(st.integers(0, 40), max_size=5), st.integers(0, 60))
def test_slices_join_to_the_stream(total, shuffle, counts, start):
    joined, place = [], start
    for count in counts:
        joined += slice_indices(total, place, count, shuffle)
        place += count
    assert joined == slice_indices(total, start, sum(counts), shuffle)


@given(TOTALS, SHUFFLES, st.integers(0, 60))
def test_without_a_count_a_slice_goes_to_the_end_of_its_pass(total, shuffle, start):
    indices = slice_indices(total, start, None, shuffle)
    assert len(set(indices)) == len(indices) == total - start % total
    assert indices == slice_indices(total, start, total - start % total, shuffle)


def test_passes_and_shuffles_differ():
    orders = {tuple(slice_indices(50, p * 50, 50, s)) for p in range(3) for s in range(3)}
    assert len(orders) == 9


def test_a_shuffle_never_changes_between_versions():
    assert slice_indices(8, 0, 8, 0) == [2, 0, 5, 3, 1, 4, 7, 6]


@pytest.mark.parametrize(("total", "start", "count"), [(0, 0, None), (5, -1, None), (5, 0, -1)])
def test_an_impossible_slice_is_refused(total, start, count):
    with pytest.raises(ValueError, match="no slice"):
        slice_indices(total, start, count)


@pytest.mark.parametrize(
    ("total", "interval", "count"),
    [
        (180_000, 1, 180_000),
        (180_000, 0.25, 45_000),
        (180_000, 0.0625, 11_250),
        (100, 0.29, 29),
        (750, 0.25, 187),
        (3, 0.1, 1),
    ],
)
def test_an_interval_is_a_share_of_the_queries(total, interval, count):
    assert interval_count(total, interval) == count


@pytest.mark.parametrize("interval", [0, -0.5, 1.01, float("nan")])
def test_an_impossible_interval_is_refused(interval):
    with pytest.raises(ValueError, match="not possible"):
        interval_count(100, interval)


@given(
    TOTALS.flatmap(lambda n: st.tuples(st.just(n), st.integers(1, n))), SHUFFLES, st.integers(1, 40)
)
def test_no_iteration_meets_a_query_twice_and_no_query_comes_twice_in_a_pass(
    sizes, shuffle, iterations
):
    total, count = sizes
    passed: list[int] = []
    for iteration in range(1, iterations + 1):
        indices = slice_indices(total, *iteration_slice(iteration, count, total), shuffle)
        assert len(set(indices)) == len(indices) == count
        if (iteration - 1) % (total // count) == 0:
            passed = []
        passed += indices
        assert len(set(passed)) == len(passed)


def test_training_steps_are_counted_to_the_last_batch():
    assert planned_steps(256, 128) == 2
    assert planned_steps(257, 128, epochs=2) == 6
    assert planned_steps(0, 128) == 0


def test_warm_up_is_a_share_of_the_planned_steps():
    assert warmup_steps(0.1, 10_000) == 1000
    assert warmup_steps(0.1, 30) == 3
    assert warmup_steps(0.1, 31) == 4
    assert warmup_steps(0.0, 10_000) == 0
