"""Checkpoints inside a step: when they are left, by whom, and which one an attempt goes on from.

All ranks do each of these together. Every machine sends the files that its own ranks wrote; rank 0 makes them a
checkpoint once all are in the store.
"""

from __future__ import annotations

import json
import logging
import random
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path

from mstar.errors import IntegrityError, Preempted
from mstar.stages.backends.checkpoint import TrainerState
from mstar.stages.backends.ranks import everyones, firsts, highest, is_first, is_first_here, machine
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


class Keeper:
    """Keeps a step's progress in ``interim``, every ``seconds`` of rank 0's ``clock`` and when ``stopping`` says so.

    Without ``interim`` it keeps nothing, and ``stopping`` is not asked.
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
        self._kept = 0

    def find(self, wanted: TrainerState) -> Unfinished | None:
        """The newest checkpoint of the same pass that every machine can read; None to begin at the beginning."""
        if self._interim is None:
            return None
        offered = self._interim.candidates(_fit(wanted)) if is_first() else iter(())
        while (name := firsts(next(offered, None))) is not None:
            mine = self._interim.fetch(name) if is_first_here() else None
            fetched = everyones((machine(), mine))
            folders = {number: folder for number, folder in fetched if folder is not None}
            if {number for number, _ in fetched} != set(folders):
                continue
            folder = folders[machine()]
            losses = tuple(json.loads((folder / LOSSES).read_text()))
            self._interim.went_on_from(name)
            self._kept = len(losses)
            if is_first():
                log.info("going on from the checkpoint after optimizer step %d", self._kept)
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
        return Due(highest(Due.STOP if self._stopping() else mine))

    def keep(self, session: Session, state: TrainerState, losses: Sequence[float]) -> None:
        """Leave a checkpoint; one that cannot be stored is told in the log, and training goes on."""
        assert self._interim is not None
        if len(losses) == self._kept:
            return
        folder = self._interim.scratch / "interim"
        session.save(folder, state)
        if is_first():
            (folder / LOSSES).write_text(json.dumps(list(losses)))
        # A store's client may draw random numbers (to spread its retries), which training must not notice.
        drawn = random.getstate()
        problem = self._store(len(losses), folder, state)
        random.setstate(drawn)
        if problem is None:
            self._kept = len(losses)
        elif is_first():
            log.warning("no checkpoint after optimizer step %d: %s", len(losses), problem)
        self._since = self._clock()

    def asked_to_stop(self) -> bool:
        """Whether this process has been asked; between optimizer steps ``due`` says it for all."""
        return self._interim is not None and self._stopping()

    def stop(self, done: int) -> Preempted:
        """The error that ends a preempted attempt after ``done`` optimizer steps of the pass."""
        if done == 0:
            return Preempted("preempted before the first optimizer step; nothing is lost")
        if self._kept == done:
            return Preempted(
                f"preempted; a checkpoint after optimizer step {done} is in the store for the next attempt"
            )
        again = f"after optimizer step {self._kept}" if self._kept else "at the beginning"
        return Preempted(
            f"preempted after optimizer step {done}, whose checkpoint could not be stored (the log says why); the next "
            f"attempt begins {again}"
        )

    def _store(self, steps: int, folder: Path, state: TrainerState) -> str | None:
        """Send the files and make them a checkpoint; why that failed, on all ranks alike."""
        assert self._interim is not None
        name = self._interim.name(steps)
        sent = everyones(self._send(name, folder))
        problem = next((why for _, why in sent if why), None)
        if problem is None and is_first():
            parts = [part for found, _ in sent for part in found]
            says = {"optimizer_steps": steps, **_fit(state)}
            try:
                self._interim.commit(name, parts, says)
            except FAULTS as error:
                problem = str(error)
        return firsts(problem)

    def _send(self, name: str, folder: Path) -> tuple[list[Part], str | None]:
        if not is_first_here():
            return [], None
        assert self._interim is not None
        try:
            return self._interim.send(name, folder), None
        except (*FAULTS, OSError) as error:
            return [], str(error)
        finally:
            shutil.rmtree(folder, ignore_errors=True)


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


def _fit(state: TrainerState) -> dict[str, object]:
    """What must be equal for a checkpoint inside a step to be gone on from."""
    return {"plan": state.plan, "world_size": state.world_size, "zero_stage": state.zero_stage}
