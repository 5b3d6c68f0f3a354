"""What the ranks of one training step are handed, and what they hand back: plain files in one folder."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal, overload

from PIL import Image

from mstar.core.records import Example, Finish
from mstar.execution import Execution
from mstar.optimization import Optimization
from mstar.record import Record
from mstar.stages.interim import Place
from mstar.stages.protocols import Prompted, TrainingRow, TrainReport
from mstar.storage.manifest import Part

JOB, ROWS, IMAGES = "job.json", "rows.jsonl", "images"
PROGRESS, REPORT, ERROR = "progress", "report.json", "error.json"
STOP, PARTS, SAID, TRACE = "stop", "parts.json", "said.log", "trace.txt"


class Job(Record):
    """Everything of a training step but its rows. ``interim`` says where checkpoints inside the step go.

    ``machines`` is how many train together: with several, all but the first send what they wrote to the store.
    """

    objective: Literal["policy", "prm"]
    model_dir: Path
    execution: Execution
    optimization: Optimization
    seed: int
    resume_from: Path | None
    save_to: Path
    stop_after: int | None
    interim: Place | None = None
    machines: int = 1


def write_job(folder: Path, job: Job) -> None:
    """Write the job."""
    (folder / JOB).write_text(job.model_dump_json())


def read_job(folder: Path) -> Job:
    """Read the job."""
    return Job.model_validate_json((folder / JOB).read_bytes())


def write_rows(folder: Path, rows: Sequence[TrainingRow]) -> None:
    """Write the rows as JSON lines, and the image of each query once as a PNG."""
    images: dict[str, str] = {}
    (folder / IMAGES).mkdir()
    with (folder / ROWS).open("w") as lines:
        for row in rows:
            query = row.prompt.query_id
            if query not in images:
                images[query] = f"{len(images)}.png"
                picture = row.prompt.image.convert("RGB")
                picture.save(folder / IMAGES / images[query], compress_level=1)
            record = {
                "query_id": query,
                "text": row.prompt.text,
                "image": images[query],
                "example": asdict(row.example),
            }
            lines.write(json.dumps(record) + "\n")


class HandedRows(Sequence[TrainingRow]):
    """The rows in a folder; an image is read when its row is asked for."""

    def __init__(self, folder: Path) -> None:
        self._images = folder / IMAGES
        with (folder / ROWS).open() as lines:
            self._records = [json.loads(line) for line in lines]

    def __len__(self) -> int:
        return len(self._records)

    @overload
    def __getitem__(self, index: int) -> TrainingRow: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[TrainingRow]: ...
    def __getitem__(self, index: int | slice) -> TrainingRow | Sequence[TrainingRow]:
        if isinstance(index, slice):
            return [self[at] for at in range(*index.indices(len(self)))]
        record = self._records[index]
        with Image.open(self._images / record["image"]) as image:
            image.load()
        prompt = Prompted(query_id=record["query_id"], text=record["text"], image=image)
        return TrainingRow(prompt=prompt, example=_example(record["example"]))


def write_progress(folder: Path, done: int) -> None:
    """Say how many examples are done; a reader sees the old number or the new one."""
    fresh = folder / f"{PROGRESS}.new"
    fresh.write_text(str(done))
    fresh.replace(folder / PROGRESS)


def begun(folder: Path) -> bool:
    """Whether the ranks have begun to train, so that there is something to leave a checkpoint of."""
    return (folder / PROGRESS).exists()


def read_progress(folder: Path) -> int:
    """How many examples are done."""
    path = folder / PROGRESS
    return int(path.read_text()) if path.exists() else 0


def write_report(folder: Path, report: TrainReport) -> None:
    """Write what the step did."""
    (folder / REPORT).write_text(json.dumps(asdict(report)))


def read_report(folder: Path) -> TrainReport:
    """Read what the step did."""
    found = json.loads((folder / REPORT).read_text())
    return TrainReport(**found | {"losses": tuple(found["losses"])})


def write_parts(folder: Path, parts: Iterable[Part]) -> None:
    """Write which parts of the outcome are in the store already."""
    (folder / PARTS).write_text(json.dumps([asdict(part) for part in parts]))


def read_parts(folder: Path) -> list[Part]:
    """Which parts of the outcome are in the store already."""
    path = folder / PARTS
    return [Part(**part) for part in json.loads(path.read_text())] if path.exists() else []


def ask_to_stop(folder: Path) -> None:
    """Ask the ranks to leave a checkpoint and stop."""
    (folder / STOP).touch()


def asked_to_stop(folder: Path) -> bool:
    """Whether the ranks are to stop."""
    return (folder / STOP).exists()


def write_error(folder: Path, error: Exception) -> None:
    """Keep an error meant for a person; the first rank to fail is the one that is heard."""
    _write_once(folder / ERROR, json.dumps({"type": type(error).__name__, "message": str(error)}))


def read_error(folder: Path) -> dict[str, str] | None:
    """The error a rank left, if any."""
    path = folder / ERROR
    found: dict[str, str] | None = json.loads(path.read_text()) if path.exists() else None
    return found


def write_trace(folder: Path, trace: str) -> None:
    """Keep the traceback of any other failure; the first rank to fail is the one that is heard."""
    _write_once(folder / TRACE, trace)


def read_trace(folder: Path) -> str | None:
    """The traceback a rank left, if any."""
    path = folder / TRACE
    return path.read_text() if path.exists() else None


def _write_once(path: Path, text: str) -> None:
    try:
        with path.open("x") as file:
            file.write(text)
    except FileExistsError:
        return


def _example(record: dict[str, Any]) -> Example:
    tuples = {name: tuple(record[name]) for name in ("tokens", "step_ends", "labels")}
    return Example(**record | tuples | {"finish": Finish(record["finish"])})
