"""A train step that is stopped, killed or robbed of its checkpoints ends as one that was left alone: to the byte."""

import itertools
import logging
import os
import signal
from concurrent.futures import ThreadPoolExecutor

import pytest

from mstar.errors import Preempted, SpecError, StorageError
from mstar.stages.context import Gang
from mstar.storage import keys
from mstar.storage.folder import FolderStore
from mstar.storage.memory import MemoryStore
from mstar.storage.reading import parse_manifest, read_manifest
from mstar.tasks import task_hash
from tests.stages.steps import (
    EACH_STEP,
    ONE_THREAD,
    SECONDS,
    AtOnce,
    Pace,
    attempt,
    digests,
    losses,
    make_policy_task,
    make_prm_task,
    progress,
    start,
    until_kept,
)
from tests.tiny import build_tiny_model

MAKERS = {"policy": make_policy_task, "prm": make_prm_task}
POLICY_ALONE = pytest.mark.parametrize("undisturbed", ["policy"], indirect=True)


class Killed(BaseException):
    """Stands for SIGKILL: nothing catches it, and nothing of the attempt reaches the store after it."""


class Mortal(FolderStore):
    """A store whose user dies at its ``last``-th write, before or after it is done."""

    def __init__(self, root, last, *, done):
        super().__init__(root)
        self.last, self.done = last, done
        self.writes = itertools.count(1)

    def _write_or_die(self, write):
        number = next(self.writes)
        if number > self.last or (number == self.last and not self.done):
            raise Killed
        result = write()
        if number == self.last:
            raise Killed
        return result

    def put(self, key, data):
        self._write_or_die(lambda: super(Mortal, self).put(key, data))

    def create(self, key, data):
        return self._write_or_die(lambda: super(Mortal, self).create(key, data))

    def upload(self, key, path, *, move=False):
        self._write_or_die(lambda: super(Mortal, self).upload(key, path, move=move))

    def delete(self, key):
        self._write_or_die(lambda: super(Mortal, self).delete(key))


class Full(FolderStore):
    """A store that takes no checkpoint inside a step."""

    def upload(self, key, path, *, move=False):
        if "/progress/" in key:
            raise StorageError(f"cannot write {key}: the disk is full")
        super().upload(key, path, move=move)


