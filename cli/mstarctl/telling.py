"""The telling of trackers beside a run on this machine."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from mstar.controller.loop import Reporter
    from mstar.controller.status import Status
    from mstar.executors.base import Observation
    from mstar.history import Entry, Run
    from mstar.recipe import Step
    from mstar.storage.manifest import Manifest
    from mstar.storage.store import Store
    from mstar.tracking.process import Telling


@contextmanager
def telling(store: "Store", run: "Run", reporter: "Reporter") -> Iterator["Reporter"]:
    """The reporter, which also has the run's trackers told until the block ends."""
    from mstar.tracking.packages import to_tell
    from mstar.tracking.process import Telling

    tracking = to_tell(run.spec.tracking)
    if not tracking.to:
        if run.spec.tracking.to:
            text = "no curves are written: tensorboard is not installed; install mstar[train]"
            typer.echo(text, err=True)
        yield reporter
        return
    teller = Telling(
        store.url, run.name, tracking, lambda text: typer.echo(f"mstarctl: {text}", err=True)
    )
    try:
        yield Tracked(reporter, teller)
    finally:
        teller.close()


class Tracked:
    """A reporter that passes everything on, and says to the trackers' process when there is something to look at."""

    def __init__(self, reporter: "Reporter", teller: "Telling") -> None:
        self._reporter, self._teller = reporter, teller

    def started(self, step: "Step", index: int, planned: int, attempt: int, reason: str) -> None:
        from mstar.tasks import task_hash
        from mstar.tracking.reading import AtWork

        self._reporter.started(step, index, planned, attempt, reason)
        if step.task.stage == "train":
            self._teller.look(AtWork(index=index, step=step.name, id=task_hash(step.task)))

    def progress(self, step: "Step", observation: "Observation") -> None:
        self._reporter.progress(step, observation)

    def finished(
        self, step: "Step", index: int, planned: int, manifest: "Manifest", entry: "Entry"
    ) -> None:
        self._reporter.finished(step, index, planned, manifest, entry)
        self._teller.look()

    def told(self, status: "Status") -> None:
        self._reporter.told(status)
