"""Worker processes that answer questions by a deadline: one that does not is killed by its pid, and replaced.

Nothing here knows what a question means, and nothing uses signals in this process, so any thread may ask.
"""

import importlib.util
import json
import os
import selectors
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from threading import Condition
from types import TracebackType
from typing import Any, Self

from mstar.equivalence.asking import Question
from mstar.errors import MissingDependency, WorkerLost

START_SECONDS = 120.0
"""Importing the library takes seconds, on a busy machine many."""

COMMAND = (sys.executable, "-P", "-m", "mstar.equivalence.worker")
MISSING = (
    "answers.math_verify is true, but the package math-verify is not installed here; install it "
    "(pip install 'mstar[answers]'), or set answers.math_verify to false"
)


class Verdict(StrEnum):
    """What became of a question. ``UNDECIDED``: no answer by the deadline, or the question ended two workers."""

    RIGHT = "right"
    WRONG = "wrong"
    UNDECIDED = "undecided"


def require_math_verify() -> None:
    """Raises ``MissingDependency`` unless math-verify is installed; nothing is imported."""
    if importlib.util.find_spec("math_verify") is None:
        raise MissingDependency(MISSING)


class Pool:
    """At most ``workers`` processes, each started when it is first needed; ``timeout`` is in seconds a question.

    ``ask`` and ``ask_all`` may be called from any thread. Raise ``MissingDependency`` when the worker lacks its
    library, ``WorkerLost`` when it does not start, and ``RuntimeError`` after ``close``.
    """

    def __init__(
        self,
        *,
        timeout: float,
        workers: int = 1,
        command: Sequence[str] = COMMAND,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.timeout = timeout
        self.workers = workers
        self.killed = 0
        """Workers that were killed because a deadline had passed."""
        self._command = tuple(command)
        self._clock = clock
        self._changed = Condition()
        self._idle: list[_Worker] = []
        self._all: set[_Worker] = set()
        self._places = workers
        self._closed = False

    def ask(self, question: Question) -> Verdict:
        """The verdict, by the deadline; the time that a worker takes to start, or to be free, does not count."""
        line = json.dumps(asdict(question) | {"deadline": self.timeout}).encode() + b"\n"
        # Twice: a worker may have died while idle, or be swollen with what it was asked before.
        for _ in range(2):
            worker = self._take()
            try:
                reply = worker.ask(line, self._clock() + self.timeout, self._clock)
            except TimeoutError:
                self._drop(worker)
                with self._changed:
                    self.killed += 1
                return Verdict.UNDECIDED
            except BaseException:
                self._drop(worker)
                raise
            if reply is not None and reply["same"] is not None:
                self._give(worker)
                return Verdict.RIGHT if reply["same"] else Verdict.WRONG
            self._drop(worker)
        return Verdict.UNDECIDED

    def ask_all(self, questions: Sequence[Question]) -> list[Verdict]:
        """The verdicts in the questions' order; as many are at work as there are workers."""
        if len(questions) < 2 or self.workers == 1:
            return [self.ask(question) for question in questions]
        with ThreadPoolExecutor(min(self.workers, len(questions))) as threads:
            futures = [threads.submit(self.ask, question) for question in questions]
            try:
                return [future.result() for future in futures]
            except BaseException:
                # A worker that cannot start will not start for the others either.
                threads.shutdown(wait=False, cancel_futures=True)
                raise

    def close(self) -> None:
        """End all workers, also those at work; whoever waits for one gets ``RuntimeError``."""
        with self._changed:
            self._closed = True
            idle, busy = self._idle, self._all.difference(self._idle)
            self._idle = []
            self._changed.notify_all()
        for worker in idle:
            self._drop(worker)
        for worker in busy:
            worker.kill()  # its pipes are closed by the thread that reads them

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _take(self) -> "_Worker":
        with self._changed:
            while not self._idle and not self._places and not self._closed:
                self._changed.wait(self.timeout)
            self._refuse_closed()
            if self._idle:
                return self._idle.pop()
            self._places -= 1
        try:
            worker = _Worker(self._command)
        except BaseException:
            self._free_place()
            raise
        with self._changed:
            self._all.add(worker)
        try:
            worker.wait_until_ready(self._clock() + START_SECONDS, self._clock)
            with self._changed:
                self._refuse_closed()
        except BaseException:
            self._drop(worker)
            raise
        return worker

    def _give(self, worker: "_Worker") -> None:
        with self._changed:
            if not self._closed:
                self._idle.append(worker)
                self._changed.notify()
                return
        self._drop(worker)

    def _drop(self, worker: "_Worker") -> None:
        worker.end()
        with self._changed:
            self._all.discard(worker)
        self._free_place()

    def _free_place(self) -> None:
        with self._changed:
            self._places += 1
            self._changed.notify()

    def _refuse_closed(self) -> None:
        if self._closed:
            raise RuntimeError("the answer checker is closed")


class _Worker:
    """One process and its pipes; one thread at a time talks to it."""

    def __init__(self, command: Sequence[str]) -> None:
        # A new interpreter, never a fork: threads and accelerators of this process would not survive one.
        env = os.environ | {"PYTHONPATH": os.pathsep.join(p or str(Path.cwd()) for p in sys.path)}
        self._process = subprocess.Popen(  # noqa: S603 - this project's own module
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0, env=env
        )
        self._command = command
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._questions, self._replies = self._process.stdin, self._process.stdout
        self._read = b""

    def wait_until_ready(self, until: float, clock: Callable[[], float]) -> None:
        try:
            first = self._reply(until, clock)
        except TimeoutError:
            first = None
        if first is None:
            raise WorkerLost(
                f"the process that checks answers did not start (exit code {self._process.poll()}); "
                f"look for its own message above, or run it by hand: {' '.join(self._command)}"
            )
        if "missing" in first:
            raise MissingDependency(f"{MISSING} ({first['missing']})")

    def ask(self, line: bytes, until: float, clock: Callable[[], float]) -> dict[str, Any] | None:
        """The reply, or None when the process has ended. Raises ``TimeoutError`` when the deadline passes."""
        try:
            self._questions.write(line)
        except OSError:
            return None
        return self._reply(until, clock)

    def kill(self) -> None:
        self._process.kill()

    def end(self) -> None:
        """Kill, reap and close; a second time does nothing."""
        self._process.kill()
        self._process.wait()
        self._questions.close()
        self._replies.close()

    def _reply(self, until: float, clock: Callable[[], float]) -> dict[str, Any] | None:
        with selectors.DefaultSelector() as selector:
            selector.register(self._replies, selectors.EVENT_READ)
            while b"\n" not in self._read:
                left = until - clock()
                if left <= 0:
                    raise TimeoutError
                if selector.select(left):
                    more = os.read(self._replies.fileno(), 65536)
                    if not more:
                        return None
                    self._read += more
        line, _, self._read = self._read.partition(b"\n")
        found: dict[str, Any] = json.loads(line)
        return found
