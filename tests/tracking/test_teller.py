"""Each point is told once, whoever tells it and whatever breaks."""

import json
from collections import Counter

import pytest

from mstar.config import Tracking
from mstar.stages.teller import Teller, serve
from mstar.storage import keys
from mstar.storage.lease import acquire, this_process
from mstar.tracking.reading import AtWork
from mstar.tracking.told import Note, event_file, forget, read_note, told_in_files
from tests.report.making import make_run, make_spec, make_store


class Heard:
    """A tracker that remembers, and keeps its note as the real ones do."""

    pace = 0.0

    def __init__(self, name, store, run, points, *, breaks_at=None):
        self.name, self._points, self._breaks_at = name, points, breaks_at
        self._note: Note = read_note(store, run, name, "here")
        self.told = self._note.told

    def tell(self, label, first, points):
        for point in points:
            if len(self._points) == self._breaks_at:
                raise OSError("the tracker's server is gone")
            self._points.append((point.axis, point.x, *point.values))
        self._note.told[label] = first + len(points)
        self._note.write()

    def close(self):
        self._points.append("closed")


@pytest.fixture
def heard():
    return {"wandb": [], "mlflow": []}


@pytest.fixture
def said():
    return []


@pytest.fixture
def teller(store, heard, said, tmp_path):
    def make(to=("wandb", "mlflow"), breaks_at=None, store=store, clock=None):
        def open_sink(tracker, place, story, tracking, scratch):
            return Heard(tracker, place, story.run.name, heard[tracker], breaks_at=breaks_at)

        return Teller(
            store,
            "mstar",
            Tracking(to=to),
            said.append,
            open_sink=open_sink,
            scratch=tmp_path,
            **({"clock": clock} if clock else {}),
        )

    return make


def points(heard):
    return [point for point in heard if point != "closed"]


def test_every_point_is_told_once_to_each_tracker(teller, heard, said):
    made = teller()
    assert made.look()
    made.close()
    assert said == []
    for found in heard.values():
        assert found[-1] == "closed"
        assert max(Counter(points(found)).values()) == 1
    assert made.told == {name: len(points(found)) for name, found in heard.items()}


def test_who_tells_next_tells_nothing_twice(teller, heard):
    for _ in range(2):
        made = teller()
        made.look()
        made.close()
    assert made.told == {"wandb": 0, "mlflow": 0}
    assert max(Counter(points(heard["wandb"])).values()) == 1


def test_a_tracker_that_fails_is_said_once_and_the_other_is_told(teller, heard, said, store):
    made = teller(breaks_at=5)
    made.look()
    made.look()
    assert [(event["tracker"], event["failed"]) for event in said] == [
        ("wandb", "OSError: the tracker's server is gone"),
        ("mlflow", "OSError: the tracker's server is gone"),
    ]
    made.close()
    whole = teller()
    whole.look()
    whole.close()
    assert max(Counter(points(heard["wandb"])).values()) == 2, "what was not noted is told again"
    notes = [read_note(store, "mstar", tracker, "here").told for tracker in ("wandb", "mlflow")]
    assert notes[0] == notes[1]


def test_one_process_at_a_time_tells(teller, store, heard):
    with acquire(
        store, "mstar/tracking", clock=lambda: 1e9, identity=this_process("other"), ttl=60
    ):
        made = teller(clock=lambda: 1e9)
        assert not made.look()
        assert heard["wandb"] == []
    assert made.look()
    made.close()


def test_the_last_look_waits_for_its_turn(teller, heard):
    made = teller()
    looks = []
    look = made.look

    def ours_at_last(*args, **more):
        looks.append(more)
        return len(looks) > 3 and look(*args, **more)

    made.look = ours_at_last
    serve(made, iter([{"at": None, "again": False}]), lambda seconds: None)
    assert len(looks) == 4
    assert looks[-1]["last"]
    assert points(heard["wandb"])


def test_losses_are_told_while_a_train_step_is_at_work_and_its_commit_adds_the_rest(
    teller, heard, store, tmp_path
):
    fresh = make_store(tmp_path / "fresh")
    names = [key.rpartition("/")[2] for key in store.list("runs/mstar/history")]
    index = names.index(next(name for name in names if "iter-01-train" in name))
    identity = json.loads(store.get(f"runs/mstar/history/{names[index]}"))["ref"]["id"]
    make_run(fresh, tmp_path / "fresh", make_spec(), until=index)
    fresh.put(keys.task(identity), store.get(keys.task(identity)))
    at = AtWork(index=index, step="iter-01/train", id=identity)
    made = teller(to=("wandb",), store=fresh)
    made.look(at)
    before = len(points(heard["wandb"]))
    fresh.put(keys.live(identity), b"[1.0, 0.5]")
    made.look(at)
    assert len(points(heard["wandb"])) == before + 2
    make_run(fresh, tmp_path / "fresh", make_spec(), until=index + 1)
    made.look(at.model_copy(update={"committed": True}))
    made.close()
    assert len(points(heard["wandb"])) == before + 5 + 1, "three more losses, and what was found"
    assert max(Counter(points(heard["wandb"])).values()) == 1


def test_a_commit_that_the_history_has_not_noted_yet_is_told(teller, heard, store):
    last = max(store.list("runs/mstar/history"))
    entry = json.loads(store.get(last))
    store.delete(last)
    made = teller(to=("wandb",))
    made.look()
    before = len(points(heard["wandb"]))
    here = AtWork(index=entry["index"], step=entry["name"], id=entry["ref"]["id"], committed=True)
    made.look(here)
    assert len(points(heard["wandb"])) == before + 1
    made.close()


def test_told_again_a_tracker_hears_everything(teller, heard):
    first = teller(to=("wandb",))
    first.look()
    first.close()
    again = teller(to=("wandb",))
    again.look(again=True)
    again.close()
    assert set(Counter(points(heard["wandb"])).values()) == {2}


def test_a_part_of_the_store_that_is_damaged_stops_no_run(teller, said, store):
    key = next(key for key in store.list("steps") if key.endswith("losses.json"))
    store.put(key, b"[1.0, 2.0")
    teller(to=("wandb",)).look()
    assert "losses.json is" in said[0]["failed"]


def test_event_files_say_themselves_what_they_hold(store):
    for first, last in ((1, 3), (4, 5)):
        store.put(event_file("mstar", "0003-warm-up-train", first, last), b"")
    store.put(event_file("mstar", "0004-iter-01-train", 1, 2), b"")
    assert told_in_files(store, "mstar") == {"0003-warm-up-train": 5, "0004-iter-01-train": 2}
    forget(store, "mstar", "tensorboard")
    assert told_in_files(store, "mstar") == {}
