"""A train step shows its losses while it is at work, and training notices none of it."""

import json
import random

import pytest

from mstar.errors import StorageError
from mstar.stages.interim import Interim, clear_progress
from mstar.storage import keys
from mstar.storage.memory import MemoryStore


class Unwell(MemoryStore):
    """A store whose client draws random numbers, and may be away."""

    away = False
    puts = 0

    def put(self, key, data):
        self.puts += 1
        random.random()
        if self.away:
            raise StorageError("nobody answers")
        super().put(key, data)


@pytest.fixture
def store():
    return Unwell()


@pytest.fixture
def shown(store, tmp_path):
    from mstar.stages.backends.showing import Shown

    class Timed(Shown):
        now = 0.0

        def __init__(self):
            super().__init__(Interim(store, "step", "1", tmp_path), clock=lambda: Timed.now)

        def at(self, now, losses):
            Timed.now = now
            self.look(losses)

    Timed.now = 0.0
    return Timed()


def test_losses_are_shown_every_few_seconds(shown, store):
    losses = [float(step) for step in range(4)]
    for now in range(1, 5):
        shown.at(now, losses[:now])
    assert store.puts == 0
    shown.at(6, losses[:3])
    assert json.loads(store.get(keys.live("step"))) == [0.0, 1.0, 2.0]
    shown.at(7, losses)
    shown.at(12, losses)
    assert json.loads(store.get(keys.live("step"))) == [0.0, 1.0, 2.0, 3.0]


def test_showing_leaves_no_trace_in_training_s_random_numbers(shown):
    random.seed(3)
    before = random.getstate()
    shown.at(6, [1.0])
    assert random.getstate() == before


def test_a_store_that_is_away_is_said_once_and_training_goes_on(shown, store, caplog):
    store.away = True
    for now in (6, 20, 40):
        shown.at(now, [1.0])
    assert store.puts == 1
    assert [record.message for record in caplog.records] == [
        "the losses are shown no more before the step is done: nobody answers"
    ]


def test_what_was_shown_goes_with_the_checkpoints_inside_the_step(shown, store):
    shown.at(6, [1.0])
    clear_progress(store, "step")
    assert list(store.list("steps/step")) == []


def test_what_is_shown_is_never_taken_for_a_checkpoint(shown, store, tmp_path):
    shown.at(6, [1.0])
    assert list(Interim(store, "step", "2", tmp_path).candidates({})) == []
