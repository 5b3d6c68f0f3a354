"""One controller holds a run; a dead one does not hold it for long, and a fenced one learns of it."""

import json
import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mstar.errors import ConflictError, IntegrityError
from mstar.storage import keys, lease
from mstar.storage.lease import (
    Holder,
    Identity,
    Lease,
    acquire,
    holder,
    holds,
    process_alive,
    this_process,
)
from mstar.storage.memory import MemoryStore

TTL = 30.0


class Clock:
    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


def newest(store: MemoryStore) -> Holder:
    found = holder(store, "run")
    assert found
    return found


def somebody(name: str) -> Identity:
    return Identity(id=name, host=f"host-{name}", pid=7, started="1", pid_space=name)


def take(store: MemoryStore, clock: Clock, name: str, alive: bool | None = None) -> Lease:
    return acquire(
        store, "run", clock=clock, identity=somebody(name), ttl=TTL, alive=lambda _: alive
    )


def test_the_first_to_ask_holds_the_run(store, clock):
    assert holder(store, "run") is None
    held = take(store, clock, "a")
    assert held.epoch == 1
    found = newest(store)
    assert found.identity == somebody("a")
    assert holds(found, now=clock(), ttl=TTL)


@pytest.mark.parametrize("alive", [True, None])
def test_a_second_controller_is_told_who_holds_the_run(store, clock, alive):
    take(store, clock, "a")
    clock.now += 10
    with pytest.raises(ConflictError) as caught:
        take(store, clock, "b", alive)
    assert str(caught.value) == (
        "run 'run' is held by controller a, process 7 on host-a, since 1970-01-12 13:46:40 UTC, heard of 10 s ago. "
        "Wait for it, or stop it with `mstarctl cancel run`; if it is dead, try again in 20 s"
    )


def test_a_released_run_is_free_at_once(store, clock):
    with take(store, clock, "a") as held:
        assert held.epoch == 1
    assert take(store, clock, "b").epoch == 2


def test_a_run_whose_holder_is_known_dead_is_free_at_once(store, clock):
    take(store, clock, "a")
    assert take(store, clock, "b", alive=False).epoch == 2


def test_a_silent_holder_loses_the_run_after_its_time_and_not_before(store, clock):
    held = take(store, clock, "a")
    clock.now += TTL - 1
    held.renew()
    clock.now += TTL - 0.1
    with pytest.raises(ConflictError):
        take(store, clock, "b")
    clock.now += 0.1
    assert take(store, clock, "b").epoch == 2


def test_a_holder_that_was_overtaken_learns_of_it_and_disturbs_nobody(store, clock):
    old = take(store, clock, "a")
    clock.now += TTL
    new = take(store, clock, "b")
    with pytest.raises(ConflictError, match="held by controller b"):
        old.renew()
    clock.now += TTL / 2
    with pytest.raises(ConflictError, match="held by controller b"):
        old.keep()
    old.release()
    new.renew()
    found = newest(store)
    assert (found.identity.id, found.released) == ("b", False)


def test_keep_writes_only_when_a_third_of_the_time_has_passed(store, clock):
    held = take(store, clock, "a")
    start = clock.now
    for _ in range(9):
        held.keep()
        clock.now += 1
    assert newest(store).renewed_at == start
    clock.now += 1
    held.keep()
    assert newest(store).renewed_at == clock.now


def test_releasing_twice_is_no_error_and_renewing_afterwards_is(store, clock):
    held = take(store, clock, "a")
    held.release()
    held.release()
    with pytest.raises(RuntimeError, match="was released"):
        held.renew()


def test_of_many_controllers_at_once_one_holds(store, clock):
    start = threading.Barrier(8)

    def attempt(number: int) -> int | None:
        start.wait(120)
        try:
            return take(store, clock, str(number)).epoch
        except ConflictError:
            return None

    with ThreadPoolExecutor(8) as pool:
        epochs = [epoch for epoch in pool.map(attempt, range(8)) if epoch]
    assert epochs == [1]


def test_only_the_newest_few_epochs_are_kept(store, clock):
    for number in range(10):
        take(store, clock, str(number)).release()
    assert [key.rpartition("/")[2] for key in store.list("runs/run/lease")] == [
        "000008.json",
        "000009.json",
        "000010.json",
    ]


def test_a_controller_that_slept_between_looking_and_taking_does_not_get_an_old_epoch(
    store, clock, monkeypatch
):
    take(store, clock, "a").release()
    real = store.create

    def sleep_first(key: str, data: bytes) -> Any:
        monkeypatch.setattr(store, "create", real)
        for name in "bcdef":
            take(store, clock, name).release()
        take(store, clock, "g")
        return real(key, data)

    monkeypatch.setattr(store, "create", sleep_first)
    with pytest.raises(ConflictError, match="held by controller g"):
        take(store, clock, "slow")
    assert newest(store).identity.id == "g"
    assert store.size(keys.lease("run", 2)) is None


def test_what_is_no_lease_is_named(store, clock):
    for data in (b"", b"{}", b"[]", json.dumps({"epoch": 1}).encode()):
        store.put(keys.lease("run", 1), data)
        with pytest.raises(
            IntegrityError, match=r"lease/000001.json .* does not say who holds run 'run'"
        ):
            take(store, clock, "a")


def test_this_process_is_alive_and_an_ended_one_is_not():
    ours = this_process("me")
    assert (ours.id, ours.pid) == ("me", os.getpid())
    assert process_alive(ours) is True
    assert process_alive(replace(ours, started="another time")) is False
    assert process_alive(replace(ours, pid_space="another machine")) is None
    assert this_process().id != this_process().id


def test_a_killed_controller_is_seen_as_dead_at_once(store, clock):
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    started = lease._started(child.pid)
    assert started
    theirs = replace(this_process("child"), pid=child.pid, started=started)
    acquire(store, "run", clock=clock, identity=theirs, ttl=TTL)
    with pytest.raises(ConflictError):
        acquire(store, "run", clock=clock, identity=this_process(), ttl=TTL)
    child.kill()
    child.communicate()
    assert acquire(store, "run", clock=clock, identity=this_process(), ttl=TTL).epoch == 2


def test_without_proc_the_start_time_comes_from_ps(monkeypatch):
    monkeypatch.setattr(lease, "_PROC", Path("/nowhere"))
    if not Path("/bin/ps").exists():
        pytest.skip("this system has no ps")
    assert lease._started(os.getpid()) == lease._started(os.getpid())
    assert lease._started(os.getpid())
    assert lease._started(2**22 + 1) is None
