"""On a cluster a run goes on whatever dies: each step is done and committed once, and the history is the same."""

import itertools
import threading
import time

import pytest

from mstar.controller import loop
from mstar.controller.loop import request_cancel, withdraw_cancel
from mstar.controller.status import Phase, overview, read_status
from mstar.errors import Cancelled, ClusterError, ConflictError, OutOfMemory, StepFailed
from mstar.executors.k8s import executor, watch
from mstar.executors.k8s.names import INDEX
from mstar.executors.k8s.render import Owner
from mstar.recipe import planned_steps
from mstar.storage import keys, lease
from mstar.storage.memory import MemoryStore
from tests import fake_api
from tests.controller.lives import OWNER, SHORT, Life, live
from tests.controller.test_controller import Killed, Silent, history
from tests.executors.making import committing_pods, until
from tests.fake_kubelet import Ended, Kubelet, last_word
from tests.runs import small_spec


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(watch, "_FIRST_PAUSE", 0.01)


@pytest.fixture
def cluster():
    with fake_api.running() as found:
        yield found


@pytest.fixture
def store():
    return MemoryStore()


def test_a_whole_recipe_runs_with_a_few_calls_a_step(cluster, store):
    spec = small_spec(execution={"shards": 2})
    kubelet = Kubelet(cluster, committing_pods(store))
    reporter = Silent()
    api = live(cluster, store, spec=spec, reporter=reporter)
    kubelet.join()
    steps = planned_steps(spec)
    assert len(reporter.names) == steps
    assert len(cluster.find("Job")) == steps
    assert len(kubelet.runs) == sum(job["spec"]["completions"] for job in cluster.find("Job"))
    calls = dict(api.calls)
    assert calls.pop("POST jobs") == steps
    assert calls.pop("WATCH jobs") == calls.pop("WATCH pods") == 1
    logs = [name for name in calls if name.endswith("/log")]
    assert len(logs) == len(kubelet.runs)
    # Beside its creation, a step costs a listing of its pods, their logs, and events while it waits.
    assert calls.pop("GET jobs") == 1
    assert calls.pop("GET pods") <= steps + 1
    assert "GET events" not in calls
    assert set(calls) == set(logs)


GANG = SHORT | {
    "cluster": {"stages": {"train": {"nodes": 2, "execution": {"deepspeed": {}}}}},
    "limits": {"attempts": 1},
}


def crashing_once(store):
    """Pods of which the first of a gang crashes the first time."""
    crashes, commit = iter([Ended(code=139)]), committing_pods(store)

    def work(running):
        gang = running.job["spec"].get("backoffLimit") == 0
        return (next(crashes, None) if gang else None) or commit(running)

    return work


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize(
    ("pods", "spec"),
    [
        (committing_pods, small_spec(**SHORT)),
        (crashing_once, small_spec(**(GANG | {"limits": {"attempts": 2}}))),
    ],
    ids=["well", "one crash"],
)
def test_killed_at_any_effect_the_run_ends_the_same_and_no_pod_works_twice(pods, spec, after):
    with fake_api.running() as cluster:
        store = MemoryStore()
        kubelet = Kubelet(cluster, pods(store))
        live(cluster, store, spec=spec)
        expected, worked = history(store, "small"), len(kubelet.runs)
    for kill_at in itertools.count(1):
        store = MemoryStore()
        with fake_api.running() as cluster:
            kubelet = Kubelet(cluster, pods(store))
            try:
                live(cluster, store, Life(kill_at, after=after), spec=spec)
                died = False
            except Killed:
                died = True
            live(cluster, store, spec=spec)  # at once: the same Job's next pod takes the lease back
            kubelet.join()
        assert history(store, "small") == expected, kill_at
        assert len(kubelet.runs) == worked, kill_at
        assert overview(store, "small", now=0).status.phase is Phase.FINISHED
        if not died:
            break
    assert kill_at > 8 * len(expected)


