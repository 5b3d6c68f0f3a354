"""What the controller asks of the place where steps run: submit, observe, stop. The store, not this, is the truth."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from mstar.execution import Execution
from mstar.tasks import Task


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One attempt at one step: try ``number`` (from 1) at step ``index`` (from 0), called ``step``, of ``run``.

    ``attempt`` names the attempt's folder in the store and is unique to it, also between two controllers. ``tries``
    is how often the executor itself may try a shard again before the attempt has failed.
    """

    run: str
    index: int
    step: str
    number: int
    store: str
    task: Task
    execution: Execution
    attempt: str
    tries: int = 1


class State(StrEnum):
    """Where an attempt is. ``ABSENT``: this executor knows nothing of it (never submitted, or long gone)."""

    ABSENT = "absent"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """What an executor sees of an attempt.

    ``waiting`` says in plain words what a running attempt waits for, empty when it works; ``stuck`` whether that is
    something that does not pass by itself (an image that is not there). ``exit_code``, ``retriable`` and ``excused``
    mean something once it failed; an excused failure (a preemption) does not count against the limit of attempts.
    """

    state: State
    done: int = 0
    total: int = 0
    unit: str = ""
    message: str = ""
    waiting: str = ""
    stuck: bool = False
    exit_code: int = 1
    retriable: bool = False
    excused: bool = False


ABSENT = Observation(state=State.ABSENT)


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """An attempt that an executor still has from before: its name, and which try it is."""

    name: str
    number: int


class Executor(Protocol):
    """Runs attempts. Names, not handles, so that a controller that was restarted can ask about them.

    ``overlaps``: the next step's attempt may be submitted while one whose step is committed is still ending.
    """

    overlaps: bool

    def find(self, index: int, identity: str) -> Found | None:
        """The newest attempt at a run's step whose task is ``identity``, from an earlier controller; None for none."""

    def submit(self, job: Job) -> str:
        """Start an attempt and return its name; submitting one that is already there changes nothing."""

    def observe(self, name: str) -> Observation:
        """What is known of an attempt now; never blocks."""

    def wait(self, name: str, seconds: float) -> None:
        """Return when something about the attempt may have changed, or after ``seconds``."""

    def delete(self, name: str) -> None:
        """Stop an attempt and forget it; deleting what is not there is no error. Returns when it has stopped."""

    def retire(self, name: str) -> None:
        """The attempt's step is committed: nothing more is asked of it, and what costs nothing may stay for people."""

    def log(self, name: str) -> str:
        """What the attempt printed so far; empty when nothing is known."""

    def close(self) -> None:
        """Let go: what only lives with this process stops, what lives by itself goes on."""
