"""What the file system's refusals mean, in one sentence each: what failed, where, and what to do."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mstar.errors import NotFound, StorageError

_FULL = (
    "the disk is full, or a quota or size limit is reached. Free some space there or choose a store elsewhere, then "
    "resume: nothing that was committed is lost"
)
_REFUSED = "permission denied. Give this user access to the folder or choose another one"
_FILE = "a file stands where a folder is needed. Choose another folder, or move that file away"
_REASONS = {
    errno.ENOSPC: _FULL,
    errno.EDQUOT: _FULL,
    errno.EFBIG: _FULL,
    errno.EROFS: "its file system is read-only. Mount it writable or choose a folder elsewhere",
    errno.EACCES: _REFUSED,
    errno.EPERM: _REFUSED,
    errno.ENAMETOOLONG: "the name is too long for this file system. Choose shorter names",
    errno.ENOTDIR: _FILE,
    errno.EEXIST: _FILE,
    errno.ENOENT: "the folder is not there and cannot be made. Choose another folder",
    errno.EISDIR: "a folder stands where a file is needed. Choose another folder, or move that one away",
}


@contextmanager
def explained(doing: str, where: Path) -> Iterator[None]:
    """Run the block; an ``OSError`` from it becomes one ``StorageError`` (or ``NotFound``) about ``where``."""
    try:
        yield
    except OSError as error:
        raise explain(error, doing, where) from error


def explain(error: OSError, doing: str, where: Path) -> StorageError | NotFound:
    """The error to raise when ``doing`` something with the file ``where`` failed."""
    if error.errno == errno.ENOENT and doing != "write":
        return NotFound(f"cannot {doing} {where}: there is no such file")
    otherwise = f"{error.strerror or error}. See that the disk or mount is well, then try again"
    return StorageError(f"cannot {doing} {where}: {_REASONS.get(error.errno or 0, otherwise)}")
