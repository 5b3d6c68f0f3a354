"""Whether a store keeps what it promises, found out by trying; nothing of it stays."""

import secrets
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from mstar.errors import StorageError
from mstar.storage.store import Store

PREFIX = "probe-"
"""How the keys begin that a probe uses, so that a sweep knows what a killed one has left."""

_BARRIER_SECONDS = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Race:
    """So many writers were let loose on one key, round by round; one won each time.

    ``overlapping`` counts the rounds in which the requests of all were under way at the same moment. ``winners`` are
    their numbers: a store that serves whoever was born first may say so.
    """

    writers: int
    overlapping: int
    winners: tuple[int, ...]

    def __str__(self) -> str:
        rounds = len(self.winners)
        return (
            f"in {rounds} races of {self.writers} writers for one key ({self.overlapping} with all requests under way "
            "at once) exactly one won each"
        )


def probe(store: Store, *, writers: int = 4, rounds: int = 3) -> Race:
    """Write, read, list and delete, and race ``writers`` for one key; StorageError says what does not work."""
    folder = f"{PREFIX}{secrets.token_hex(8)}"
    used = [f"{folder}/written", *(f"{folder}/race-{number}" for number in range(rounds))]
    try:
        _write_and_read(store, folder, used[0])
        races = [_race(store, key, writers) for key in used[1:]]
    finally:
        for key in used:
            store.delete(key)
        for remnant in store.remnants():
            if remnant.name.startswith(folder):
                store.clear(remnant)
    if left := list(store.list(folder)):
        raise StorageError(
            f"{store.url} still lists {left[0]} after it was deleted: use another store"
        )
    overlapping = sum(overlap for _, overlap in races)
    return Race(writers=writers, overlapping=overlapping, winners=tuple(won for won, _ in races))


def _write_and_read(store: Store, folder: str, key: str) -> None:
    store.put(key, b"to be replaced")
    store.put(key, b"0123456789")
    if (found := store.get(key)) != b"0123456789":
        raise StorageError(
            f"{store.url} gave back {len(found)} old bytes after a write: use another store"
        )
    with store.open(key, start=2, length=5) as stream:
        if (found := stream.read()) != b"23456":
            raise StorageError(
                f"{store.url} gave back {len(found)} bytes when 5 of 10 were asked for. Its server or something before "
                "it does not know ranges: use another store"
            )
    if list(store.list(folder)) != [key]:
        raise StorageError(
            f"{store.url} does not list a key that was just written: use another store"
        )


def _race(store: Store, key: str, writers: int) -> tuple[int, bool]:
    """Which writer won, and whether the requests of all were under way at one moment."""
    start = threading.Barrier(writers)

    def attempt(number: int) -> tuple[bool, float, float]:
        start.wait(_BARRIER_SECONDS)
        begun = time.monotonic()
        won = store.create(key, _body(number))
        return won, begun, time.monotonic()

    with ThreadPoolExecutor(writers) as pool:
        told = list(pool.map(attempt, range(writers)))
    winners = [number for number, (won, _, _) in enumerate(told) if won]
    if len(winners) != 1 or store.get(key) != _body(winners[0]):
        raise StorageError(
            f"{store.url} let {len(winners)} of {writers} writers create one key, where exactly one may. Its file "
            "system or server lacks conditional creation, so runs could overwrite each other: use another store"
        )
    overlap = max(begun for _, begun, _ in told) < min(ended for _, _, ended in told)
    return winners[0], overlap


def _body(number: int) -> bytes:
    return f"writer {number}".encode()
