"""What is read is what was committed, or an error that names the difference."""

import os
from dataclasses import replace
from pathlib import Path

import pytest

from mstar.errors import IntegrityError, NotFound, StorageError
from mstar.storage import keys
from mstar.storage.artifacts import ArtifactWriter, commit_model
from mstar.storage.folder import FolderStore
from mstar.storage.manifest import Manifest, Ref, sha256
from mstar.storage.memory import MemoryStore
from mstar.storage.reading import materialise, open_part, read_manifest, resolve
from mstar.storage.store import Store

STEP = "5" * 64


def commit(store: Store, attempt: str = "1", data: bytes = b"data") -> Manifest:
    with ArtifactWriter(store, STEP, attempt) as writer:
        writer.add_bytes("model/weights", data)
        return writer.commit(results={"loss": 0.25}).manifest


def test_a_reference_is_followed_only_to_the_very_artifact(store: Store):
    manifest = commit(store)
    ref = Ref.of(manifest)
    with pytest.raises(NotFound, match="is not in the store"):
        resolve(store, ref.model_copy(update={"id": "0" * 64}))
    with pytest.raises(
        IntegrityError, match="a manifest from another run or task: expected digest 000"
    ):
        resolve(store, ref.model_copy(update={"digest": "0" * 64}))


def test_a_manifest_copied_from_another_task_is_named(store: Store):
    commit(store)
    foreign = keys.manifest("step", "6" * 64)
    store.put(foreign, store.get(keys.manifest("step", STEP)))
    with pytest.raises(
        IntegrityError,
        match=f"a manifest from another run or task: expected step 66.* found step {STEP}",
    ):
        read_manifest(store, "step", "6" * 64)


@pytest.mark.parametrize(
    "alter",
    [
        lambda data: data[:-20],
        lambda data: b"",
        lambda data: b"[]",
        lambda data: b"{}",
        lambda data: b"\xff",
        lambda data: data.replace(b'"size": 4', b'"size": "x"'),
        lambda data: data.replace(b'"parts"', b'"pieces"'),
        lambda data: data.replace(b'"digest"', b'"dig"'),
    ],
)
def test_a_damaged_manifest_is_no_manifest(store: Store, alter):
    commit(store)
    key = keys.manifest("step", STEP)
    store.put(key, alter(store.get(key)))
    with pytest.raises(
        IntegrityError,
        match=f"{key} in .* is not a manifest .*delete all below steps/{STEP}/ and resume",
    ):
        read_manifest(store, "step", STEP)


@pytest.mark.parametrize(
    ("old", "new"),
    [(b"0.25", b"0.5"), (b'"size": 4', b'"size": 5'), (b"model/weights", b"model/Weights")],
)
def test_an_altered_manifest_does_not_match_its_digest(store: Store, old: bytes, new: bytes):
    commit(store)
    key = keys.manifest("step", STEP)
    store.put(key, store.get(key).replace(old, new))
    with pytest.raises(IntegrityError, match="was altered: expected digest"):
        read_manifest(store, "step", STEP)


def damage(store: Store, key: str, data: bytes) -> None:
    """Replace what is stored, so that even a file's time and size can be those of before."""
    store.put(key, data)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"dat", "is truncated: expected 4 bytes, found 3"),
        (b"data+", "is altered: expected 4 bytes, found 5"),
        (b"DATA", f"is altered: expected sha256 {sha256(b'data')}, found {sha256(b'DATA')}"),
    ],
)
def test_a_damaged_part_is_named_with_what_was_expected_and_found(
    store: Store, tmp_path: Path, data: bytes, words: str
):
    manifest = commit(store)
    part = manifest.part("model/weights")
    damage(store, part.key, data)
    for read in (
        lambda: open_part(store, part, tmp_path / "scratch"),
        lambda: materialise(store, manifest, "model/", tmp_path / "scratch"),
        lambda: materialise(store, manifest, "", tmp_path / "scratch"),
    ):
        with pytest.raises(IntegrityError) as caught:
            read()
        assert words in str(caught.value)
        assert str(caught.value).startswith("part model/weights is ")
        assert f"delete all below steps/{STEP}/ and resume the run" in str(caught.value)
    damage(store, part.key, b"data")
    assert open_part(store, part, tmp_path / "scratch").read_bytes() == b"data"


def test_a_missing_part_is_named(store: Store, tmp_path: Path):
    manifest = commit(store)
    store.delete(manifest.parts[0].key)
    with pytest.raises(
        IntegrityError, match="part model/weights is missing: expected 4 bytes, found nothing"
    ):
        open_part(store, manifest.parts[0], tmp_path)
    with pytest.raises(IntegrityError, match="part model/weights is missing"):
        materialise(store, manifest, "", tmp_path)