def test_told_to_go_it_leaves_its_jobs_and_the_next_one_goes_on_with_them(cluster, store):
    gate, stop = threading.Event(), threading.Event()
    kubelet = Kubelet(cluster, until(committing_pods(store), gate))

    class Stopping(Silent):
        def progress(self, step, observation):
            if not observation.waiting:
                stop.set()

    with pytest.raises(KeyboardInterrupt):
        live(cluster, store, interrupted=stop.is_set, reporter=Stopping())
    (job,) = cluster.find("Job")
    assert "deletionTimestamp" not in job["metadata"]
    status = read_status(store, "small")
    assert status is not None
    assert (status.phase, status.attempt) == (Phase.STOPPED, 1)
    assert "the next one goes on" in status.why
    gate.set()
    live(cluster, store)
    kubelet.join()
    assert len(history(store, "small")) == 5
    assert len(kubelet.runs) == 7


def test_another_controller_is_held_off_as_long_as_the_lease_lasts(cluster, store):
    Kubelet(cluster, committing_pods(store))
    with pytest.raises(Killed):
        live(cluster, store, Life(10))
    mine = list(store.list(f"{keys.run('small')}/lease"))
    text = store.get(mine[-1]).decode()
    store.put(
        mine[-1], text.replace('"pid_space": "', '"pid_space": "of another machine ').encode()
    )
    with pytest.raises(ConflictError, match="is held by controller"):
        live(cluster, store, owner=Owner(name="another", uid="another"))
    live(cluster, store, owner=OWNER)


def test_a_cancelled_run_stops_its_attempt_and_goes_on_when_it_is_resumed(cluster, store):
    gate = threading.Event()
    kubelet = Kubelet(cluster, until(committing_pods(store), gate))

    class Cancelling(Silent):
        def progress(self, step, observation):
            request_cancel(store, "small", 0.0)

    with pytest.raises(Cancelled):
        live(cluster, store, reporter=Cancelling())
    assert cluster.find("Job") == cluster.find("Pod") == []
    assert overview(store, "small", now=0).status.phase is Phase.CANCELLED
    withdraw_cancel(store, "small")
    gate.set()
    live(cluster, store)
    kubelet.join()
    assert len(history(store, "small")) == 5


def test_the_run_stays_ours_while_its_pods_take_their_time_to_end(cluster, store, monkeypatch):
    monkeypatch.setattr(loop, "LEASE_SECONDS", 0.6)
    monkeypatch.setattr(lease, "_BEAT_SECONDS", 0.05)
    renewed: list[float] = []

    def work(running):
        request_cancel(store, "small", 0.0)
        running.stopping.wait(120)
        enough = time.monotonic() + 120
        while len(set(renewed)) < 3 and time.monotonic() < enough:
            time.sleep(0.05)  # it leaves a checkpoint
            if held := lease.holder(store, "small"):
                renewed.append(held.renewed_at)
        return Ended(code=14)

    Kubelet(cluster, work)
    with pytest.raises(Cancelled):
        live(cluster, store)
    assert len(set(renewed)) >= 3
    assert renewed == sorted(renewed)


def test_a_run_that_was_lost_while_pods_ended_is_left_alone(cluster, store, monkeypatch):
    monkeypatch.setattr(loop, "LEASE_SECONDS", 0.3)
    monkeypatch.setattr(lease, "_BEAT_SECONDS", 0.05)

    def work(running):
        request_cancel(store, "small", 0.0)
        running.stopping.wait(120)
        other = lease.this_process("another")
        lease.acquire(store, "small", clock=time.time, identity=other, ttl=0.0)
        time.sleep(0.5)
        return Ended(code=14)

    Kubelet(cluster, work)
    with pytest.raises(ConflictError):
        live(cluster, store)
    status = read_status(store, "small")
    assert status is None or status.phase is not Phase.CANCELLED


def test_disruptions_never_use_up_the_attempts(cluster, store):
    commit = committing_pods(store)
    left = iter(range(5))

    def work(running):
        gang = (
            running.job["spec"]["completions"] == 2 and running.job["spec"].get("backoffLimit") == 0
        )
        if gang and next(left, None) is not None:
            return Ended(code=143, disruption="PreemptionByScheduler")
        return commit(running)

    Kubelet(cluster, work)
    reporter = Silent()
    live(cluster, store, spec=small_spec(**GANG), reporter=reporter)
    assert len(reporter.reasons) == 5
    assert all("a pod of higher priority" in reason for reason in reporter.reasons)


