"""The process beside a run that tells its trackers, as whoever runs the steps sees it.

A process of its own, because a tracker may hang, crash, draw random numbers or hold memory, and training must notice
none of it. It reads the store and is told only that there is something to look at, so what it misses is never lost.
"""

import json
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from typing import IO, Any

from mstar.config import Tracking
from mstar.tracking.reading import AtWork

MODULE = "mstar.stages.teller"
END_SECONDS = 60.0
"""How long the last points may take before they are left to whoever tells next."""


class Telling:
    """Tells one run's trackers from a child process, begun at the first ``look``. ``warn`` is told once what fails."""

    def __init__(
        self, store: str, run: str, tracking: Tracking, warn: Callable[[str], object]
    ) -> None:
        self._store, self._run, self._tracking, self._warn = store, run, tracking, warn
        self._child: subprocess.Popen[str] | None = None
        self._listener: threading.Thread | None = None
        self._gone = False
        self._said: IO[bytes] | None = None
        self.told: dict[str, int] = {}
        self.failed: dict[str, str] = {}

    def look(self, at: AtWork | None = None, *, again: bool = False) -> None:
        """Say that there is something new; ``at`` is the step at work. ``again``: forget what was told before."""
        if not self._tracking.to or self._gone:
            return
        message = {
            "run": self._run,
            "tracking": self._tracking.model_dump(mode="json"),
            "at": at.model_dump() if at else None,
            "again": again,
        }
        child = self._child or self._begin()
        assert child.stdin is not None
        try:
            child.stdin.write(json.dumps(message) + "\n")
            child.stdin.flush()
        except (BrokenPipeError, ValueError):
            self._lost(self._ending(child.wait()))

    def close(self, seconds: float | None = END_SECONDS) -> None:
        """Let it tell the rest; what it has not told after ``seconds`` (None: no limit) is left to whoever is next."""
        child, self._child = self._child, None
        if child is None:
            return
        assert child.stdin is not None
        try:
            child.stdin.close()
        except BrokenPipeError:
            self._lost("their process is gone")
        try:
            code = child.wait(seconds)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
            self._lost(f"their process was not through after {seconds:.0f} s")
        except BaseException:
            child.kill()
            child.wait()
            raise
        else:
            if code:
                self._lost(self._ending(code))
        if self._listener:
            self._listener.join()
        if child.stdout:
            child.stdout.close()
        if self._said:
            self._said.close()

    def _begin(self) -> "subprocess.Popen[str]":
        self._said = tempfile.TemporaryFile()  # noqa: SIM115 - as long as the child
        self._child = subprocess.Popen(  # noqa: S603 - our own module
            [sys.executable, "-m", MODULE, self._store],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._said,
            text=True,
            start_new_session=True,  # Ctrl-C asks us to stop, and we ask the child
            env=os.environ | {"PYTHONUNBUFFERED": "1", "CUDA_VISIBLE_DEVICES": ""},
        )
        assert self._child.stdout is not None
        self._listener = threading.Thread(
            target=self._listen, args=(self._child.stdout,), daemon=True
        )
        self._listener.start()
        return self._child

    def _listen(self, stream: IO[str]) -> None:
        for line in stream:
            if line.endswith("\n"):
                self._heard(json.loads(line))

    def _heard(self, event: dict[str, Any]) -> None:
        if "told" in event:
            self.told = event["told"]
        elif event["tracker"] not in self.failed:
            self.failed[event["tracker"]] = event["failed"]
            self._warn(
                f"tracker {event['tracker']}: {event['failed']}; the run goes on, and what it was not told is told "
                f"later, or by `mstarctl track {self._run}`"
            )

    def _ending(self, code: int) -> str:
        """How the child ended, with the last that it or a tracker said."""
        said = b""
        if self._said:
            self._said.seek(0)
            said = self._said.read()[-2000:]
        lines = said.decode(errors="replace").split("\n")
        last = next((line.strip() for line in reversed(lines) if line.strip()), "nothing")
        return f"their process ended with code {code}; the last it said: {last}"

    def _lost(self, why: str) -> None:
        if not self._gone:
            self._gone = True
            self.failed.setdefault("all", why)
            self._warn(
                f"trackers are told no more: {why}; the run goes on, and `mstarctl track {self._run}` tells the rest"
            )
