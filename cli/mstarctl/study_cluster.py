"""Cells of a study in a cluster: each is submitted as a run of its own, and followed until it ends."""

import time
from collections.abc import Callable, Sequence

from mstar.config import RunSpec
from mstar.controller.prepare import prepare
from mstar.controller.status import Overview, Phase, Status
from mstar.errors import MstarError, WorkerLost, leaves
from mstar.executors.k8s.api import Api
from mstar.history import Entry, load_history
from mstar.recipe import Inputs
from mstar.storage.store import Store
from mstar.study.board import Board
from mstar.study.grid import Cell
from mstarctl import cluster


class There:
    """Cells in the cluster that ``target`` names. What was submitted goes on there whatever becomes of this process."""

    def __init__(self, store: Store, board: Board, target: cluster.Target) -> None:
        self._store = store
        self._board = board
        self._target = target

    def run(
        self, cell: Cell, spec: RunSpec, inputs: Inputs, interrupted: Callable[[], bool]
    ) -> None:
        api = self._target.open(spec.cluster.namespace)
        block = cluster.resolve(api, spec)
        cluster.preflight(api, spec, block, inputs.queries)
        run = prepare(self._store, spec, inputs)
        cluster.begin(api, self._store, run, block)
        self._follow(cell, api, interrupted)

    def close(self) -> None:
        """Nothing is kept from cell to cell."""

    def _follow(self, cell: Cell, api: Api, interrupted: Callable[[], bool]) -> None:
        """Bears with a store or a cluster that does not answer for a while, as ``mstarctl wait`` does."""
        answered = worked = time.monotonic()
        entries: list[Entry] = []
        while not interrupted():
            now = time.monotonic()
            try:
                found = cluster.explained(self._store, cell.run, api, entries)
                entries = load_history(self._store, cell.run, entries)
            except MstarError as error:
                if not error.retriable or now - answered > cluster.BLIND_SECONDS:
                    raise
                time.sleep(cluster.POLL_SECONDS)
                continue
            answered = now
            self._tell(cell, found, entries)
            phase = found.status.phase
            if phase is Phase.FINISHED:
                return
            if phase in {Phase.FAILED, Phase.CANCELLED}:
                raise _error(found.status, found.status.exit_code)
            if phase is not Phase.STOPPED:
                worked = now
            elif now - worked > cluster.STOPPED_SECONDS:
                raise _error(found.status, WorkerLost.exit_code)
            time.sleep(cluster.POLL_SECONDS)
        raise KeyboardInterrupt

    def _tell(self, cell: Cell, found: Overview, entries: Sequence[Entry]) -> None:
        for entry in entries:
            self._board.finish_step(cell, entry)
        status = found.status
        if status.step and status.phase in {Phase.RUNNING, Phase.WAITING}:
            self._board.at(
                cell, status.step, done=status.done, total=status.total, unit=status.unit
            )


def _error(status: Status, code: int) -> MstarError:
    """What a run ended with, as the error that has its exit code."""
    for kind in leaves():
        if kind.exit_code == code:
            return kind(status.why)
    return MstarError(status.why)
