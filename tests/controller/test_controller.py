"""A run goes on from whatever was committed, whoever was killed and whenever."""

import itertools
import time

import pytest

from mstar.controller.claim import claim
from mstar.controller.loop import Controller, request_cancel, withdraw_cancel
from mstar.controller.status import Phase, overview
from mstar.errors import Cancelled, ConflictError, DataError, StepFailed, StorageError
from mstar.executors.base import Job
from mstar.executors.fake import FakeExecutor
from mstar.history import forget_history, load_history
from mstar.recipe import planned_steps
from mstar.storage import keys
from mstar.storage.lease import acquire, this_process
from mstar.storage.memory import MemoryStore
from tests.runs import INPUTS, committing, small_spec, stored_run


class Silent:
    """A reporter that keeps what it was told."""

    def __init__(self):
        self.reasons: list[str] = []
        self.names: list[str] = []

    def started(self, step, index, planned, attempt, reason):
        self.reasons += [reason] if reason else []

    def progress(self, step, observation):
        pass

    def finished(self, step, index, planned, manifest, entry):
        self.names.append(step.name)

    def told(self, status):
        pass


class Killed(BaseException):
    """What a SIGKILL looks like from inside: nothing after it runs, and nothing catches it."""


class MortalStore(MemoryStore):
    """A store whose process dies at its ``n``-th write, before or after the write took effect."""

    def __init__(self):
        super().__init__()
        self.left: int | None = None
        self.after = False

    def _write(self, write):
        if self.left is None:
            return write()
        self.left -= 1
        if self.left < 0:
            raise Killed  # a dead process writes nothing more, not even while unwinding
        result = write()
        if self.left == 0 and self.after:
            self.left = -1
            raise Killed
        return result

    def put(self, key, data):
        return self._write(lambda: MemoryStore.put(self, key, data))

    def create(self, key, data):
        return self._write(lambda: MemoryStore.create(self, key, data))


@pytest.fixture
def store():
    return MemoryStore()


def advance(store, spec, run=None, *, interrupted=lambda: False, identity=None):
    """One controller's life."""
    executor = FakeExecutor(run or committing(store))
    reporter = Silent()
    controller = Controller(
        store,
        executor,
        stored_run(store, spec),
        reporter,
        identity=identity or this_process(),
        interrupted=interrupted,
    )
    controller.advance()
    return executor, reporter


def history(store, name):
    return [(entry.name, entry.ref) for entry in load_history(store, name)]


def test_a_run_goes_through_all_its_steps_once(store):
    spec = small_spec()
    executor, reporter = advance(store, spec)
    assert len(reporter.names) == planned_steps(spec) == len(executor.submitted)
    assert [name for name, _ in history(store, spec.name)] == reporter.names
    assert overview(store, spec.name, now=0).status.phase is Phase.FINISHED


def test_a_finished_run_is_not_run_again(store):
    advance(store, small_spec())
    executor, _ = advance(store, small_spec())
    assert executor.submitted == []


@pytest.mark.parametrize("removed", [0, 3])
def test_a_step_that_somebody_removed_is_run_again_and_the_rest_adopted(store, removed):
    spec = small_spec()
    advance(store, spec)
    before = history(store, spec.name)
    for key in list(store.list(f"steps/{before[removed][1].id}")):
        store.delete(key)
    executor, _ = advance(store, spec)
    assert [job.index for job in executor.submitted] == [removed]
    assert history(store, spec.name) == before


@pytest.mark.parametrize("after", [False, True])
def test_killed_at_any_write_the_run_ends_the_same_and_commits_each_step_once(after):
    whole = MemoryStore()
    advance(whole, small_spec())
    expected = history(whole, "small")
    for kill_at in itertools.count():
        store = MortalStore()
        stored_run(store, small_spec())
        ran: list[str] = []
        commit = committing(store)

        def run(job: Job, ran=ran, commit=commit) -> None:
            commit(job)
            ran.append(f"{job.index}-{job.attempt}")

        store.left, store.after = kill_at, after
        try:
            advance(store, small_spec(), run)
            died = False
        except Killed:
            died = True
        store.left = None
        committed = {
            key: store.get(key) for key in store.list("steps") if key.endswith("manifest.json")
        }
        # The dead one's lease is not waited for: its process is known to be gone.
        for key in list(store.list(f"{keys.run('small')}/lease")):
            store.delete(key)
        advance(store, small_spec(), run)
        assert history(store, "small") == expected
        assert all(store.get(key) == body for key, body in committed.items())
        assert len(ran) <= len(expected) + 1
        if not died:
            break
    assert kill_at > 3 * len(expected)


def test_a_second_controller_on_the_same_run_says_who_works_and_ends(store):
    spec = small_spec()
    stored_run(store, spec)
    other = this_process("the other one")
    with (
        acquire(store, spec.name, clock=time.time, identity=other, ttl=30),
        pytest.raises(ConflictError, match=other.host),
    ):
        advance(store, spec)
    assert history(store, spec.name) == []


