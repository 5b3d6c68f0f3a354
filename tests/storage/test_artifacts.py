"""Committing once, and reading back exactly what was committed."""

import logging
import re
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from mstar.errors import DataError, IntegrityError, ModelError, NotFound, StorageError
from mstar.storage import keys
from mstar.storage.artifacts import ArtifactWriter, commit_dataset, commit_model
from mstar.storage.manifest import Manifest, Ref, sha256
from mstar.storage.memory import MemoryStore
from mstar.storage.reading import open_part, read_manifest, resolve
from mstar.storage.store import Store

STEP = "5" * 64


def commit(store: Store, attempt: str = "1", data: bytes = b"data") -> Manifest:
    with ArtifactWriter(store, STEP, attempt) as writer:
        writer.add_bytes("model/weights", data)
        return writer.commit(results={"loss": 0.25}).manifest


def test_a_commit_names_every_part_and_is_what_is_read(store: Store, tmp_path: Path):
    (tmp_path / "file").write_bytes(b"rows")
    with ArtifactWriter(store, STEP, "host-1") as writer:
        part = writer.add_file("responses/00000.parquet", tmp_path / "file", rows=3)
        writer.add_bytes("notes.json", b"{}")
        done = writer.commit(
            results={"accuracy": 0.5, "by": {"x": [1, None]}},
            inputs=["b", "a", "b"],
            timings={"sample": 1.5},
            versions={"mstar": "1"},
            attempt=2,
        )
    assert done.won
    assert done.manifest == read_manifest(store, "step", STEP)
    assert re.fullmatch(
        rf"steps/{STEP}/attempt-host-1\.[0-9a-f]{{8}}/responses/00000\.parquet", part.key
    )
    assert (part.size, part.sha256, part.rows) == (4, sha256(b"rows"), 3)
    assert done.manifest.part("responses/00000.parquet") == part
    assert done.manifest.inputs == ("b", "a")
    assert done.manifest.attempt == 2
    assert resolve(store, Ref.of(done.manifest)) == done.manifest


def test_nothing_is_committed_before_the_commit(store: Store):
    with ArtifactWriter(store, STEP, "1") as writer:
        writer.add_bytes("a", b"")
        assert read_manifest(store, "step", STEP) is None


def test_a_block_that_ends_without_commit_leaves_nothing(store: Store):
    with ArtifactWriter(store, STEP, "1") as writer:
        writer.add_bytes("a", b"")
    assert list(store.list("")) == []
    with pytest.raises(KeyboardInterrupt):
        _write_and_be_interrupted(store)
    assert list(store.list("")) == []


def _write_and_be_interrupted(store: Store) -> None:
    with ArtifactWriter(store, STEP, "2") as writer:
        writer.add_bytes("a", b"")
        raise KeyboardInterrupt


def test_the_second_commit_loses_discards_its_parts_and_returns_the_first(store: Store, caplog):
    first = ArtifactWriter(store, STEP, "1")
    second = ArtifactWriter(store, STEP, "2")
    first.add_bytes("a", b"first")
    second.add_bytes("a", b"second")
    second.add_bytes("b", b"second")
    won = first.commit()
    with caplog.at_level(logging.WARNING):
        lost = second.commit()
    assert (won.won, lost.won) == (True, False)
    assert lost.manifest == won.manifest
    assert "committed by another attempt" in caplog.text
    assert list(store.list("")) == [won.manifest.part("a").key, f"steps/{STEP}/manifest.json"]
    assert store.get(won.manifest.part("a").key) == b"first"


def test_of_many_attempts_that_commit_at_once_one_wins_and_its_parts_stay(
    store: Store, tmp_path: Path
):
    writers = [ArtifactWriter(store, STEP, str(number)) for number in range(8)]
    for number, writer in enumerate(writers):
        writer.add_bytes("a", b"%d" % number)
    with ThreadPoolExecutor(8) as pool:
        done = list(pool.map(lambda writer: writer.commit(), writers))
    assert sum(commit.won for commit in done) == 1
    assert len({commit.manifest.digest for commit in done}) == 1
    assert len(list(store.list(""))) == 2
    open_part(store, done[0].manifest.part("a"), tmp_path / "scratch")


def test_attempts_of_one_name_do_not_touch_each_others_parts(store: Store):
    """A pod that was thought dead, and two runs at the same shared step, may have the same attempt's name."""
    first, second = ArtifactWriter(store, STEP, "1-1"), ArtifactWriter(store, STEP, "1-1")
    parts = [writer.add_bytes("a", data) for writer, data in ((first, b"1"), (second, b"2"))]
    first.commit()
    assert not second.commit().won
    assert store.get(parts[0].key) == b"1"
    assert store.size(parts[1].key) is None


def test_an_attempt_that_repeats_a_committed_one_never_deletes_its_parts(
    store: Store, tmp_path: Path
):
    first = commit(store)
    with ArtifactWriter(store, STEP, "1") as writer:
        writer.add_bytes("model/weights", b"data")
        assert writer.commit().manifest == first
    open_part(store, first.part("model/weights"), tmp_path / "scratch")


def test_a_commit_of_which_only_an_error_is_heard_keeps_its_parts(
    store: Store, monkeypatch, tmp_path: Path
):
    def create_and_fail(key: str, data: bytes) -> bool:
        type(store).create(store, key, data)
        raise StorageError("no answer")

    monkeypatch.setattr(store, "create", create_and_fail)
    with pytest.raises(StorageError, match="no answer"):
        commit(store)
    manifest = read_manifest(store, "step", STEP)
    assert manifest
    open_part(store, manifest.part("model/weights"), tmp_path / "scratch")


