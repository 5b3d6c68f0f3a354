"""When a checkpoint inside a step is due, and how it is sent while training goes on."""

import random
import shutil
import threading
from itertools import pairwise

import pytest

from mstar.errors import IntegrityError, StorageError
from mstar.execution import Execution
from mstar.stages.backends import keeping
from mstar.stages.backends.accelerate_trainer import AccelerateTrainer
from mstar.stages.backends.keeping import Due, Keeper, check_same_plan
from mstar.stages.backends.session import Session
from mstar.stages.interim import Interim
from mstar.storage.memory import MemoryStore
from mstar.storage.reading import parse_manifest
from tests.stages.backends.rows import make_rows
from tests.stages.backends.training import OPTIMIZATION
from tests.stages.steps import AtOnce

STEP = "a" * 64


@pytest.fixture
def interim(tmp_path):
    return Interim(MemoryStore(), STEP, "1", tmp_path)


def due_at(keeper, clock, *moments):
    found = []
    for moment in moments:
        clock["now"] = moment
        found.append(keeper.due())
    return found


def test_a_checkpoint_is_due_when_the_seconds_have_passed_since_training_began(interim):
    clock = {"now": 0.0}
    keeper = Keeper(interim, 600, clock=lambda: clock["now"])
    clock["now"] = 5000
    keeper.start()
    assert due_at(keeper, clock, 5000, 5599, 5600) == [Due.NOTHING, Due.NOTHING, Due.CHECKPOINT]


def test_without_seconds_none_is_due_until_somebody_asks_to_stop(interim):
    clock: dict[str, float] = {"now": 0.0}
    stop: list[bool] = []
    keeper = Keeper(interim, None, lambda: bool(stop), lambda: clock["now"])
    assert due_at(keeper, clock, 1e9) == [Due.NOTHING]
    stop.append(True)
    assert due_at(keeper, clock, 1e9) == [Due.STOP]


def test_without_a_place_for_checkpoints_none_is_due(interim):
    keeper = Keeper(None, 1e-9, lambda: True)
    assert keeper.due() is Due.NOTHING
    assert not keeper.asked_to_stop()


def run(model, keeper, tmp_path, *, rows=64, progress=lambda count: None):
    return AccelerateTrainer("policy", model, Execution(device="cpu")).train(
        make_rows(rows),
        OPTIMIZATION,
        seed=0,
        resume_from=None,
        save_to=tmp_path / "out",
        progress=progress,
        keeper=keeper,
    )


class Slow(MemoryStore):
    """A store that takes no file until it answers."""

    def __init__(self):
        super().__init__()
        self.answers = threading.Event()
        self.asked = []

    def upload(self, key, path, *, move=False):
        self.asked.append(key)
        assert self.answers.wait(600)
        super().upload(key, path, move=move)


def test_training_goes_on_while_a_snapshot_is_sent_and_the_next_is_put_off(tiny_model, tmp_path):
    """Eight optimizer steps, a checkpoint due before each; the store answers after the sixth."""
    store, seen = Slow(), []

    def progress(count):
        folder = tmp_path / "interim"
        seen.append((sum(map(len, found(store).values())), folder.exists()))
        if len(seen) == 7:
            store.answers.set()

    run(tiny_model, Keeper(Interim(store, STEP, "1", tmp_path), 1e-9), tmp_path, progress=progress)
    # The first word is of rows that an earlier attempt has done, here none.
    assert seen[2:7] == [(0, True)] * 5
    first = {key.split("/")[3] for key in store.asked[:1]}
    assert {name.partition("-")[0] for name in first} == {"00000001"}
    assert 1 <= len(found(store)) <= 2
    assert not (tmp_path / "interim").exists()


def found(store):
    """The files of each whole checkpoint, by its name."""
    folder = f"steps/{STEP}/progress"
    whole = [key for key in store.list(folder) if key.count("/") == 3]
    return {key: parse_manifest(store.get(key), key).parts for key in whole}


def test_the_manifest_comes_after_every_part_and_older_ones_go_after_it(tiny_model, tmp_path):
    written = []

    class Noting(MemoryStore):
        def put(self, key, data):
            super().put(key, data)
            written.append(("manifest" if key.count("/") == 3 else "part", key))

    store = Noting()
    run(tiny_model, Keeper(Interim(store, STEP, "1", tmp_path), 1e-9), tmp_path)
    manifests = [place for place, (what, _) in enumerate(written) if what == "manifest"]
    assert manifests
    for start, end in pairwise([-1, *manifests]):
        name = written[end][1].removesuffix(".json")
        assert {what for what, _ in written[start + 1 : end]} == {"part"}
        assert all(key.startswith(f"{name}.") for _, key in written[start + 1 : end])


def test_a_store_that_fails_is_told_and_the_next_checkpoint_is_tried(tiny_model, tmp_path, caplog):
    class Failing(MemoryStore):
        failures = 1

        def upload(self, key, path, *, move=False):
            if self.failures:
                self.failures -= 1
                raise StorageError("the disk is full")
            super().upload(key, path, move=move)

    store = Failing()
    keeper = Keeper(Interim(store, STEP, "1", tmp_path), 1e-9)
    run(tiny_model, keeper, tmp_path)
    assert "no checkpoint after optimizer step 1: the disk is full" in caplog.text
    assert found(store)
    assert keeper.kept > 1


def test_a_defect_while_sending_ends_training(tiny_model, tmp_path):
    class Defective(MemoryStore):
        def upload(self, key, path, *, move=False):
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run(tiny_model, Keeper(Interim(Defective(), STEP, "1", tmp_path), 1e-9), tmp_path)


def test_draws_of_a_store_s_client_are_not_seen_by_a_checkpoint(tiny_model, tmp_path):
    """Clients spread their retries by chance; the random state that is saved must not depend on them."""

    class Drawing(MemoryStore):
        def upload(self, key, path, *, move=False):
            random.random()
            super().upload(key, path, move=move)

    saved = []
    for store in (MemoryStore(), Drawing()):
        random.seed(5)
        run(tiny_model, Keeper(Interim(store, STEP, "1", tmp_path), 1e-9), tmp_path)
        saved.append((tmp_path / "out/trainer/random_states_0.pkl").read_bytes())
        shutil.rmtree(tmp_path / "out")
    assert saved[0] == saved[1]


def test_seconds_count_from_the_end_of_the_last_snapshot(tiny_model, tmp_path, monkeypatch):
    """Writing one takes as long as all the time until the next is due: training must still get its share."""
    now, kept = [0.0], []
    real = Session.save

    def save(self, folder, state):
        if folder.name == "interim":
            kept.append((now[0], state.global_step))
            now[0] += 100
        real(self, folder, state)

    def progress(count):
        now[0] += 40

    monkeypatch.setattr(Session, "save", save)
    monkeypatch.setattr(keeping, "ThreadPoolExecutor", AtOnce)
    interim = Interim(MemoryStore(), STEP, "1", tmp_path)
    run(tiny_model, Keeper(interim, 100, clock=lambda: now[0]), tmp_path, progress=progress)
    assert kept == [(160.0, 3), (380.0, 6)]


def test_different_plans_are_an_integrity_error_on_every_rank(monkeypatch):
    monkeypatch.setattr(keeping, "everyones", lambda plan: [plan, "another"])
    with pytest.raises(IntegrityError, match="prepared different rows"):
        check_same_plan("mine")
    monkeypatch.setattr(keeping, "everyones", lambda plan: [plan, plan])
    check_same_plan("mine")
