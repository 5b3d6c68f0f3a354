"""Training methods: the paper's table 1, and what each makes of the schedule and of the learning rate."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mstar.core.schedule import rate_share, schedule
from mstar.methods import find_method, methods

STEPS = st.lists(st.integers(1, 30), min_size=1, max_size=8)


def begins(name, iterations=3):
    """For each iteration: whose weights it starts from, and whose optimizer goes on."""
    how = methods()[name]
    return [(how.weights(t), how.optimizer(t)) for t in range(1, iterations + 1)]


def rates(name, steps, warmup):
    """The share of the learning rate at each optimizer step of a run, iteration after iteration."""
    how = methods()[name]
    turns = schedule(
        iterations=len(steps),
        interval=1,
        labeled=1,
        weights=how.weights,
        optimizer=how.optimizer,
    )
    counter = {0: 0}
    found = []
    for turn, count in zip(turns, steps, strict=True):
        start = 0 if turn.optimizer is None else counter[turn.optimizer]
        counter[turn.number] = start + count
        found.append([rate_share(step, warmup) for step in range(start, start + count)])
    return found


def test_the_paper_s_methods_begin_an_iteration_as_its_table_says():
    assert begins("iterative_rft") == [(0, None), (1, None), (2, None)]
    assert begins("rest_em") == [(0, None), (0, None), (0, None)]
    assert begins("continuous") == [(0, None), (1, 1), (2, 2)]
    assert methods()["sft"].learns_from == "answers"


@pytest.mark.parametrize("name", sorted(methods()))
def test_a_method_goes_on_only_from_what_is_there(name):
    for iteration, (weights, optimizer) in enumerate(begins(name, 20), 1):
        assert 0 <= weights < iteration
        assert optimizer is None or 0 < optimizer < iteration


@given(STEPS, st.integers(0, 60))
def test_a_continuous_run_has_one_warm_up_and_then_a_constant_rate(steps, warmup):
    flat = [rate for iteration in rates("continuous", steps, warmup) for rate in iteration]
    assert flat == [min(1.0, (step + 1) / max(1, warmup)) for step in range(sum(steps))]


@pytest.mark.parametrize("name", ["iterative_rft", "rest_em"])
@given(steps=STEPS, warmup=st.integers(0, 60))
def test_a_method_that_restarts_warms_up_in_every_iteration(name, steps, warmup):
    for iteration in rates(name, steps, warmup):
        assert iteration == [
            min(1.0, (step + 1) / max(1, warmup)) for step in range(len(iteration))
        ]


def test_an_unknown_method_is_refused_with_the_nearest():
    with pytest.raises(ValueError, match="did you mean 'rest_em'"):
        find_method("rest-em")