def test_excuses_are_remembered_by_the_next_controller(cluster, store):
    commit, stop = committing_pods(store), threading.Event()
    endings = iter(["excused", "excused", "stop", "counted"])

    def work(running):
        if running.job["spec"].get("backoffLimit") != 0:
            return commit(running)
        ending = next(endings, None)
        if ending == "stop":
            stop.set()
            stop.wait()
            while stop.is_set():
                running.stopping.wait(0.01)
            return Ended(code=143, disruption="DeletionByPodGC")
        if ending == "excused":
            return Ended(code=143, disruption="DeletionByPodGC")
        return Ended(code=139) if ending else commit(running)

    Kubelet(cluster, work)
    spec = small_spec(**(GANG | {"limits": {"attempts": 2}}))
    with pytest.raises(KeyboardInterrupt):
        live(cluster, store, spec=spec, interrupted=stop.is_set)
    stop.clear()
    reporter = Silent()
    live(cluster, store, spec=spec, reporter=reporter)
    assert ["its node is gone" in reason for reason in reporter.reasons] == [True, False]


def test_a_crash_of_a_rank_uses_up_the_attempts(cluster, store):
    commit = committing_pods(store)

    def work(running):
        gang = running.job["spec"].get("backoffLimit") == 0
        return Ended(code=139) if gang else commit(running)

    kubelet = Kubelet(cluster, work)
    kubelet.told_to_go = Ended(code=14, message=last_word("asked to stop", 14, retriable=True))
    spec = small_spec(**(GANG | {"limits": {"attempts": 3}}))
    with pytest.raises(StepFailed, match=r"iter-01/train failed 3 times.*exit code 139"):
        live(cluster, store, spec=spec)
    assert overview(store, "small", now=0).status.exit_code == StepFailed.exit_code


def test_out_of_memory_ends_the_run_with_its_code_and_what_to_change(cluster, store):
    Kubelet(cluster, lambda running: Ended(code=137, reason="OOMKilled"))
    with pytest.raises(OutOfMemory, match=r"resources\.limits\.memory"):
        live(cluster, store)
    assert overview(store, "small", now=0).status.exit_code == OutOfMemory.exit_code


@pytest.mark.parametrize(
    ("patience", "event"),
    [
        ({"pending_seconds": 0.2}, ("FailedCreate", "exceeded quota: gpus, requested: 1, used: 1")),
        ({"start_seconds": 0.2}, ("FailedCreate", 'violates PodSecurity "restricted": root')),
    ],
)
def test_a_run_that_cannot_start_waits_as_long_as_it_may_and_says_why(
    cluster, store, patience, event, monkeypatch
):
    monkeypatch.setattr(executor, "EVENTS_SECONDS", 0.0)
    cluster.created = lambda body: cluster.event(body, *event)
    with pytest.raises(ClusterError, match=r"could not start within 0\.2 s: .*(quota|Security)"):
        live(cluster, store, spec=small_spec(**(SHORT | {"cluster": patience})))
    assert cluster.find("Job") == []


def test_what_it_waits_for_is_in_the_status(cluster, store, monkeypatch):
    monkeypatch.setattr(executor, "EVENTS_SECONDS", 0.0)
    stop = threading.Event()
    cluster.created = lambda body: cluster.event(body, "FailedCreate", "exceeded quota: q, used: 1")
    seen = []

    class Told(Silent):
        def told(self, status):
            seen.append(status)
            if status.phase is Phase.WAITING:
                stop.set()

    with pytest.raises(KeyboardInterrupt):
        live(cluster, store, interrupted=stop.is_set, reporter=Told())
    assert any(each.phase is Phase.WAITING and "quota: q" in each.why for each in seen)


def test_the_next_step_s_job_is_made_while_the_last_pod_is_still_ending(cluster, store):
    commit = committing_pods(store)
    overlapped = []

    def lingering(running):
        ended = commit(running)
        following = int(running.job["metadata"]["labels"][INDEX]) + 1
        if following < 5:
            overlapped.append(cluster.wait(lambda: following in indexes(cluster)))
        return ended

    Kubelet(cluster, lingering)
    live(cluster, store, spec=small_spec(**(SHORT | {"execution": {"shards": 1}})))
    assert overlapped == [True] * 4


def indexes(cluster):
    return {int(job["metadata"]["labels"][INDEX]) for job in cluster.find("Job")}
