"""The attempt at hand, what is counted of it, and how it ends: its log is kept, and nothing of it is left at work."""

from dataclasses import dataclass, replace

from mstar.controller.status import Phase, Status
from mstar.executors.base import Executor, Observation, State
from mstar.storage import keys
from mstar.storage.lease import Lease
from mstar.storage.store import Store

POLL_SECONDS = 0.5
RELEASE_SECONDS = 20.0
"""How long an attempt whose step is committed may take to end by itself."""


@dataclass(slots=True, kw_only=True)
class Watch:
    """An attempt at a step, and what was counted of it: seconds working, and waiting since it last worked."""

    index: int
    step: str
    identity: str
    at: float
    job: str = ""
    attempts: int = 0
    excused: int = 0
    worked: float = 0.0
    waited: float = 0.0

    def count(self, observation: Observation, now: float) -> None:
        """Add the time since the last look to what the attempt is doing."""
        passed, self.at = now - self.at, now
        if observation.state is not State.RUNNING:
            return
        if observation.waiting:
            self.waited += passed
        else:
            self.worked, self.waited = self.worked + passed, 0.0

    def status(self, observation: Observation) -> Status:
        """What to tell of it."""
        return Status(
            phase=Phase.WAITING if observation.waiting else Phase.RUNNING,
            step=self.step,
            done=observation.done,
            total=observation.total,
            unit=observation.unit,
            attempt=self.attempts,
            why=observation.waiting or observation.message,
            worked=round(self.worked, 1),
            excused=self.excused,
        )


class Endings:
    """Ends attempts of one run. Those whose steps are committed may take their time, while the next step's begins."""

    def __init__(self, store: Store, executor: Executor, run: str, lease: Lease) -> None:
        self._store, self._executor, self._run, self._lease = store, executor, run, lease
        self._leaving: list[tuple[Watch, float]] = []

    def stop(self, watch: Watch) -> None:
        """Stop an attempt that is of no more use, which may take minutes."""
        if watch.job:
            self._lease.kept(lambda: self.keep_log(watch))
            self._lease.kept(lambda: self._executor.delete(watch.job))
            watch.job = ""

    def let_go(self, watch: Watch, now: float) -> None:
        """Its step is committed: let the attempt end by itself."""
        if watch.job:
            self._leaving.append((replace(watch), now + RELEASE_SECONDS))
            watch.job = ""

    def look(self, now: float) -> bool:
        """See off the attempts that were let go and have ended, or whose time is over; whether none is left."""
        self._leaving = [each for each in self._leaving if not self._gone(*each, now)]
        return not self._leaving

    def wait(self) -> None:
        """Return when something about an attempt that was let go may have changed."""
        if self._leaving:
            self._executor.wait(self._leaving[0][0].job, POLL_SECONDS)

    def _gone(self, watch: Watch, deadline: float, now: float) -> bool:
        running = self._executor.observe(watch.job).state is State.RUNNING
        if running and now < deadline:
            return False
        if running:
            self.stop(watch)
        else:
            self._lease.kept(lambda: self.keep_log(watch))
            self._executor.retire(watch.job)
        return True

    def logged(self, watch: Watch) -> bool:
        """Whether a log of the step is in the store."""
        log = keys.log(self._run, watch.index, watch.step, "")
        folder, _, name = log.rpartition("/")
        beginning = f"{folder}/{name.removesuffix('.log')}"
        return any(key.startswith(beginning) for key in self._store.list(folder))

    def keep_log(self, watch: Watch) -> None:
        """Put what the attempt has printed so far into the store."""
        if watch.job and (text := self._executor.log(watch.job)):
            attempt = watch.job.removeprefix(f"{self._run}-{watch.index:04d}-").rpartition("-")[2]
            name = f"{self._lease.epoch}-{attempt}"
            self._store.put(keys.log(self._run, watch.index, watch.step, name), text.encode())
