"""The one door to stored bytes: keys in, bytes out, and a create that only one caller can win."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """A key with its size in bytes and when it was last written, in seconds since 1970 by the store's own clock."""

    key: str
    size: int
    modified: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Remnant:
    """What an unfinished write left and no key shows: a temporary file, an empty folder, an upload of some parts.

    ``since`` is when it was last touched (begun, for an upload) in seconds since 1970; ``token`` is the store's own
    word for it.
    """

    name: str
    since: float
    token: str = ""


class Store(Protocol):
    """A flat space of keys (``a/b/c``, no leading slash, no ``.`` or ``..`` segments) holding bytes.

    Every write is atomic: a reader sees the whole object or none. Faults of the medium raise ``StorageError``, a store
    that says no (to these credentials, or for lack of its bucket) ``StoreRefused``; a key that is not there raises
    ``NotFound``. A stream from ``open`` stays with the version that it began with.
    """

    @property
    def url(self) -> str:
        """Where the store is, in the form ``open_store`` takes back: a folder's path or ``s3://bucket/prefix``."""

    def get(self, key: str) -> bytes:
        """All bytes of ``key``."""

    def open(self, key: str, *, start: int = 0, length: int | None = None) -> BinaryIO:
        """A stream over ``key`` from byte ``start``; memory does not grow with the object. The caller closes it."""

    def put(self, key: str, data: bytes) -> None:
        """Write or replace ``key``."""

    def create(self, key: str, data: bytes) -> bool:
        """Write ``key`` only if it does not exist: True for the one caller who wrote it, False for all others."""

    def upload(self, key: str, path: Path, *, move: bool = False) -> None:
        """Stream a local file into ``key``; ``move`` takes it away, without a copy if possible."""

    def download(self, key: str, path: Path) -> str:
        """Stream ``key`` into a local file, which appears only when it is whole; the sha256 of what came."""

    def size(self, key: str) -> int | None:
        """Bytes in ``key``, or None when it is not there."""

    def list(self, prefix: str) -> Iterator[str]:
        """Keys below the folder ``prefix`` (no slash at its end; empty for all), sorted by code point."""

    def scan(self, prefix: str) -> Iterator[Stored]:
        """What ``list`` gives, with sizes and times."""

    def remnants(self) -> Iterator[Remnant]:
        """What unfinished writes have left, those still under way included: only their age tells them apart."""

    def clear(self, remnant: Remnant) -> None:
        """Remove a remnant; if it has gone or is in use again, nothing happens."""

    def delete(self, key: str) -> None:
        """Remove ``key``; removing what is not there is no error."""

    def local_path(self, key: str) -> Path | None:
        """The file behind ``key`` where there is one (so that nothing is copied on one machine), else None."""
