"""The worker's own loop around a comparison that needs no library and does what a test asks of it."""

import os
import sys
import time

from mstar.equivalence import worker


def same(one: str, other: str, tolerance: float, decimals: int | None) -> bool:
    if one == "hang":
        while True:
            time.sleep(60)
    if one == "multiply":
        return bool(7 ** (10**9))  # one operation, in which Python looks at no signal
    if one == "die":
        os._exit(3)
    if one == "memory":
        raise MemoryError
    if one == "swell":
        return len(b"1" * (700 << 20)) == 0
    if one == "swell once":  # in the worker with this pid, not in the next
        return len(b"1" * ((700 << 20) if other == str(os.getpid()) else 1)) == 0
    if one == "error":
        raise ValueError(one)
    if one == "pid":
        return other == str(os.getpid())
    print("noise on standard output")  # noqa: T201 - a library may do so
    return one == other


def missing() -> worker.Same:
    raise ImportError("no module named math_verify")


if __name__ == "__main__":
    worker.load = missing if sys.argv[1:] == ["missing"] else lambda: same
    worker.main()
