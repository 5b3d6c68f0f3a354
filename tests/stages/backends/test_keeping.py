"""When a checkpoint inside a step is due, by a clock that the test moves."""

import pytest

from mstar.errors import IntegrityError
from mstar.execution import Execution
from mstar.stages.backends import keeping
from mstar.stages.backends.accelerate_trainer import AccelerateTrainer
from mstar.stages.backends.keeping import Due, Keeper, check_same_plan
from mstar.stages.interim import Interim
from mstar.storage.memory import MemoryStore
from tests.stages.backends.rows import make_rows
from tests.stages.backends.training import OPTIMIZATION


@pytest.fixture
def interim(tmp_path):
    return Interim(MemoryStore(), "a" * 64, "1", tmp_path)


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


def test_seconds_count_from_the_end_of_the_last_checkpoint(tiny_model, tmp_path):
    """Storing one takes as long as all the time until the next is due: training must still get its share."""
    now, kept = [0.0], []

    class Slow(MemoryStore):
        def put(self, key, data):
            if "/progress/" in key and key.count("/") == 3:
                kept.append((now[0], key.rpartition("/")[2]))
                now[0] += 100
            super().put(key, data)

    def progress(count):
        now[0] += 40

    keeper = Keeper(Interim(Slow(), "a" * 64, "1", tmp_path), 100, clock=lambda: now[0])
    AccelerateTrainer("policy", tiny_model, Execution(device="cpu")).train(
        make_rows(64),
        OPTIMIZATION,
        seed=0,
        resume_from=None,
        save_to=tmp_path / "out",
        progress=progress,
        keeper=keeper,
    )
    assert kept == [(160.0, "00000003-1.json"), (380.0, "00000006-1.json")]


def test_different_plans_are_an_integrity_error_on_every_rank(monkeypatch):
    monkeypatch.setattr(keeping, "everyones", lambda plan: [plan, "another"])
    with pytest.raises(IntegrityError, match="prepared different rows"):
        check_same_plan("mine")
    monkeypatch.setattr(keeping, "everyones", lambda plan: [plan, plan])
    check_same_plan("mine")
