"""What this process knows of local files: their sha256 as it was when they were last read or written."""

import hashlib
from io import FileIO
from pathlib import Path
from threading import Lock

BLOCK = 4 << 20
"""Bytes to hash at once."""

_MOST = 4096
_State = tuple[str, int, int, int]

_digests: dict[_State, str] = {}
_lock = Lock()


def digest_of(path: Path) -> str:
    """The file's sha256, computed once for each state of the file."""
    state = _state(path)
    with _lock:
        known = _digests.get(state)
    if known is None:
        known = file_digest(path)
        _keep(state, known)
    return known


def remember(path: Path, digest: str) -> None:
    """The file as it is now was just written, and its sha256 found on the way."""
    _keep(_state(path), digest)


def file_digest(path: Path) -> str:
    """sha256 of a file, in constant memory."""
    with path.open("rb", buffering=0) as stream:
        return stream_digest(stream)


def stream_digest(stream: FileIO) -> str:
    """sha256 of the rest of an open file.

    Read in blocks so large that a thread which hashes beside a transfer seldom has to wait for Python's lock.
    """
    digest = hashlib.sha256()
    buffer = memoryview(bytearray(BLOCK))
    while count := stream.readinto(buffer):
        digest.update(buffer[:count])
    return digest.hexdigest()


def _state(path: Path) -> _State:
    """What differs once a file was altered or replaced."""
    status = path.stat()
    return str(path), status.st_size, status.st_mtime_ns, status.st_ino


def _keep(state: _State, digest: str) -> None:
    with _lock:
        _digests[state] = digest
        while len(_digests) > _MOST:
            del _digests[next(iter(_digests))]  # the one that was learned first
