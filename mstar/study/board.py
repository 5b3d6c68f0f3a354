"""Where each cell is, and how long the rest may take: written by the threads that work, read by whoever shows it."""

import re
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from mstar.history import Entry
from mstar.study.grid import Cell

NUMBER = re.compile(r"-\d+$")


class State(StrEnum):
    """What a cell is doing. ``KEPT``: its results are in ``study.json`` or in the store from an earlier sitting."""

    WAITING = "waiting"
    RUNNING = "running"
    FINISHED = "finished"
    KEPT = "kept"
    FAILED = "failed"
    STOPPED = "stopped"


@dataclass(frozen=True, slots=True, kw_only=True)
class CellState:
    """One cell at one moment: how many steps of how many are done, and the one at work with its progress."""

    cell: Cell
    state: State = State.WAITING
    steps: int = 0
    adopted: int = 0
    planned: int = 0
    step: str = ""
    done: int = 0
    total: int = 0
    unit: str = ""
    seconds: float = 0.0
    error: str = ""
    exit_code: int = 0

    @property
    def is_over(self) -> bool:
        """Whether nothing more is done for it in this sitting."""
        return self.state in {State.FINISHED, State.KEPT, State.FAILED}


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedStep:
    """A step that a cell will need. Cells whose steps have one ``token`` share it: one makes it, others adopt it."""

    name: str
    token: str


def kind_of(step: str) -> str:
    """A step's name without the number of its iteration: steps of one kind take about the same time."""
    phase, _, what = step.partition("/")
    return f"{NUMBER.sub('', phase)}/{what}"


class Board:
    """The state of every cell. Safe to use from many threads; time comes from ``elapsed`` (monotonic seconds)."""

    def __init__(
        self, cells: Iterable[Cell], parallel: int, elapsed: Callable[[], float] = time.monotonic
    ) -> None:
        self._lock = threading.Lock()
        self._elapsed = elapsed
        self._parallel = parallel
        self._states = {cell.run: CellState(cell=cell) for cell in cells}
        self._plans: dict[str, Sequence[PlannedStep]] = {}
        self._made: set[str] = set()
        self._measured: dict[str, tuple[float, int]] = {}
        self._began: dict[str, float] = {}

    def snapshot(self) -> list[CellState]:
        """All cells as they are now, in the study's order."""
        with self._lock:
            return list(self._states.values())

    def plan(self, cell: Cell, steps: Sequence[PlannedStep]) -> None:
        """The steps that a cell will need, in order."""
        with self._lock:
            self._plans[cell.run] = steps
            self._change(cell, planned=len(steps))

    def keep(self, cell: Cell) -> None:
        """The cell's results are there from before."""
        with self._lock:
            self._change(cell, state=State.KEPT)

    def start(self, cell: Cell) -> None:
        """Somebody works on the cell from now on."""
        with self._lock:
            self._change(cell, state=State.RUNNING)

    def at(self, cell: Cell, step: str, *, done: int = 0, total: int = 0, unit: str = "") -> None:
        """The cell's step at work, and its progress."""
        with self._lock:
            if self._states[cell.run].step != step:
                self._began[cell.run] = self._elapsed()
            self._change(cell, step=step, done=done, total=total, unit=unit)

    def finish_step(self, cell: Cell, entry: Entry) -> None:
        """A step of the cell is in its history; hearing of it twice changes nothing."""
        with self._lock:
            state = self._states[cell.run]
            if entry.index < state.steps:
                return
            plan = self._plans.get(cell.run, ())
            if entry.index < len(plan):
                self._made.add(plan[entry.index].token)
            if not entry.adopted:
                for kind in (kind_of(entry.name), f"{cell.row} {kind_of(entry.name)}"):
                    total, count = self._measured.get(kind, (0.0, 0))
                    self._measured[kind] = (total + entry.seconds, count + 1)
            self._change(
                cell,
                steps=entry.index + 1,
                adopted=state.adopted + entry.adopted,
                seconds=state.seconds + (0.0 if entry.adopted else entry.seconds),
                step="",
                done=0,
                total=0,
            )

    def end(self, cell: Cell, state: State, *, error: str = "", exit_code: int = 0) -> None:
        """Nobody works on the cell any more."""
        with self._lock:
            self._change(cell, state=state, step="", error=error, exit_code=exit_code)

    def seconds_left(self) -> float | None:
        """About how long the rest takes, from the steps measured so far; None while none is measured.

        A step that cells share is counted once, by the plan; ``parallel`` cells are taken to be at work until the end.
        """
        with self._lock:
            open_ = [state for state in self._states.values() if not state.is_over]
            if not open_:
                return 0.0
            if not self._measured:
                return None
            counted, total, longest = set(self._made), 0.0, 0.0
            for state in open_:
                cell = state.cell
                plan = self._plans.get(cell.run, ())
                own = 0.0
                for index, step in enumerate(plan[state.steps :]):
                    if step.token in counted:
                        continue
                    counted.add(step.token)
                    expected = self._expected(cell, step.name)
                    if index == 0 and state.step:
                        passed = self._elapsed() - self._began.get(cell.run, self._elapsed())
                        expected = max(0.0, expected - passed)
                    own += expected
                total += own
                longest = max(longest, own)
            return max(total / min(self._parallel, len(open_)), longest)

    def _expected(self, cell: Cell, step: str) -> float:
        kind = kind_of(step)
        for known in (f"{cell.row} {kind}", kind):
            if known in self._measured:
                total, count = self._measured[known]
                return total / count
        # Not seen yet: as long as the mean of all kinds that were.
        means = [
            total / count for kind, (total, count) in self._measured.items() if " " not in kind
        ]
        return sum(means) / len(means)

    def _change(self, cell: Cell, **fields: object) -> None:
        self._states[cell.run] = replace(self._states[cell.run], **fields)  # type: ignore[arg-type]


def counts(states: Iterable[CellState]) -> Mapping[State, int]:
    """How many cells are in each state."""
    found = dict.fromkeys(State, 0)
    for state in states:
        found[state.state] += 1
    return found
