"""Checkpoints inside a step, as the store holds them: which are offered, which kept, and what becomes of the rest."""

import logging

import pytest

from mstar.errors import StorageError
from mstar.stages.interim import Interim, clear_progress, send_files
from mstar.storage import keys
from mstar.storage.folder import FolderStore
from mstar.storage.memory import MemoryStore

STEP = "a" * 64
FIT = {"plan": "p", "world_size": 1, "zero_stage": None}


@pytest.fixture
def store():
    return MemoryStore()


def files(folder, text="x"):
    (folder / "trainer").mkdir(parents=True, exist_ok=True)
    (folder / "trainer/optimizer.bin").write_text(text)
    (folder / "losses.json").write_text("[1.0]")
    return folder


def leave(interim, steps, tmp_path, **other):
    name = interim.name(steps)
    parts = interim.send(name, files(tmp_path / "work", str(steps)))
    interim.commit(name, parts, {"optimizer_steps": steps, **FIT, **other})
    return name


def test_the_newest_checkpoint_of_the_same_pass_is_offered_first(store, tmp_path, caplog):
    one = Interim(store, STEP, "1", tmp_path)
    two = Interim(store, STEP, "2", tmp_path)
    leave(one, 9, tmp_path)
    two.went_on_from(one.name(9))
    leave(two, 10, tmp_path)
    assert list(one.candidates(FIT)) == ["00000010-2", "00000009-1"]
    for what, value in (("plan", "q"), ("world_size", 2), ("zero_stage", 1)):
        caplog.clear()
        assert list(one.candidates(FIT | {what: value})) == []
        assert "passing over checkpoint" in caplog.text


def test_what_is_fetched_is_what_was_sent(store, tmp_path):
    interim = Interim(store, STEP, "1", tmp_path)
    folder = interim.fetch(leave(interim, 3, tmp_path))
    assert folder is not None
    assert (folder / "trainer/optimizer.bin").read_text() == "3"
    assert (folder / "losses.json").read_text() == "[1.0]"
    assert not list((tmp_path / "work").rglob("*.bin"))


def test_the_last_two_that_are_known_to_be_good_are_kept(store, tmp_path):
    """A damaged one counts for nothing, however many steps it has: an attempt began again before it."""
    interim = Interim(store, STEP, "1", tmp_path)
    for steps in (4, 7, 9):
        leave(interim, steps, tmp_path)
    again = Interim(store, STEP, "2", tmp_path)
    assert list(again.candidates(FIT)) == ["00000009-1", "00000007-1"]
    again.went_on_from("00000007-1")
    leave(again, 8, tmp_path)
    assert list(again.candidates(FIT)) == ["00000008-2", "00000007-1"]
    leave(again, 9, tmp_path)
    assert list(again.candidates(FIT)) == ["00000009-2", "00000008-2"]
    assert len(list(store.list(keys.progress(STEP)))) == 6


def test_parts_without_a_manifest_are_not_offered_and_go_with_the_next_checkpoint(store, tmp_path):
    interim = Interim(store, STEP, "1", tmp_path)
    interim.send(interim.name(2), files(tmp_path / "work"))
    assert list(interim.candidates(FIT)) == []
    leave(interim, 3, tmp_path)
    assert not [key for key in store.list(keys.progress(STEP)) if "/00000002-1." in key]


def test_a_manifest_under_another_name_is_passed_over(store, tmp_path, caplog):
    interim = Interim(store, STEP, "1", tmp_path)
    name = leave(interim, 3, tmp_path)
    folder = keys.progress(STEP)
    store.put(f"{folder}/00000099-1.json", store.get(f"{folder}/{name}.json"))
    assert list(interim.candidates(FIT)) == [name]
    assert "was written as" in caplog.text


def test_clearing_leaves_nothing_and_deletes_manifests_first(tmp_path):
    deleted = []

    class Watched(MemoryStore):
        def delete(self, key):
            deleted.append(key)
            super().delete(key)

    store = Watched()
    interim = Interim(store, STEP, "1", tmp_path)
    store.put(keys.task(STEP), b"{}")
    leave(interim, 1, tmp_path)
    leave(interim, 2, tmp_path)
    clear_progress(store, STEP)
    assert list(store.list("")) == [keys.task(STEP)]
    assert [key.endswith(("1-1.json", "2-1.json")) for key in deleted] == [True] * 2 + [False] * 4


def test_a_store_that_cannot_delete_or_list_fails_nobody(tmp_path, caplog):
    class Stubborn(MemoryStore):
        def delete(self, key):
            raise StorageError("no")

    class Blind(MemoryStore):
        def list(self, prefix):
            raise StorageError("no")

    with caplog.at_level(logging.WARNING):
        for store in (Stubborn(), Blind()):
            interim = Interim(store, STEP, "1", tmp_path)
            for steps in (1, 2, 3):
                leave(interim, steps, tmp_path)
            clear_progress(store, STEP)
    assert "what follows it for `mstarctl gc`" in caplog.text
    assert "stay" in caplog.text


def test_files_that_cannot_all_be_sent_are_not_left_behind(tmp_path):
    class Partly(MemoryStore):
        def upload(self, key, path, *, move=False):
            if key.endswith("losses.json"):
                raise StorageError("full")
            super().upload(key, path, move=move)

    store = Partly()
    with pytest.raises(StorageError, match="full"):
        send_files(store, "steps/x", files(tmp_path / "work"))
    assert list(store.list("")) == []


def test_another_process_has_the_same_view(tmp_path):
    store = FolderStore(tmp_path / "store")
    interim = Interim(store, STEP, "1", tmp_path)
    name = leave(interim, 3, tmp_path)
    place = interim.place
    other = Interim.at(place.model_validate_json(place.model_dump_json()))
    assert list(other.candidates(FIT)) == [name]
    assert other.fetch(name) is not None
