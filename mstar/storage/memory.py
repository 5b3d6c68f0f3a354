"""The shipped fake: a store that lives as long as its process, held to the same contract as the real ones."""

import io
from collections.abc import Iterator
from pathlib import Path
from threading import Lock
from typing import BinaryIO

from mstar.errors import NotFound
from mstar.storage import keys
from mstar.storage.faults import explained
from mstar.storage.local import temporary


class MemoryStore:
    """A ``Store`` in memory, for tests and examples; any number of threads may use it."""

    def __init__(self) -> None:
        self._objects: dict[str, bytes] = {}
        self._lock = Lock()

    @property
    def url(self) -> str:
        return "memory:"

    def get(self, key: str) -> bytes:
        with self._lock:
            data = self._objects.get(keys.checked(key))
        if data is None:
            raise NotFound(f"{key} is not in the store {self.url}")
        return data

    def open(self, key: str, *, start: int = 0, length: int | None = None) -> BinaryIO:
        return io.BytesIO(self.get(key)[start : None if length is None else start + length])

    def put(self, key: str, data: bytes) -> None:
        with self._lock:
            self._objects[keys.checked(key)] = bytes(data)

    def create(self, key: str, data: bytes) -> bool:
        with self._lock:
            taken = keys.checked(key) in self._objects
            if not taken:
                self._objects[key] = bytes(data)
        return not taken

    def upload(self, key: str, path: Path, *, move: bool = False) -> None:
        keys.checked(key)
        with explained("read", path):
            self.put(key, path.read_bytes())
        if move:
            path.unlink()

    def download(self, key: str, path: Path) -> None:
        data = self.get(key)
        with explained("write", path), temporary(path) as unfinished:
            unfinished.write_bytes(data)
            unfinished.replace(path)

    def size(self, key: str) -> int | None:
        with self._lock:
            data = self._objects.get(keys.checked(key))
        return None if data is None else len(data)

    def list(self, prefix: str) -> Iterator[str]:
        below = keys.checked_prefix(prefix)
        with self._lock:
            found = sorted(key for key in self._objects if key.startswith(below))
        return iter(found)

    def delete(self, key: str) -> None:
        with self._lock:
            self._objects.pop(keys.checked(key), None)

    def local_path(self, key: str) -> Path | None:
        keys.checked(key)
        return None
