"""What a stage is given besides its task: the store, scratch space, and somebody to tell how far it is."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from mstar.execution import Execution
from mstar.stages.protocols import Progress
from mstar.storage.store import Store

Tell = Callable[[int, int, str], None]
"""Called with units done, units in all, and what the units are."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Gang:
    """The machines that train one step together, each with a disk of its own: ``size`` of them, this one is ``rank``.

    They meet at ``address`` (a name or number of the machine of rank 0) and ``port``.
    """

    size: int
    rank: int
    address: str
    port: int


def never() -> bool:
    """Nobody asks this attempt to stop."""
    return False


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """One attempt at one task. ``clock`` gives monotonic seconds; ``timings`` collects them by phase.

    ``usage`` is what else the attempt took, each under a name with its unit (``peak_memory_bytes``).
    ``stopping`` says whether the attempt has been asked to stop: a stage that can then leaves a checkpoint and raises
    ``Preempted``. All machines of a ``gang`` run the attempt under the same name; None is one machine alone.
    """

    store: Store
    execution: Execution
    attempt: str
    scratch: Path
    tell: Tell
    clock: Callable[[], float] = time.perf_counter
    timings: dict[str, float] = field(default_factory=dict)
    usage: dict[str, float] = field(default_factory=dict)
    stopping: Callable[[], bool] = never
    gang: Gang | None = None

    @contextmanager
    def timed(self, phase: str) -> Iterator[None]:
        """Add the time of the block to ``phase``."""
        start = self.clock()
        try:
            yield
        finally:
            self.timings[phase] = self.timings.get(phase, 0.0) + self.clock() - start

    def track(self, total: int, unit: str) -> Progress:
        """A counter that tells how far the stage is."""
        done = 0

        def more(count: int) -> None:
            nonlocal done
            done += count
            self.tell(done, total, unit)

        self.tell(0, total, unit)
        return more
