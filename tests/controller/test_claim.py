"""One run makes a step that two need; the other waits, adopts it, and takes over when its maker is gone."""

import json
import threading

import pytest

from mstar.controller.claim import claim
from mstar.controller.loop import Clock, Controller
from mstar.controller.status import Phase, Status, write_status
from mstar.executors.fake import FakeExecutor
from mstar.history import load_history
from mstar.storage import keys
from mstar.storage.lease import acquire, this_process
from mstar.storage.memory import MemoryStore
from tests.controller.test_controller import Silent
from tests.runs import committing, small_spec, stored_run

STEP = "a" * 64


@pytest.fixture
def store():
    return MemoryStore()


def at_work(store, run, step, now):
    """A controller that holds the run and says that it makes the step."""
    lease = acquire(store, run, clock=lambda: now, identity=this_process(), ttl=30)
    write_status(store, run, Status(phase=Phase.RUNNING, step=step))
    return lease


def test_whoever_claims_first_makes_the_step(store):
    at_work(store, "one", "warm-up/train", 100.0)
    assert claim(store, STEP, "one", "warm-up/train", 100.0) is None
    assert claim(store, STEP, "two", "warm-up/train", 101.0) == "one"
    assert claim(store, STEP, "one", "warm-up/train", 102.0) is None


def test_a_claim_counts_while_its_run_is_at_that_step(store):
    at_work(store, "one", "iter-01/train", 100.0)
    assert claim(store, STEP, "one", "iter-01/train", 100.0) is None
    assert claim(store, STEP, "two", "iter-01/train", 120.0) == "one"
    write_status(store, "one", Status(phase=Phase.RUNNING, step="iter-01/evaluate"))
    assert claim(store, STEP, "two", "iter-01/train", 120.0) is None
    assert json.loads(store.get(keys.claim(STEP)))["run"] == "two"


@pytest.mark.parametrize("phase", [Phase.FAILED, Phase.CANCELLED, Phase.STOPPED, Phase.FINISHED])
def test_a_claim_of_a_run_that_ended_is_taken_over(store, phase):
    at_work(store, "one", "warm-up/train", 100.0)
    assert claim(store, STEP, "one", "warm-up/train", 100.0) is None
    write_status(store, "one", Status(phase=phase, step="warm-up/train"))
    assert claim(store, STEP, "two", "warm-up/train", 120.0) is None


def test_a_claim_of_a_controller_that_is_gone_is_taken_over(store):
    lease = at_work(store, "one", "warm-up/train", 100.0)
    assert claim(store, STEP, "one", "warm-up/train", 100.0) is None
    assert claim(store, STEP, "two", "warm-up/train", 131.0) is None
    assert claim(store, STEP, "one", "warm-up/train", 131.0) is None
    lease.release()
    assert claim(store, STEP, "two", "warm-up/train", 131.0) is None


def test_a_claim_that_says_nothing_is_taken_over(store):
    store.put(keys.claim(STEP), b"{}")
    assert claim(store, STEP, "two", "warm-up/train", 100.0) is None


def test_two_runs_at_once_make_every_step_they_share_once(store):
    runs = {name: stored_run(store, small_spec(name=name)) for name in ("one", "two")}
    made, lock = [], threading.Lock()
    slow = threading.Event()

    def stage(job):
        with lock:
            made.append(job.step)
        slow.wait(0.02)
        committing(store)(job)

    def advance(name):
        clock = Clock(sleep=lambda _: slow.wait(0.005))
        Controller(store, FakeExecutor(stage), runs[name], Silent(), clock=clock).advance()

    threads = [threading.Thread(target=advance, args=(name,)) for name in runs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(made) == sorted(entry.name for entry in load_history(store, "one"))
    first, second = load_history(store, "one"), load_history(store, "two")
    assert [entry.ref for entry in first] == [entry.ref for entry in second]
    assert all(a.adopted != b.adopted for a, b in zip(first, second, strict=True))
    assert not [key for key in store.list("steps") if key.endswith("claim.json")]