def test_a_second_run_adopts_what_the_first_committed(store):
    advance(store, small_spec())
    executor, _ = advance(store, small_spec(name="again"))
    assert executor.submitted == []
    assert all(entry.adopted for entry in load_history(store, "again"))
    assert {entry.saved for entry in load_history(store, "again")} == {2.0}
    assert {entry.saved for entry in load_history(store, "small")} == {0.0}
    assert history(store, "again") == history(store, "small")


def test_a_step_of_our_own_that_was_committed_but_not_recorded_is_not_called_adopted(store):
    advance(store, small_spec())
    entries = load_history(store, "small")
    forget_history(store, "small", len(entries) - 1)
    claim(store, entries[-1].ref.id, "small", entries[-1].name, 0.0)
    advance(store, small_spec())
    again = load_history(store, "small")[-1]
    assert (again.ref, again.adopted, again.saved) == (entries[-1].ref, False, 0.0)


def test_a_cancelled_run_stops_and_goes_on_when_it_is_resumed(store):
    spec = small_spec()
    commit = committing(store)

    def run(job):
        commit(job)
        if len(list(store.list(f"{keys.run(spec.name)}/history"))) == 4:
            request_cancel(store, spec.name, 0.0)

    with pytest.raises(Cancelled, match="resume"):
        advance(store, spec, run)
    stopped = len(history(store, spec.name))
    assert 4 <= stopped < planned_steps(spec)
    assert overview(store, spec.name, now=0).status.phase is Phase.CANCELLED
    withdraw_cancel(store, spec.name)
    executor, _ = advance(store, spec)
    assert len(executor.submitted) == planned_steps(spec) - stopped


def test_an_interrupted_run_says_how_to_go_on(store):
    with pytest.raises(KeyboardInterrupt):
        advance(store, small_spec(), interrupted=lambda: True)
    status = overview(store, "small", now=0).status
    assert status.phase is Phase.STOPPED
    assert "mstarctl resume small" in status.why


def test_a_failure_that_may_pass_is_tried_again_with_its_reason(store):
    commit = committing(store)
    failures = iter([StorageError("the disk is full")])

    def run(job):
        for failure in failures:
            raise failure
        commit(job)

    executor, reporter = advance(store, small_spec(), run)
    assert len(executor.submitted) == planned_steps(small_spec()) + 1
    assert reporter.reasons == ["the disk is full"]
    assert len({job.attempt for job in executor.submitted[:2]}) == 2


def test_a_failure_names_models_as_the_spec_does_and_not_where_the_store_has_them(store):
    model = INPUTS.model
    folder = f"memory:/models/{model.id}/files.50909ec0"

    def fail(job):
        if job.step == "base/test":
            committing(store)(job)
            return
        base = load_history(store, "small")[0].ref
        raise DataError(
            f"{folder} is bad, {folder}/config.json too; /scratch/x/artifacts/{model.digest}, "
            f"/s/steps/{base.id}/attempt-1-1.aa/model and /s/steps/{base.id}/attempt-1-1.aa/model/model.safetensors."
        )

    with pytest.raises(DataError) as caught:
        advance(store, small_spec(model="/models/mine"), fail)
    said = str(caught.value).partition("failed: ")[2]
    assert said == (
        "/models/mine is bad, /models/mine/config.json too; /models/mine, step base/test and "
        "step base/test/model.safetensors."
    )


def test_a_failure_that_stays_ends_the_run_after_the_allowed_attempts(store):
    def run(job):
        raise StorageError("the disk is full")

    with pytest.raises(StepFailed, match=r"3 times.*the disk is full"):
        advance(store, small_spec(), run)
    status = overview(store, "small", now=0).status
    assert (status.phase, status.exit_code) == (Phase.FAILED, StepFailed.exit_code)


def test_a_mistake_in_the_data_is_not_tried_again(store):
    attempts = []

    def run(job):
        attempts.append(job)
        raise DataError("query 7: the image is corrupt")

    with pytest.raises(DataError, match="query 7"):
        advance(store, small_spec(), run)
    assert len(attempts) == 1


def test_an_attempt_that_ends_without_a_commit_is_tried_again(store):
    commit = committing(store)
    seen = []

    def run(job):
        seen.append(job)
        if len(seen) > 1:
            commit(job)

    _, reporter = advance(store, small_spec(), run)
    assert reporter.reasons == ["it ended without committing anything"]


def test_the_log_of_every_attempt_is_kept(store):
    advance(store, small_spec())
    logs = list(store.list(f"{keys.run('small')}/logs"))
    assert len(logs) == planned_steps(small_spec())
    assert b"fake log" in store.get(logs[0])