def test_a_shard_commits_as_a_step_does_and_the_step_adopts_its_parts(store: Store):
    shard = keys.shard_id(STEP, 1, 2)
    with ArtifactWriter(store, shard, "7") as writer:
        part = writer.add_bytes("responses/00001.parquet", b"rows", rows=1)
        writer.commit()
    assert part.key.startswith(f"steps/{STEP}/shards/00001-of-00002/attempt-7.")
    assert store.size(f"{keys.shard(STEP, 1, 2)}/manifest.json")
    committed = read_manifest(store, "step", shard)
    assert committed
    with ArtifactWriter(store, STEP, "1") as step:
        step.adopt(committed.parts[0])
        assert step.commit().manifest.parts == (part,)
    with ArtifactWriter(store, "6" * 64, "1") as aborted:
        aborted.adopt(part)
    assert store.get(part.key) == b"rows"


def test_a_folder_becomes_parts_under_a_prefix(store: Store, model_folder: Path):
    with ArtifactWriter(store, STEP, "1") as writer:
        writer.add_folder("model/", model_folder, move=True)
        manifest = writer.commit().manifest
    assert [part.name for part in manifest.parts] == [
        "model/.cache/lock",
        "model/.gitattributes",
        "model/config.json",
        "model/tokenizer/merges.txt",
        "model/weights.safetensors",
    ]
    assert not (model_folder / "config.json").exists()


def test_two_parts_of_one_name_are_refused(store: Store):
    with ArtifactWriter(store, STEP, "1") as writer:
        writer.add_bytes("a", b"")
        with pytest.raises(ValueError, match="has a part 'a' already"):
            writer.add_bytes("a", b"")
        with pytest.raises(StorageError, match="cannot be a key"):
            writer.add_bytes("../a", b"")


def test_results_that_json_would_change_are_refused_before_the_commit(store: Store):
    with ArtifactWriter(store, STEP, "1") as writer, pytest.raises(ValueError, match="plain JSON"):
        writer.commit(results={"by": {2: 0.5, 10: 0.5}})
    with ArtifactWriter(store, STEP, "2") as writer, pytest.raises(ValueError, match="JSON"):
        writer.commit(results={"loss": float("nan")})
    assert list(store.list("")) == []


def test_a_writer_commits_once(store: Store):
    with ArtifactWriter(store, STEP, "1") as writer:
        writer.commit()
        with pytest.raises(RuntimeError, match="is committed or aborted"):
            writer.commit()


def test_a_file_altered_while_it_is_stored_is_no_part(store: Store, monkeypatch, tmp_path: Path):
    path = tmp_path / "file"
    path.write_bytes(b"before")
    real = store.upload

    def alter(key: str, source: Path, *, move: bool = False) -> None:
        real(key, source, move=move)
        path.write_bytes(b"afterwards")

    monkeypatch.setattr(store, "upload", alter)
    with (
        pytest.raises(IntegrityError, match="file was altered while it was being stored"),
        ArtifactWriter(store, STEP, "1") as writer,
    ):
        writer.add_file("a", path)
    assert list(store.list("")) == []


def test_equal_content_is_stored_once_under_one_id(
    store: Store, monkeypatch, tmp_path: Path, model_folder: Path
):
    first = commit_model(store, model_folder, results={"parameters": 7})
    assert [part.name for part in first.parts] == [
        "config.json",
        "tokenizer/merges.txt",
        "weights.safetensors",
    ]
    assert read_manifest(store, "model", first.id) == first

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("nothing need be sent")

    monkeypatch.setattr(store, "upload", refuse)
    monkeypatch.setattr(store, "create", refuse)
    other = shutil.copytree(model_folder, tmp_path / "other")
    assert commit_model(store, other) == first
    (other / "config.json").write_bytes(b"{ }")
    with pytest.raises(AssertionError, match="nothing need be sent"):
        commit_model(store, other)


def test_a_data_set_may_be_given_file_by_file(store: Store, tmp_path: Path):
    (tmp_path / "x").write_bytes(b"rows")
    manifest = commit_dataset(
        store,
        {"train.parquet": tmp_path / "x", "manifest.json": tmp_path / "x"},
        rows={"train.parquet": 5},
    )
    assert manifest.part("train.parquet").rows == 5
    assert manifest.part("manifest.json").rows is None
    assert read_manifest(store, "dataset", manifest.id) == manifest


def test_a_folder_without_files_is_neither_model_nor_data_set(store: Store, tmp_path: Path):
    with pytest.raises(ModelError, match="holds no files: expected the files of a model"):
        commit_model(store, tmp_path)
    with pytest.raises(DataError, match="holds no files"):
        commit_dataset(store, {})
    with pytest.raises(NotFound, match="there is no such file"):
        commit_model(store, tmp_path / "absent")
    (tmp_path / "broken").symlink_to("nowhere")
    with pytest.raises(NotFound, match=r"cannot read .*broken: there is no such file"):
        commit_model(store, tmp_path)


def test_the_digest_does_not_depend_on_attempt_timings_or_order(tmp_path: Path):
    first, second = MemoryStore(), MemoryStore()
    with ArtifactWriter(first, STEP, "1") as writer:
        writer.add_bytes("a", b"1")
        writer.add_bytes("b", b"2")
        one = writer.commit(timings={"x": 1}, attempt=1).manifest
    with ArtifactWriter(second, STEP, "2") as writer:
        writer.add_bytes("b", b"2")
        writer.add_bytes("a", b"1")
        two = writer.commit(timings={"x": 2}, versions={"torch": "9"}, attempt=2).manifest
    assert one.digest == two.digest
    assert one != two
