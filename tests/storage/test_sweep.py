"""Sweeping a store while runs adopt what is swept, and with sweeps that are killed anywhere."""

from collections.abc import Callable
from pathlib import Path

import pytest

from mstar.errors import IntegrityError
from mstar.storage import keys
from mstar.storage import sweep as sweeping
from mstar.storage.artifacts import ArtifactWriter, commit_model
from mstar.storage.folder import FolderStore
from mstar.storage.manifest import Manifest
from mstar.storage.memory import MemoryStore
from mstar.storage.reading import read_manifest
from mstar.storage.retention import TRASH, Roots
from mstar.storage.store import Remnant, Store
from mstar.storage.sweep import BREATH_SECONDS, SETTLE_SECONDS, survey, sweep

STEP = "5" * 64
FOLDER = f"steps/{STEP}"
NOW = float("inf")


@pytest.fixture(autouse=True)
def _one_after_the_other(monkeypatch) -> None:
    """So that the n-th request is the same one each time."""
    monkeypatch.setattr(sweeping, "in_parallel", lambda do, items: map(do, list(items)))


def commit(store: Store, name: str = "1", data: bytes = b"data") -> Manifest:
    with ArtifactWriter(store, STEP, name) as writer:
        writer.add_bytes("model/weights", data)
        writer.add_bytes("losses.json", b"[]")
        return writer.commit().manifest


def whole(store: Store, manifest: Manifest) -> bool:
    return read_manifest(store, "step", STEP) == manifest and all(
        store.size(part.key) == part.size for part in manifest.parts
    )


def never(seconds: float) -> None:
    del seconds


def nothing(store: Store) -> Roots:
    return Roots()


def clean(store: Store, look: Callable[[Store], Roots] = nothing) -> None:
    sweep(store, survey(store, look, before=NOW), look, before=NOW, sleep=never)


@pytest.mark.parametrize("kind", ["folder", "memory", "s3", "versitygw"])
def test_a_sweep_leaves_what_is_needed_and_nothing_else(
    kind: str, tmp_path: Path, request, model_folder: Path
):
    store: Store
    if kind in {"s3", "versitygw"}:
        store = request.getfixturevalue("s3_store" if kind == "s3" else "real_store")
    else:
        store = FolderStore(tmp_path / "store") if kind == "folder" else MemoryStore()
    model = commit_model(store, model_folder)
    needed = commit(store)
    with ArtifactWriter(store, "6" * 64, "1") as other:
        other.add_bytes("part", b"")
        other.commit()
    before = sorted(store.list(""))
    store.put(f"{FOLDER}/attempt-2.dead/part", b"half")
    store.put("runs/a/spec.json", b"{}")

    def look(_: Store) -> Roots:
        return Roots(referenced=frozenset({FOLDER, f"models/{model.id}"}))

    found = survey(store, look, before=NOW)
    done = sweep(store, found, look, before=NOW, sleep=never)
    assert done.plan == found.plan
    assert [each.folder for each in done.plan.artifacts] == [f"steps/{'6' * 64}"]
    expected = [key for key in before if "666" not in key]
    assert sorted(store.list("")) == sorted([*expected, "runs/a/spec.json"])
    assert whole(store, needed)
    again = survey(store, look, before=NOW)
    assert (again.plan.artifacts, again.plan.litter) == ((), ())


def test_unfinished_uploads_temporary_files_and_empty_folders_go_when_they_are_old(tmp_path: Path):
    store = FolderStore(tmp_path)
    commit(store)
    (tmp_path / FOLDER / ".tmp-1").write_bytes(b"half")
    (tmp_path / "steps/empty/attempt-1").mkdir(parents=True)

    def look(_: Store) -> Roots:
        return Roots(referenced=frozenset({FOLDER}))

    assert survey(store, look, before=0.0).remnants == ()
    clean(store, look)
    assert sorted(path.name for path in (tmp_path / "steps").iterdir()) == [STEP]
    assert not (tmp_path / FOLDER / ".tmp-1").exists()


