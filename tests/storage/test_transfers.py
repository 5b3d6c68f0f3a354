"""Several transfers at once: in order, within bounds, without growing memory, and none left behind by a failure."""

import threading
import time
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mstar.errors import StorageError
from mstar.storage import s3_parts
from mstar.storage.artifacts import ArtifactWriter
from mstar.storage.memory import MemoryStore
from mstar.storage.parallel import LARGE, PARALLEL, in_parallel
from mstar.storage.reading import materialise
from mstar.storage.s3_parts import PART, Window

STEP = "5" * 64


@given(st.integers(PART + 1, 1 << 40))
def test_spans_cover_an_object_once_and_begin_with_what_was_asked_for_first(size: int):
    end = 0
    for start, stop in s3_parts._spans(size):
        assert start == end < stop <= start + PART
        end = stop
        if start > 100 * PART:
            return
    assert end == size


def test_spans_grow_smaller_towards_the_end():
    lengths = [stop - start for start, stop in s3_parts._spans(256 << 20)]
    assert lengths[0] == PART
    assert lengths == sorted(lengths, reverse=True)
    assert sum(lengths[-PARALLEL:]) <= PARALLEL * (4 << 20)


def test_a_window_reads_its_part_of_a_file_again_and_again(tmp_path: Path):
    (tmp_path / "file").write_bytes(b"0123456789")
    with (tmp_path / "file").open("rb") as file:
        window = Window(file, 2, 6)
        assert window.read(4) == b"2345"
        assert window.read(4) == b"67"
        assert window.read() == b""
        assert (window.seek(0, 2), window.seek(-1, 1), window.seek(1)) == (6, 5, 1)
        assert window.read() == b"34567"
        assert file.tell() == 0


def test_results_come_in_order_and_only_a_few_are_under_way():
    under_way, most, lock = 0, 0, threading.Lock()
    meeting = threading.Barrier(2)

    def do(number: int) -> int:
        nonlocal under_way, most
        with lock:
            under_way += 1
            most = max(most, under_way)
        if number < 2:
            meeting.wait(120)
        time.sleep(0.002 * (number % 3))
        with lock:
            under_way -= 1
        return number * number

    assert list(in_parallel(do, range(40))) == [number * number for number in range(40)]
    assert 1 < most <= PARALLEL
    assert list(in_parallel(do, [])) == []


def test_after_a_failure_nothing_more_is_begun_and_nothing_is_left_under_way():
    begun, ended = [], []

    def do(number: int) -> None:
        begun.append(number)
        if number == 3:
            raise StorageError("the third")
        time.sleep(0.05)
        ended.append(number)

    with pytest.raises(StorageError, match="the third"):
        list(in_parallel(do, range(500)))
    assert len(begun) <= 2 * PARALLEL
    assert sorted([*ended, 3]) == sorted(begun)


def test_many_small_parts_go_up_and_down_several_at_once(tmp_path: Path):
    """Each waits for another that is under way too: one after the other would never end."""

    class Pairs(MemoryStore):
        meeting = threading.Barrier(2)

        def upload(self, key: str, path: Path, *, move: bool = False) -> None:
            self.meeting.wait(120)
            super().upload(key, path, move=move)

        def download(self, key: str, path: Path) -> str:
            self.meeting.wait(120)
            return super().download(key, path)

    folder = tmp_path / "folder"
    folder.mkdir()
    for number in range(20):
        (folder / f"{number:02d}").write_bytes(b"%d" % number)
    store = Pairs()
    with ArtifactWriter(store, STEP, "1") as writer:
        writer.add_folder("model/", folder)
        manifest = writer.commit().manifest
    assert [part.name for part in manifest.parts] == [f"model/{n:02d}" for n in range(20)]
    copy = materialise(store, manifest, "model/", tmp_path / "scratch")
    assert {path.name: path.read_bytes() for path in copy.iterdir()} == {
        f"{number:02d}": b"%d" % number for number in range(20)
    }


def test_a_folder_of_which_one_file_fails_leaves_nothing(tmp_path: Path):
    class Failing(MemoryStore):
        def upload(self, key: str, path: Path, *, move: bool = False) -> None:
            if path.name == "07":
                raise StorageError("no space left")
            super().upload(key, path, move=move)

    for number in range(20):
        (tmp_path / f"{number:02d}").write_bytes(b"")
    store = Failing()
    with (
        pytest.raises(StorageError, match="no space left"),
        ArtifactWriter(store, STEP, "1") as writer,
    ):
        writer.add_folder("", tmp_path)
    assert list(store.list("")) == []


def test_transfers_take_no_more_memory_for_a_larger_file(real_store, tmp_path: Path):
    source, target = tmp_path / "source", tmp_path / "target"
    with source.open("wb") as file:
        file.truncate(3 * LARGE)
    real_store.upload("a", source)  # what is loaded once does not count
    tracemalloc.start()
    real_store.upload("b", source)
    real_store.download("b", target)
    with real_store.open("b") as stream:
        while stream.read(1 << 20):
            pass
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 12 << 20
