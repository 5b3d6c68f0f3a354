"""Whether a store keeps what it promises, found out by trying."""

import secrets
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from mstar.errors import StorageError
from mstar.storage.store import Store


def probe(store: Store, *, writers: int = 4) -> None:
    """Write, read and delete, and race ``writers`` for one key; StorageError says what does not work."""
    key = f"probe-{secrets.token_hex(8)}"
    bodies = [f"writer {number}".encode() for number in range(writers)]
    try:
        with ThreadPoolExecutor(writers) as pool:
            won = list(pool.map(partial(store.create, key), bodies))
        found = store.get(key)
        if sum(won) != 1 or found != bodies[won.index(True)]:
            raise StorageError(
                f"{store.url} let {sum(won)} of {writers} writers create one key, where exactly one may. Its file "
                "system or server lacks conditional creation, so runs could overwrite each other: use another store"
            )
        store.put(key, b"replaced")
        if (found := store.get(key)) != b"replaced":
            raise StorageError(
                f"{store.url} gave back {len(found)} old bytes after a write: use another store"
            )
    finally:
        store.delete(key)
