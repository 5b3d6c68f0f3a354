"""Every transition of a run, in one pure function: what is seen goes in, what to do comes out."""

from dataclasses import dataclass

from mstar.errors import Cancelled, ClusterError, StepFailed
from mstar.executors.base import Observation, State


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """A run at one moment.

    ``step`` is the next step's name, None when the recipe has no more. ``committed`` says whether its manifest exists,
    ``attempts`` how many were started and ``excused`` how many of them do not count. ``seconds`` is how long the last
    one has been working, ``waited`` how long it has been waiting since it last worked.
    """

    step: str | None
    committed: bool
    job: Observation
    attempts: int
    seconds: float
    cancelled: bool
    excused: int = 0
    waited: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """At most ``attempts`` at a step and ``step_seconds`` of work for each.

    ``pending_seconds`` may pass until an attempt gets a place to work, ``start_seconds`` when what is in its way does
    not pass by itself. None is for ever.
    """

    attempts: int = 3
    step_seconds: float | None = None
    pending_seconds: float | None = None
    start_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Finish:
    """The recipe is complete."""


@dataclass(frozen=True, slots=True)
class Record:
    """The step is committed: write it into the history and go on."""


@dataclass(frozen=True, slots=True)
class Submit:
    """Start attempt ``number``, after deleting the one before it. ``reason`` is why, for a person.

    ``excused``: the one before it does not count.
    """

    number: int
    reason: str = ""
    excused: bool = False


@dataclass(frozen=True, slots=True)
class Wait:
    """The attempt is running."""


@dataclass(frozen=True, slots=True)
class Stop:
    """Stop the attempt and end the run with this message and exit code."""

    message: str
    exit_code: int


Action = Finish | Record | Submit | Wait | Stop


def decide(seen: Seen, patience: Patience) -> Action:
    """What to do now.

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
        return _running(seen, patience)
    if seen.job.state is State.FAILED and seen.job.excused:
        return Submit(seen.attempts + 1, seen.job.message, excused=True)
    if seen.job.state is State.FAILED and not seen.job.retriable:
        return Stop(f"step {seen.step} failed: {seen.job.message}", seen.job.exit_code)
    if seen.job.state is State.SUCCEEDED:
        return _again(seen, patience, "it ended without committing anything")
    return _again(seen, patience, seen.job.message or "its process is gone")


def _running(seen: Seen, patience: Patience) -> Action:
    if seen.job.waiting:
        limit = patience.start_seconds if seen.job.stuck else patience.pending_seconds
        if limit is not None and seen.waited > limit:
            return Stop(
                f"step {seen.step} could not start within {limit:g} s: {seen.job.waiting}",
                ClusterError.exit_code,
            )
    elif patience.step_seconds is not None and seen.seconds > patience.step_seconds:
        return _again(
            seen, patience, f"it ran longer than limits.step_seconds = {patience.step_seconds:g}"
        )
    return Wait()


def _again(seen: Seen, patience: Patience, reason: str) -> Action:
    if seen.attempts - seen.excused < patience.attempts:
        return Submit(seen.attempts + 1, reason)
    times = "once" if patience.attempts == 1 else f"{patience.attempts} times"
    return Stop(
        f"step {seen.step} failed {times}, as often as limits.attempts allows; the last time: {reason}",
        StepFailed.exit_code,
    )
