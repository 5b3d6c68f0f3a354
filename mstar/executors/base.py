"""What the controller asks of the place where steps run: submit, observe, delete. The store, not this, is the truth."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from mstar.tasks import Execution, Task


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One attempt at one step. ``name`` is unique to the attempt."""

    name: str
    store: str
    task: Task
    execution: Execution
    attempt: str


class State(StrEnum):
    """Where an attempt is. ``ABSENT``: this executor knows nothing of it (never submitted, or long gone)."""

    ABSENT = "absent"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """What an executor sees of an attempt. ``exit_code`` and ``retriable`` mean something once it failed."""

    state: State
    done: int = 0
    total: int = 0
    unit: str = ""
    message: str = ""
    exit_code: int = 1
    retriable: bool = False


ABSENT = Observation(state=State.ABSENT)


class Executor(Protocol):
    """Runs attempts. Names, not handles, so that a controller that was restarted can ask about them."""

    def submit(self, job: Job) -> None:
        """Start an attempt; submitting a name that is already there changes nothing."""

    def observe(self, name: str) -> Observation:
        """What is known of an attempt now; never blocks."""

    def wait(self, name: str, seconds: float) -> None:
        """Return when something about the attempt may have changed, or after ``seconds``."""

    def delete(self, name: str) -> None:
        """Stop an attempt and forget it; deleting what is not there is no error. Returns when it has stopped."""

    def log(self, name: str) -> str:
        """What the attempt printed so far; empty when nothing is known."""

    def close(self) -> None:
        """Stop everything that was submitted here."""
