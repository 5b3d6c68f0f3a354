"""Watching an attempt until something holds of it."""

import time

from mstar.executors.base import State


def ended(executor, name, seconds=120):
    deadline = time.monotonic() + seconds
    while (found := executor.observe(name)).state is State.RUNNING and time.monotonic() < deadline:
        executor.wait(name, 1.0)
    return found


def sees(executor, name, holds, seconds=120):
    """An observation that something holds of, in time."""
    deadline = time.monotonic() + seconds
    while not holds(found := executor.observe(name)):
        assert time.monotonic() < deadline, found
        executor.wait(name, 0.05)
    return found
