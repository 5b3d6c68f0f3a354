"""Writing the files of an artifact into a folder that no other writer shares, and taking them away again."""

import logging
import os
import secrets
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from mstar.errors import IntegrityError, StorageError, StoreRefused
from mstar.storage import keys
from mstar.storage.faults import explained
from mstar.storage.manifest import Part, sha256
from mstar.storage.parallel import LARGE, in_parallel
from mstar.storage.seen import stream_digest
from mstar.storage.store import Store

_log = logging.getLogger(__name__)

_AT_ONCE = 1 << 20  # bytes up to which a thread of its own costs more than hashing


class PartWriter:
    """Parts under ``folder``, to which a random ending is given, so that nobody else ever writes or deletes there.

    (A pod that was thought dead, or another run at the same step, may well have been given the same attempt's name.)
    """

    def __init__(self, store: Store, folder: str) -> None:
        self.folder = f"{folder}.{secrets.token_hex(4)}"
        self.parts: dict[str, Part] = {}
        self._store = store
        self._written: list[str] = []

    def add_files(
        self, files: Mapping[str, Path], rows: Mapping[str, int | None], *, move: bool = False
    ) -> None:
        """Store each file as the part of its name: small ones several at once, large ones one after the other."""
        sizes = {name: _size(path) for name, path in files.items()}
        reserved = {name: self._reserve(name) for name in files}

        def add(name: str) -> Part:
            key, path = reserved[name], files[name]
            size, digest = send(path, lambda: self._store.upload(key, path, move=move))
            return Part(name=name, key=key, size=size, sha256=digest, rows=rows.get(name))

        for name in files:
            if sizes[name] >= LARGE:  # the store sends several pieces of it at once
                self.keep(add(name))
        for part in in_parallel(add, [name for name in files if sizes[name] < LARGE]):
            self.keep(part)

    def add_bytes(self, name: str, data: bytes, *, rows: int | None = None) -> Part:
        """Store ``data`` as the part ``name``."""
        key = self._reserve(name)
        self._store.put(key, data)
        part = Part(name=name, key=key, size=len(data), sha256=sha256(data), rows=rows)
        self.keep(part)
        return part

    def check_name(self, name: str) -> None:
        """Raise unless a part may have this name."""
        keys.checked(name)
        if name in self.parts:
            raise ValueError(f"{self.folder} has a part {name!r} already")

    def keep(self, part: Part) -> None:
        """Count ``part`` in, wherever it is stored."""
        self.parts[part.name] = part

    def discard(self, named: Collection[str] = ()) -> None:
        """Delete what was written but for the keys ``named``.

        After a first failure the rest is left for ``mstarctl gc``: nobody reads it, and a server that is gone would
        be asked in vain for each part.
        """
        for key in self._written:
            if key in named:
                continue
            try:
                self._store.delete(key)
            except (StorageError, StoreRefused) as error:
                _log.warning("left %s and what follows it for `mstarctl gc`: %s", key, error)
                return

    def _reserve(self, name: str) -> str:
        self.check_name(name)
        key = f"{self.folder}/{name}"
        self._written.append(key)  # before it is written: a failed write may have come through
        return key


def hashed(files: Mapping[str, Path]) -> dict[str, tuple[int, str]]:
    """Size and sha256 of each file by its name."""
    names = list(files)
    found = in_parallel(lambda name: send(files[name], lambda: None), names)
    return dict(zip(names, found, strict=True))


def files_below(folder: Path, *, hidden: bool = True) -> dict[str, Path]:
    """Every file below ``folder`` by its path there, sorted; without ``hidden``, no dot files and folders."""
    found = {}
    with explained("read", folder):
        folder.stat()
        for base, folders, files in os.walk(folder, onerror=_raise):
            if not hidden:
                folders[:] = [name for name in folders if not name.startswith(".")]
            for name in files:
                if hidden or not name.startswith("."):
                    path = Path(base, name)
                    found[path.relative_to(folder).as_posix()] = path
    return dict(sorted(found.items()))


def send(path: Path, upload: Callable[[], None]) -> tuple[int, str]:
    """Run ``upload`` while hashing the file; its size and sha256."""
    with explained("read", path), path.open("rb", buffering=0) as stream:
        before = os.fstat(stream.fileno())
        if before.st_size <= _AT_ONCE:
            digest = sha256(stream.read())
            upload()
        else:
            with ThreadPoolExecutor(1) as pool:
                hashing = pool.submit(stream_digest, stream)
                upload()
                digest = hashing.result()
        after = os.fstat(stream.fileno())
    if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
        raise altered(path)
    return after.st_size, digest


def altered(path: Path) -> IntegrityError:
    """The error for a file that did not stay as it was."""
    return IntegrityError(
        f"{path} was altered while it was being stored. Let nothing write to it and try again"
    )


def _size(path: Path) -> int:
    with explained("read", path):
        return path.stat().st_size


def _raise(error: OSError) -> None:
    raise error
