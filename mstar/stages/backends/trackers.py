"""TensorBoard, Weights & Biases and MLflow through accelerate's trackers, each one run of its own for a run of ours."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from accelerate import PartialState
from accelerate.tracking import MLflowTracker, TensorBoardTracker, WandBTracker

from mstar.config import Tracking
from mstar.errors import SpecError
from mstar.history import Run
from mstar.storage.store import Store
from mstar.tracking.points import Point, configuration
from mstar.tracking.reading import Story
from mstar.tracking.told import Note, Sink, event_file, read_note, told_in_files

INIT_SECONDS = 30
FILES = "MLFLOW_ALLOW_FILE_STORE"
"""What later versions of MLflow 3 ask for before they write into a folder."""


def open_sink(tracker: str, store: Store, story: Story, tracking: Tracking, scratch: Path) -> Sink:
    """The tracker called ``tracker``, with the run's own run in it: a new one, or the one that was begun before."""
    PartialState(cpu=True)  # accelerate's trackers log through it; this process does nothing else
    if tracker == "tensorboard":
        return EventFiles(store, story.run, scratch)
    if tracker == "wandb":
        return Wandb(store, story.run, tracking.project)
    return MLflow(store, story.run, tracking.project)


class EventFiles:
    """TensorBoard's event files in the run's folder of the store: each call writes one, whole when it appears."""

    name = "tensorboard"
    pace = 0.1  # a reader keeps each file open

    def __init__(self, store: Store, run: Run, scratch: Path) -> None:
        self._store, self._run, self._scratch = store, run, scratch
        self.told = told_in_files(store, run.name)

    def tell(self, label: str, first: int, points: Sequence[Point]) -> None:
        tracker = TensorBoardTracker("events", self._scratch)
        tracker.start()
        if not self.told:
            spec = yaml.safe_dump(configuration(self._run.spec), sort_keys=True)
            indented = "".join(f"    {line}\n" for line in spec.splitlines())
            tracker.log({"spec": indented}, step=0)
        for point in points:
            tracker.log(dict(point.values), step=point.x, walltime=point.at)
        tracker.finish()
        folder = Path(tracker.logging_dir)
        (written,) = folder.glob("*tfevents*")
        key = event_file(self._run.name, label, first + 1, first + len(points))
        self._store.upload(key, written, move=True)
        shutil.rmtree(folder)

    def close(self) -> None:
        """Each file was closed as it was written."""


class Wandb:
    """A run of Weights & Biases, which is resumed by its id. Each tag is drawn over its own axis."""

    name = "wandb"
    pace = 0.0

    def __init__(self, store: Store, run: Run, project: str) -> None:
        import wandb

        place = (
            f"{os.environ.get('WANDB_BASE_URL', '')} {os.environ.get('WANDB_ENTITY', '')} {project}"
        )
        self._note = read_note(store, run.name, self.name, place)
        self.told = self._note.told
        self._note.id = self._note.id or secrets.token_hex(8)
        self._tracker = WandBTracker(
            project,
            id=self._note.id,
            name=run.name,
            resume="allow",
            # This process is not the one that trains: its own load, output and code are of no interest.
            settings=wandb.Settings(
                init_timeout=INIT_SECONDS,
                console="off",
                disable_code=True,
                disable_git=True,
                x_disable_stats=True,
            ),
        )
        self._tracker.start()
        self._note.write()
        self._tracker.store_init_configuration(configuration(run.spec))
        self._drawn: set[str] = set()

    def tell(self, label: str, first: int, points: Sequence[Point]) -> None:
        for point in points:
            for tag in point.values.keys() - self._drawn:
                self._tracker.tracker.define_metric(tag, step_metric=point.axis)
                self._drawn.add(tag)
            self._tracker.log(dict(point.values) | {point.axis: point.x})
        self._note.told[label] = first + len(points)
        self._note.write()

    def close(self) -> None:
        self._tracker.finish()


class MLflow:
    """A run of MLflow, which is gone on with by its id."""

    name = "mlflow"
    pace = 0.0

    def __init__(self, store: Store, run: Run, project: str) -> None:
        place = f"{os.environ['MLFLOW_TRACKING_URI']} {project}"
        self._note: Note = read_note(store, run.name, self.name, place)
        self.told = self._note.told
        begun = not self._note.id
        tags = {"mstar.run": run.name, "mstar.store": store.url}
        self._tracker: Any = MLflowTracker(
            project, run_id=self._note.id or None, run_name=run.name, tags=tags if begun else None
        )
        try:
            self._tracker.start()
        except Exception as error:  # known by its advice alone
            if FILES not in str(error):
                raise
            raise SpecError(
                f"mlflow writes into a folder ({os.environ['MLFLOW_TRACKING_URI']}) only where {FILES}=true is set; "
                "set it, or MLFLOW_TRACKING_URI to a server's address"
            ) from error
        if begun:
            self._note.id = self._tracker.tracker.info.run_id
            self._note.write()
            self._tracker.store_init_configuration(configuration(run.spec))

    def tell(self, label: str, first: int, points: Sequence[Point]) -> None:
        for point in points:
            moment = int(point.at * 1000)
            self._tracker.log(dict(point.values), step=point.x, timestamp=moment)
        self._note.told[label] = first + len(points)
        self._note.write()

    def close(self) -> None:
        self._tracker.finish()
