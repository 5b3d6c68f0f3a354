"""The store that a cluster shares: a bucket, or a part of one, on AWS or any server that speaks S3.

Credentials, region and endpoint come from where every AWS tool takes them (environment, configuration files, the
machine's own role; ``AWS_ENDPOINT_URL`` for other servers) and from nowhere else.
"""

import io
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO, cast
from urllib.parse import urlsplit

import boto3
from boto3.exceptions import S3UploadFailedError
from boto3.s3.transfer import TransferConfig
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from mstar.errors import NotFound, SpecError
from mstar.storage import keys
from mstar.storage.faults import explained
from mstar.storage.local import temporary
from mstar.storage.s3_faults import Place, code_of, explaining, no_bucket, tries_before, unsure

_MIB = 1 << 20
_TRANSFER = TransferConfig(
    multipart_threshold=32 * _MIB, multipart_chunksize=16 * _MIB, max_concurrency=8
)
_OPTIONS: dict[str, Any] = {
    "connect_timeout": 10,
    "read_timeout": 60,
    "retries": {"mode": "standard", "total_max_attempts": 5},
    "max_pool_connections": 16,
    "user_agent_appid": "mstar",
}
# Newer boto3 adds checksums by default that many servers other than Amazon's refuse or store as part of the data.
_FOREIGN: dict[str, Any] = {
    "request_checksum_calculation": "when_required",
    "response_checksum_validation": "when_required",
}
_WRITER = "mstar-writer"  # metadata that tells whose request it was that created an object
_CREATE_ATTEMPTS = 6
_READ_ATTEMPTS = 5
_PAGE = 1000  # keys in one answer to a listing


