"""What the folder store does when the disk does not do as it should, and when processes race."""

import errno
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from mstar.errors import SpecError, StorageError
from mstar.storage.folder import FolderStore
from mstar.storage.open import open_store


@pytest.fixture
def store(tmp_path: Path) -> FolderStore:
    return FolderStore(tmp_path / "store")


def files(folder: Path) -> list[str]:
    return sorted(
        path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()
    )


def failing(number: int, real: Callable[..., Any] | None = None) -> Callable[..., Any]:
    """A stand-in that fails as the system does, after ``real`` has done what it could."""

    def fail(*arguments: Any, **named: Any) -> Any:
        if real:
            real(*arguments, **named)
        raise OSError(number, os.strerror(number))

    return fail


WRITES: dict[str, Callable[[FolderStore, Path], object]] = {
    "put": lambda store, path: store.put("steps/a/part", b"new"),
    "create": lambda store, path: store.create("steps/b/part", b"new"),
    "upload": lambda store, path: store.upload("steps/a/part", path),
    "move": lambda store, path: store.upload("steps/a/part", path, move=True),
}


@pytest.fixture(params=WRITES)
def write(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[FolderStore], object]:
    source = tmp_path / "source"
    source.write_bytes(b"new")
    return lambda store: WRITES[request.param](store, source)


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.ENOSPC, "the disk is full"),
        (errno.EDQUOT, "the disk is full, or a quota"),
        (errno.EROFS, "its file system is read-only"),
        (errno.EACCES, "permission denied"),
        (errno.EIO, "Input/output error"),
    ],
)
def test_a_disk_that_fails_gives_one_message_and_leaves_the_old_object(
    store: FolderStore, write, monkeypatch, tmp_path: Path, number: int, words: str
):
    store.put("steps/a/part", b"old")
    monkeypatch.setattr(os, "fsync", failing(number))
    with pytest.raises(StorageError, match=words) as caught:
        write(store)
    assert str(caught.value).startswith(f"cannot write {store.root}/steps/")
    assert files(store.root) == ["steps/a/part"]
    assert store.get("steps/a/part") == b"old"
    assert (tmp_path / "source").read_bytes() == b"new"


def test_a_disk_that_fills_up_half_way_leaves_nothing(
    store: FolderStore, monkeypatch, tmp_path: Path
):
    def write_half(self: Path, data: bytes) -> int:
        with self.open("wb") as file:
            file.write(data[: len(data) // 2])
        raise OSError(errno.ENOSPC, "No space left on device")

    (tmp_path / "source").write_bytes(b"data")
    monkeypatch.setattr(Path, "write_bytes", write_half)
    monkeypatch.setattr("shutil.copyfile", lambda source, target: write_half(target, b"data"))
    for attempt in (
        lambda: store.put("a", b"data"),
        lambda: store.create("a", b"data"),
        lambda: store.upload("a", tmp_path / "source"),
    ):
        with pytest.raises(StorageError, match="the disk is full"):
            attempt()
    assert files(store.root) == []


def test_a_real_full_device_is_told_as_such(store: FolderStore, tmp_path: Path):
    if not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full")
    source = tmp_path / "source"
    source.write_bytes(b"data")
    store.put("a", b"data")
    target = tmp_path / "target"
    with pytest.raises(StorageError, match=f"cannot write {target}: the disk is full"):
        _download_to_full_device(store, target)
    assert not target.exists()


def _download_to_full_device(store: FolderStore, target: Path) -> None:
    real = Path.open

    def divert(self: Path, mode: str = "r", **rest: Any) -> Any:
        return real(Path("/dev/full") if "w" in mode else self, mode, **rest)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Path, "open", divert)
        store.download("a", target)


def test_a_download_onto_a_full_disk_leaves_the_older_file(store: FolderStore, tmp_path: Path):
    if not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full")
    store.put("a", b"new")
    target = tmp_path / "target"
    target.write_bytes(b"old")
    with pytest.raises(StorageError, match=f"cannot write {target}: the disk is full"):
        _download_to_full_device(store, target)
    assert files(tmp_path) == ["store/a", "target"]
    assert target.read_bytes() == b"old"


def test_a_folder_that_may_not_be_written_can_be_read(store: FolderStore, write, monkeypatch):
    store.put("steps/a/part", b"old")
    real = os.open

    def read_only(path: Any, flags: int, *rest: Any, **named: Any) -> int:
        if flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))
        return real(path, flags, *rest, **named)

    for name in ("mkdir", "replace", "rename", "link", "unlink", "open"):
        monkeypatch.setattr(os, name, read_only if name == "open" else failing(errno.EROFS))
    monkeypatch.setattr(Path, "write_bytes", failing(errno.EROFS))
    monkeypatch.setattr("shutil.copyfile", failing(errno.EROFS))
    with pytest.raises(
        StorageError, match=r"its file system is read-only. Mount it writable or choose"
    ):
        write(store)
    with pytest.raises(StorageError, match=r"cannot delete .*read-only"):
        store.delete("steps/a/part")
    assert store.get("steps/a/part") == b"old"
    assert list(store.list("")) == ["steps/a/part"]


