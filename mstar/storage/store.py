"""The one door to stored bytes: keys in, bytes out, and a create that only one caller can win."""

from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Protocol


class Store(Protocol):
    """A flat space of keys (``a/b/c``, no leading slash, no ``.`` or ``..`` segments) holding bytes.

    Every write is atomic: a reader sees the whole object or none. Faults of the medium raise ``StorageError``;
    a key that is not there raises ``NotFound``. A stream from ``open`` stays with the version that it began with.
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

    def download(self, key: str, path: Path) -> None:
        """Stream ``key`` into a local file, which appears only when it is whole."""

    def size(self, key: str) -> int | None:
        """Bytes in ``key``, or None when it is not there."""

    def list(self, prefix: str) -> Iterator[str]:
        """Keys below the folder ``prefix`` (no slash at its end; empty for all), sorted by code point."""

    def delete(self, key: str) -> None:
        """Remove ``key``; removing what is not there is no error."""

    def local_path(self, key: str) -> Path | None:
        """The file behind ``key`` where there is one (so that nothing is copied on one machine), else None."""
