"""Ports of this machine that stay ours between being found and being listened at, whoever else looks for one."""

import socket
import sys


class Port:
    """A free port at 127.0.0.1 that nobody else is given until ``close``.

    It is bound and not listened at, so connecting to it is refused. On Linux a server that reuses addresses, as nearly
    all do, may listen there all the same; elsewhere the port is only free.
    """

    def __init__(self) -> None:
        self._held = socket.socket()
        self._held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._held.bind(("127.0.0.1", 0))
        self.number = int(self._held.getsockname()[1])
        if sys.platform != "linux":
            self._held.close()

    def close(self) -> None:
        """Let others have it."""
        self._held.close()
