"""The store that needs nothing: a folder on a disk.

A write goes to a temporary file beside its target, is flushed to the disk, and takes the target's name in one
step; so a crash leaves the old object or the new one, and at most a temporary file that ``list`` does not show.
"""

import errno
import fcntl
import hashlib
import io
import os
import shutil
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, cast

from mstar.errors import NotFound
from mstar.storage import keys
from mstar.storage.faults import explain, explained
from mstar.storage.folder_walk import clear_remnant, folder_remnants, walk
from mstar.storage.local import flush, make_folder, temporary
from mstar.storage.store import Remnant, Stored

# What a file system without hard links answers to ``link``.
_NO_LINKS = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EXDEV}


class FolderStore:
    """A ``Store`` in the folder ``root``, which is made at the first write. Reading needs no right to write."""

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root).expanduser().absolute()

    def __repr__(self) -> str:
        return f"FolderStore({str(self.root)!r})"

    @property
    def url(self) -> str:
        return str(self.root)

    def get(self, key: str) -> bytes:
        with self._reading(key) as path:
            return path.read_bytes()

    def open(self, key: str, *, start: int = 0, length: int | None = None) -> BinaryIO:
        with self._reading(key) as path:
            stream = path.open("rb")
            stream.seek(start)
        return (
            stream
            if length is None
            else cast("BinaryIO", io.BufferedReader(_Window(stream, length)))
        )

    def put(self, key: str, data: bytes) -> None:
        self._write(key, lambda unfinished: unfinished.write_bytes(data))

    def create(self, key: str, data: bytes) -> bool:
        target = self._path(key)
        with explained("write", target):
            if target.is_file():  # the common way to lose costs no write
                return False
            with temporary(target) as unfinished:
                unfinished.write_bytes(data)
                flush(unfinished)
                won = _link(unfinished, target)
                flush(target.parent)
        return won

    def upload(self, key: str, path: Path, *, move: bool = False) -> None:
        target = self._path(key)
        with explained("read", path):
            status = path.lstat()
            path.open("rb").close()
        # A link's target, or a file that has a second name, is not ours to take: whoever has it may alter it later.
        owned = stat.S_ISREG(status.st_mode) and status.st_nlink == 1
        if move and owned and self._rename(path, target):
            return
        self._write(key, lambda unfinished: shutil.copyfile(path, unfinished))
        if move:
            with explained("remove", path):
                path.unlink()

    def download(self, key: str, path: Path) -> str:
        # The key is opened first: a missing key must not be told as a missing target, nor leave a folder behind.
        with (
            self._reading(key) as source,
            source.open("rb", buffering=0) as stream,
            explained("write", path),
            temporary(path) as unfinished,
        ):
            digest = hashlib.sha256()
            with unfinished.open("wb") as copy:
                while block := stream.read(1 << 20):
                    copy.write(block)
                    digest.update(block)
            unfinished.replace(path)
        return digest.hexdigest()

    def size(self, key: str) -> int | None:
        path = self._path(key)
        with explained("read", path):
            return path.stat().st_size if path.is_file() else None

    def list(self, prefix: str) -> Iterator[str]:
        below = keys.checked_prefix(prefix)
        return (below + name for name, _ in walk(self.root / prefix))

    def scan(self, prefix: str) -> Iterator[Stored]:
        below = keys.checked_prefix(prefix)
        return self._scanned(self.root / prefix, below)

    def remnants(self) -> Iterator[Remnant]:
        """Temporary files, and folders with nothing in them."""
        with explained("list", self.root):
            yield from folder_remnants(self.root)

    def clear(self, remnant: Remnant) -> None:
        path = self.root / remnant.name
        with explained("delete", path):
            clear_remnant(path)

    def delete(self, key: str) -> None:
        path = self._path(key)
        with explained("delete", path):
            try:
                path.unlink()
            except (FileNotFoundError, NotADirectoryError):
                return
            flush(path.parent)

    def local_path(self, key: str) -> Path | None:
        path = self._path(key)
        with explained("read", path):
            return path if path.is_file() else None

    def _path(self, key: str) -> Path:
        return self.root / keys.checked(key)

    @contextmanager
    def _reading(self, key: str) -> Iterator[Path]:
        path = self._path(key)
        try:
            yield path
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as error:
            raise NotFound(f"{key} is not in the store {self.url}") from error
        except OSError as error:
            raise explain(error, "read", path) from error

    def _write(self, key: str, fill: Callable[[Path], object]) -> None:
        target = self._path(key)
        with explained("write", target), temporary(target) as unfinished:
            fill(unfinished)
            flush(unfinished)
            unfinished.replace(target)
            flush(target.parent)

    def _rename(self, path: Path, target: Path) -> bool:
        """Whether ``path`` could become ``target`` without a copy."""
        with explained("write", target):
            make_folder(target.parent)
            try:
                flush(path)
                path.replace(target)
            except OSError as error:
                if error.errno == errno.EXDEV:
                    return False
                raise
            flush(target.parent)
        return True

    def _scanned(self, folder: Path, below: str) -> Iterator[Stored]:
        for name, entry in walk(folder):
            try:
                status = entry.stat()
            except FileNotFoundError:  # deleted since it was listed
                continue
            # A file that was moved here keeps the time of its content; the other time is that of the move.
            modified = max(status.st_mtime, status.st_ctime)
            yield Stored(key=below + name, size=status.st_size, modified=modified)


class _Window(io.RawIOBase):
    """The next ``length`` bytes of a stream, which it closes."""

    def __init__(self, stream: BinaryIO, length: int) -> None:
        self._stream, self._left = stream, length

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: "bytearray | memoryview") -> int:  # type: ignore[override]
        data = self._stream.read(min(len(buffer), self._left))
        buffer[: len(data)] = data
        self._left -= len(data)
        return len(data)

    def close(self) -> None:
        self._stream.close()
        super().close()


def _link(unfinished: Path, target: Path) -> bool:
    """Give the finished file its name unless the name is taken."""
    try:
        os.link(unfinished, target)
    except FileExistsError:
        if target.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(target)) from None
        # Over NFS the answer to a link that succeeded can be lost, and the repeated request then finds its own work.
        return unfinished.stat().st_nlink > 1
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        return _rename_under_lock(unfinished, target)
    return True


def _rename_under_lock(unfinished: Path, target: Path) -> bool:
    """The same where there are no hard links; the lock ends with its process, so a crash blocks nobody."""
    with (target.parent / f"{keys.TEMPORARY}lock").open("ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if target.exists():
            return False
        unfinished.replace(target)
        return True
