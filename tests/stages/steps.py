"""Train steps for the stage's tests, whole: a store with data and a tiny model, a task, and an attempt at it.

``python -m tests.stages.steps ORDER`` makes one attempt in a process of its own, as a pod does, and exits as mstarctl
does.
"""

import io
import itertools
import json
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import Future
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel

from mstar.core.records import Example, Finish
from mstar.errors import MstarError
from mstar.execution import Execution
from mstar.optimization import Optimization
from mstar.stages.backends import launch
from mstar.stages.context import Context, Gang, never
from mstar.stages.interim import clear_progress
from mstar.stages.run import scratch_folder
from mstar.stages.train import train_whole
from mstar.storage import keys
from mstar.storage.artifacts import ArtifactWriter, commit_dataset, commit_model
from mstar.storage.manifest import Manifest, Ref
from mstar.storage.open import open_store
from mstar.storage.reading import read_manifest
from mstar.storage.store import Store
from mstar.storage.tables import TableWriter
from mstar.tasks import (
    AnswerExamples,
    Prompt,
    ScoredExamples,
    Slice,
    TrainTask,
    task_hash,
    task_inputs,
)
from tests.stages.backends import rank
from tests.tiny import draw_image, encode_text

ROOT = Path(__file__).resolve().parents[2]
SECONDS = 600
"""Nothing here takes longer, on a machine that is busy with other tests too."""

OPTIMIZATION = Optimization(learning_rate=3e-3, warmup_steps=3, batch_size=8, weight_decay=0.01)
ONE_THREAD = Execution(device="cpu", threads=1, checkpoint_seconds=None)
EACH_STEP = ONE_THREAD.model_copy(update={"checkpoint_seconds": 1e-9})


class AtOnce:
    """Does what it is given in the caller's own thread: a checkpoint is there when training goes on."""

    def __init__(self, *_: Any) -> None:
        self.open = True

    def submit(self, work: Any, *given: Any) -> "Future[Any]":
        """The outcome, an error too."""
        future: Future[Any] = Future()
        try:
            future.set_result(work(*given))
        except BaseException as error:  # noqa: BLE001 - told when the future is asked, as a thread's would be
            future.set_exception(error)
        return future

    def shutdown(self) -> None:
        """Nothing to wait for."""
        self.open = False


class Pace(BaseModel):
    """Training takes its time from its first optimizer step on, and stands still at a checkpoint until SIGTERM.

    Who waits for a checkpoint to do something to the process finds it there, however late it looks.
    """

    rows: int
    stands_after: int


class Order(BaseModel):
    """What an attempt in a process of its own is told."""

    store: str
    task: TrainTask
    execution: Execution
    attempt: str
    scratch: Path
    gang: dict[str, Any] | None = None
    pace: Pace | None = None


def make_policy_task(store: Store, model: Path, folder: Path, rows: int = 44) -> TrainTask:
    """A policy on the true answers of ``rows`` queries; six optimizer steps by default."""
    return TrainTask(
        model=Ref.of(commit_model(store, model)),
        data=_data(store, folder, rows),
        examples=AnswerExamples(slice=Slice(split="train"), template="so\nit is {answer}"),
        prompt=Prompt(),
        optimization=OPTIMIZATION,
        seed=3,
    )


def make_prm_task(store: Store, model: Path, folder: Path, rows: int = 44) -> TrainTask:
    """A PRM on labelled steps, the last eight queries held out."""
    data = _data(store, folder, rows)
    with ArtifactWriter(store, "0" * 64, "1") as writer:
        for name, numbers in (("examples", range(rows - 8)), ("held_out", range(rows - 8, rows))):
            path = folder / f"{name}.parquet"
            with TableWriter(path, Example) as table:
                table.write(map(_labelled, numbers))
            writer.add_file(f"{name}.parquet", path)
        score = writer.commit().manifest
    return TrainTask(
        objective="prm",
        model=Ref.of(commit_model(store, model)),
        data=data,
        examples=ScoredExamples(score=Ref.of(score), split="train"),
        prompt=Prompt(),
        optimization=OPTIMIZATION,
        seed=3,
    )


def attempt(
    store: Store,
    task: TrainTask,
    scratch: Path,
    *,
    name: str = "1",
    execution: Execution = ONE_THREAD,
    stopping: Any = never,
    gang: Gang | None = None,
    tell: Any = lambda *_: None,
) -> Manifest:
    """One attempt at the task, to its commit."""
    identity = task_hash(task)
    if found := read_manifest(store, "step", identity):
        clear_progress(store, identity)
        return found
    scratch.mkdir(parents=True, exist_ok=True)
    with scratch_folder(scratch) as folder:
        context = Context(
            store=store,
            execution=execution,
            attempt=name,
            scratch=folder,
            tell=tell,
            stopping=stopping,
            gang=gang,
        )
        with ArtifactWriter(store, identity, name) as writer:
            results = train_whole(task, context, writer)
            inputs = [ref.digest for ref in task_inputs(task)]
            manifest = writer.commit(results=results, inputs=inputs, usage=context.usage).manifest
        clear_progress(store, identity)
        return manifest


