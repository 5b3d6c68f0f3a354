"""What every store promises, on every store."""

import hashlib
import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from mstar.errors import NotFound, StorageError
from mstar.storage.folder import FolderStore
from mstar.storage.memory import MemoryStore
from mstar.storage.open import open_store
from mstar.storage.probe import probe
from mstar.storage.store import Remnant, Store

LARGE = bytes(range(256)) * (40 * 4096)  # 40 MiB: above the size from which an upload goes in parts

CLOCKS = 2.0  # seconds by which two clocks may differ; S3 tells whole seconds


@pytest.fixture(params=["folder", "memory", "s3", "versitygw"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    if request.param in {"s3", "versitygw"}:
        name = "s3_store" if request.param == "s3" else "real_store"
        s3_store: Store = request.getfixturevalue(name)
        return s3_store
    return MemoryStore() if request.param == "memory" else FolderStore(tmp_path / "store")


def test_what_was_put_is_what_is_read(store: Store):
    for data in (b"", b"one", b"\x00\r\n\xff" * 1000):
        store.put("a/b/c", data)
        assert store.get("a/b/c") == data
        assert store.size("a/b/c") == len(data)
        with store.open("a/b/c") as stream:
            assert stream.read() == data


def test_a_missing_key_is_not_found_and_has_no_size(store: Store, tmp_path: Path):
    store.put("a/b", b"")
    for key in ("a/c", "a", "a/b/c"):
        with pytest.raises(NotFound, match=key):
            store.get(key)
        with pytest.raises(NotFound, match=key):
            store.open(key)
        with pytest.raises(NotFound, match=key):
            store.open(key, length=0)
        with pytest.raises(NotFound, match=key):
            store.download(key, tmp_path / "target")
        assert store.size(key) is None
        assert store.local_path(key) is None
    assert not (tmp_path / "target").exists()


def test_an_empty_store_lists_nothing_and_has_nothing(store: Store):
    assert list(store.list("")) == []
    assert list(store.list("steps")) == []
    assert store.size("steps/a") is None


def test_create_never_replaces(store: Store):
    assert store.create("a/manifest.json", b"first")
    assert not store.create("a/manifest.json", b"second")
    assert not store.create("a/manifest.json", b"first")
    assert store.get("a/manifest.json") == b"first"
    store.put("b", b"put")
    assert not store.create("b", b"created")


def test_a_deleted_key_can_be_created_again(store: Store):
    store.create("a/b", b"first")
    store.delete("a/b")
    assert store.create("a/b", b"second")
    assert store.get("a/b") == b"second"


def test_of_many_threads_that_create_one_key_exactly_one_wins(store: Store):
    threads = 8
    for turn in range(5):
        start = threading.Barrier(threads)

        def attempt(number: int, turn: int = turn, start: threading.Barrier = start) -> bool:
            start.wait(120)
            return store.create(f"race/{turn}", b"%d" % number * 1000)

        with ThreadPoolExecutor(threads) as pool:
            won = list(pool.map(attempt, range(threads)))
        assert sum(won) == 1
        assert store.get(f"race/{turn}") == b"%d" % won.index(True) * 1000


def test_a_range_is_read_from_its_start_and_ends_with_the_object(store: Store):
    store.put("a", b"0123456789")
    for start, length, expected in (
        (0, None, b"0123456789"),
        (3, None, b"3456789"),
        (3, 4, b"3456"),
        (0, 1, b"0"),
        (8, 100, b"89"),
        (10, None, b""),
        (99, 5, b""),
        (4, 0, b""),
    ):
        with store.open("a", start=start, length=length) as stream:
            assert stream.read() == expected, (start, length)
    store.put("empty", b"")
    with store.open("empty", length=10) as stream:
        assert stream.read() == b""


def test_a_stream_can_be_read_piece_by_piece_and_by_lines(store: Store):
    store.put("a", b"one\ntwo\nthree")
    with store.open("a") as stream:
        assert stream.read(2) == b"on"
        assert stream.read(3) == b"e\nt"
    with store.open("a", start=4) as stream:
        assert list(stream) == [b"two\n", b"three"]


def test_a_large_file_goes_up_and_down_unchanged(store: Store, tmp_path: Path):
    source, target = tmp_path / "source", tmp_path / "new" / "folder" / "target"
    source.write_bytes(LARGE)
    store.upload("models/a/weights", source)
    assert store.size("models/a/weights") == len(LARGE)
    store.download("models/a/weights", target)
    assert hashlib.sha256(target.read_bytes()).digest() == hashlib.sha256(LARGE).digest()
    with store.open("models/a/weights", start=len(LARGE) - 1000, length=500) as stream:
        assert stream.read() == LARGE[-1000:-500]
    assert [path.name for path in target.parent.iterdir()] == ["target"]


def test_a_file_altered_after_its_upload_does_not_alter_the_object(store: Store, tmp_path: Path):
    source = tmp_path / "source"
    source.write_bytes(b"before")
    store.upload("a", source)
    with source.open("r+b") as file:
        file.write(b"AFTER!")
    assert store.get("a") == b"before"
    assert source.exists()


def test_an_upload_with_move_takes_the_file_away(store: Store, tmp_path: Path):
    source = tmp_path / "source"
    source.write_bytes(b"data")
    store.upload("a/b", source, move=True)
    assert store.get("a/b") == b"data"
    assert not source.exists()


def test_moving_a_file_that_has_a_second_name_leaves_the_other_name_alone(
    store: Store, tmp_path: Path
):
    source, other = tmp_path / "source", tmp_path / "other"
    other.write_bytes(b"before")
    source.hardlink_to(other)
    store.upload("a", source, move=True)
    with other.open("r+b") as file:
        file.write(b"AFTER!")
    link = tmp_path / "link"
    link.symlink_to(other)
    store.upload("b", link, move=True)
    assert (store.get("a"), store.get("b")) == (b"before", b"AFTER!")
    assert sorted(path.name for path in tmp_path.iterdir() if path.name != "store") == ["other"]


def test_uploading_a_file_that_is_not_there_says_which(store: Store, tmp_path: Path):
    with pytest.raises(NotFound, match=r"cannot read .*/absent: there is no such file"):
        store.upload("a", tmp_path / "absent")
    assert store.size("a") is None


def test_a_download_replaces_an_older_file(store: Store, tmp_path: Path):
    (tmp_path / "target").write_bytes(b"older and longer")
    store.put("a", b"new")
    store.download("a", tmp_path / "target")
    assert (tmp_path / "target").read_bytes() == b"new"


def test_keys_are_listed_in_sorted_order_below_a_folder(store: Store):
    names = ["a-b/c", "a/b.c", "a/b/c", "a/é", "a/z", "ab/c", "b"]
    for name in reversed(names):
        store.put(name, b"")
    assert list(store.list("")) == sorted(names)
    assert list(store.list("a")) == ["a/b.c", "a/b/c", "a/z", "a/é"]
    assert list(store.list("a/b")) == ["a/b/c"]
    assert list(store.list("b")) == []
    assert list(store.list("nothing")) == []


def test_a_listing_of_more_than_one_page_is_whole(store: Store, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("mstar.storage.s3._PAGE", 7)
    expected = [f"many/{number:04d}" for number in range(30)]
    for key in expected:
        store.put(key, b"")
    assert list(store.list("many")) == expected


def test_deleting_what_is_not_there_is_no_error(store: Store):
    store.delete("a/b")
    store.put("a/b", b"")
    store.delete("a/b")
    store.delete("a/b")
    store.delete("a/b/c")
    assert list(store.list("")) == []


BAD_KEYS = [
    "",
    "/a",
    "a/",
    "a//b",
    ".",
    "..",
    "a/../b",
    "a/./b",
    "a\\b",
    "a\0b",
    "a\nb",
    "a/.tmp-x",
]


def test_a_key_that_not_every_store_can_hold_is_refused_everywhere(store: Store, tmp_path: Path):
    (tmp_path / "file").write_bytes(b"")
    calls: list[Callable[[str], object]] = [
        store.get,
        store.open,
        lambda key: store.put(key, b""),
        lambda key: store.create(key, b""),
        lambda key: store.upload(key, tmp_path / "file"),
        lambda key: store.download(key, tmp_path / "target"),
        store.size,
        store.delete,
        store.local_path,
        lambda key: store.list(key or "/"),
    ]
    for key in BAD_KEYS:
        for call in calls:
            with pytest.raises(StorageError, match="cannot be a key"):
                call(key)
    assert list(store.list("")) == []


def test_a_reader_never_sees_half_an_object(store: Store, tmp_path: Path):
    size = 2_000_000
    store.put("a", b"0" * size)
    done = threading.Event()

    def write() -> None:
        for digit in b"123456789":
            store.put("a", bytes([digit]) * size)
        done.set()

    with ThreadPoolExecutor(1) as pool:
        writing = pool.submit(write)
        while not done.is_set() and not writing.done():
            seen = store.get("a")
            assert len(seen) == size
            assert len(set(seen)) == 1
        writing.result()


def test_a_stream_stays_with_the_version_that_it_began_with(store: Store):
    size = 300_000
    store.put("a", b"0" * size)
    with store.open("a") as stream:
        first = stream.read(10)
        store.put("a", b"1" * size)
        assert set(first + stream.read()) == {ord("0")}
    store.put("b", b"x")
    with store.open("b") as stream:
        store.delete("b")
        assert stream.read() == b"x"


def test_a_local_path_is_the_object_itself_or_nothing(store: Store):
    store.put("a/b", b"data")
    path = store.local_path("a/b")
    assert path is None or path.read_bytes() == b"data"


def test_the_url_leads_to_the_same_store(store: Store):
    if isinstance(store, MemoryStore):  # which ends with its process
        assert store.url == "memory:"
        return
    store.put("a", b"data")
    assert open_store(store.url).get("a") == b"data"
    assert open_store(store.url).url == store.url


def test_the_probe_passes_and_leaves_nothing_behind(store: Store):
    probe(store)
    assert list(store.list("")) == []


def test_a_download_tells_the_sha256_of_what_came(store: Store, tmp_path: Path):
    for name, data in (("empty", b""), ("small", b"data"), ("large", LARGE)):
        (tmp_path / name).write_bytes(data)
        store.upload(f"a/{name}", tmp_path / name)
        assert store.download(f"a/{name}", tmp_path / "target") == hashlib.sha256(data).hexdigest()
        assert (tmp_path / "target").read_bytes() == data


def test_a_scan_tells_size_and_time_of_each_key(store: Store, tmp_path: Path):
    source = tmp_path / "source"
    source.write_bytes(b"moved")
    os.utime(source, (1, 1))  # what was written long ago is stored now all the same
    before = time.time() - CLOCKS
    store.put("a/one", b"1")
    store.create("a/two", b"22")
    store.upload("a/three", source, move=True)
    found = list(store.scan("a"))
    assert [(each.key, each.size) for each in found] == [("a/one", 1), ("a/three", 5), ("a/two", 2)]
    assert all(before <= each.modified <= time.time() + CLOCKS for each in found)
    assert [each.key for each in store.scan("")] == list(store.list(""))
    assert list(store.scan("b")) == []


def test_finished_writes_leave_no_remnants(store: Store, tmp_path: Path):
    (tmp_path / "large").write_bytes(LARGE)
    store.put("a/b/c", b"")
    store.upload("a/large", tmp_path / "large")
    assert list(store.remnants()) == []


def test_clearing_what_has_gone_is_no_error(store: Store):
    store.clear(Remnant(name="a/b", since=0.0, token="00000000-0000-0000-0000-000000000000"))
