"""Every transition of a run, as a table and as properties."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mstar.controller.decide import Finish, Patience, Record, Seen, Stop, Submit, Wait, decide
from mstar.errors import Cancelled, StepFailed
from mstar.executors.base import ABSENT, Observation, State

RUNNING = Observation(state=State.RUNNING)
SUCCEEDED = Observation(state=State.SUCCEEDED)
PASSING = Observation(state=State.FAILED, message="lost", exit_code=13, retriable=True)
LASTING = Observation(state=State.FAILED, message="bad image", exit_code=4)


def seen(**changes: Any) -> Seen:
    usual: dict[str, Any] = {
        "step": "iter-01/train",
        "committed": False,
        "job": ABSENT,
        "attempts": 0,
        "seconds": 0.0,
        "cancelled": False,
    }
    return Seen(**(usual | changes))


@pytest.mark.parametrize(
    ("changes", "action"),
    [
        ({"step": None}, Finish()),
        ({"committed": True}, Record()),
        ({"committed": True, "job": LASTING, "attempts": 1}, Record()),
        ({"committed": True, "cancelled": True}, Record()),
        ({}, Submit(1)),
        ({"attempts": 1, "job": RUNNING}, Wait()),
        ({"attempts": 1, "job": PASSING}, Submit(2, "lost")),
        ({"attempts": 1, "job": ABSENT}, Submit(2, "its process is gone")),
        ({"attempts": 1, "job": SUCCEEDED}, Submit(2, "it ended without committing anything")),
    ],
)
def test_what_is_seen_decides_what_is_done(changes, action):
    assert decide(seen(**changes), Patience(attempts=3, step_seconds=None)) == action


def test_a_lasting_failure_stops_the_run_with_its_own_exit_code():
    action = decide(seen(attempts=1, job=LASTING), Patience(attempts=3, step_seconds=None))
    assert action == Stop("step iter-01/train failed: bad image", 4)


def test_a_cancelled_run_stops_even_while_a_step_runs():
    action = decide(
        seen(attempts=1, job=RUNNING, cancelled=True), Patience(attempts=3, step_seconds=None)
    )
    assert isinstance(action, Stop)
    assert action.exit_code == Cancelled.exit_code


def test_a_step_beyond_its_time_is_tried_again_and_then_given_up():
    late = {"job": RUNNING, "seconds": 61.0}
    assert decide(seen(attempts=1, **late), Patience(attempts=2, step_seconds=60)) == Submit(
        2, "it ran longer than limits.step_seconds = 60"
    )
    action = decide(seen(attempts=2, **late), Patience(attempts=2, step_seconds=60))
    assert isinstance(action, Stop)
    assert action.exit_code == StepFailed.exit_code


SITUATIONS = st.builds(
    Seen,
    step=st.sampled_from([None, "base/test"]),
    committed=st.booleans(),
    job=st.sampled_from([ABSENT, RUNNING, SUCCEEDED, PASSING, LASTING]),
    attempts=st.integers(0, 5),
    seconds=st.floats(0, 1e6),
    cancelled=st.booleans(),
)


@given(SITUATIONS, st.integers(1, 5), st.none() | st.floats(1, 1e5))
def test_a_committed_step_is_never_submitted_and_attempts_stay_within_the_limit(
    situation, attempts, step_seconds
):
    action = decide(situation, Patience(attempts=attempts, step_seconds=step_seconds))
    if isinstance(action, Submit):
        assert not situation.committed
        assert not situation.cancelled
        assert situation.step is not None
        assert action.number == situation.attempts + 1 <= max(attempts, 1)
    if situation.step and situation.committed:
        assert action == Record()