@pytest.fixture(autouse=True)
def at_once(monkeypatch):
    """Checkpoints are sent before training goes on, so that a test knows which there are."""
    monkeypatch.setattr("mstar.stages.backends.keeping.ThreadPoolExecutor", AtOnce)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return build_tiny_model(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module", params=MAKERS)
def undisturbed(request, model, tmp_path_factory):
    """How to make the task, and what the step commits when nothing happens to it."""
    root = tmp_path_factory.mktemp("undisturbed")
    make = MAKERS[request.param]
    store = FolderStore(root / "store")
    task = make(store, model, root / "data")
    manifest = attempt(store, task, root / "scratch")
    return make, manifest, losses(store, manifest)


@pytest.fixture
def step(undisturbed, model, tmp_path):
    """The same task in an empty store, and a check that it ended as it should."""
    make, expected, curve = undisturbed
    store = FolderStore(tmp_path / "store")
    task = make(store, model, tmp_path / "data")

    def check(found):
        assert digests(found) == digests(expected)
        assert found.digest == expected.digest
        assert losses(store, found) == curve
        assert progress(store, task) == []

    return store, task, check


def stopped(task, steps):
    """Asks to stop once so many optimizer steps of the attempt are done: rows are prepared first, a poll each."""
    rows = 36 if task.objective == "prm" else 44
    polls = itertools.count(1)
    return lambda: next(polls) > rows + steps


def test_a_step_preempted_again_and_again_ends_as_if_it_had_not_been(step, tmp_path):
    store, task, check = step
    for number, steps in ((1, 1), (2, 2), (3, 0), (4, 1)):
        before = max(progress(store, task), default=0)
        with pytest.raises(
            Preempted, match=f"after optimizer step {before + steps} is in the store"
        ):
            attempt(store, task, tmp_path, name=str(number), stopping=stopped(task, steps))
    check(attempt(store, task, tmp_path, name="5"))


def test_a_checkpoint_is_taken_up_from_a_store_that_is_not_on_this_disk(
    undisturbed, model, tmp_path
):
    make, expected, _ = undisturbed
    store = MemoryStore()
    task = make(store, model, tmp_path / "data")
    with pytest.raises(Preempted, match="after optimizer step 3 is in the store"):
        attempt(store, task, tmp_path / "1", stopping=stopped(task, 3))
    assert digests(attempt(store, task, tmp_path / "2", name="2")) == digests(expected)
    assert list(store.list(keys.progress(task_hash(task)))) == []


def test_a_stop_before_the_first_optimizer_step_leaves_nothing(step, tmp_path):
    store, task, check = step
    for number, wait in enumerate((-44, -20, 0)):
        with pytest.raises(Preempted, match="nothing is lost"):
            attempt(store, task, tmp_path, name=str(number), stopping=stopped(task, wait))
        assert progress(store, task) == []
    check(attempt(store, task, tmp_path, name="5"))


@pytest.mark.parametrize("done", [False, True], ids=["before", "after"])
def test_an_attempt_killed_at_any_write_is_gone_on_from(step, tmp_path, done):
    """Each attempt dies later than the one before: in a checkpoint's parts, at its manifest, while older ones go."""
    store, task, check = step
    seen = []
    for number, last in enumerate((1, 5, 12, 13, 14, 19, 27, 33, 40, 47)):
        mortal = Mortal(store.root, last, done=done)
        try:
            attempt(mortal, task, tmp_path, name=str(number), execution=EACH_STEP)
        except Killed:
            if read_manifest(store, "step", task_hash(task)):
                break
            seen.append(max(progress(store, task), default=0))
    assert seen == sorted(seen)
    assert len(set(seen)) > 3
    check(attempt(store, task, tmp_path, name="last", execution=EACH_STEP))


@POLICY_ALONE
def test_an_attempt_killed_while_it_trains_and_sends_is_gone_on_from(step, tmp_path, monkeypatch):
    """As above with a thread that really sends beside training: what there is at a death is whole or passed over."""
    store, task, check = step
    monkeypatch.setattr("mstar.stages.backends.keeping.ThreadPoolExecutor", ThreadPoolExecutor)
    for number, last in enumerate((3, 9, 15)):
        mortal = Mortal(store.root, last, done=bool(number % 2))
        with pytest.raises(Killed):
            attempt(mortal, task, tmp_path, name=str(number), execution=EACH_STEP)
    check(attempt(store, task, tmp_path, name="last", execution=EACH_STEP))


@pytest.mark.slow
@POLICY_ALONE
def test_a_process_killed_and_then_terminated_is_gone_on_from(undisturbed, model, tmp_path):
    store = FolderStore(tmp_path / "store")
    rows, last = 240, 0
    task = make_policy_task(store, model, tmp_path / "data", rows)
    for name, number in (("1", signal.SIGKILL), ("2", signal.SIGKILL), ("3", signal.SIGTERM)):
        pace = Pace(rows=rows, stands_after=last + 7)
        process = start(store, task, name, tmp_path, execution=EACH_STEP, pace=pace)
        until_kept(store, task, last + 4, process)
        os.killpg(process.pid, number)
        _, said = process.communicate(timeout=SECONDS)
        killed = number == signal.SIGKILL
        assert process.returncode == (-number if killed else Preempted.exit_code), said
        last = max(progress(store, task))
    assert f"a checkpoint after optimizer step {last} is in the store" in said.decode()
    assert last < 30
    found = attempt(store, task, tmp_path / "scratch", name="4")
    whole = FolderStore(tmp_path / "whole")
    expected = attempt(
        whole, make_policy_task(whole, model, tmp_path / "data", rows), tmp_path / "scratch"
    )
    assert digests(found) == digests(expected)
    assert losses(store, found) == losses(whole, expected)
    assert len(losses(store, found)) == 30


def test_two_checkpoints_are_kept_while_the_step_goes_on(step, tmp_path):
    store, task, check = step
    kept = []
    found = attempt(
        store,
        task,
        tmp_path,
        execution=EACH_STEP,
        tell=lambda *_: kept.append(progress(store, task)),
    )
    assert [] in kept
    assert [1, 2] in kept
    assert [3, 4] in kept
    assert all(len(steps) <= 2 for steps in kept)
    check(found)


def spoil(store, task, newest, how):
    """Damage the newest checkpoint, or the one before it."""
    folder = keys.progress(task_hash(task))
    names = sorted(key for key in store.list(folder) if key.count("/") == 3)
    record = names[-1 if newest else 0]
    part = parse_manifest(store.get(record), record).part("trainer/optimizer.bin")
    path = store.root / part.key
    if how == "manifest":
        (store.root / record).write_text("{")
    elif how == "missing":
        path.unlink()
    elif how == "truncated":
        path.write_bytes(path.read_bytes()[:-1])
    else:
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes(data)


@POLICY_ALONE
@pytest.mark.parametrize("how", ["manifest", "missing", "truncated", "altered"])
def test_a_damaged_checkpoint_is_passed_over_with_a_warning(step, tmp_path, how, caplog):
    store, task, check = step
    with pytest.raises(Preempted):
        attempt(store, task, tmp_path, execution=EACH_STEP, stopping=stopped(task, 3))
    assert progress(store, task) == [2, 3]
    spoil(store, task, True, how)
    with caplog.at_level(logging.INFO, "mstar"), pytest.raises(Preempted):
        attempt(store, task, tmp_path, name="2", stopping=stopped(task, 0))
    assert "passing over checkpoint" in caplog.text
    assert "going on from the checkpoint after optimizer step 2" in caplog.text
    spoil(store, task, False, how)
    caplog.clear()
    with caplog.at_level(logging.INFO, "mstar"):
        check(attempt(store, task, tmp_path, name="3", execution=EACH_STEP))
    assert caplog.text.count("passing over checkpoint") == 2
    assert "going on" not in caplog.text


@POLICY_ALONE
def test_a_store_that_takes_no_checkpoint_does_not_end_training(step, tmp_path, caplog):
    store, task, check = step
    full = Full(store.root)
    with pytest.raises(Preempted, match="after optimizer step 2, whose checkpoint could not be"):
        attempt(full, task, tmp_path, stopping=stopped(task, 2))
    assert "the disk is full" in caplog.text
    check(attempt(full, task, tmp_path, name="2", execution=EACH_STEP))


@POLICY_ALONE
def test_a_gang_without_deepspeed_is_refused(step, tmp_path):
    store, task, _ = step
    gang = Gang(size=2, rank=0, address="127.0.0.1", port=1)
    with pytest.raises(SpecError, match=r"set execution\.deepspeed"):
        attempt(store, task, tmp_path, execution=ONE_THREAD, gang=gang)
