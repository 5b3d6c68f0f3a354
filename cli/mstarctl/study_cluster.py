"""Cells of a study in a cluster: each is submitted as a run of its own, and followed until it ends."""

from collections.abc import Callable

from mstar.config import RunSpec
from mstar.controller.prepare import prepare
from mstar.controller.status import Phase
from mstar.errors import by_code
from mstar.recipe import Inputs
from mstar.storage.store import Store
from mstar.study.board import Board
from mstar.study.grid import Cell
from mstarctl import cluster
from mstarctl.following import Look, looks


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
        for look in looks(self._store, cell.run, api):
            if interrupted():
                raise KeyboardInterrupt
            if look is not None:
                self._tell(cell, look)
                status = look.found.status
        if status.phase is not Phase.FINISHED:
            raise by_code(status.exit_code, status.why)

    def close(self) -> None:
        """Nothing is kept from cell to cell."""

    def _tell(self, cell: Cell, look: Look) -> None:
        for entry in look.entries:
            self._board.finish_step(cell, entry)
        status = look.found.status
        if status.step and status.phase in {Phase.RUNNING, Phase.WAITING}:
            self._board.at(
                cell, status.step, done=status.done, total=status.total, unit=status.unit
            )
