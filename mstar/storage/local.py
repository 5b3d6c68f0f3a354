"""Files on this machine that appear only when they are whole, and stay after a power cut."""

import errno
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from mstar.storage.keys import TEMPORARY


@contextmanager
def temporary(target: Path) -> Iterator[Path]:
    """A name beside ``target`` to write to; gone at the end, whatever happens, if it was not renamed."""
    make_folder(target.parent)
    path = target.parent / f"{TEMPORARY}{secrets.token_hex(8)}"
    try:
        yield path
    finally:
        with suppress(OSError):  # the first error is the one to tell
            path.unlink(missing_ok=True)


def make_folder(folder: Path) -> None:
    """Make the folder and its parents so that they survive a power cut."""
    if folder.is_dir():
        return
    make_folder(folder.parent)
    try:
        folder.mkdir()
    except FileExistsError:
        if not folder.is_dir():
            raise
    else:
        flush(folder.parent)


def flush(path: Path) -> None:
    """Have what was written to a file (or the names in a folder) on the disk before going on."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in {
            errno.EINVAL,
            errno.ENOTSUP,
            errno.EBADF,
        }:  # some file systems cannot flush a folder
            raise
    finally:
        os.close(handle)
