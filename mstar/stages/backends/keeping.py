"""Checkpoints inside a step: when they are left, by whom, and which one an attempt goes on from.

All ranks do each of these together. Every machine sends the files that its own ranks wrote, in a thread beside
training; rank 0 makes them a checkpoint once all are in the store. Whatever is killed, the last checkpoint stays.
"""

from __future__ import annotations

import json
import logging
import math
import random
import shutil
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Any

from mstar.errors import IntegrityError, ModelError, Preempted
from mstar.stages.backends.checkpoint import TrainerState, check_convertible, read_state
from mstar.stages.backends.ranks import (
    each_highest,
    everyones,
    firsts,
    is_first,
    is_first_here,
    machine,
)
from mstar.stages.backends.session import Session
from mstar.stages.backends.showing import Shown
from mstar.stages.context import never
from mstar.stages.interim import FAULTS, Interim
from mstar.storage.manifest import Part

log = logging.getLogger(__name__)

LOSSES = "losses.json"


class Due(IntEnum):
    """What is due between two optimizer steps; of all ranks' wishes the highest counts."""

    NOTHING = 0
    CHECKPOINT = 1
    STOP = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Unfinished:
    """A checkpoint inside the step: its ``model`` and ``trainer`` folders, and the losses of the steps before it."""

    folder: Path
    losses: tuple[float, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Sent:
    """What became of sending: the parts, or why not."""

    parts: tuple[Part, ...] = ()
    problem: str | None = None


@dataclass(slots=True, kw_only=True)
class _Flight:
    """A snapshot on its way to the store. ``job`` is this process's share of the work, None where others do it.

    With ``machines`` above 1 there are two stages: all machines send, then rank 0 makes it a checkpoint.
    """

    steps: int
    state: TrainerState
    job: Future[_Sent] | None
    machines: int
    drawn: Any
    committing: bool = False

    @property
    def busy(self) -> bool:
        """Whether this process's share is not done."""
        return self.job is not None and not self.job.done()


class Keeper:
    """Keeps a step's progress in ``interim``, every ``seconds`` of rank 0's ``clock`` and when ``stopping`` says so.

    Training waits while the ranks write their shards to the local disk, all at once, and goes on while the snapshot
    is sent. One snapshot is on its way at a time, so disk holds one and memory the pieces being sent; the next
    checkpoint is put off until it is there. Without ``interim`` nothing is kept, and ``stopping`` is not asked.
    """

    def __init__(
        self,
        interim: Interim | None = None,
        seconds: float | None = None,
        stopping: Callable[[], bool] = never,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._interim = interim
        self._seconds, self._stopping, self._clock = seconds, stopping, clock
        self.shown = Shown(interim, clock)
        self._since = clock()
        self._flight: _Flight | None = None
        self._pool: ThreadPoolExecutor | None = None
        self.kept = 0
        """After so many optimizer steps of the pass there is a checkpoint in the store; 0: there is none."""

    def find(self, wanted: TrainerState) -> Unfinished | None:
        """The newest checkpoint of the same pass that every machine can read; None to begin at the beginning.

        It may be of another number of ranks or another ZeRO stage, if that can be converted.
        """
        if self._interim is None:
            return None
        offered = self._interim.candidates({"plan": wanted.plan}) if is_first() else iter(())
        while (name := firsts(next(offered, None))) is not None:
            mine = self._fetch(name, wanted) if is_first_here() else None
            fetched = everyones((machine(), mine))
            folders = {number: folder for number, folder in fetched if folder is not None}
            if {number for number, _ in fetched} != set(folders):
                continue
            folder = folders[machine()]
            losses = tuple(json.loads((folder / LOSSES).read_text()))
            self._interim.went_on_from(name)
            self.kept = len(losses)
            if is_first():
                log.info("going on from the checkpoint after optimizer step %d", self.kept)
            return Unfinished(folder=folder, losses=losses)
        return None

    def start(self) -> None:
        """Count the time to the first checkpoint from now."""
        self._since = self._clock()

    def due(self) -> Due:
        """What is due now, the same for every rank."""
        if self._interim is None:
            return Due.NOTHING
        mine = Due.NOTHING
        if is_first() and self._seconds is not None:
            late = self._clock() - self._since >= self._seconds
            mine = Due.CHECKPOINT if late else Due.NOTHING
        asked = Due.STOP if self._stopping() else mine
        highest_asked, busy = each_highest(
            asked, int(self._flight is not None and self._flight.busy)
        )
        if self._flight and not busy:
            self._land(self._flight)
        due = Due(highest_asked)
        return Due.NOTHING if due is Due.CHECKPOINT and self._flight else due

    def keep(self, session: Session, state: TrainerState, losses: Sequence[float]) -> None:
        """Write a snapshot to the local disk and have it sent while training goes on.

        One that cannot be stored is told in the log when that is known, and training goes on.
        """
        assert self._interim is not None
        self.finish()
        if len(losses) == self.kept:
            return
        began = self._clock()
        folder = self._interim.scratch / "interim"
        session.save(folder, state)
        if is_first():
            (folder / LOSSES).write_text(json.dumps(list(losses)))
        machines = len(set(everyones(machine())))
        self._flight = _Flight(
            steps=len(losses), state=state, job=None, machines=machines, drawn=random.getstate()
        )
        if is_first_here():
            self._pool = self._pool or ThreadPoolExecutor(1, "mstar-checkpoint")
            self._flight.job = self._pool.submit(self._deliver, self._flight, folder)
        self._since = self._clock()
        if is_first():
            log.info(
                "snapshot after optimizer step %d: training stood still for %.1f s",
                len(losses),
                self._since - began,
            )

    def finish(self) -> None:
        """Wait until nothing is on its way; all ranks together."""
        while self._flight:
            if self._flight.job:
                wait([self._flight.job])
            self._land(self._flight)

    def close(self) -> None:
        """Wait until this process sends nothing; whatever becomes of the others."""
        if self._pool:
            self._pool.shutdown()
        self._pool = None

    def asked_to_stop(self) -> bool:
        """Whether this process has been asked; between optimizer steps ``due`` says it for all."""
        return self._interim is not None and self._stopping()

    def stop(self, done: int) -> Preempted:
        """The error that ends a preempted attempt after ``done`` optimizer steps of the pass."""
        self.finish()
        if done == 0:
            return Preempted("preempted before the first optimizer step; nothing is lost")
        if self.kept == done:
            return Preempted(
                f"preempted; a checkpoint after optimizer step {done} is in the store for the next attempt"
            )
        again = f"after optimizer step {self.kept}" if self.kept else "at the beginning"
        return Preempted(
            f"preempted after optimizer step {done}, whose checkpoint could not be stored (the log says why); the next "
            f"attempt begins {again}"
        )

    def _fetch(self, name: str, wanted: TrainerState) -> Path | None:
        """The checkpoint's folder, if it is whole and training can go on from it."""
        assert self._interim is not None
        folder = self._interim.fetch(name)
        if folder is None:
            return None
        try:
            check_convertible(folder, read_state(folder), wanted)
        except ModelError as error:
            log.warning("passing over checkpoint %s: %s", name, error)
            return None
        if not all(map(math.isfinite, json.loads((folder / LOSSES).read_text()))):
            log.warning("passing over checkpoint %s: a loss before it is not finite", name)
            return None
        return folder

    def _deliver(self, flight: _Flight, folder: Path) -> _Sent:
        """Send this machine's files; alone, make them a checkpoint too. Runs beside training."""
        assert self._interim is not None
        try:
            parts = tuple(self._interim.send(self._interim.name(flight.steps), folder))
        except (*FAULTS, OSError) as error:
            return _Sent(problem=str(error))
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        return self._commit(flight, parts) if flight.machines == 1 else _Sent(parts=parts)

    def _commit(self, flight: _Flight, parts: Sequence[Part]) -> _Sent:
        """Make parts a checkpoint, after all of them are there. Runs beside training, on rank 0 alone."""
        assert self._interim is not None
        state = flight.state
        says = {"plan": state.plan, "world_size": state.world_size, "zero_stage": state.zero_stage}
        try:
            self._interim.commit(
                self._interim.name(flight.steps), parts, {"optimizer_steps": flight.steps} | says
            )
        except FAULTS as error:
            return _Sent(problem=str(error))
        return _Sent()

    def _land(self, flight: _Flight) -> None:
        """See what became of all ranks' shares; all ranks together, once none is busy."""
        sent = everyones(flight.job.result() if flight.job else _Sent())
        problem = next((one.problem for one in sent if one.problem), None)
        if problem is None and flight.machines > 1 and not flight.committing:
            flight.committing, flight.job = True, None
            if is_first():
                assert self._pool is not None
                parts = [part for one in sent for part in one.parts]
                flight.job = self._pool.submit(self._commit, flight, parts)
            return
        self._flight = None
        # A store's client may draw random numbers (to spread its retries), which a later checkpoint must not show.
        # Training draws none from this generator: torch has its own.
        random.setstate(flight.drawn)
        if problem is None:
            self.kept = flight.steps
        elif is_first():
            log.warning("no checkpoint after optimizer step %d: %s", flight.steps, problem)


def check_same_plan(plan: str) -> None:
    """Refuse to train when not all ranks prepared the same rows in the same order."""
    plans = everyones(plan)
    if len(set(plans)) > 1:
        raise IntegrityError(
            f"the {len(plans)} training processes prepared different rows (plans "
            f"{', '.join(sorted({found[:12] for found in plans}))}). All machines of a gang must run the same version "
            "of mstar and its libraries, with the same execution.max_pixels, on the same store"
        )


def hand_over(interim: Interim, folder: Path) -> list[Part]:
    """Send what the ranks of this machine wrote of the finished checkpoint, unless it is rank 0's machine.

    Returns the parts of all machines to rank 0, and its own to each other.
    """
    mine = interim.send_outcome(folder) if is_first_here() and not is_first() else []
    all_of_them = [part for parts in everyones(mine) for part in parts]
    return all_of_them if is_first() else mine
