"""Two runs side by side on one machine, the second starting once the first has committed what they share."""

import threading
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait

from mstar.controller.loop import Controller, Reporter
from mstar.controller.status import Status
from mstar.executors.base import Observation
from mstar.executors.local import LocalExecutor
from mstar.history import Entry, Run, load_history
from mstar.recipe import Step
from mstar.storage.manifest import Manifest
from mstar.storage.store import Store

SHARED = "warm-up/test"
"""The last step that both runs ask for with the same task."""


class Together:
    """Advances ``first``, and from ``SHARED`` on ``second`` beside it, each with a worker process of its own."""

    def __init__(self, store: Store, first: Run, second: Run) -> None:
        self._store = store
        self._runs = (first, second)
        self._shared = threading.Event()
        self._interrupted = threading.Event()

    def advance(self, first: Reporter, second: Reporter) -> None:
        """Run both to their ends. When one fails, the other is stopped in order, and the failure is raised."""
        if any(entry.name == SHARED for entry in load_history(self._store, self._runs[0].name)):
            self._shared.set()
        with ThreadPoolExecutor(2) as pool:
            futures = [
                pool.submit(self._one, self._runs[0], _Watch(first, self._shared)),
                pool.submit(self._after_shared, self._runs[1], second),
            ]
            try:
                self._join(futures)
            finally:
                self._interrupted.set()
                self._shared.set()

    def _join(self, futures: list[Future[None]]) -> None:
        pending = set(futures)
        while pending:
            # A timeout, because a wait without one would not be woken by Ctrl-C on every platform.
            done, pending = wait(pending, timeout=0.5, return_when=FIRST_EXCEPTION)
            for future in done:
                future.result()

    def _after_shared(self, run: Run, reporter: Reporter) -> None:
        self._shared.wait()
        if not self._interrupted.is_set():
            self._one(run, reporter)

    def _one(self, run: Run, reporter: Reporter) -> None:
        executor = LocalExecutor()
        try:
            Controller(
                self._store, executor, run, reporter, interrupted=self._interrupted.is_set
            ).advance()
        finally:
            executor.close()


class _Watch:
    """A reporter that passes everything on, and notes when the shared steps are done."""

    def __init__(self, reporter: Reporter, shared: threading.Event) -> None:
        self._reporter = reporter
        self._shared = shared

    def started(self, step: Step, index: int, planned: int, attempt: int, reason: str) -> None:
        self._reporter.started(step, index, planned, attempt, reason)

    def progress(self, step: Step, observation: Observation) -> None:
        self._reporter.progress(step, observation)

    def finished(
        self, step: Step, index: int, planned: int, manifest: Manifest, entry: Entry
    ) -> None:
        self._reporter.finished(step, index, planned, manifest, entry)
        if step.name == SHARED:
            self._shared.set()

    def told(self, status: Status) -> None:
        self._reporter.told(status)
