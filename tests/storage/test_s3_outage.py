"""A real server that goes away, comes back, freezes or fills up in the middle of things."""

import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from mstar.errors import StorageError
from mstar.storage import s3_client
from mstar.storage.artifacts import ArtifactWriter
from mstar.storage.reading import open_part, read_manifest
from mstar.storage.s3 import S3Store
from tests.versitygw import VersityGW

STEP = "5" * 64
LARGE = bytes(range(256)) * (40 * 4096)
SHORT = 1.0  # seconds of patience, so that tests end soon


@pytest.fixture
def server(real_server: VersityGW) -> Iterator[VersityGW]:
    """The real server, which runs again afterwards whatever was done to it."""
    yield real_server
    real_server.stop(kill=True)
    real_server.start()


@pytest.fixture
def impatient(monkeypatch) -> None:
    monkeypatch.setattr(s3_client, "PATIENCE", SHORT)
    monkeypatch.setitem(s3_client._OPTIONS, "read_timeout", 1)


CALLS: dict[str, Callable[[S3Store, Path], object]] = {
    "get": lambda store, path: store.get("a"),
    "put": lambda store, path: store.put("b", b"data"),
    "create": lambda store, path: store.create("c", b"data"),
    "size": lambda store, path: store.size("a"),
    "list": lambda store, path: list(store.list("")),
    "delete": lambda store, path: store.delete("a"),
    "upload": lambda store, path: store.upload("d", path),
    "download": lambda store, path: store.download("a", path.with_name("target")),
    "remnants": lambda store, path: list(store.remnants()),
}


@pytest.mark.parametrize("call", CALLS)
def test_a_server_that_is_gone_is_told_as_one_retriable_error(
    server, impatient, real_store, tmp_path: Path, call: str
):
    (tmp_path / "large").write_bytes(LARGE)
    real_store.put("a", b"data")
    server.stop(kill=True)
    with pytest.raises(StorageError, match="cannot be reached") as caught:
        CALLS[call](real_store, tmp_path / "large")
    assert caught.value.retriable
    assert server.endpoint in str(caught.value)
    server.start()
    assert list(real_store.list("")) == ["a"]  # nothing half-written is visible
    assert real_store.get("a") == b"data"
    assert not (tmp_path / "target").exists()


@pytest.mark.parametrize("call", ["get", "create", "upload", "download"])
def test_a_server_that_answers_nothing_is_told_before_long(
    server, impatient, real_store, tmp_path: Path, call: str
):
    (tmp_path / "large").write_bytes(LARGE)
    real_store.put("a", b"data")
    server.freeze(frozen=True)
    begin = time.monotonic()
    with pytest.raises(StorageError, match=r"cannot be reached \(ReadTimeoutError\)"):
        CALLS[call](real_store, tmp_path / "large")
    assert time.monotonic() - begin < 3 * SHORT + 4
    server.freeze(frozen=False)
    assert real_store.get("a") == b"data"


def test_a_short_absence_is_waited_out(server, real_store, tmp_path: Path):
    (tmp_path / "large").write_bytes(LARGE)
    real_store.put("a", b"data")
    server.stop(kill=True)
    threading.Timer(2, server.start).start()
    real_store.upload("b", tmp_path / "large")
    assert real_store.size("b") == len(LARGE)
    assert real_store.get("a") == b"data"


def interrupted(server: VersityGW, seconds: float, after: Callable[[], bool]) -> threading.Thread:
    """A thread that ends the server once ``after`` says so, and starts it again after so many seconds."""

    def run() -> None:
        deadline = time.monotonic() + 20
        while not after() and time.monotonic() < deadline:
            time.sleep(0.002)
        server.stop(kill=True)
        time.sleep(seconds)
        server.start()

    thread = threading.Thread(target=run)
    thread.start()
    return thread


def test_an_upload_goes_on_when_the_server_comes_back_in_its_middle(
    server, real_store, tmp_path: Path
):
    (tmp_path / "large").write_bytes(LARGE * 4)
    thread = interrupted(server, 1.0, lambda: any(True for _ in real_store.remnants()))
    with ArtifactWriter(real_store, STEP, "1") as writer:
        part = writer.add_file("model", tmp_path / "large")
        writer.commit()
    thread.join()
    found = read_manifest(real_store, "step", STEP)
    assert found
    assert open_part(real_store, found.part("model"), tmp_path).stat().st_size == part.size


def test_a_download_goes_on_when_the_server_comes_back_in_its_middle(
    server, real_store, tmp_path: Path
):
    (tmp_path / "large").write_bytes(LARGE * 4)
    with ArtifactWriter(real_store, STEP, "1") as writer:
        part = writer.add_file("model", tmp_path / "large")
        writer.commit()
    folder = tmp_path / "scratch"
    thread = interrupted(
        server, 1.0, lambda: any(path.stat().st_size for path in folder.rglob(".tmp-*"))
    )
    open_part(real_store, part, folder)
    thread.join()


def test_an_upload_cut_off_for_good_shows_nothing_and_its_remnant_can_be_cleared(
    server, impatient, real_store, tmp_path: Path
):
    (tmp_path / "large").write_bytes(LARGE * 4)
    thread = interrupted(server, SHORT + 3, lambda: any(True for _ in real_store.remnants()))
    with pytest.raises(StorageError), ArtifactWriter(real_store, STEP, "1") as writer:
        writer.add_file("model", tmp_path / "large")
    thread.join()
    assert list(real_store.list("")) == []
    assert (tmp_path / "large").exists()
    left = list(real_store.remnants())
    assert [each.name.rpartition("/")[2] for each in left] == ["model"]
    assert abs(left[0].since - time.time()) < 60
    for each in left:
        real_store.clear(each)
    assert list(real_store.remnants()) == []


def test_a_large_object_that_is_put_together_slowly_is_waited_for(
    server, impatient, real_store, tmp_path: Path, monkeypatch
):
    """The server answers other requests meanwhile; one that answers nothing is given up."""
    monkeypatch.setattr("mstar.storage.s3_parts._ASK_SECONDS", 0.2)
    (tmp_path / "large").write_bytes(LARGE)
    slow: Any = real_store._slow_client

    class Slowly:
        def complete_multipart_upload(self, **request: Any) -> Any:
            time.sleep(1.5)
            return slow.complete_multipart_upload(**request)

    vars(real_store)["_slow_client"] = Slowly()
    real_store.upload("a", tmp_path / "large")
    assert real_store.size("a") == len(LARGE)
    freezing = threading.Timer(0.6, lambda: server.freeze(frozen=True))

    class Never:
        def complete_multipart_upload(self, **request: Any) -> Any:
            freezing.start()
            time.sleep(60)

    vars(real_store)["_slow_client"] = Never()
    begin = time.monotonic()
    with pytest.raises(StorageError, match="cannot be reached"):
        real_store.upload(f"b{uuid.uuid4().hex}", tmp_path / "large")
    assert time.monotonic() - begin < 30
