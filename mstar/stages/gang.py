"""Machines that train one step together: how they find each other, and how the others wait for the first.

The first machine commits the step. The others hand it what they wrote, through the store, and have then nothing left
to do but to see the commit.
"""

import logging
import socket
import time
from collections.abc import Callable, Iterable

from mstar.errors import Preempted, WorkerLost
from mstar.stages.context import Context, Gang
from mstar.stages.interim import FAULTS, discard
from mstar.storage.manifest import Part
from mstar.storage.reading import read_manifest

log = logging.getLogger(__name__)

ADDRESS_SECONDS = 300.0
"""A machine's name may be known only some time after the machine starts."""

COMMIT_SECONDS = 3600.0
"""The first machine still measures a PRM and sends the model after training."""

LOOK_SECONDS = 2.0


def await_address(
    gang: Gang,
    stopping: Callable[[], bool],
    *,
    seconds: float = ADDRESS_SECONDS,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Return once the first machine's name is known; ``WorkerLost`` when it is not after ``seconds``."""
    deadline = clock() + seconds
    told = False
    while True:
        try:
            socket.getaddrinfo(gang.address, gang.port, type=socket.SOCK_STREAM)
        except OSError as error:
            problem = error
        else:
            return
        if stopping():
            raise Preempted("preempted while the machines of the gang were looking for each other")
        if clock() >= deadline:
            raise WorkerLost(
                f"the gang's first machine is not to be found: the name {gang.address} is unknown after {seconds:.0f} s"
                f" ({problem}). See that its pod runs and that a headless Service of its subdomain exists"
            )
        if not told:
            log.info("waiting for the name %s of the gang's first machine", gang.address)
            told = True
        sleep(LOOK_SECONDS)


def await_outcome(
    context: Context,
    identity: str,
    sent: Iterable[Part],
    *,
    seconds: float = COMMIT_SECONDS,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Return once the step is committed; ``WorkerLost`` when it is not after ``seconds``.

    ``sent`` are the parts that this machine handed to the first. If another attempt has won, they are deleted.
    Until then they stay: the first machine may still commit them.
    """
    deadline = clock() + seconds
    while True:
        try:
            manifest = read_manifest(context.store, "step", identity)
        except FAULTS as error:
            log.warning("cannot see whether the step is committed: %s", error)
            manifest = None
        if manifest is not None:
            named = {part.key for part in manifest.parts}
            discard(context.store, (part.key for part in sent if part.key not in named))
            return
        if clock() >= deadline:
            raise WorkerLost(
                f"the gang's first machine did not commit the step within {seconds:.0f} s after training ended; it is "
                "lost, or the store is slow"
            )
        sleep(LOOK_SECONDS)
