"""Objects in parts: read as a stream that survives broken connections, fetched into a file, sent from one.

Several parts travel at once, and none passes through memory as a whole. A part is never mixed with another version of
its object. What comes in is hashed while the rest is under way, so nothing is read a second time from the disk.
"""

import hashlib
import io
import os
import secrets
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, wait
from contextlib import AbstractContextManager, closing, suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Thread
from typing import Any, BinaryIO

from botocore.exceptions import BotoCoreError, ClientError

from mstar.storage.parallel import LARGE, PARALLEL, in_parallel
from mstar.storage.s3_faults import code_of, unreachable, unsure

_MIB = 1 << 20
PART = 16 * _MIB
"""Bytes of a part; more when an object would otherwise have more parts than S3 allows."""

WRITER = "mstar-writer"
"""Metadata that tells whose request it was that made an object."""

_BLOCK = 256 << 10  # what a processor's cache holds for several threads
_LEAST_PART = 4 * _MIB
_MOST_PARTS = 10_000
_READ_ATTEMPTS = 5
_ASK_SECONDS = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """An object to read: who to ask, where it is (bucket and key), how to wait, and how faults are told."""

    client: Any
    at: Mapping[str, str]
    sleep: Callable[[float], None]
    explaining: Callable[[], AbstractContextManager[None]]

    def ask(self, start: int, end: int, version: str) -> dict[str, Any]:
        """The answer to a request for the bytes from ``start`` up to ``end`` of that version, or for none."""
        span = f"bytes={start}-{end - 1}"
        answer: dict[str, Any] = self.client.get_object(**self.at, Range=span, IfMatch=version)
        return answer


class Stream(io.RawIOBase):
    """The bytes of an answer that begins at ``start``; a broken connection is taken up again where it broke."""

    def __init__(self, source: Source, start: int, answer: Mapping[str, Any]) -> None:
        self._source, self._at = source, start
        self._end = start + answer["ContentLength"]
        self._version, self._body = answer["ETag"], answer["Body"]

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: "bytearray | memoryview") -> int:  # type: ignore[override]
        if self._at == self._end:
            return 0
        with self._source.explaining():
            for attempt in range(_READ_ATTEMPTS):
                try:
                    count = int(self._body.readinto(buffer))
                except BotoCoreError:
                    if attempt == _READ_ATTEMPTS - 1:
                        raise
                    self._source.sleep(0.2 * 2**attempt)
                    self._body.close()
                    self._body = self._source.ask(self._at, self._end, self._version)["Body"]
                else:
                    self._at += count
                    return count
        raise AssertionError("the last attempt returns or raises")

    def close(self) -> None:
        self._body.close()
        super().close()


def fetch(source: Source, first: Mapping[str, Any], path: Path) -> str:
    """Write the object whose first ``PART`` bytes ``first`` answers to ``path``; its sha256."""
    # "bytes 0-99/1234"; a server that knows no ranges answers with the whole
    size = int(first.get("ContentRange", f"/{first['ContentLength']}").rpartition("/")[2])
    digest = hashlib.sha256()
    with path.open("w+b", buffering=0) as file:
        handle = file.fileno()
        if first["ContentLength"] == size:
            with closing(Stream(source, 0, first)) as stream:
                for block in _receive(stream, handle, 0):
                    digest.update(block)
            return digest.hexdigest()

        def receive(span: tuple[int, int]) -> tuple[int, int]:
            start, end = span
            answer = source.ask(start, end, first["ETag"]) if start else first
            with closing(Stream(source, start, answer)) as stream:
                for _ in _receive(stream, handle, start):
                    pass
            return span

        with closing(in_parallel(receive, _spans(size))) as received:
            for start, end in received:
                for written in _written(handle, start, end):
                    digest.update(written)
    return digest.hexdigest()


