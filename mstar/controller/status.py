"""What a run looks like from outside: a small record in the store that the controller keeps and anyone may read."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum

from mstar.errors import Cancelled, NotFound
from mstar.history import Entry, load_history, load_run
from mstar.recipe import planned_steps
from mstar.storage import keys
from mstar.storage.lease import holder, holds
from mstar.storage.store import Store

LEASE_SECONDS = 30.0
"""A controller that has not renewed its lease for so long has lost its run."""


class Phase(StrEnum):
    """What a run is doing."""

    RUNNING = "running"
    WAITING = "waiting"
    FINISHED = "finished"
    FAILED = "failed"
    CANCELLED = "cancelled"
    STOPPED = "stopped"


ENDED = frozenset({Phase.FINISHED, Phase.FAILED, Phase.CANCELLED})
"""What a controller writes as its last act."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """A run at one moment. ``why`` says in plain words what it waits for or why it ended; ``at`` is epoch seconds.

    ``worked`` (seconds) and ``excused`` (attempts) are what a controller that takes over has to go on counting from.
    """

    phase: Phase
    step: str = ""
    done: int = 0
    total: int = 0
    unit: str = ""
    attempt: int = 0
    why: str = ""
    exit_code: int = 0
    at: float = 0.0
    worked: float = 0.0
    excused: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Overview:
    """A run's status with what its history says."""

    run: str
    status: Status
    finished_steps: int
    planned_steps: int
    seconds: float
    controller: str


def write_status(store: Store, run: str, status: Status) -> None:
    """Replace the run's status record."""
    store.put(keys.status(run), (json.dumps(asdict(status), indent=1) + "\n").encode())


def mark_cancelled(store: Store, run: str, step: str) -> None:
    """Note that a run which no controller works on is cancelled; ``step`` is the one that it was at."""
    why = "the run was cancelled; `mstarctl resume` takes it up again"
    code = Cancelled.exit_code
    write_status(store, run, Status(phase=Phase.CANCELLED, step=step, why=why, exit_code=code))


def read_status(store: Store, run: str) -> Status | None:
    """The status as last written; None when no controller has written one yet, or it is unreadable."""
    try:
        body = json.loads(store.get(keys.status(run)))
        return Status(**(body | {"phase": Phase(body["phase"])}))
    except (NotFound, ValueError, KeyError, TypeError):
        return None


def overview(store: Store, run: str, now: float, known: Sequence[Entry] = ()) -> Overview:
    """What to tell a person about a run, whether or not anything is running it. Raises ``NotFound``.

    What is ``known`` of its history from an earlier look is not fetched again.
    """
    stored = load_run(store, run)
    status = read_status(store, run) or Status(
        phase=Phase.STOPPED, why="no controller has worked on it yet"
    )
    entries = load_history(store, run, known)  # after the status: a finished run has them all
    held = holder(store, run)
    controlled = held is not None and holds(held, now=now, ttl=LEASE_SECONDS)
    if status.phase in {Phase.RUNNING, Phase.WAITING} and not controlled:
        step = status.step
        status = Status(
            phase=Phase.STOPPED,
            step=step,
            at=status.at,
            why=f"its controller is gone (it was at {step}); `mstarctl resume {run}` goes on from the last commit",
        )
    return Overview(
        run=run,
        status=status,
        finished_steps=len(entries),
        planned_steps=planned_steps(stored.spec),
        seconds=sum(entry.seconds for entry in entries),
        controller=f"{held.identity.host} pid {held.identity.pid}"
        if held and controlled
        else "none",
    )
