"""What goes wrong around a run: a store that fails, a lease that is lost, a step that hangs, a history that lies."""

import dataclasses
import itertools
import json

import pytest

from mstar.controller.loop import Clock, Controller
from mstar.controller.status import LEASE_SECONDS, Phase, overview, read_status
from mstar.errors import ConflictError, IntegrityError, NotFound, StepFailed, StorageError
from mstar.executors.fake import FakeExecutor
from mstar.history import load_history, load_run, run_names
from mstar.recipe import planned_steps
from mstar.storage import keys
from mstar.storage.lease import acquire, this_process
from mstar.storage.memory import MemoryStore
from tests.controller.test_controller import Silent, advance, history
from tests.runs import committing, small_spec, stored_run


class FullStore(MemoryStore):
    """A store that can hold nothing more from its ``n``-th write on."""

    def __init__(self):
        super().__init__()
        self.left: int | None = None

    def _look(self):
        if self.left is not None:
            self.left -= 1
            if self.left < 0:
                raise StorageError("the disk is full. Free some space there")

    def put(self, key, data):
        self._look()
        super().put(key, data)

    def create(self, key, data):
        self._look()
        return super().create(key, data)


class Time:
    """A clock that a test moves."""

    def __init__(self):
        self.seconds = 1_000_000.0

    def __call__(self):
        return self.seconds


@pytest.fixture
def store():
    return MemoryStore()


def controller(store, run, executor, **more):
    return Controller(store, executor, run, Silent(), identity=this_process(), **more)


def test_a_store_that_fills_up_at_any_write_ends_the_run_in_one_message_and_loses_nothing():
    whole = MemoryStore()
    advance(whole, small_spec())
    for fails_at in itertools.count(0, 7):
        store = FullStore()
        run = stored_run(store, small_spec())
        store.left = fails_at
        failure = None
        try:
            controller(store, run, FakeExecutor(committing(store))).advance()
        except (StorageError, StepFailed) as error:
            failure = str(error)
        store.left = None
        kept = history(store, "small")
        # Later, for the lease could not be given back.
        clock = Clock(now=lambda: 2e9, elapsed=lambda: 0.0)
        controller(store, run, FakeExecutor(committing(store)), clock=clock).advance()
        assert history(store, "small")[: len(kept)] == kept
        assert history(store, "small") == history(whole, "small")
        if failure is None:
            break
        assert "the disk is full" in failure


def test_a_controller_that_slept_through_its_lease_leaves_the_run_to_the_one_that_took_over(store):
    run = stored_run(store, small_spec())
    clock = Time()
    commit = committing(store)

    def sleeps(job):
        clock.seconds += 2 * LEASE_SECONDS
        acquire(store, "small", clock=clock, identity=this_process("next"), ttl=LEASE_SECONDS)
        commit(job)

    with pytest.raises(ConflictError, match="controller next"):
        controller(
            store, run, FakeExecutor(sleeps), clock=Clock(now=clock, elapsed=clock)
        ).advance()
    status = read_status(store, "small")
    assert status is not None
    assert status.phase is Phase.RUNNING  # it is the other one's to say how the run is doing
    assert history(store, "small") == []


def test_a_step_that_hangs_is_stopped_after_its_time_and_tried_again(store):
    spec = small_spec(limits={"step_seconds": 60, "attempts": 2})
    run = stored_run(store, spec)
    clock = Time()
    commit = committing(store)

    class Hanging(FakeExecutor):
        def wait(self, name, seconds):
            if name.endswith("-1"):
                clock.seconds += 9  # within the lease, which is kept meanwhile
            else:
                super().wait(name, seconds)

    executor = Hanging(commit)
    found = controller(store, run, executor, clock=Clock(now=clock, elapsed=clock))
    found.advance()
    assert len(executor.submitted) == 2 * planned_steps(spec)
    assert set(found.reporter.reasons) == {"it ran longer than limits.step_seconds = 60"}


def test_a_store_s_history_with_a_hole_or_a_damaged_entry_is_refused(store):
    advance(store, small_spec())
    third = list(store.list(f"{keys.run('small')}/history"))[2]
    good = store.get(third)
    store.put(third, good[:-20])
    with pytest.raises(IntegrityError, match="damaged"):
        load_history(store, "small")
    store.put(third, b"{}")
    with pytest.raises(IntegrityError, match="not a history entry"):
        load_history(store, "small")
    store.delete(third)
    with pytest.raises(IntegrityError, match="expected step 2"):
        load_history(store, "small")


def test_a_manifest_made_again_or_of_another_task_is_refused_on_resuming(store):
    advance(store, small_spec())
    first, second = load_history(store, "small")[:2]
    key, other = (keys.manifest("step", entry.ref.id) for entry in (first, second))
    good = store.get(key)
    store.put(key, store.get(other))
    with pytest.raises(IntegrityError, match="from another run or task"):
        advance(store, small_spec())
    store.put(key, good)
    executor, _ = advance(store, small_spec())
    assert executor.submitted == []


def test_a_history_of_another_spec_is_refused_on_resuming(store):
    advance(store, small_spec())
    run = dataclasses.replace(stored_run(store, small_spec()), spec=small_spec(seed=1))
    with pytest.raises(IntegrityError, match="another spec"):
        controller(store, run, FakeExecutor(committing(store))).advance()


def test_a_run_is_read_back_as_it_was_stored_and_unknown_ones_are_named(store):
    run = stored_run(store, small_spec())
    assert load_run(store, "small") == run
    assert run_names(store) == ["small"]
    with pytest.raises(NotFound, match="runs there: small"):
        load_run(store, "large")
    store.put(keys.spec("small"), json.dumps({"spec": {}}).encode())
    with pytest.raises(IntegrityError, match="is not a run's record"):
        load_run(store, "small")


def test_a_running_status_without_a_living_controller_says_how_to_go_on(store):
    stored_run(store, small_spec())

    def dies(job):
        raise SystemExit

    with pytest.raises(SystemExit):
        advance(store, small_spec(), dies)
    found = overview(store, "small", now=0)
    assert found.status.phase is Phase.STOPPED
    assert "mstarctl resume small" in found.status.why
    assert found.controller == "none"
