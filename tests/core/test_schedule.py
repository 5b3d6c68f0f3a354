from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mstar.core.schedule import (
    interval_count,
    rate_share,
    schedule,
    slice_indices,
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
        (4800, 1 / 3, 1600),
        (750, 0.25, 187),
        (3, 0.1, 1),
    ],
)
def test_an_interval_is_a_share_of_the_queries(total, interval, count):
    assert interval_count(total, interval) == count


@pytest.mark.parametrize("interval", [0, -0.5, 1.01, 0.3, 0.29, 0.75, float("nan")])
def test_an_interval_that_does_not_tile_is_refused(interval):
    with pytest.raises(ValueError, match="does not tile"):
        interval_count(100, interval)
    with pytest.raises(ValueError, match="not possible"):
        interval_count(0, 1)


def plan(**changes):
    """Turns of a run that inherits everything."""
    usual = {"weights": lambda t: t - 1, "optimizer": lambda t: t - 1 or None}
    return schedule(**{"iterations": 4, "interval": 0.25, "labeled": 40} | usual | changes)


def visits(turns, total, shuffle, what="labeled"):
    """How often each query of a split is taken."""
    taken: Counter[int] = Counter()
    for turn in turns:
        if stretch := getattr(turn, what):
            taken.update(slice_indices(total, stretch.start, stretch.count, shuffle))
    return [taken[index] for index in range(total)]


@given(st.integers(1, 16), st.integers(1, 6), st.integers(1, 4), SHUFFLES)
def test_over_whole_passes_each_labeled_query_is_visited_equally_often(
    parts, size, passes, shuffle
):
    total = parts * size
    turns = plan(iterations=passes * parts, interval=1 / parts, labeled=total)
    assert visits(turns, total, shuffle) == [passes] * total


@given(st.integers(1, 16), st.integers(1, 100), st.integers(1, 40), SHUFFLES)
def test_intervals_tile_the_data(parts, total, iterations, shuffle):
    turns = plan(iterations=iterations, interval=1 / parts, labeled=total)
    count = max(1, total // parts)
    passed: set[int] = set()
    for turn in turns:
        indices = slice_indices(total, turn.labeled.start, turn.labeled.count, shuffle)
        assert len(set(indices)) == len(indices) == count
        if (turn.number - 1) % (total // count) == 0:
            passed = set()
        assert not passed & set(indices)
        passed |= set(indices)
        assert turn.labeled.start % total + count <= total


AFTER = st.sampled_from([0.0, 0.25, 0.5, 0.75])


@given(st.sampled_from([1, 2, 4, 8, 16]), st.integers(1, 4), st.integers(1, 3), AFTER, SHUFFLES)
def test_mixed_iterations_take_as_many_queries_half_of_them_unlabeled(
    parts, size, passes, after, shuffle
):
    total = parts * 2 * size
    turns = plan(
        iterations=passes * parts,
        interval=1 / parts,
        labeled=total,
        unlabeled=total,
        after=after,
    )
    for turn in turns:
        extra = turn.unlabeled.count if turn.unlabeled else 0
        assert turn.labeled.count + extra == 2 * size
        assert extra == (size if (turn.number - 1) / len(turns) >= after else 0)
    for what in ("labeled", "unlabeled"):
        often = visits(turns, total, shuffle, what)
        assert max(often) - min(often) <= 1


def test_unlabeled_queries_enter_once_their_share_of_training_is_over():
    entered = {
        after: [turn.number for turn in plan(unlabeled=40, after=after) if turn.unlabeled]
        for after in (0.0, 0.25, 0.5, 0.75, 0.8)
    }
    assert entered == {0.0: [1, 2, 3, 4], 0.25: [2, 3, 4], 0.5: [3, 4], 0.75: [4], 0.8: []}


@pytest.mark.parametrize(("labeled", "unlabeled"), [(40, 4), (4, 40), (40, 0)])
def test_too_few_queries_to_mix_are_refused(labeled, unlabeled):
    with pytest.raises(ValueError, match="a mixed iteration takes"):
        plan(labeled=labeled, unlabeled=unlabeled, after=0.0)


def test_the_rate_is_one_linear_warm_up_and_then_constant():
    assert [rate_share(step, 4) for step in range(6)] == [0.25, 0.5, 0.75, 1.0, 1.0, 1.0]
    assert rate_share(0, 0) == 1.0
