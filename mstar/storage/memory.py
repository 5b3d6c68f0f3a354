"""The shipped fake: a store that lives as long as its process, held to the same contract as the real ones."""

import hashlib
import io
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Lock
from typing import BinaryIO

from mstar.errors import NotFound
from mstar.storage import keys
from mstar.storage.faults import explained
from mstar.storage.local import temporary
from mstar.storage.store import Remnant, Stored


class MemoryStore:
    """A ``Store`` in memory, for tests and examples; any number of threads may use it."""

    def __init__(self, *, clock: Callable[[], float] = time.time) -> None:
        self._objects: dict[str, bytes] = {}
        self._modified: dict[str, float] = {}
        self._clock = clock
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
            self._modified[key] = self._clock()

    def create(self, key: str, data: bytes) -> bool:
        with self._lock:
            taken = keys.checked(key) in self._objects
            if not taken:
                self._objects[key] = bytes(data)
                self._modified[key] = self._clock()
        return not taken

    def upload(self, key: str, path: Path, *, move: bool = False) -> None:
        keys.checked(key)
        with explained("read", path):
            self.put(key, path.read_bytes())
        if move:
            path.unlink()

    def download(self, key: str, path: Path) -> str:
        data = self.get(key)
        with explained("write", path), temporary(path) as unfinished:
            unfinished.write_bytes(data)
            unfinished.replace(path)
        return hashlib.sha256(data).hexdigest()

    def size(self, key: str) -> int | None:
        with self._lock:
            data = self._objects.get(keys.checked(key))
        return None if data is None else len(data)

    def list(self, prefix: str) -> Iterator[str]:
        return (stored.key for stored in self.scan(prefix))

    def scan(self, prefix: str) -> Iterator[Stored]:
        below = keys.checked_prefix(prefix)
        with self._lock:
            found = [
                Stored(key=key, size=len(data), modified=self._modified[key])
                for key, data in sorted(self._objects.items())
                if key.startswith(below)
            ]
        return iter(found)

    def remnants(self) -> Iterator[Remnant]:
        return iter(())

    def clear(self, remnant: Remnant) -> None:
        del remnant

    def delete(self, key: str) -> None:
        with self._lock:
            self._objects.pop(keys.checked(key), None)

    def local_path(self, key: str) -> Path | None:
        keys.checked(key)
        return None
