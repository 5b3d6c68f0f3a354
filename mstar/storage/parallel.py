"""Several transfers at once, never more than a few, and none left behind when one fails."""

from collections.abc import Callable, Generator, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")

PARALLEL = 8
"""Transfers at a time: enough to hide a network's delay, few enough for a small server."""

LARGE = 32 << 20
"""Bytes from which one file is several transfers by itself, so that files of this size go one after the other."""


def in_parallel(do: Callable[[T], R], items: Iterable[T]) -> Generator[R, None, None]:
    """``do`` of every item, ``PARALLEL`` at a time, results in the items' order.

    When one fails, those not begun are dropped, those under way are waited for, and the first error is raised; the
    same happens when the caller stops asking.
    """
    errors: list[BaseException] = []

    def attempt(item: T) -> R | None:
        if errors:
            return None
        try:
            return do(item)
        except BaseException as error:
            errors.append(error)
            raise

    pool = ThreadPoolExecutor(PARALLEL)
    try:
        for result in [pool.submit(attempt, item) for item in items]:
            value = result.result()
            if errors:
                break
            yield value  # type: ignore[misc]  # None only if ``do`` gives it: no item was dropped yet
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
    if errors:
        raise errors[0]
