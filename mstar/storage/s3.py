"""The store that a cluster shares: a bucket, or a part of one, on AWS or any server that speaks S3.

Credentials, region and endpoint come from where every AWS tool takes them (environment, configuration files, the
machine's own role; ``AWS_ENDPOINT_URL`` for other servers) and from nowhere else.
"""

import io
import secrets
import time
from collections.abc import Callable, Iterator
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO, cast
from urllib.parse import urlsplit

import boto3
from boto3.exceptions import S3UploadFailedError
from boto3.s3.transfer import TransferConfig
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from mstar.errors import NotFound, SpecError, StorageError
from mstar.storage import keys
from mstar.storage.faults import explained
from mstar.storage.local import temporary
from mstar.storage.s3_faults import Place, code_of, explaining

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


class S3Store:
    """A ``Store`` under ``s3://bucket/prefix``. Nothing is contacted before the first use; threads may share it."""

    def __init__(self, url: str, *, sleep: Callable[[float], None] = time.sleep) -> None:
        parts = urlsplit(url)
        prefix = parts.path.strip("/")
        if parts.scheme != "s3" or not parts.netloc or "@" in parts.netloc or parts.query:
            raise SpecError("the store is not of the form s3://bucket/prefix (credentials never go there)")
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
        with self._reading(key), self._body(key, {}) as body:
            return cast("bytes", body.read())

    def open(self, key: str, *, start: int = 0, length: int | None = None) -> BinaryIO:
        with self._reading(key):
            head = self._client.head_object(**self._at(key))
        end = head["ContentLength"] if length is None else min(start + length, head["ContentLength"])
        return cast("BinaryIO", io.BufferedReader(_Range(self, key, start, end, head["ETag"]), _MIB))

    def put(self, key: str, data: bytes) -> None:
        with self._explaining("write", key):
            self._client.put_object(**self._at(key), Body=data)

    def create(self, key: str, data: bytes) -> bool:
        request = self._at(key) | {"Body": data, "IfNoneMatch": "*"}
        writer = secrets.token_hex(16)
        with self._explaining("create", key):
            for attempt in range(_CREATE_ATTEMPTS):
                try:
                    self._client.put_object(**request, Metadata={_WRITER: writer})
                except ClientError as error:
                    code = code_of(error)
                    if code == "PreconditionFailed":
                        # Perhaps it was our own request that created it, and only its answer was lost.
                        tried_again = attempt or error.response["ResponseMetadata"].get("RetryAttempts")
                        return bool(tried_again) and self._writer(key) == writer
                    if code != "ConditionalRequestConflict" or attempt == _CREATE_ATTEMPTS - 1:
                        raise
                    self._sleep(0.1 * 2**attempt)  # others were writing it at the same moment
                except BotoCoreError:
                    # No answer: it may have been written or not. If it cannot be told, that is what is raised.
                    if found := self._writer(key):
                        return found == writer
                    raise
                else:
                    return True
        raise AssertionError("unreachable")

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
        if self.size(key) is None:
            raise self._missing(key)
        with explained("write", path), temporary(path) as unfinished:
            with self._reading(key):
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
        with explaining(Place(self.url, None), "use", "it"):
            session = boto3.session.Session()
            client = session.client("s3", config=Config(**_OPTIONS))
            host = urlsplit(client.meta.endpoint_url).hostname or ""
            if not host.endswith((".amazonaws.com", ".amazonaws.com.cn")):
                client = session.client("s3", config=Config(**_OPTIONS, **_FOREIGN))
            return client

    def _at(self, key: str) -> dict[str, str]:
        return {"Bucket": self._bucket, "Key": self._prefix + keys.checked(key)}

    def _body(self, key: str, conditions: dict[str, str]) -> Any:
        return self._client.get_object(**self._at(key), **conditions)["Body"]

    def _writer(self, key: str) -> str | None:
        """Who created the object, as far as it says; None when it is not there."""
        try:
            return str(self._client.head_object(**self._at(key))["Metadata"].get(_WRITER, "unknown"))
        except ClientError as error:
            if code_of(error) in {"404", "NoSuchKey"}:
                return None
            raise

    def _pages(self, below: str) -> Iterator[str]:
        pages = self._client.get_paginator("list_objects_v2").paginate(
            Bucket=self._bucket, Prefix=below
        )
        with self._explaining("list", below):
            for page in pages:
                for entry in page.get("Contents", ()):
                    if not entry["Key"].endswith("/"):  # what web consoles store for a folder
                        yield entry["Key"].removeprefix(self._prefix)

    def _explaining(self, doing: str, key: str) -> Any:
        return explaining(Place(self.url, self._client.meta.endpoint_url), doing, key)

    def _reading(self, key: str) -> "_Reading":
        return _Reading(self, key)

    def _missing(self, key: str) -> NotFound | StorageError:
        """What to raise for a key that is not there: nothing is there at all when the bucket itself is missing."""
        if not self._bucket_seen:
            with self._explaining("read", key):
                try:
                    self._client.head_bucket(Bucket=self._bucket)
                except ClientError as error:
                    if code_of(error) == "404":
                        error.response["Error"]["Code"] = "NoSuchBucket"
                        raise
                    # 403: whoever may read objects need not be allowed to look at the bucket.
            self._bucket_seen = True
        return NotFound(f"{key} is not in the store {self.url}")