def test_a_part_verified_before_and_altered_since_is_noticed(tmp_path: Path):
    store = FolderStore(tmp_path / "store")
    part = commit(store).parts[0]
    path = open_part(store, part, tmp_path)
    with path.open("r+b") as file:
        file.write(b"DATA")
    os.utime(path, ns=(1, path.stat().st_mtime_ns + 1))
    with pytest.raises(IntegrityError, match="is altered"):
        open_part(store, part, tmp_path)


def test_a_verified_file_is_not_read_again(tmp_path: Path, monkeypatch):
    store = FolderStore(tmp_path / "store")
    part = commit(store).parts[0]
    open_part(store, part, tmp_path)
    monkeypatch.setattr("mstar.storage.seen.file_digest", lambda path: pytest.fail("read again"))
    open_part(store, part, tmp_path)


def test_a_folder_of_parts_has_their_names_less_the_prefix(store: Store, tmp_path: Path):
    with ArtifactWriter(store, STEP, "1") as writer:
        writer.add_bytes("model/config.json", b"{}")
        writer.add_bytes("model/sub/weights", b"w")
        writer.add_bytes("optimizer/state", b"o")
        manifest = writer.commit().manifest
    scratch = tmp_path / "scratch"
    folder = materialise(store, manifest, "model/", scratch)
    found = {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }
    assert found == {"config.json": b"{}", "sub/weights": b"w"}
    whole = materialise(store, manifest, "", scratch)
    assert (whole / "optimizer/state").read_bytes() == b"o"
    assert (whole / "model/config.json").read_bytes() == b"{}"
    assert scratch.exists() == isinstance(store, MemoryStore)  # a folder is used where it is


def test_a_model_in_a_folder_store_is_used_where_it_is(tmp_path: Path, model_folder: Path):
    store = FolderStore(tmp_path / "store")
    manifest = commit_model(store, model_folder)
    folder = materialise(store, manifest, "", tmp_path / "scratch")
    assert folder.parent == tmp_path / "store/models" / manifest.id
    assert not (tmp_path / "scratch").exists()


def test_a_stored_folder_with_a_foreign_file_in_it_is_copied_without(
    tmp_path: Path, model_folder: Path
):
    store = FolderStore(tmp_path / "store")
    manifest = commit_model(store, model_folder)
    own = (store.root / manifest.part("config.json").key).parent
    (own / ".tmp-left").write_bytes(b"")
    assert materialise(store, manifest, "", tmp_path / "scratch") == own
    (own / "pytorch_model.bin").write_bytes(b"")
    folder = materialise(store, manifest, "", tmp_path / "scratch")
    assert folder != own
    assert sorted(path.name for path in folder.iterdir()) == [
        "config.json",
        "tokenizer",
        "weights.safetensors",
    ]


def test_parts_of_several_folders_are_brought_together(tmp_path: Path):
    store = FolderStore(tmp_path / "store")
    parts = []
    for index in range(2):
        with ArtifactWriter(store, keys.shard_id(STEP, index, 2), "1") as shard:
            parts.append(shard.add_bytes(f"responses/{index}", b"%d" % index))
            shard.commit()
    with ArtifactWriter(store, STEP, "1") as step:
        for part in parts:
            step.adopt(part)
        manifest = step.commit().manifest
    folder = materialise(store, manifest, "responses/", tmp_path / "scratch")
    assert [(folder / name).read_bytes() for name in ("0", "1")] == [b"0", b"1"]


def test_a_copy_is_used_again_while_it_is_right_and_fetched_again_when_not(
    tmp_path: Path, monkeypatch
):
    store = MemoryStore()
    manifest = commit(store)
    fetched = []
    real = store.download

    def count(key: str, path: Path) -> str:
        fetched.append(key)
        return real(key, path)

    monkeypatch.setattr(store, "download", count)
    for _ in range(3):
        folder = materialise(store, manifest, "model/", tmp_path)
    assert len(fetched) == 1
    (folder / "weights").write_bytes(b"bad")
    assert (materialise(store, manifest, "model/", tmp_path) / "weights").read_bytes() == b"data"
    assert len(fetched) == 2


def test_asking_for_parts_that_an_artifact_lacks_says_what_it_has(store: Store, tmp_path: Path):
    with pytest.raises(NotFound, match=r"has no part named optimizer/…; it has model/weights"):
        materialise(store, commit(store), "optimizer/", tmp_path)
    with pytest.raises(ValueError, match="must be empty or end with"):
        materialise(store, commit(store), "model", tmp_path)


def test_a_part_cannot_escape_its_folder(tmp_path: Path):
    store = MemoryStore()
    manifest = commit(store)
    evil = replace(manifest, parts=(replace(manifest.parts[0], name="../../evil"),))
    with pytest.raises(StorageError, match="cannot be a key"):
        materialise(store, evil, "", tmp_path / "a/b")
