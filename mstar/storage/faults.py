"""What the file system's refusals mean, in one sentence each: what failed, where, and what to do."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mstar.errors import NotFound, StorageError

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_REFUSED = {errno.EACCES, errno.EPERM}


@contextmanager
def explained(doing: str, where: Path) -> Iterator[None]:
    """Run the block; an ``OSError`` from it becomes one ``StorageError`` (or ``NotFound``) about ``where``."""
    try:
        yield
    except OSError as error:
        raise explain(error, doing, where) from error


def explain(error: OSError, doing: str, where: Path) -> StorageError | NotFound:
    """The error to raise when ``doing`` something with the file ``where`` failed."""
    what = f"cannot {doing} {where}"
    if error.errno in _FULL:
        return StorageError(
            f"{what}: the disk is full (or a quota or size limit is reached). "
            "Free some space there or choose a store elsewhere, then resume: nothing that was committed is lost"
        )
    if error.errno == errno.EROFS:
        return StorageError(
            f"{what}: its file system is read-only. Mount it writable or choose a folder elsewhere"
        )
    if error.errno in _REFUSED:
        return StorageError(
            f"{what}: permission denied{_user()}. Give this user access to the folder or choose another one"
        )
    if error.errno == errno.ENAMETOOLONG:
        return StorageError(f"{what}: the name is too long for this file system. Choose shorter names")
    if error.errno in {errno.ENOTDIR, errno.EEXIST}:
        return StorageError(
            f"{what}: a file stands where a folder is needed. Choose another folder, or move that file away"
        )
    if error.errno == errno.EISDIR:
        return StorageError(
            f"{what}: a folder stands where a file is needed. Choose another folder, or move that one away"
        )
    if error.errno == errno.ENOENT:
        return NotFound(f"{what}: there is no such file")
    reason = error.strerror or str(error)
    return StorageError(f"{what}: {reason}. See that the disk or mount is well, then try again")


def _user() -> str:
    return f" to user {os.getuid()}" if hasattr(os, "getuid") else ""
