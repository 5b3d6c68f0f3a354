"""An executor without processes: each attempt is a function call inside ``wait``.

For tests, and held to the same contract tests as the real ones.
"""

from collections.abc import Callable

from mstar.errors import MstarError
from mstar.executors.base import ABSENT, Found, Job, Observation, State

Run = Callable[[Job], None]


class FakeExecutor:
    """Runs ``run(job)`` at the first ``wait`` after ``submit``. ``submitted`` lists every attempt ever started."""

    overlaps = False

    def __init__(self, run: Run) -> None:
        self._run = run
        self._waiting: dict[str, Job] = {}
        self._seen: dict[str, Observation] = {}
        self.submitted: list[Job] = []

    def find(self, index: int, identity: str) -> Found | None:
        return None

    def submit(self, job: Job) -> str:
        name = f"{job.run}-{job.index:04d}-{job.attempt}"
        if name not in self._seen:
            self.submitted.append(job)
            self._waiting[name] = job
            self._seen[name] = Observation(state=State.RUNNING)
        return name

    def observe(self, name: str) -> Observation:
        return self._seen.get(name, ABSENT)

    def wait(self, name: str, seconds: float) -> None:
        del seconds
        job = self._waiting.pop(name, None)
        if job is None:
            return
        try:
            self._run(job)
        except MstarError as error:
            self._seen[name] = Observation(
                state=State.FAILED,
                message=str(error),
                exit_code=error.exit_code,
                retriable=error.retriable,
            )
        else:
            self._seen[name] = Observation(state=State.SUCCEEDED)

    def delete(self, name: str) -> None:
        self._waiting.pop(name, None)
        self._seen.pop(name, None)

    def retire(self, name: str) -> None:
        self.delete(name)

    def log(self, name: str) -> str:
        return f"fake log of {name}\n" if name in self._seen else ""

    def close(self) -> None:
        self._waiting.clear()
