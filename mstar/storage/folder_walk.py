"""What lies in a store's folder: its keys in order, and what unfinished writes have left beside them."""

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from mstar.storage.faults import explain
from mstar.storage.keys import TEMPORARY
from mstar.storage.store import Remnant

LOCK = f"{TEMPORARY}lock"
"""Where there are no hard links, writers that create a key take turns with this file, which must stay the same one."""


def walk(folder: Path) -> Iterator[tuple[str, "os.DirEntry[str]"]]:
    """Every file below ``folder`` by its path there, in the order of keys, temporary files left out."""
    try:
        with os.scandir(folder) as entries:
            # A folder sorts as its keys do, that is, with the slash: "a-b" comes before "a/b".
            found = sorted(((e.name + "/" if e.is_dir() else e.name), e) for e in entries)
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as error:
        raise explain(error, "list", folder) from error
    for name, entry in found:
        if name.startswith(TEMPORARY):
            continue
        if name.endswith("/"):
            for below, file in walk(folder / name):
                yield name + below, file
        else:
            yield name, entry


def folder_remnants(root: Path) -> Iterator[Remnant]:
    """Temporary files below ``root``, and folders below it that hold no file at any depth, the deepest first."""
    occupied: set[Path] = set()
    youngest: dict[Path, float] = {}
    for base, folders, files in os.walk(root, topdown=False):
        folder = Path(base)
        for name in files:
            if name.startswith(TEMPORARY) and name != LOCK:
                with suppress(FileNotFoundError):  # finished just now
                    since = (folder / name).stat().st_mtime
                    yield Remnant(name=(folder / name).relative_to(root).as_posix(), since=since)
        below = [folder / name for name in folders]
        if folder == root:
            continue
        if any(name != LOCK for name in files) or any(path in occupied for path in below):
            occupied.add(folder)
            continue
        with suppress(FileNotFoundError):
            # A folder was touched when one below it was: a writer may have made the whole row a moment ago.
            times = [
                folder.stat().st_mtime,
                *(youngest[path] for path in below if path in youngest),
            ]
            youngest[folder] = max(times)
            yield Remnant(name=folder.relative_to(root).as_posix(), since=youngest[folder])


def clear_remnant(path: Path) -> None:
    """Remove a temporary file, or a folder if it is still empty."""
    if path.name.startswith(TEMPORARY):
        path.unlink(missing_ok=True)
        return
    with suppress(FileNotFoundError):
        if {entry.name for entry in path.iterdir()} <= {LOCK}:
            (path / LOCK).unlink(missing_ok=True)
            with suppress(OSError):  # somebody writes there again
                path.rmdir()
