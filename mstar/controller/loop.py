"""Observe, decide, apply, until the run ends. All effects of a run are here; all choices are in ``decide``."""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol

from mstar.controller.decide import Action, Finish, Record, Seen, Stop, Submit, decide
from mstar.controller.status import LEASE_SECONDS, Phase, Status, write_status
from mstar.errors import Cancelled, ConflictError, MstarError
from mstar.executors.base import ABSENT, Executor, Job, Observation
from mstar.history import Entry, Run, append_entry, done_of, done_step, load_history
from mstar.recipe import Step, follow, planned_steps, recipe
from mstar.storage import keys
from mstar.storage.lease import Identity, Lease, acquire, this_process
from mstar.storage.manifest import Manifest
from mstar.storage.reading import read_manifest
from mstar.storage.store import Store
from mstar.tasks import Ref, task_hash

POLL_SECONDS = 0.5
STATUS_SECONDS = 2.0


class Reporter(Protocol):
    """Who is told what the controller does: a terminal, a log, a test."""

    def started(self, step: Step, index: int, planned: int, attempt: int, reason: str) -> None:
        """An attempt at a step was submitted; ``reason`` says why it is not the first."""

    def progress(self, step: Step, observation: Observation) -> None:
        """The attempt got on."""

    def finished(
        self, step: Step, index: int, planned: int, manifest: Manifest, entry: Entry
    ) -> None:
        """A step is in the history."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Clock:
    """Epoch seconds for records, monotonic seconds for durations."""

    now: Callable[[], float] = time.time
    elapsed: Callable[[], float] = time.monotonic


class Controller:
    """Advances one run in one store with one executor."""

    def __init__(
        self,
        store: Store,
        executor: Executor,
        run: Run,
        reporter: Reporter,
        *,
        clock: Clock = Clock(),
        identity: Identity | None = None,
        interrupted: Callable[[], bool] = lambda: False,
    ) -> None:
        self.store = store
        self.executor = executor
        self.run = run
        self.reporter = reporter
        self.clock = clock
        self.identity = identity or this_process()
        self.interrupted = interrupted
        self.planned = planned_steps(run.spec)

    def advance(self) -> None:
        """Run the recipe to its end. Raises ``Cancelled``, ``StepFailed`` or the step's own error; resuming is safe.

        Raises ``ConflictError`` at once when another controller holds the run, and later when it took the run over.
        """
        name = self.run.name
        with acquire(
            self.store, name, clock=self.clock.now, identity=self.identity, ttl=LEASE_SECONDS
        ) as lease:
            program = recipe(self.run.spec, self.run.inputs)
            step = next(program, None)
            index = 0
            for entry in load_history(self.store, name):
                step = follow(program, step, done_of(self.store, entry))
                index += 1
            try:
                while step is not None:
                    manifest = self._step(step, index, lease)
                    step = follow(program, step, done_step(step, manifest))
                    index += 1
            except ConflictError:
                raise  # the run is another controller's now, and so is its status
            except MstarError as error:
                phase = Phase.CANCELLED if isinstance(error, Cancelled) else Phase.FAILED
                self._tell(
                    Status(
                        phase=phase,
                        step=step.name if step else "",
                        why=str(error),
                        exit_code=error.exit_code,
                    )
                )
                raise
            except KeyboardInterrupt:
                why = f"interrupted; `mstarctl resume {name}` goes on from the last commit"
                self._tell(Status(phase=Phase.STOPPED, step=step.name if step else "", why=why))
                raise
            self._tell(Status(phase=Phase.FINISHED))

    def _step(self, step: Step, index: int, lease: Lease) -> Manifest:
        """See one step through to its place in the history."""
        began = self.clock.elapsed()
        identity = task_hash(step.task)
        attempts, started, told = 0, began, began - STATUS_SECONDS
        job = ""
        try:
            while True:
                lease.keep()
                if self.interrupted():
                    raise KeyboardInterrupt
                observation = self.executor.observe(job) if job else ABSENT
                manifest = read_manifest(self.store, "step", identity)
                seen = Seen(
                    step=step.name,
                    committed=manifest is not None,
                    job=observation,
                    attempts=attempts,
                    seconds=self.clock.elapsed() - started,
                    cancelled=self.store.size(keys.cancel(self.run.name)) is not None,
                )
                limits = self.run.spec.limits
                action = decide(seen, attempts=limits.attempts, step_seconds=limits.step_seconds)
                if isinstance(action, Record) and manifest:
                    return self._record(step, index, manifest, adopted=attempts == 0, began=began)
                if isinstance(action, Submit):
                    self._drop(job, step, index)
                    attempts, started = action.number, self.clock.elapsed()
                    job = self._submit(step, index, lease, action)
                elif isinstance(action, Stop):
                    raise _ending(action)
                else:
                    self._check_waits(action)
                    self.reporter.progress(step, observation)
                    if self.clock.elapsed() - told >= STATUS_SECONDS:
                        told = self.clock.elapsed()
                        self._tell(_running(step, observation, attempts))
                    self.executor.wait(job, POLL_SECONDS)
        finally:
            self._drop(job, step, index)

    def _submit(self, step: Step, index: int, lease: Lease, action: Submit) -> str:
        # The epoch makes attempts of two controllers differ, so neither can write into the other's parts.
        attempt = f"{lease.epoch}-{action.number}"
        job = Job(
            name=f"{self.run.name}-{index:04d}-{attempt}",
            store=self.store.url,
            task=step.task,
            execution=self.run.spec.execution,
            attempt=attempt,
        )
        task = json.dumps(step.task.model_dump(mode="json"), indent=1).encode()
        self.store.create(keys.task(task_hash(step.task)), task)
        self.executor.submit(job)
        self.reporter.started(step, index, self.planned, action.number, action.reason)
        self._tell(
            Status(phase=Phase.RUNNING, step=step.name, attempt=action.number, why=action.reason)
        )
        return job.name

    def _record(
        self, step: Step, index: int, manifest: Manifest, *, adopted: bool, began: float
    ) -> Manifest:
        entry = Entry(
            index=index,
            name=step.name,
            ref=Ref.of(manifest),
            adopted=adopted,
            seconds=round(self.clock.elapsed() - began, 3),
            finished_at=self.clock.now(),
        )
        append_entry(self.store, self.run.name, entry)
        self.reporter.finished(step, index, self.planned, manifest, entry)
        return manifest

    def _drop(self, job: str, step: Step, index: int) -> None:
        """Keep an attempt's log in the store, then let the executor forget it."""
        if not job or self.executor.observe(job) == ABSENT:
            return
        text = self.executor.log(job)
        self.executor.delete(job)
        if text:
            attempt = job.removeprefix(f"{self.run.name}-{index:04d}-")
            self.store.put(keys.log(self.run.name, index, step.name, attempt), text.encode())

    def _tell(self, status: Status) -> None:
        write_status(self.store, self.run.name, replace(status, at=self.clock.now()))

    @staticmethod
    def _check_waits(action: Action) -> None:
        assert not isinstance(action, Finish), "the recipe's end is seen before a step is begun"


def request_cancel(store: Store, run: str, now: float) -> None:
    """Ask whoever runs ``run`` to stop; the request stays until the run is resumed."""
    store.put(keys.cancel(run), (json.dumps({"requested_at": now}) + "\n").encode())


def withdraw_cancel(store: Store, run: str) -> None:
    """Let a cancelled run go on."""
    store.delete(keys.cancel(run))


def _running(step: Step, observation: Observation, attempt: int) -> Status:
    return Status(
        phase=Phase.RUNNING,
        step=step.name,
        done=observation.done,
        total=observation.total,
        unit=observation.unit,
        attempt=attempt,
    )


def _ending(action: Stop) -> MstarError:
    """The error whose exit code an action names."""
    kinds: list[type[MstarError]] = MstarError.__subclasses__()
    for kind in kinds:
        if kind.exit_code == action.exit_code:
            return kind(action.message)
    return MstarError(action.message)