class S3Store:
    """A ``Store`` under ``s3://bucket/prefix``. Nothing is contacted before the first use; threads may share it."""

    def __init__(self, url: str, *, sleep: Callable[[float], None] = time.sleep) -> None:
        parts = urlsplit(url)
        prefix = parts.path.strip("/")
        if parts.scheme != "s3" or not parts.netloc or "@" in parts.netloc or parts.query:
            raise SpecError(
                "the store is not of the form s3://bucket/prefix (credentials never go there)"
            )
        if prefix:
            keys.checked(prefix)
        self._bucket, self._prefix = parts.netloc, f"{prefix}/" if prefix else ""
        self._sleep = sleep
        self._bucket_seen = False

    def __repr__(self) -> str:
        return f"S3Store({self.url!r})"

    def __reduce__(self) -> tuple[type["S3Store"], tuple[str]]:
        return S3Store, (self.url,)  # the connection stays behind; another process makes its own

    @property
    def url(self) -> str:
        return f"s3://{self._bucket}/{self._prefix}".rstrip("/")

    def get(self, key: str) -> bytes:
        with self.open(key) as stream:
            return stream.read()

    def open(self, key: str, *, start: int = 0, length: int | None = None) -> BinaryIO:
        if length == 0:  # a range cannot say this, but a missing key must still be told
            self.open(key, start=start, length=1).close()
            return io.BytesIO()
        end = "" if length is None else start + length - 1
        span = {"Range": f"bytes={start}-{end}"} if start or length else {}
        with self._reading(key):
            try:
                answer = self._client.get_object(**self._at(key), **span)
            except ClientError as error:
                if code_of(error) in {"InvalidRange", "416"}:
                    return io.BytesIO()
                raise
        return cast("BinaryIO", io.BufferedReader(_Stream(self, key, start, answer), _MIB))

    def put(self, key: str, data: bytes) -> None:
        with self._explaining("write", key):
            self._client.put_object(**self._at(key), Body=data)

    def create(self, key: str, data: bytes) -> bool:
        writer = secrets.token_hex(16)
        with self._explaining("create", key):
            for attempt in range(_CREATE_ATTEMPTS):
                try:
                    self._client.put_object(
                        **self._at(key), Body=data, IfNoneMatch="*", Metadata={_WRITER: writer}
                    )
                except (BotoCoreError, ClientError) as error:
                    code = code_of(error)
                    if code == "ConditionalRequestConflict" and attempt < _CREATE_ATTEMPTS - 1:
                        self._sleep(0.1 * 2**attempt)  # others are writing it at this moment
                        continue
                    if code == "PreconditionFailed" and not (attempt or tries_before(error)):
                        return False
                    # Our own request may have created it although its answer was lost: the object knows.
                    found = (
                        self._writer(key) if code == "PreconditionFailed" or unsure(error) else None
                    )
                    if found is None:
                        raise
                    return found == writer
                else:
                    return True
        raise AssertionError("the last attempt returns or raises")

    def upload(self, key: str, path: Path, *, move: bool = False) -> None:
        at = self._at(key)
        with explained("read", path), path.open("rb"):
            pass
        with self._explaining("write", key):
            try:
                self._client.upload_file(str(path), at["Bucket"], at["Key"], Config=_TRANSFER)
            except S3UploadFailedError as error:
                raise (error.__context__ or error) from None
        if move:
            with explained("remove", path):
                path.unlink()

    def download(self, key: str, path: Path) -> None:
        at = self._at(key)
        with explained("write", path), temporary(path) as unfinished, self._reading(key):
            self._client.download_file(at["Bucket"], at["Key"], str(unfinished), Config=_TRANSFER)
            unfinished.replace(path)

    def size(self, key: str) -> int | None:
        try:
            with self._reading(key):
                return int(self._client.head_object(**self._at(key))["ContentLength"])
        except NotFound:
            return None

    def list(self, prefix: str) -> Iterator[str]:
        below = self._prefix + keys.checked_prefix(prefix)
        return self._pages(below)

    def delete(self, key: str) -> None:
        with self._explaining("delete", key):
            self._client.delete_object(**self._at(key))

    def local_path(self, key: str) -> Path | None:
        keys.checked(key)
        return None

    @cached_property
    def _client(self) -> Any:
        with explaining(Place(self._bucket, None), "use", self.url):
            session = boto3.session.Session()
            client = session.client("s3", config=Config(**_OPTIONS))
            host = urlsplit(client.meta.endpoint_url).hostname or ""
            if not host.endswith((".amazonaws.com", ".amazonaws.com.cn")):
                client = session.client("s3", config=Config(**_OPTIONS, **_FOREIGN))
            return client

    def _at(self, key: str) -> dict[str, str]:
        return {"Bucket": self._bucket, "Key": self._prefix + keys.checked(key)}

    def _writer(self, key: str) -> str | None:
        """Who created the object, as far as it says; None when it is not there."""
        try:
            return str(
                self._client.head_object(**self._at(key))["Metadata"].get(_WRITER, "unknown")
            )
        except ClientError as error:
            if code_of(error) in {"404", "NoSuchKey"}:
                return None
            raise

    def _pages(self, below: str) -> Iterator[str]:
        pages = self._client.get_paginator("list_objects_v2").paginate(
            Bucket=self._bucket, Prefix=below, PaginationConfig={"PageSize": _PAGE}
        )
        with self._explaining("list", below):
            for page in pages:
                for entry in page.get("Contents", ()):
                    if not entry["Key"].endswith("/"):  # what web consoles store for a folder
                        yield entry["Key"].removeprefix(self._prefix)

    @property
    def _place(self) -> Place:
        return Place(self._bucket, self._client.meta.endpoint_url)

    def _explaining(self, doing: str, key: str) -> AbstractContextManager[None]:
        return explaining(self._place, doing, f"{key} in {self.url}")

    @contextmanager
    def _reading(self, key: str) -> Iterator[None]:
        with self._explaining("read", key):
            try:
                yield
            except ClientError as error:
                if (
                    code_of(error) == "404"
                ):  # the answer to HEAD has no body that would say what is missing
                    self._see_bucket()
                elif code_of(error) != "NoSuchKey":
                    raise
                raise NotFound(f"{key} is not in the store {self.url}") from error

    def _see_bucket(self) -> None:
        """Raise if the bucket itself is missing."""
        if self._bucket_seen:
            return
        try:
            self._client.head_bucket(Bucket=self._bucket)
        except ClientError as error:
            if code_of(error) == "404":
                raise no_bucket(self._place) from error
            # 403: whoever may read objects need not be allowed to look at the bucket.
        self._bucket_seen = True


class _Stream(io.RawIOBase):
    """An object's bytes from ``start``; a broken connection is taken up again at the byte where it broke."""

    def __init__(self, store: S3Store, key: str, start: int, answer: dict[str, Any]) -> None:
        self._store, self._key, self._at = store, key, start
        self._end = start + answer["ContentLength"]
        self._version, self._body = answer["ETag"], answer["Body"]

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: "bytearray | memoryview") -> int:  # type: ignore[override]
        if self._at == self._end:
            return 0
        with self._store._explaining("read", self._key):  # noqa: SLF001 - one class in two parts
            for attempt in range(_READ_ATTEMPTS):
                try:
                    count = int(self._body.readinto(buffer))
                except BotoCoreError:
                    if attempt == _READ_ATTEMPTS - 1:
                        raise
                    self._store._sleep(0.2 * 2**attempt)  # noqa: SLF001
                    self._open_again()
                else:
                    self._at += count
                    return count
        raise AssertionError("the last attempt returns or raises")

    def _open_again(self) -> None:
        self._body.close()
        answer = self._store._client.get_object(  # noqa: SLF001
            **self._store._at(self._key),  # noqa: SLF001
            Range=f"bytes={self._at}-{self._end - 1}",
            IfMatch=self._version,  # else the rest could belong to another version
        )
        self._body = answer["Body"]

    def close(self) -> None:
        self._body.close()
        super().close()
