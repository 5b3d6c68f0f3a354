"""Runs the cells of a study, a few at once. A cell that fails is noted, and the others go on."""

import queue
import threading
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import suppress
from typing import Protocol

from mstar.config import RunSpec
from mstar.controller.loop import Controller, withdraw_cancel
from mstar.controller.prepare import prepare, store_inputs
from mstar.controller.status import Status
from mstar.errors import IntegrityError, MstarError
from mstar.executors.base import Executor, Observation
from mstar.history import Entry, load_history
from mstar.plan import check_schedule
from mstar.recipe import Inputs, Step, planned
from mstar.storage.manifest import Manifest
from mstar.storage.store import Store
from mstar.study.board import Board, PlannedStep, State
from mstar.study.collect import Trouble
from mstar.study.grid import Cell
from mstar.tasks import task_hash

LOOK_SECONDS = 0.5


class Site(Protocol):
    """Where cells run: on this machine, or in a cluster."""

    def run(
        self, cell: Cell, spec: RunSpec, inputs: Inputs, interrupted: Callable[[], bool]
    ) -> None:
        """See the cell's run through to its end; raises what it ended with, KeyboardInterrupt once ``interrupted``."""

    def close(self) -> None:
        """Let go of what is kept from cell to cell."""


class Here:
    """Cells on this machine. Executors are handed from cell to cell, so that a worker imports its libraries once."""

    def __init__(self, store: Store, board: Board, executor: Callable[[], Executor]) -> None:
        self._store = store
        self._board = board
        self._executor = executor
        self._free: queue.SimpleQueue[Executor] = queue.SimpleQueue()

    def run(
        self, cell: Cell, spec: RunSpec, inputs: Inputs, interrupted: Callable[[], bool]
    ) -> None:
        run = prepare(self._store, spec, inputs)
        withdraw_cancel(self._store, cell.run)
        try:
            executor = self._free.get_nowait()
        except queue.Empty:
            executor = self._executor()
        done = False
        try:
            reporter = _Reporter(self._board, cell)
            Controller(self._store, executor, run, reporter, interrupted=interrupted).advance()
            done = True
        finally:
            if done:
                self._free.put(executor)
            else:
                executor.close()  # it may still be at work on what nobody waits for

    def close(self) -> None:
        while not self._free.empty():
            self._free.get().close()


def inputs_of(store: Store, specs: Mapping[str, RunSpec]) -> dict[str, Inputs]:
    """What each run starts from, by the run's name: checked and stored once for all that share data and models.

    Raises what is wrong with them, naming the first run that has it, before anything is run.
    """
    known: dict[tuple[str | None, ...], Inputs] = {}
    found = {}
    for name, spec in specs.items():
        data = spec.data
        unlabeled = spec.evolve.unlabeled.split if spec.evolve.unlabeled else None
        splits = (data.train, data.validation, data.test, unlabeled)
        public = spec.evaluation.benchmarks
        asked = (public.path, *public.names) if public else ()
        key = (data.path, *splits, spec.model, spec.teacher, *asked)
        try:
            if key not in known:
                known[key] = store_inputs(store, spec)
            check_schedule(spec, known[key].queries)
        except MstarError as error:
            raise type(error)(f"run {name}: {error}") from None
        found[name] = known[key]
    return found


def plan_cells(
    board: Board,
    store: Store,
    todo: Iterable[Cell],
    specs: Mapping[str, RunSpec],
    inputs: Mapping[str, Inputs],
) -> None:
    """Tell the board which steps each cell needs, and which of them are done: from those it estimates what is left."""
    cells = list(todo)
    for cell in cells:
        board.plan(cell, list(_steps_of(cell, specs[cell.run], inputs[cell.run])))
    for cell in cells:
        with suppress(IntegrityError):  # its controller will say so
            for entry in load_history(store, cell.run):
                board.finish_step(cell, entry)


def _steps_of(cell: Cell, spec: RunSpec, inputs: Inputs) -> Iterator[PlannedStep]:
    """A cell's steps; those after exploration may have chosen a temperature are taken to be no other row's."""
    apart = ""
    for step in planned(spec, inputs):
        if spec.evolve.exploration and step.name.startswith("iter-01/"):
            apart = f"{cell.row} "
        yield PlannedStep(name=step.name, token=apart + task_hash(step.task))


def run_cells(
    todo: Sequence[Cell],
    specs: Mapping[str, RunSpec],
    inputs: Mapping[str, Inputs],
    site: Site,
    board: Board,
    *,
    parallel: int,
    told: Callable[[Cell], None],
) -> list[Trouble]:
    """Run each cell to its end, ``parallel`` at once; those that failed, with their errors and exit codes.

    ``told`` hears of each cell that has ended, in the calling thread. On KeyboardInterrupt the runs at work are stopped
    in order and it is raised again; the same call later goes on from their last commits.
    """
    interrupted = threading.Event()
    troubles: list[Trouble] = []

    def one(cell: Cell) -> None:
        if interrupted.is_set():
            raise KeyboardInterrupt
        board.start(cell)
        site.run(cell, specs[cell.run], inputs[cell.run], interrupted.is_set)

    with ThreadPoolExecutor(parallel) as pool:
        futures = {pool.submit(one, cell): cell for cell in todo}
        pending = set(futures)
        try:
            while pending:
                # A timeout, because a wait without one would not be woken by Ctrl-C on every platform.
                done, pending = wait(pending, timeout=LOOK_SECONDS, return_when=FIRST_COMPLETED)
                for future in done:
                    if trouble := _ended(board, futures[future], future):
                        troubles.append(trouble)
                    told(futures[future])
        except BaseException:
            interrupted.set()
            for future in pending:
                future.cancel()
            raise
        finally:
            interrupted.set()
            wait(pending)
            for future in pending:
                if not future.cancelled():
                    _ended(board, futures[future], future)
            site.close()
    order = {cell.run: index for index, cell in enumerate(todo)}
    return sorted(troubles, key=lambda trouble: order[trouble.cell.run])


def _ended(board: Board, cell: Cell, future: "Future[None]") -> Trouble | None:
    """Note how a cell ended. What is no error of a person's is a defect, and keeps its traceback."""
    error = future.exception()
    if error is None:
        board.end(cell, State.FINISHED)
        return None
    if isinstance(error, KeyboardInterrupt):
        board.end(cell, State.STOPPED)
        return None
    if isinstance(error, MstarError):
        text, code = str(error), error.exit_code
    else:
        text, code = "".join(traceback.format_exception(error)).rstrip(), 1
    board.end(cell, State.FAILED, error=text, exit_code=code)
    return Trouble(cell=cell, error=text, exit_code=code)


class _Reporter:
    """Tells the board what a controller does."""

    def __init__(self, board: Board, cell: Cell) -> None:
        self._board = board
        self._cell = cell

    def started(self, step: Step, index: int, planned: int, attempt: int, reason: str) -> None:
        self._board.at(self._cell, step.name)

    def progress(self, step: Step, observation: Observation) -> None:
        self._board.at(
            self._cell,
            step.name,
            done=observation.done,
            total=observation.total,
            unit=observation.unit,
        )

    def finished(
        self, step: Step, index: int, planned: int, manifest: Manifest, entry: Entry
    ) -> None:
        self._board.finish_step(self._cell, entry)

    def told(self, status: Status) -> None:
        """The board shows what a person needs."""
