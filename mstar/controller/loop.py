"""Observe, decide, apply, until the run ends. All effects of a run are here; all choices are in ``decide``."""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol

from mstar.controller.attempt import POLL_SECONDS, Endings, Watch
from mstar.controller.claim import claim, claimed_by, give_up
from mstar.controller.decide import Action, Finish, Patience, Record, Seen, Stop, Submit, decide
from mstar.controller.status import LEASE_SECONDS, Phase, Status, read_status, write_status
from mstar.controller.wording import in_own_words
from mstar.errors import Cancelled, ConflictError, MstarError, NotFound, by_code
from mstar.executors.base import ABSENT, Executor, Job, Observation, State
from mstar.history import (
    Entry,
    Run,
    append_entry,
    done_of,
    done_step,
    forget_history,
    load_history,
)
from mstar.recipe import Step, follow, planned_steps, recipe
from mstar.storage import keys
from mstar.storage.lease import Identity, Lease, acquire, process_alive, this_process
from mstar.storage.manifest import Manifest, Ref
from mstar.storage.reading import read_manifest
from mstar.storage.store import Store
from mstar.tasks import task_hash

STATUS_SECONDS = 2.0
CLAIM_SECONDS = 1.0
"""How often a run that waits for another's step looks again."""


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

    def told(self, status: Status) -> None:
        """The run's status was written."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Clock:
    """Epoch seconds for records, monotonic seconds for durations, and how to wait."""

    now: Callable[[], float] = time.time
    elapsed: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep


class Controller:
    """Advances one run in one store with one executor.

    ``started_again``: whoever started this controller does so again after an error that may pass, so such an error
    does not end the run.
    """

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
        started_again: bool = False,
    ) -> None:
        self.store = store
        self.executor = executor
        self.run = run
        self.reporter = reporter
        self.clock = clock
        self.identity = identity or this_process()
        self.interrupted = interrupted
        self.started_again = started_again
        self._lease: Lease
        self._endings: Endings
        self._last = Status(phase=Phase.STOPPED)
        self.planned = planned_steps(run.spec)

    def advance(self) -> None:
        """Run the recipe to its end. Raises ``Cancelled``, ``StepFailed`` or the step's own error; resuming is safe.

        Raises ``ConflictError`` at once when another controller holds the run, and later when it took the run over.
        """
        name = self.run.name
        with acquire(
            self.store,
            name,
            clock=self.clock.now,
            identity=self.identity,
            ttl=LEASE_SECONDS,
            alive=self._lives,
        ) as lease:
            self._lease = lease
            self._endings = Endings(self.store, self.executor, name, lease)
            program = recipe(self.run.spec, self.run.inputs)
            step = next(program, None)
            index, last = 0, None
            for entry in load_history(self.store, name):
                try:
                    done = done_of(self.store, entry)
                except NotFound:
                    # Somebody removed a damaged step: it is run again, and what followed is looked at again.
                    forget_history(self.store, name, index)
                    break
                step = follow(program, step, done)
                last = entry
                index += 1
            try:
                if last:
                    self._remember(last)
                while step is not None:
                    manifest = self._step(step, index)
                    step = follow(program, step, done_step(step, manifest))
                    index += 1
                self._see_off()
            except ConflictError:
                raise  # the run is another controller's now, and so is its status
            except MstarError as error:
                if error.retriable and self.started_again:
                    raise
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
                how = "the next one" if self.started_again else f"`mstarctl resume {name}`"
                why = f"interrupted; {how} goes on from the last commit"
                # What was counted of the attempt stays: whoever goes on with it goes on counting.
                known = replace(self._last, step=step.name if step else "")
                self._tell(replace(known, phase=Phase.STOPPED, why=why))
                raise
            self._tell(Status(phase=Phase.FINISHED))

    def _step(self, step: Step, index: int) -> Manifest:
        """See one step through to its place in the history."""
        began = self.clock.elapsed()
        watch = self._take_up(step, index)
        limits, cluster = self.run.spec.limits, self.run.spec.cluster
        patience = Patience(
            attempts=limits.attempts,
            step_seconds=limits.step_seconds,
            pending_seconds=cluster.pending_seconds,
            start_seconds=cluster.start_seconds,
        )
        told = float("-inf")
        try:
            while True:
                self._lease.keep()
                self._heed_interrupts()
                observation = self._observe(watch)
                manifest = read_manifest(self.store, "step", watch.identity)
                watch.count(observation, self.clock.elapsed())
                seen = Seen(
                    step=step.name,
                    committed=manifest is not None,
                    job=observation,
                    attempts=watch.attempts,
                    seconds=watch.worked,
                    cancelled=self.store.size(keys.cancel(self.run.name)) is not None,
                    excused=watch.excused,
                    waited=watch.waited,
                )
                action = decide(seen, patience)
                self._endings.look(self.clock.elapsed())
                if isinstance(action, Record) and manifest:
                    self._endings.let_go(watch, self.clock.elapsed())
                    if not self.executor.overlaps:
                        self._see_off()
                    # A step of ours may have been committed when we were interrupted before we could record it.
                    others = (
                        not watch.attempts
                        and claimed_by(self.store, watch.identity) != self.run.name
                    )
                    return self._record(step, index, manifest, adopted=others, began=began)
                if isinstance(action, Submit):
                    if not watch.attempts and self._made_elsewhere(watch, step):
                        continue
                    self._endings.stop(watch)
                    self._submit(step, action, watch)
                elif isinstance(action, Stop):
                    self._endings.stop(watch)
                    self._see_off()
                    raise by_code(action.exit_code, action.message)
                else:
                    self._check_waits(action)
                    self.reporter.progress(step, observation)
                    if self.clock.elapsed() - told >= STATUS_SECONDS:
                        told = self.clock.elapsed()
                        self._tell(watch.status(observation))
                    self.executor.wait(watch.job, POLL_SECONDS)
        except KeyboardInterrupt:
            self._endings.keep_log(watch)
            raise

    def _observe(self, watch: Watch) -> Observation:
        seen = self.executor.observe(watch.job) if watch.job else ABSENT
        if seen.state is not State.FAILED:
            return seen
        return replace(seen, message=in_own_words(seen.message, self.run, self.store))

    def _take_up(self, step: Step, index: int) -> Watch:
        """The step as it stands: with the attempt that an earlier controller left running, if there is one."""
        identity = task_hash(step.task)
        watch = Watch(index=index, step=step.name, identity=identity, at=self.clock.elapsed())
        if found := self.executor.find(index, identity):
            watch.job, watch.attempts = found.name, found.number
            before = read_status(self.store, self.run.name)
            if before and before.step == step.name:
                # Killed between an attempt's start and word of it, nobody knows whether the one before it counts.
                unsaid = max(0, found.number - before.attempt)
                watch.excused = before.excused + unsaid
                watch.worked = 0.0 if unsaid else before.worked
                self._last = before
        return watch

    def _made_elsewhere(self, watch: Watch, step: Step) -> bool:
        """Whether another run is at work on this very step; then time has passed, and one may look again."""
        maker = claim(self.store, watch.identity, self.run.name, step.name, self.clock.now())
        if maker is None:
            return False
        why = f"run {maker} is making this very step, which this run will adopt"
        self._tell(Status(phase=Phase.WAITING, step=step.name, why=why))
        self.clock.sleep(CLAIM_SECONDS)
        return True

    def _submit(self, step: Step, action: Submit, watch: Watch) -> None:
        watch.attempts, watch.excused = action.number, watch.excused + action.excused
        watch.worked = watch.waited = 0.0
        task = json.dumps(step.task.model_dump(mode="json"), indent=1).encode()
        self.store.create(keys.task(watch.identity), task)
        job = Job(
            run=self.run.name,
            index=watch.index,
            step=step.name,
            number=action.number,
            store=self.store.url,
            task=step.task,
            execution=self.run.spec.execution,
            # The epoch makes attempts of two controllers differ, so neither can write into the other's parts.
            attempt=f"{self._lease.epoch}-{action.number}",
            tries=self.run.spec.limits.attempts,
        )
        watch.job = self._lease.kept(lambda: self.executor.submit(job))
        self.reporter.started(step, watch.index, self.planned, action.number, action.reason)
        self._tell(
            Status(
                phase=Phase.RUNNING,
                step=step.name,
                attempt=action.number,
                why=action.reason,
                excused=watch.excused,
            )
        )

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
            saved=round(sum(manifest.timings.values()), 3) if adopted else 0.0,
        )
        append_entry(self.store, self.run.name, entry)
        if not adopted:
            give_up(self.store, manifest.id)
        self.reporter.finished(step, index, self.planned, manifest, entry)
        return manifest

    def _remember(self, last: Entry) -> None:
        """Take leave of the last step's attempt, if an earlier controller was killed before it had."""
        if self.executor.overlaps and (found := self.executor.find(last.index, last.ref.id)):
            watch = Watch(index=last.index, step=last.name, identity=last.ref.id, at=0.0)
            watch.job = found.name
            if not self._endings.logged(watch):
                self._endings.let_go(watch, self.clock.elapsed())

    def _see_off(self) -> None:
        """Wait until the attempts at the steps before are through."""
        while not self._endings.look(self.clock.elapsed()):
            self._lease.keep()
            self._endings.wait()

    def _heed_interrupts(self) -> None:
        if self.interrupted():
            raise KeyboardInterrupt

    def _lives(self, other: Identity) -> bool | None:
        """Whether a holder of the lease lives; one with our own name is what we were before we were started again."""
        return False if other.id == self.identity.id else process_alive(other)

    def _tell(self, status: Status) -> None:
        self._last = status = replace(status, at=self.clock.now())
        write_status(self.store, self.run.name, status)
        self.reporter.told(status)

    @staticmethod
    def _check_waits(action: Action) -> None:
        assert not isinstance(action, Finish), "the recipe's end is seen before a step is begun"


def request_cancel(store: Store, run: str, now: float) -> None:
    """Ask whoever runs ``run`` to stop; the request stays until the run is resumed."""
    store.put(keys.cancel(run), (json.dumps({"requested_at": now}) + "\n").encode())


def withdraw_cancel(store: Store, run: str) -> None:
    """Let a cancelled run go on."""
    store.delete(keys.cancel(run))