def test_a_folder_without_permission_to_write_is_named():
    with tempfile.TemporaryDirectory() as base:  # not below the folders that are closed to others
        store = FolderStore(Path(base) / "store")
        store.put("steps/a/part", b"old")
        source = Path(base) / "source"
        source.write_bytes(b"new")
        for folder, rights in ((base, 0o755), (store.root, 0o555), (store.root / "steps", 0o555)):
            Path(folder).chmod(rights)
        (store.root / "steps/a").chmod(0o555)
        found = {name: as_ordinary_user(partial(WRITES[name], store, source)) for name in WRITES}
        assert as_ordinary_user(lambda: store.get("steps/a/part")) == b"old"
        assert as_ordinary_user(lambda: list(store.list(""))) == ["steps/a/part"]
        for path in (store.root, store.root / "steps", store.root / "steps/a"):
            path.chmod(0o755)
    for name, error in found.items():
        assert isinstance(error, StorageError), name
        assert str(error).startswith(f"cannot write {base}/store/steps/")
        assert (
            "permission denied. Give this user access to the folder or choose another one"
            in str(error)
        )


def as_ordinary_user(act: Callable[[], Any]) -> Any:
    """What ``act`` returns or raises for a user who is not root, who may write anywhere."""
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)
    try:
        return act()
    except StorageError as error:
        return error
    finally:
        os.seteuid(user)


def test_a_name_that_is_too_long_is_named(store: FolderStore):
    with pytest.raises(StorageError, match="the name is too long for this file system"):
        store.put("a/" + "x" * 300, b"")
    with pytest.raises(StorageError, match="the name is too long"):
        store.create("a/" + "x" * 300, b"")
    assert files(store.root) == []


def test_a_file_where_a_folder_is_needed_is_named(store: FolderStore, write):
    store.put("steps", b"a file")
    with pytest.raises(StorageError, match="a file stands where a folder is needed"):
        write(store)
    assert store.get("steps") == b"a file"


def test_a_folder_where_a_file_is_needed_is_named(store: FolderStore):
    store.put("a/b", b"")
    with pytest.raises(StorageError, match="a folder stands where a file is needed"):
        store.put("a", b"")
    with pytest.raises(StorageError, match="a folder stands where a file is needed"):
        store.create("a", b"")
    assert files(store.root) == ["a/b"]


def test_a_store_that_is_a_file_is_named(tmp_path: Path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StorageError, match="a file stands where a folder is needed"):
        FolderStore(tmp_path / "file").put("a", b"")


def test_nothing_is_made_before_the_first_write(store: FolderStore):
    assert store.size("a") is None
    assert list(store.list("")) == []
    store.delete("a")
    assert not store.root.exists()
    store.put("a", b"")
    assert store.root.exists()


def test_the_file_of_a_killed_writer_is_not_listed(store: FolderStore):
    store.put("a/b", b"")
    (store.root / "a/.tmp-0123").write_bytes(b"half")
    assert list(store.list("")) == ["a/b"]


def test_an_object_has_the_rights_of_any_new_file(store: FolderStore, tmp_path: Path):
    (tmp_path / "new").write_bytes(b"")
    usual = (tmp_path / "new").stat().st_mode
    store.put("a", b"")
    store.create("b", b"")
    store.upload("c", tmp_path / "new")
    assert {(store.root / name).stat().st_mode for name in "abc"} == {usual}


def test_moving_to_another_disk_copies(store: FolderStore, monkeypatch, tmp_path: Path):
    source = tmp_path / "source"
    source.write_bytes(b"data")
    real = Path.replace

    def across(self: Path, target: Path) -> Path:
        if self == source:
            raise OSError(errno.EXDEV, "Invalid cross-device link")
        return real(self, target)

    monkeypatch.setattr(Path, "replace", across)
    store.upload("a", source, move=True)
    assert store.get("a") == b"data"
    assert not source.exists()


