"""Machines of a gang wait for each other for a bounded time, and say for what."""

import socket

import pytest

from mstar.errors import Preempted, StorageError, WorkerLost
from mstar.execution import Execution
from mstar.stages.context import Context, Gang, never
from mstar.stages.gang import await_address, await_outcome
from mstar.storage.artifacts import ArtifactWriter
from mstar.storage.manifest import Part
from mstar.storage.memory import MemoryStore

GANG = Gang(size=2, rank=1, address="run-0.run", port=29500)
STEP = "a" * 64


class Time:
    """A clock that sleeping moves."""

    def __init__(self):
        self.now = 0.0

    def clock(self):
        return self.now

    def sleep(self, seconds):
        self.now += seconds


@pytest.fixture
def time():
    return Time()


def resolving_after(monkeypatch, time, seconds):
    def getaddrinfo(host, port, **_):
        assert (host, port) == ("run-0.run", 29500)
        if time.now < seconds:
            raise socket.gaierror(-2, "Name or service not known")
        return []

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)


def test_a_name_that_comes_late_is_waited_for(monkeypatch, time):
    resolving_after(monkeypatch, time, 100)
    await_address(GANG, never, clock=time.clock, sleep=time.sleep)
    assert 100 <= time.now < 105


def test_a_name_that_never_comes_is_a_lost_worker(monkeypatch, time):
    resolving_after(monkeypatch, time, 1e9)
    with pytest.raises(WorkerLost, match=r"the name run-0\.run is unknown after 300 s .*headless"):
        await_address(GANG, never, clock=time.clock, sleep=time.sleep)
    assert 300 <= time.now < 305


def test_a_machine_asked_to_stop_does_not_wait_for_a_name(monkeypatch, time):
    resolving_after(monkeypatch, time, 1e9)
    with pytest.raises(Preempted):
        await_address(GANG, lambda: time.now > 10, clock=time.clock, sleep=time.sleep)
    assert time.now < 15


def parts(store, *names):
    for name in names:
        store.put(f"steps/{STEP}/attempt-1/{name}", b"x")
    return [
        Part(name=name, key=f"steps/{STEP}/attempt-1/{name}", size=1, sha256="0") for name in names
    ]


def context(store, tmp_path):
    return Context(
        store=store,
        execution=Execution(),
        attempt="1",
        scratch=tmp_path,
        tell=lambda *_: None,
        gang=GANG,
    )


def commit(store, mine):
    with ArtifactWriter(store, STEP, "1") as writer:
        for part in mine:
            writer.adopt(part)
        writer.commit()


def test_a_machine_that_handed_over_its_part_waits_for_the_commit(time, tmp_path):
    store = MemoryStore()
    mine = parts(store, "shard")

    def sleep(seconds):
        time.sleep(seconds)
        if time.now > 60:
            commit(store, mine)

    await_outcome(context(store, tmp_path), STEP, mine, clock=time.clock, sleep=sleep)
    assert store.get(mine[0].key) == b"x"


def test_parts_that_another_attempt_made_useless_are_deleted(time, tmp_path):
    store = MemoryStore()
    mine = parts(store, "shard")
    commit(store, [])
    await_outcome(context(store, tmp_path), STEP, mine, clock=time.clock, sleep=time.sleep)
    assert store.size(mine[0].key) is None


def test_a_commit_that_never_comes_is_a_lost_worker_and_its_parts_stay(time, tmp_path):
    """The first machine may be slow and not dead: what it may still commit must not go."""
    store = MemoryStore()
    mine = parts(store, "shard")
    with pytest.raises(WorkerLost, match="did not commit the step within 3600 s"):
        await_outcome(context(store, tmp_path), STEP, mine, clock=time.clock, sleep=time.sleep)
    assert store.get(mine[0].key) == b"x"


def test_a_store_that_is_away_for_a_while_is_waited_for(time, tmp_path):
    class Away(MemoryStore):
        def get(self, key):
            if time.now < 50:
                raise StorageError("away")
            return super().get(key)

    store = Away()
    commit(store, [])
    await_outcome(context(store, tmp_path), STEP, [], clock=time.clock, sleep=time.sleep)
    assert 50 <= time.now < 55
