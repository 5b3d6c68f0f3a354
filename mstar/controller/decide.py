"""Every transition of a run, in one pure function: what is seen goes in, what to do comes out."""

from dataclasses import dataclass

from mstar.errors import Cancelled, StepFailed
from mstar.executors.base import Observation, State


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """A run at one moment.

    ``step`` is the next step's name, None when the recipe has no more. ``committed`` says whether its manifest exists,
    ``attempts`` how many were started by this controller, ``seconds`` how long the last one has been running.
    """

    step: str | None
    committed: bool
    job: Observation
    attempts: int
    seconds: float
    cancelled: bool


@dataclass(frozen=True, slots=True)
class Finish:
    """The recipe is complete."""


@dataclass(frozen=True, slots=True)
class Record:
    """The step is committed: write it into the history and go on."""


@dataclass(frozen=True, slots=True)
class Submit:
    """Start attempt ``number``, after deleting the one before it. ``reason`` is why, for a person."""

    number: int
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Wait:
    """The attempt is running."""


@dataclass(frozen=True, slots=True)
class Stop:
    """Stop the attempt and end the run with this message and exit code."""

    message: str
    exit_code: int


Action = Finish | Record | Submit | Wait | Stop


def decide(seen: Seen, *, attempts: int, step_seconds: float | None) -> Action:
    """What to do now, given at most ``attempts`` at a step and ``step_seconds`` for each.

    The commit is looked at first: what is committed is done, whatever became of the attempt that did it. A failure that
    cannot pass by itself (a mistake in the spec or the data) is not tried again.
    """
    if seen.step is None:
        return Finish()
    if seen.committed:
        return Record()
    if seen.cancelled:
        return Stop(
            "the run was cancelled; `mstarctl resume` takes it up again", Cancelled.exit_code
        )
    if seen.attempts == 0:
        return Submit(1)
    if seen.job.state is State.RUNNING:
        if step_seconds is not None and seen.seconds > step_seconds:
            return _again(
                seen, attempts, f"it ran longer than limits.step_seconds = {step_seconds:g}"
            )
        return Wait()
    if seen.job.state is State.FAILED and not seen.job.retriable:
        return Stop(f"step {seen.step} failed: {seen.job.message}", seen.job.exit_code)
    if seen.job.state is State.SUCCEEDED:
        return _again(seen, attempts, "it ended without committing anything")
    return _again(seen, attempts, seen.job.message or "its process is gone")


def _again(seen: Seen, attempts: int, reason: str) -> Action:
    if seen.attempts < attempts:
        return Submit(seen.attempts + 1, reason)
    times = "once" if attempts == 1 else f"{attempts} times"
    return Stop(
        f"step {seen.step} failed {times}, as often as limits.attempts allows; the last time: {reason}",
        StepFailed.exit_code,
    )