@pytest.mark.parametrize("number", [errno.EPERM, errno.ENOTSUP])
def test_create_has_one_winner_where_there_are_no_hard_links(
    store: FolderStore, monkeypatch, number: int
):
    monkeypatch.setattr(os, "link", failing(number))
    assert store.create("a/b", b"first")
    assert not store.create("a/b", b"second")
    monkeypatch.setattr(
        Path, "is_file", lambda self: False
    )  # both have looked before either has written
    assert not store.create("a/b", b"third")
    assert store.get("a/b") == b"first"
    assert list(store.list("")) == ["a/b"]


def test_a_link_whose_answer_was_lost_has_won(store: FolderStore, monkeypatch):
    monkeypatch.setattr(os, "link", failing(errno.EEXIST, os.link))
    assert store.create("a", b"ours")


RACER = """
import os, pathlib, sys, time
from mstar.storage.folder import FolderStore
if sys.argv[3] == "no links":
    def link(*_): raise PermissionError(1, "Operation not permitted")
    os.link = link
store, name = FolderStore(sys.argv[1]), sys.argv[2]
print("ready", flush=True)
while not store.size("go"):
    time.sleep(0.0005)
print(sum(store.create(f"race/{turn}", f"{turn} {name}".encode() * 500) for turn in range(200)))
"""


@pytest.mark.parametrize("links", ["links", "no links"])
def test_of_many_processes_that_create_one_key_exactly_one_wins(store: FolderStore, links: str):
    racers = [
        subprocess.Popen(
            [sys.executable, "-c", RACER, store.url, str(number), links],
            stdout=subprocess.PIPE,
            text=True,
        )
        for number in range(4)
    ]
    assert all(racer.stdout and racer.stdout.readline() for racer in racers)
    time.sleep(0.01)
    store.put("go", b"go")
    won = [int(racer.communicate(timeout=300)[0]) for racer in racers]
    assert sum(won) == 200
    for turn in range(200):
        data = store.get(f"race/{turn}").decode()
        assert data == data[: len(data) // 500] * 500


def test_a_store_is_opened_by_its_name(tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert open_store("runs").url == str(tmp_path / "runs")
    assert open_store(tmp_path).url == str(tmp_path)
    assert open_store("~/runs").url == str(tmp_path / "home/runs")
    assert open_store("file:///a/b%20c").url == "/a/b c"
    assert open_store("s3://bucket/a/").url == "s3://bucket/a"
    for wrong in ("gs://bucket", "file://host/a", "", " "):
        with pytest.raises(SpecError, match=r"expected a folder or s3://bucket/prefix"):
            open_store(wrong)


def test_what_killed_writers_left_is_found_and_cleared_unless_it_is_in_use_again(
    store: FolderStore,
):
    store.put("steps/a/manifest.json", b"{}")
    for folder in ("steps/b/attempt-1", "steps/c/attempt-1", "steps/d"):
        (store.root / folder).mkdir(parents=True)
    for name in ("steps/a/.tmp-1", "steps/d/.tmp-2", "steps/d/.tmp-lock"):
        (store.root / name).write_bytes(b"half")
    found = list(store.remnants())
    assert sorted(each.name for each in found) == [
        "steps/a/.tmp-1",
        "steps/b",
        "steps/b/attempt-1",
        "steps/c",
        "steps/c/attempt-1",
        "steps/d/.tmp-2",
    ]
    store.put("steps/c/attempt-1/part", b"")
    for each in found:
        store.clear(each)
    assert list(store.list("")) == ["steps/a/manifest.json", "steps/c/attempt-1/part"]
    assert not (store.root / "steps/b").exists()
    assert [each.name for each in store.remnants()] == ["steps/d"]
    for each in store.remnants():
        store.clear(each)
    assert not (store.root / "steps/d").exists()


def test_an_empty_folder_is_as_young_as_what_was_made_in_it(store: FolderStore):
    (store.root / "steps/a/attempt-1").mkdir(parents=True)
    os.utime(store.root / "steps/a", (1, 1))
    ages = {each.name: each.since for each in store.remnants()}
    assert ages["steps/a"] == ages["steps/a/attempt-1"] > 1
