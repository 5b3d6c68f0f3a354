"""A run's chapters from a store, each read once; the losses of a step that is at work come from beside its parts."""

import json
import time
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from mstar.errors import NotFound
from mstar.history import Entry, load_history, load_run
from mstar.record import Record
from mstar.storage import keys
from mstar.storage.manifest import Manifest, Ref
from mstar.storage.reading import open_part, read_manifest, resolve
from mstar.storage.store import Store
from mstar.tasks import TASK, Task, TrainTask
from mstar.tracking.points import Book, Chapter, Curve, Finished, label


class AtWork(Record):
    """The step that a run is at: place, name, identity. ``committed``: it is done, and not in the history yet."""

    index: int
    step: str
    id: str
    committed: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """A chapter, and the step whose losses are its own."""

    chapter: Chapter
    manifest: Manifest


@dataclass(frozen=True, slots=True, kw_only=True)
class Live:
    """A train step at work: the losses so far, and the curve that they are on."""

    label: str
    curve: Curve
    losses: tuple[float, ...]


class Story:
    """A run as far as it has come. Looking again reads what is new."""

    def __init__(self, store: Store, run: str) -> None:
        self._store = store
        self.run = load_run(store, run)
        self._book = Book(spec=self.run.spec)
        self._entries: list[Entry] = []
        self.written: list[Written] = []

    def look(self, at: AtWork | None = None) -> None:
        """Read what was finished since; ``at`` may be a step that its history does not have yet."""
        entries = load_history(self._store, self.run.name, self._entries)
        for entry in entries[len(self.written) :]:
            self._write(entry, resolve(self._store, entry.ref))
        self._entries = entries
        if at and at.committed and at.index == len(self.written):
            manifest = read_manifest(self._store, "step", at.id)
            if manifest:
                self._write(_entry(at, manifest), manifest)

    def losses(self, manifest: Manifest) -> tuple[float, ...]:
        """The loss of each optimizer step of a finished train step."""
        with TemporaryDirectory(prefix="mstar-losses-") as scratch:
            path = open_part(self._store, manifest.part("losses.json"), Path(scratch))
            return tuple(map(float, json.loads(path.read_bytes())))

    def live(self, at: AtWork | None) -> Live | None:
        """The train step at work, if there is one and it has shown any losses."""
        if at is None or at.committed or at.index != len(self.written):
            return None
        task = self._task(at.id)
        if not isinstance(task, TrainTask):
            return None
        try:
            losses = json.loads(self._store.get(keys.live(at.id)))
        except (NotFound, ValueError):
            return None
        start = _steps_of(self._store, task.optimizer)
        curve = self._book.curve(at.step, task, start, 0.0)
        return Live(label=label(at.index, at.step), curve=curve, losses=tuple(map(float, losses)))

    def _write(self, entry: Entry, manifest: Manifest) -> None:
        task = self._task(entry.ref.id)
        if task is None:
            raise NotFound(f"{keys.task(entry.ref.id)} is not in {self._store.url}")
        made = manifest.timings.values()
        step = Finished(
            index=entry.index,
            name=entry.name,
            task=task,
            results=manifest.results,
            timings=manifest.timings,
            seconds=sum(made) if entry.adopted else entry.seconds,
            finished_at=entry.finished_at,
            usage=manifest.usage,
        )
        self.written.append(Written(chapter=self._book.chapter(step), manifest=manifest))

    def _task(self, identity: str) -> Task | None:
        try:
            return TASK.validate_json(self._store.get(keys.task(identity)))
        except NotFound:
            return None


def _steps_of(store: Store, optimizer: Ref | None) -> int:
    return int(resolve(store, optimizer).results["global_step"]) if optimizer else 0


def _entry(at: AtWork, manifest: Manifest) -> Entry:
    """A step of ours as the history will have it; nobody has noted yet when it ended."""
    seconds = sum(manifest.timings.values())
    return Entry(
        index=at.index,
        name=at.step,
        ref=Ref.of(manifest),
        adopted=False,
        seconds=seconds,
        finished_at=time.time(),
    )