def test_multipart_uploads_that_nobody_ends_are_aborted(real_store):
    at = real_store._at("steps/a/attempt-1/part")
    real_store._client.create_multipart_upload(**at)
    assert survey(real_store, nothing, before=0.0).remnants == ()
    found = survey(real_store, nothing, before=NOW)
    assert [each.name for each in found.remnants] == ["steps/a/attempt-1/part"]
    clean(real_store)
    assert list(real_store.remnants()) == []


def test_a_run_that_cannot_be_understood_stops_the_sweep_before_anything_goes():
    store = MemoryStore()
    manifest = commit(store)
    found = survey(store, nothing, before=NOW)

    def look(_: Store) -> Roots:
        raise IntegrityError("cannot tell what run 'a' needs")

    with pytest.raises(IntegrityError):
        survey(store, look, before=NOW)
    with pytest.raises(IntegrityError):
        sweep(store, found, look, before=NOW, sleep=never)
    assert whole(store, manifest)


def test_what_changed_since_the_survey_stays():
    store = MemoryStore(clock=lambda: clock)
    clock = 1.0
    manifest = commit(store)
    found = survey(store, nothing, before=10.0)
    assert len(found.plan.artifacts) == 1
    clock = 20.0
    store.put(keys.manifest("step", STEP), manifest.to_bytes())  # as whoever uses it again does
    sweep(store, found, nothing, before=10.0, sleep=never)
    assert whole(store, manifest)


def test_a_model_that_is_stored_again_is_as_young_as_a_new_one(model_folder: Path):
    store = MemoryStore(clock=lambda: clock)
    clock = 1.0
    first = commit_model(store, model_folder)
    clock = 20.0
    assert commit_model(store, model_folder) == first
    assert survey(store, nothing, before=10.0).plan.artifacts == ()


def test_an_attempt_that_is_committed_after_the_survey_keeps_its_parts():
    store = MemoryStore()
    writer = ArtifactWriter(store, STEP, "1")
    writer.add_bytes("model/weights", b"data")
    writer.add_bytes("losses.json", b"[]")

    def look(_: Store) -> Roots:
        return Roots(pending=frozenset({FOLDER}))

    found = survey(store, look, before=NOW)
    assert len(found.plan.litter) == 2
    manifest = writer.commit().manifest
    sweep(store, found, look, before=NOW, sleep=never)
    assert whole(store, manifest)


@pytest.mark.parametrize(("live", "seconds"), [(True, SETTLE_SECONDS), (False, BREATH_SECONDS)])
def test_a_step_adopted_while_it_is_swept_is_put_back(live: bool, seconds: float):
    """A controller has just seen that the step is committed, and says so in its history a moment later."""
    store = MemoryStore()
    manifest = commit(store)
    adopted: set[str] = set()

    def look(_: Store) -> Roots:
        return Roots(referenced=frozenset(adopted), live=live)

    def sleep(waited: float) -> None:
        assert waited == seconds
        assert read_manifest(store, "step", STEP) is None  # whoever asks now runs it again
        adopted.add(FOLDER)

    done = sweep(store, survey(store, look, before=NOW), look, before=NOW, sleep=sleep)
    assert done.plan.artifacts == ()
    assert whole(store, manifest)
    assert list(store.list(TRASH)) == []


def test_a_step_committed_anew_while_it_is_swept_stays_whole():
    store = MemoryStore()
    commit(store)
    new: list[Manifest] = []

    def sleep(_: float) -> None:
        new.append(commit(store, "2", b"new"))

    sweep(store, survey(store, nothing, before=NOW), nothing, before=NOW, sleep=sleep)
    assert whole(store, new[0])
    assert list(store.list(TRASH)) == []


class Killed(BaseException):
    """The process ended here."""