def progress(store: Store, task: TrainTask) -> list[int]:
    """After how many optimizer steps there are checkpoints inside the step."""
    folder = keys.progress(task_hash(task))
    found = [key for key in store.list(folder) if key.count("/") == folder.count("/") + 1]
    return [int(key.rpartition("/")[2].partition("-")[0]) for key in found]


def until_kept(
    store: Store, task: TrainTask, steps: int, *processes: "subprocess.Popen[bytes]"
) -> None:
    """Return once there is a checkpoint after so many optimizer steps."""
    deadline = time.monotonic() + SECONDS
    while max(progress(store, task), default=0) < steps:
        ended = [process for process in processes if process.poll() is not None]
        assert not ended, f"ended before step {steps} with {ended[0].returncode}"
        assert time.monotonic() < deadline, f"no checkpoint after step {steps} in {SECONDS} s"
        time.sleep(0.02)


def start(
    store: Store,
    task: TrainTask,
    name: str,
    folder: Path,
    *,
    execution: Execution = ONE_THREAD,
    gang: Gang | None = None,
    pace: Pace | None = None,
    ranks_stand: dict[str, str] | None = None,
) -> "subprocess.Popen[bytes]":
    """An attempt in a process of its own, on a machine whose disk is ``folder``; it says errors on standard error.

    ``ranks_stand`` is where its ranks stand still (``backends.rank``).
    """
    folder.mkdir(parents=True, exist_ok=True)
    order = Order(
        store=store.url,
        task=task,
        execution=execution,
        attempt=name,
        scratch=folder,
        gang=asdict(gang) if gang else None,
        pace=pace,
    )
    path = folder / f"{name}.json"
    path.write_text(order.model_dump_json())
    return subprocess.Popen(
        [sys.executable, "-m", "tests.stages.steps", str(path)],
        cwd=ROOT,
        stderr=subprocess.PIPE,
        # A container's init signals the whole group of what it started; ranks must not be in it.
        start_new_session=True,
        env=os.environ | {"TMPDIR": str(folder)} | (ranks_stand or {}),
    )


def rank_processes(folder: Path) -> list[int]:
    """Process ids of the ranks that work on a disk: their commands name a folder below it."""
    command = ["/bin/ps", "-A", "-ww", "-o", "pid=,args="]
    listed = subprocess.run(command, capture_output=True, check=True, text=True)
    lines = [line.split(maxsplit=1) for line in listed.stdout.splitlines()]
    return [int(pid) for pid, args in lines if f"backends.rank {folder}/" in args]


def losses(store: Store, manifest: Manifest) -> list[float]:
    """A committed step's loss curve."""
    found: list[float] = json.loads(store.get(manifest.part("losses.json").key))
    return found


def digests(manifest: Manifest) -> dict[str, str]:
    """What each part must hold, by name."""
    return {part.name: part.sha256 for part in manifest.parts}


def _data(store: Store, folder: Path, rows: int) -> Ref:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "train.parquet"
    pq.write_table(pa.Table.from_pylist([_row(number) for number in range(rows)]), path)
    return Ref.of(commit_dataset(store, {"train.parquet": path}, rows={"train.parquet": rows}))


def _row(number: int) -> dict[str, Any]:
    buffer = io.BytesIO()
    draw_image(number).save(buffer, format="PNG")
    return {
        "id": f"q{number}",
        "image": {"bytes": buffer.getvalue(), "path": None},
        "question": "Go" + "?" * (number % 5),
        "answer": str(10 ** (number % 4) + number),
    }


def _labelled(number: int) -> Example:
    text = "so" + "o" * (5 * number % 13) + "\nit is " + str(number % 10)
    tokens = encode_text(text)
    return Example(
        query_id=f"q{number}",
        sample=0,
        text=text,
        tokens=tokens,
        finish=Finish.STOP,
        policy="p",
        seed=number,
        step_ends=(text.index("\n") + 1, len(tokens)),
        labels=(0.75, (number % 4) / 4),
    )


def main(order: Order) -> int:
    """One attempt; SIGTERM asks it to stop."""
    stop, asked = threading.Event(), itertools.count(1)
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    store = open_store(order.store)

    def stopping() -> bool:
        # Asked at each row that is prepared, then at each optimizer step.
        if order.pace and next(asked) > order.pace.rows:
            stands = max(progress(store, order.task), default=0) >= order.pace.stands_after
            stop.wait(None if stands else 0.1)
        return stop.is_set()

    if rank.STANDS in os.environ:
        launch.RANK_MODULE = rank.NAME
    try:
        attempt(
            store,
            order.task,
            order.scratch,
            name=order.attempt,
            execution=order.execution,
            stopping=stopping,
            gang=Gang(**order.gang) if order.gang else None,
        )
    except MstarError as error:
        sys.stderr.write(f"{type(error).__name__}: {error}\n")
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(Order.model_validate_json(Path(sys.argv[1]).read_bytes())))
