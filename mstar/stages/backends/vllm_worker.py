"""The process of one vLLM engine: ``python -m mstar.stages.backends.vllm_worker FD``; FD is a socket to the stage.

Its end is never left to chance. It leads a process group of its own, to which vLLM's further processes belong; when the
stage is gone, however it went, the socket ends, and the whole group is killed. The stage kills the group when the
process ends before its time.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
import warnings
from collections.abc import Callable
from contextlib import closing, suppress
from multiprocessing.connection import Connection
from queue import SimpleQueue

from mstar.models.family import load_family
from mstar.stages.backends.vllm_engine import Drawn, Engine, EngineOptions, Fault, Work

Answer = Drawn | Fault | None
"""What the stage hears: None once the engine has started, then what is drawn; a fault is the last word."""


def serve(connection: Connection, gone: Callable[[], object]) -> None:
    """Start the engine that the first message describes, and do the work of those that follow until None comes.

    ``gone`` is called, from another thread, when the other end is there no more.
    """
    options: EngineOptions = connection.recv()
    inbox: SimpleQueue[Work | None] = SimpleQueue()
    threading.Thread(target=_listen, args=(connection, inbox, gone), daemon=True).start()
    try:
        family = load_family(options.model, max_pixels=options.max_pixels)
        with closing(Engine(family, options)) as engine:
            connection.send(None)
            while True:
                while not engine.working or not inbox.empty():
                    work = inbox.get()
                    if work is None:
                        return
                    engine.add(work)
                for drawn in engine.step():
                    connection.send(drawn)
    except Fault as fault:
        connection.send(fault)


def _listen(
    connection: Connection, inbox: SimpleQueue[Work | None], gone: Callable[[], object]
) -> None:
    """Take what comes at once, so that the stage never waits for the engine to take it, and listen to the end."""
    # A TypeError, where the connection was closed here meanwhile.
    with suppress(EOFError, OSError, TypeError):
        while True:
            inbox.put(connection.recv())
    gone()
    inbox.put(None)


def end_group() -> None:
    """Kill this process and all that vLLM started from it."""
    assert os.getpgid(0) == os.getpid(), "this process was not started as the leader of a group"
    os.killpg(os.getpid(), signal.SIGKILL)


def main(descriptor: int) -> None:
    """Serve the stage at the other end of a socket."""
    # Else vLLM's processes would hold it open.
    os.set_inheritable(descriptor, False)  # noqa: FBT003 - it takes no keyword
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s", stream=sys.stderr)
    warnings.simplefilter("ignore")
    with suppress(BrokenPipeError):  # the stage is gone
        serve(Connection(descriptor), end_group)
    logging.shutdown()
    # vLLM has been stopped; what threads of its libraries still do must not keep the GPU.
    os._exit(0)


if __name__ == "__main__":
    main(int(sys.argv[1]))