class Tapped(MemoryStore):
    """A store that says before each request how many there were."""

    def __init__(self) -> None:
        super().__init__()
        self.requests = 0
        self.tap: Callable[[int], None] = never

    def _count(self) -> None:
        self.requests += 1
        self.tap(self.requests)

    def get(self, key: str) -> bytes:
        self._count()
        return super().get(key)

    def put(self, key: str, data: bytes) -> None:
        self._count()
        super().put(key, data)

    def create(self, key: str, data: bytes) -> bool:
        self._count()
        return super().create(key, data)

    def delete(self, key: str) -> None:
        self._count()
        super().delete(key)

    def has(self, key: str) -> bool:
        return key in self._objects


def commit_in_shards(store: Store) -> Manifest:
    """A step with all that a step may have."""
    store.put(keys.task(STEP), b"{}")
    store.put(f"{FOLDER}/attempt-0.dead/part", b"half")
    with ArtifactWriter(store, keys.shard_id(STEP, 0, 1), "1") as shard:
        part = shard.add_bytes("rows", b"rows")
        shard.commit()
    with ArtifactWriter(store, STEP, "1") as writer:
        writer.adopt(part)
        writer.add_bytes("model/weights", b"data")
        return writer.commit().manifest


def requests_of_a_sweep() -> int:
    store = Tapped()
    commit_in_shards(store)
    found = survey(store, nothing, before=NOW)
    store.requests = 0
    sweep(store, found, nothing, before=NOW, sleep=never)
    return store.requests


def test_a_sweep_killed_anywhere_is_finished_by_the_next():
    count = requests_of_a_sweep()
    assert count > 10
    for kill in range(1, count + 1):
        store = Tapped()
        commit_in_shards(store)
        found = survey(store, nothing, before=NOW)
        _sweep_and_die(store, found, nothing, at=store.requests + kill)
        clean(store)
        clean(store)  # what was moved aside is swept as what nobody committed
        assert list(store.list("")) == [], kill


def test_a_step_adopted_before_a_sweep_was_killed_is_whole_after_the_next():
    """The adopter sees the manifest at any moment and says so at once; the sweep is killed at any later one."""
    count = requests_of_a_sweep()
    put_back = 0
    for adopt in range(1, count + 1):
        for kill in range(adopt, count + 1):
            store = Tapped()
            manifest = commit_in_shards(store)
            found = survey(store, nothing, before=NOW)
            adopted: set[str] = set()
            begin = store.requests

            def look(_: Store, adopted: set[str] = adopted) -> Roots:
                return Roots(referenced=frozenset(adopted), live=True)

            def adopting(
                number: int,
                store: Tapped = store,
                adopted: set[str] = adopted,
                at: int = begin + adopt,
            ) -> None:
                if number == at and store.has(keys.manifest("step", STEP)):
                    adopted.add(FOLDER)

            _sweep_and_die(store, found, look, at=begin + kill, also=adopting)
            if adopted:
                put_back += not store.has(keys.manifest("step", STEP))
                clean(store, look)
                assert whole(store, manifest), (adopt, kill)
                assert list(store.list(TRASH)) == []
    assert put_back


def _sweep_and_die(
    store: Tapped,
    found: sweeping.Sweep,
    look: Callable[[Store], Roots],
    *,
    at: int,
    also: Callable[[int], None] = never,
) -> None:
    def tap(number: int) -> None:
        also(number)
        if number == at:
            raise Killed

    store.tap = tap
    try:
        sweep(store, found, look, before=NOW, sleep=never)
    except Killed:
        pass
    finally:
        store.tap = never


def test_remnants_cleared_twice_are_no_error(tmp_path: Path):
    store = FolderStore(tmp_path)
    found = sweeping.Sweep(
        plan=survey(store, nothing, before=NOW).plan, remnants=(Remnant(name="a", since=0.0),)
    )
    sweep(store, found, nothing, before=NOW, sleep=never)
