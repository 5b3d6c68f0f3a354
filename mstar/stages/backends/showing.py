"""The losses of a train step at work, shown now and then to whoever watches the run."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable, Sequence
from math import inf

from mstar.stages.backends.ranks import is_first
from mstar.stages.interim import FAULTS, Interim

log = logging.getLogger(__name__)

SECONDS = 5.0
SHARE = 50
"""Losses are shown so often at most, and take a fiftieth of the time at most."""


class Shown:
    """What of a pass is shown in ``interim``, by rank 0 alone. Nobody waits for it, so its failure is no failure."""

    def __init__(
        self, interim: Interim | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._interim, self._clock = interim, clock
        self._due = clock() + SECONDS

    def look(self, losses: Sequence[float]) -> None:
        """Show the losses so far, if it is time."""
        if self._interim is None or self._clock() < self._due or not is_first():
            return
        # A store's client may draw random numbers (to spread its retries), which training must not notice.
        began, drawn = self._clock(), random.getstate()
        try:
            self._interim.show([*losses])
        except FAULTS as error:
            log.warning("the losses are shown no more before the step is done: %s", error)
            self._due = inf
        else:
            now = self._clock()
            self._due = now + max(SECONDS, SHARE * (now - began))
        random.setstate(drawn)