def _spans(size: int) -> Iterator[tuple[int, int]]:
    """A large object cut for fetching: smaller towards the end, so that hashing, in order, is not left far behind."""
    at, length = 0, PART
    while at < size:
        yield at, min(at + length, size)
        at += length
        length = max(_LEAST_PART, min(PART, (size - at) // PARALLEL // _MIB * _MIB))


def send(client: Any, slow: Callable[[], Any], at: Mapping[str, str], file: BinaryIO) -> None:
    """Store an open file, in parts if it is large; ``slow`` gives a client that waits long for an answer."""
    size = os.fstat(file.fileno()).st_size
    if size < LARGE:
        body: object = file.read() if size <= _MIB else Window(file, 0, size)
        client.put_object(**at, Body=body)
        return
    each = max(PART, -(-size // _MOST_PARTS // _MIB) * _MIB)
    writer = secrets.token_hex(16)
    begun = client.create_multipart_upload(**at, Metadata={WRITER: writer})
    upload = {**at, "UploadId": begun["UploadId"]}

    def send_part(start: int) -> dict[str, Any]:
        number, length = start // each + 1, min(each, size - start)
        answer = client.upload_part(**upload, PartNumber=number, Body=Window(file, start, length))
        return {"PartNumber": number, "ETag": answer["ETag"]}

    try:
        parts = list(in_parallel(send_part, range(0, size, each)))
        _complete(client, slow(), upload, at, parts, writer)
    except BaseException as error:
        if not unreachable(
            error
        ):  # else the answer would be as long in coming; `mstarctl gc` ends such uploads
            with suppress(BotoCoreError, ClientError):
                client.abort_multipart_upload(**upload)
        raise


class Window(io.RawIOBase):
    """A part of an open file, to be read and read again; several may be read at once."""

    def __init__(self, file: BinaryIO, start: int, length: int) -> None:
        self._file, self._start, self._length, self._at = file, start, length, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._length}[whence]
        self._at = base + offset
        return self._at

    def read(self, size: int = -1) -> bytes:
        left = self._length - self._at
        wanted = left if size < 0 else min(size, left)
        data = os.pread(self._file.fileno(), wanted, self._start + self._at)
        self._at += len(data)
        return data


def _complete(
    client: Any,
    slow: Any,
    upload: Mapping[str, str],
    at: Mapping[str, str],
    parts: list[dict[str, Any]],
    writer: str,
) -> None:
    """Make the parts one object, also when the answer to the first request for it is lost."""
    try:
        _while_alive(
            lambda: slow.complete_multipart_upload(**upload, MultipartUpload={"Parts": parts}),
            lambda: writer_of(client, at),
        )
    except (BotoCoreError, ClientError) as error:
        if code_of(error) != "NoSuchUpload" and not unsure(error):
            raise
        try:
            found = writer_of(client, at)
        except (BotoCoreError, ClientError):
            raise error from None
        if found != writer:
            raise


def _while_alive(call: Callable[[], object], ask: Callable[[], object]) -> None:
    """Wait for ``call``, which may take minutes, for as long as the server answers to ``ask`` at all."""
    done: Future[object] = Future()

    def run() -> None:
        try:
            done.set_result(call())
        except BaseException as error:  # noqa: BLE001 - it is raised where it is waited for
            done.set_exception(error)

    Thread(
        target=run, daemon=True
    ).start()  # a daemon: a server that is gone must not hold up the end
    while not wait([done], timeout=_ASK_SECONDS).done:
        ask()
    done.result()


def writer_of(client: Any, at: Mapping[str, str]) -> str | None:
    """Who made the object, as far as it says; None when there is none."""
    try:
        metadata: dict[str, str] = client.head_object(**at)["Metadata"]
    except ClientError as error:
        if code_of(error) in {"404", "NoSuchKey"}:
            return None
        raise
    return metadata.get(WRITER, "unknown")


def _receive(stream: Stream, handle: int, at: int) -> Iterator[memoryview]:
    """Write the stream to an open file from ``at`` on; each block, which is good until the next is asked for."""
    buffer = memoryview(bytearray(_BLOCK))
    while count := stream.readinto(buffer):
        block, done = buffer[:count], 0
        while done < count:
            done += os.pwrite(handle, block[done:], at + done)
        at += count
        yield block


def _written(handle: int, start: int, end: int) -> Iterator[bytes]:
    while start < end:
        block = os.pread(handle, min(_BLOCK, end - start), start)
        if not block:
            raise OSError(f"the file ends at byte {start}, before {end}: somebody else altered it")
        start += len(block)
        yield block
