"""Engines at work, each in a process of its own: one a GPU, or one for the GPUs over which a model is split.

Work goes to the engine that has its image, so that all samples, prefixes and temperatures of an image find what that
engine remembers of it; a new image goes to the engine with the least to do. Nothing that is drawn depends on that.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection, wait
from typing import Any, Protocol

from mstar.errors import MstarError, WorkerLost
from mstar.stages.backends.vllm_engine import Drawn, EngineOptions, Fault, Work
from mstar.stages.backends.vllm_process import process_environment

log = logging.getLogger("mstar.vllm")

MODULE = "mstar.stages.backends.vllm_worker"
START_SECONDS = 3600.0
"""A model of many gigabytes is read, and perhaps compiled, before the engine can work."""

SILENT_SECONDS = 1800.0
"""No row takes so long; an engine that completes none meanwhile hangs."""

LOOK_SECONDS = 1.0
STOP_SECONDS = 30.0
GRACE_SECONDS = 2.0
SAID_LINES = 200

Explain = Callable[[Fault | None, int | None, Sequence[str]], MstarError]
"""The error for a fault, or for an exit code without one, and the last lines that were said."""


class Worker(Protocol):
    """A process with an engine: messages to it and from it, and its end."""

    connection: Connection
    said: deque[str]

    def poll(self) -> int | None:
        """Its exit code, None while it lives."""

    def end(self, seconds: float) -> None:
        """Return when it is gone, and all that it started; kill what is left after ``seconds``."""


class ProcessWorker:
    """A worker in a new process group, whose output goes to our log, line by line."""

    def __init__(self, name: str, place: dict[str, str]) -> None:
        ours, theirs = socket.socketpair()
        self.said: deque[str] = deque(maxlen=SAID_LINES)
        self._name = name
        self._ended = False
        with ours, theirs:
            self._process = subprocess.Popen(  # noqa: S603 - our own module
                [sys.executable, "-m", MODULE, str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                pass_fds=[theirs.fileno()],
                env=process_environment(place),
                start_new_session=True,
            )
            self.connection = Connection(ours.detach())
        self._ear = threading.Thread(target=self._hear, daemon=True)
        self._ear.start()

    def poll(self) -> int | None:
        return self._process.poll()

    def end(self, seconds: float) -> None:
        if self._ended:
            return  # the group's number may be another's by now
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(seconds)
        # What vLLM started belongs to the group, also when the process that started it is gone.
        if not (seconds and self._group_ends(0, GRACE_SECONDS)):
            self._group_ends(signal.SIGKILL, STOP_SECONDS)
        self._process.wait()
        self._ear.join(LOOK_SECONDS)
        self.connection.close()
        self._ended = True

    def _group_ends(self, number: int, seconds: float) -> bool:
        """Send the group a signal until nobody is left in it, or for so long."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            self._process.poll()  # a child that is not waited for keeps its group alive
            try:
                os.killpg(self._process.pid, number)
            except (ProcessLookupError, PermissionError):
                return True
            time.sleep(0.02)
        return False

    def _hear(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as stream:
            for raw in stream:
                line = raw.decode(errors="replace").rstrip()
                self.said.append(line)
                log.info("%s: %s", self._name, line)


GONE = object()


class Pool:
    """Engines started alike, at ``places``; ``limit`` rows at most wait or are at work in each."""

    def __init__(
        self,
        options: EngineOptions,
        places: Sequence[dict[str, str]],
        limit: int,
        explain: Explain,
        start: Callable[[str, dict[str, str]], Worker] = ProcessWorker,
    ) -> None:
        """Return when all engines have started; raises what ``explain`` makes of one that has not."""
        self.context = options.context
        self._limit = limit
        self._explain = explain
        self._workers: list[Worker] = []
        self._rows: list[int] = []
        self._asked: dict[int, tuple[int, int]] = {}
        self._homes: dict[str, int] = {}
        try:
            for index, place in enumerate(places):
                self._workers.append(start(f"engine {index}", place))
                self._rows.append(0)
                self._send(index, options)
            for index in range(len(self._workers)):
                self._receive(index, START_SECONDS)
        except BaseException:
            self.close(kill=True)
            raise

    def takes(self, image_id: str) -> bool:
        """Whether work on an image would begin before long."""
        return self._rows[self._home(image_id)] < self._limit

    def give(self, work: Work) -> None:
        """Hand work to the engine that has its image."""
        index = self._home(work.image_id)
        self._homes[work.image_id] = index
        self._rows[index] += len(work.seeds)
        self._asked[work.number] = (index, len(work.seeds))
        self._send(index, work)

    def collect(self, *, block: bool) -> Iterator[Drawn]:
        """What is complete; with ``block`` at least one, unless nothing is asked for."""
        deadline = time.monotonic() + SILENT_SECONDS
        while True:
            seconds = LOOK_SECONDS if block and self._asked else 0
            ready = wait([worker.connection for worker in self._workers], seconds)
            for index, worker in enumerate(self._workers):
                if worker.connection in ready:
                    drawn = self._receive(index, 0)
                    assert drawn is not None
                    at, rows = self._asked.pop(drawn.number)
                    self._rows[at] -= rows
                    yield drawn
                elif block and worker.poll() is not None:
                    self._receive(index, 0)  # its last word, or the error that it is gone
            if ready or not block or not self._asked:
                return
            if time.monotonic() > deadline:
                raise WorkerLost(f"vLLM completed nothing within {SILENT_SECONDS:.0f} s; it hangs")

    def close(self, *, kill: bool = False) -> None:
        """Return when all engines are gone and their memory is free; with ``kill`` they are not asked first."""
        workers, self._workers = self._workers, []
        for worker in workers:
            if not kill:
                with suppress(OSError):  # it is gone already
                    worker.connection.send(None)
        for worker in workers:
            worker.end(0 if kill else STOP_SECONDS)

    def _home(self, image_id: str) -> int:
        idlest = min(range(len(self._rows)), key=self._rows.__getitem__)
        return self._homes.get(image_id, idlest)

    def _send(self, index: int, message: object) -> None:
        try:
            self._workers[index].connection.send(message)
        except OSError:
            self._receive(index, LOOK_SECONDS)
            raise

    def _receive(self, index: int, seconds: float) -> Drawn | None:
        """The next message of a worker, waited for so long; raises the error that it has, or that it is gone."""
        worker = self._workers[index]
        heard: Any = GONE
        if _comes(worker, seconds):
            with suppress(EOFError, OSError):
                heard = worker.connection.recv()
        if heard is GONE:
            worker.end(LOOK_SECONDS)
            raise self._explain(None, worker.poll(), list(worker.said))
        if isinstance(heard, Fault):
            worker.end(STOP_SECONDS)  # its last lines may hold the cause
            raise self._explain(heard, None, list(worker.said))
        drawn: Drawn | None = heard
        return drawn


def _comes(worker: Worker, seconds: float) -> bool:
    """Whether a message has come within so long; false when the worker is gone.

    That it is gone is asked of it, and not of its connection, whose other end somebody may hold open: a process that
    it started, say. ``WorkerLost`` when it is there and silent.
    """
    deadline = time.monotonic() + seconds
    while not worker.connection.poll(min(seconds, LOOK_SECONDS)):
        if worker.poll() is not None:
            return worker.connection.poll(0)  # what it said last may have come just now
        if time.monotonic() >= deadline:
            raise WorkerLost(f"vLLM has not started within {seconds:.0f} s")
    return True
