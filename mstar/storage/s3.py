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
from threading import Lock
from typing import Any, BinaryIO, cast
from urllib.parse import urlsplit

from botocore.exceptions import BotoCoreError, ClientError

from mstar.errors import NotFound, SpecError
from mstar.storage import keys, s3_parts
from mstar.storage.faults import explained
from mstar.storage.local import temporary
from mstar.storage.s3_client import connect, one_patience
from mstar.storage.s3_faults import Place, code_of, explaining, tries_before, unsure
from mstar.storage.s3_parts import WRITER, Source, Stream
from mstar.storage.store import Remnant, Stored

_BUFFER = 1 << 20
_BLOCKWISE = (
    1 << 18
)  # bytes from which a body is sent piece by piece, so that only a standstill is a timeout
_CREATE_ATTEMPTS = 6
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
        self._connecting = Lock()

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
        answer = self._ask(key, span)
        if answer is None:
            return io.BytesIO()
        stream = Stream(self._source(key), start, answer)
        return cast("BinaryIO", io.BufferedReader(stream, _BUFFER))

    def put(self, key: str, data: bytes) -> None:
        with self._explaining("write", key):
            self._client.put_object(**self._at(key), Body=_body(data))

    def create(self, key: str, data: bytes) -> bool:
        writer = secrets.token_hex(16)
        with self._explaining("create", key), one_patience():
            for attempt in range(_CREATE_ATTEMPTS):
                try:
                    self._client.put_object(
                        **self._at(key),
                        Body=_body(data),
                        IfNoneMatch="*",
                        Metadata={WRITER: writer},
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
                        s3_parts.writer_of(self._client, self._at(key))
                        if code == "PreconditionFailed" or unsure(error)
                        else None
                    )
                    if found is None:
                        raise
                    return found == writer
                else:
                    return True
        raise AssertionError("the last attempt returns or raises")

    def upload(self, key: str, path: Path, *, move: bool = False) -> None:
        at = self._at(key)
        with (
            explained("read", path),
            path.open("rb", buffering=0) as file,
            self._explaining("write", key),
        ):
            s3_parts.send(self._client, lambda: self._slow_client, at, cast("BinaryIO", file))
        if move:
            with explained("remove", path):
                path.unlink()

    def download(self, key: str, path: Path) -> str:
        # The key is asked for first: a missing one must not be told as a missing target, nor leave a folder behind.
        first = self._ask(key, {"Range": f"bytes=0-{s3_parts.PART - 1}"})
        empty = {"ContentLength": 0, "ETag": "", "Body": io.BytesIO()}
        with explained("write", path), temporary(path) as unfinished, self._explaining("read", key):
            digest = s3_parts.fetch(self._source(key), first or empty, unfinished)
            unfinished.replace(path)
        return digest

    def size(self, key: str) -> int | None:
        try:
            with self._reading(key):
                return int(self._client.head_object(**self._at(key))["ContentLength"])
        except NotFound:
            return None

    def list(self, prefix: str) -> Iterator[str]:
        return (stored.key for stored in self.scan(prefix))

    def scan(self, prefix: str) -> Iterator[Stored]:
        below = self._prefix + keys.checked_prefix(prefix)
        return self._pages(below)

    def delete(self, key: str) -> None:
        with self._explaining("delete", key):
            self._client.delete_object(**self._at(key))

    def local_path(self, key: str) -> Path | None:
        keys.checked(key)
        return None

    def remnants(self) -> Iterator[Remnant]:
        """Multipart uploads that nobody has completed or aborted; what was sent of them is stored and paid for."""
        pages = self._client.get_paginator("list_multipart_uploads").paginate(
            Bucket=self._bucket, Prefix=self._prefix
        )
        with self._explaining("look for", "unfinished uploads"):
            for page in pages:
                for entry in page.get("Uploads", ()):
                    yield Remnant(
                        name=entry["Key"].removeprefix(self._prefix),
                        since=entry["Initiated"].timestamp(),
                        token=entry["UploadId"],
                    )

    def clear(self, remnant: Remnant) -> None:
        at = {"Bucket": self._bucket, "Key": self._prefix + remnant.name}
        with self._explaining("abort the upload of", remnant.name):
            try:
                self._client.abort_multipart_upload(**at, UploadId=remnant.token)
            except ClientError as error:
                if (
                    code_of(error) != "NoSuchUpload"
                ):  # else its writer, or another sweep, was faster
                    raise

    @cached_property
    def _client(self) -> Any:
        with self._connecting, explaining(Place(self._bucket, None), "use", self.url):
            # Of several threads that come first at once, one connects for all.
            return vars(self).get("_client") or vars(self).setdefault("_client", connect())

    @cached_property
    def _slow_client(self) -> Any:
        with explaining(Place(self._bucket, None), "use", self.url):
            return connect(slow=True)

    def _ask(self, key: str, span: dict[str, str]) -> dict[str, Any] | None:
        """The answer to a request for an object's bytes; None where the range begins behind its end."""
        with self._reading(key):
            try:
                answer: dict[str, Any] = self._client.get_object(**self._at(key), **span)
            except ClientError as error:
                if code_of(error) in {"InvalidRange", "416"}:
                    return None
                raise
        return answer

    def _source(self, key: str) -> Source:
        return Source(
            client=self._client,
            at=self._at(key),
            sleep=self._sleep,
            explaining=lambda: self._explaining("read", key),
        )

    def _at(self, key: str) -> dict[str, str]:
        return {"Bucket": self._bucket, "Key": self._prefix + keys.checked(key)}

    def _pages(self, below: str) -> Iterator[Stored]:
        pages = self._client.get_paginator("list_objects_v2").paginate(
            Bucket=self._bucket, Prefix=below, PaginationConfig={"PageSize": _PAGE}
        )
        with self._explaining("list", below):
            for page in pages:
                for entry in page.get("Contents", ()):
                    if not entry["Key"].endswith("/"):  # what web consoles store for a folder
                        yield Stored(
                            key=entry["Key"].removeprefix(self._prefix),
                            size=entry["Size"],
                            modified=entry["LastModified"].timestamp(),
                        )

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
        """Raise if it is the bucket that is missing, or the right to use it."""
        if self._bucket_seen:
            return
        try:
            # Asked in a way whose answer says what is wrong; another HEAD's would not.
            self._client.list_objects_v2(Bucket=self._bucket, Prefix=self._prefix, MaxKeys=1)
        except ClientError as error:
            if code_of(error) != "AccessDenied":  # who may read objects need not be allowed to list
                raise
        self._bucket_seen = True


def _body(data: bytes) -> bytes | BinaryIO:
    return data if len(data) < _BLOCKWISE else io.BytesIO(data)
