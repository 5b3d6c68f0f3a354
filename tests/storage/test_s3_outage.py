"""A real server that goes away, comes back, freezes or fills up in the middle of things."""

import itertools
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest

from mstar.errors import StorageError
from mstar.storage import s3_client
from mstar.storage.artifacts import ArtifactWriter
from mstar.storage.reading import open_part, read_manifest
from mstar.storage.s3 import S3Store
from tests.storage.meddler import Meddler
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


Impatient = Callable[[], AbstractContextManager[S3Store]]


@pytest.fixture
def impatient(real_store, monkeypatch) -> Impatient:
    """The same store with little patience, for a block in which the server is away.

    Before and after it a server on a busy machine may take its time.
    """

    @contextmanager
    def hurried() -> Iterator[S3Store]:
        with monkeypatch.context() as patch:
            patch.setattr(s3_client, "PATIENCE", SHORT)
            patch.setitem(s3_client._OPTIONS, "read_timeout", 1)
            yield S3Store(real_store.url)

    return hurried


@pytest.fixture
def patient(monkeypatch) -> None:
    """A server on a busy machine may take long until it is there again."""
    monkeypatch.setattr(s3_client, "PATIENCE", 120.0)


@pytest.fixture
def tries(monkeypatch) -> list[int]:
    """The numbers of the tries after which a request was asked for again, or given up."""
    found: list[int] = []
    real = s3_client._retry_after

    def noted(attempts: int, **asked: Any) -> float | bool | None:
        found.append(attempts)
        return real(attempts, **asked)

    monkeypatch.setattr(s3_client, "_retry_after", noted)
    return found


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
    with impatient() as hurried, pytest.raises(StorageError, match="cannot be reached") as caught:
        CALLS[call](hurried, tmp_path / "large")
    assert caught.value.retriable
    assert server.endpoint in str(caught.value)
    server.start()
    assert list(real_store.list("")) == ["a"]  # nothing half-written is visible
    assert real_store.get("a") == b"data"
    assert not (tmp_path / "target").exists()


@pytest.mark.parametrize("call", ["get", "create", "upload", "download"])
def test_a_server_that_answers_nothing_is_told_before_long(
    server, impatient, tries, real_store, tmp_path: Path, call: str
):
    (tmp_path / "large").write_bytes(LARGE)
    real_store.put("a", b"data")
    server.freeze(frozen=True)
    begin, before = time.monotonic(), len(tries)
    told = pytest.raises(StorageError, match=r"cannot be reached \(ReadTimeoutError\)")
    with impatient() as hurried, told:
        CALLS[call](hurried, tmp_path / "large")
    assert time.monotonic() - begin < 60
    assert 1 <= max(tries[before:]) <= 2, "a second is a try, and all the patience there is"
    server.freeze(frozen=False)
    assert real_store.get("a") == b"data"


def test_a_short_absence_is_waited_out(server, patient, real_store, tmp_path: Path):
    (tmp_path / "large").write_bytes(LARGE)
    real_store.put("a", b"data")
    server.stop(kill=True)
    back = threading.Timer(2, server.start)
    back.start()
    real_store.upload("b", tmp_path / "large")
    back.join()
    assert real_store.size("b") == len(LARGE)
    assert real_store.get("a") == b"data"


@contextmanager
def cut_off(
    store: S3Store, server: VersityGW, call: str, *, comes_back_after: float | None = None
) -> Iterator[None]:
    """For a block in which the server is killed when the store makes the ``call`` for the third time."""
    calls, killed, real = itertools.count(1), list[threading.Timer | None](), store._client

    def stand_in(ask: Callable[..., Any], **request: Any) -> Any:
        if next(calls) == 3:
            server.stop(kill=True)
            back = comes_back_after and threading.Timer(comes_back_after, server.start)
            killed.append(back or None)
            if back:
                back.start()
        return ask(**request)

    vars(store)["_client"] = Meddler(real, call, stand_in)
    yield
    vars(store)["_client"] = real
    (back,) = killed
    if back:
        back.join()


def test_an_upload_goes_on_when_the_server_comes_back_in_its_middle(
    server, patient, real_store, tmp_path: Path
):
    (tmp_path / "large").write_bytes(LARGE * 4)
    with (
        cut_off(real_store, server, "upload_part", comes_back_after=1.0),
        ArtifactWriter(real_store, STEP, "1") as writer,
    ):
        part = writer.add_file("model", tmp_path / "large")
        writer.commit()
    found = read_manifest(real_store, "step", STEP)
    assert found
    assert open_part(real_store, found.part("model"), tmp_path).stat().st_size == part.size


def test_a_download_goes_on_when_the_server_comes_back_in_its_middle(
    server, patient, real_store, tmp_path: Path
):
    (tmp_path / "large").write_bytes(LARGE * 4)
    with ArtifactWriter(real_store, STEP, "1") as writer:
        part = writer.add_file("model", tmp_path / "large")
        writer.commit()
    with cut_off(real_store, server, "get_object", comes_back_after=1.0):
        open_part(real_store, part, tmp_path / "scratch")


def test_an_upload_cut_off_for_good_shows_nothing_and_its_remnant_can_be_cleared(
    server, impatient, real_store, tmp_path: Path
):
    (tmp_path / "large").write_bytes(LARGE * 4)
    with (
        impatient() as hurried,
        cut_off(hurried, server, "upload_part"),
        pytest.raises(StorageError),
        ArtifactWriter(hurried, STEP, "1") as writer,
    ):
        writer.add_file("model", tmp_path / "large")
    server.start()
    assert list(real_store.list("")) == []
    assert (tmp_path / "large").exists()
    left = list(real_store.remnants())
    assert [each.name.rpartition("/")[2] for each in left] == ["model"]
    assert abs(left[0].since - time.time()) < 600
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
    begin, over = time.monotonic(), threading.Event()

    class Never:
        def complete_multipart_upload(self, **request: Any) -> Any:
            freezing.start()
            over.wait(600)

    try:
        with impatient() as hurried:
            vars(hurried)["_slow_client"] = Never()
            with pytest.raises(StorageError, match="cannot be reached"):
                hurried.upload(f"b{uuid.uuid4().hex}", tmp_path / "large")
        assert time.monotonic() - begin < 300
    finally:
        over.set()
    freezing.join()
