"""Where a checkpoint comes from and what it reached, read from the store and checked."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mstar.benchmarks.answers import weights_digest
from mstar.core.metrics import wilson_interval
from mstar.errors import ConflictError, DataError, NotFound
from mstar.export.choosing import Made
from mstar.history import Run, load_history, load_run
from mstar.report.collect import evaluation_of, read_task
from mstar.report.views import Evaluation, Share
from mstar.storage import keys
from mstar.storage.manifest import Ref
from mstar.storage.reading import resolve
from mstar.storage.store import Store
from mstar.tasks import BenchmarkTask, EvaluateTask, task_inputs

MODEL = "model/"
"""What the names of a checkpoint's files begin with among its step's parts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """What one evaluation found: of the checkpoint, or of a policy that it is to be compared with (``of``)."""

    of: str
    split: str
    step: str
    found: Evaluation


@dataclass(frozen=True, slots=True, kw_only=True)
class Benchmark:
    """A public benchmark's overall accuracy.

    ``prompt`` is how it was asked: as the run asks (``run``), as the official tools do (``official``), or ``other``.
    ``source`` is the run's step or the command that asked; ``by_judge`` counts the answers that a language model read.
    """

    name: str
    title: str
    share: Share
    prompt: str
    source: str
    by_judge: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Provenance:
    """A checkpoint, its run, and the steps that led to it in the order in which they were made."""

    run: Run
    checkpoint: Made
    steps: tuple[Made, ...]
    sources: tuple[Ref, ...]
    scores: tuple[Score, ...]
    benchmarks: tuple[Benchmark, ...] = ()


def made_steps(store: Store, name: str) -> tuple[Run, list[Made]]:
    """A run and its finished steps; ``NotFound`` when there is no such run."""
    run = load_run(store, name)
    steps = []
    for entry in load_history(store, name):
        manifest, task = resolve(store, entry.ref), read_task(store, entry.ref.id)
        if task is None:
            raise NotFound(
                f"{keys.task(entry.ref.id)} is not in {store.url}: what step {entry.name} was asked is lost"
            )
        steps.append(Made(entry=entry, task=task, manifest=manifest))
    return run, steps


def trace(
    run: Run, steps: Sequence[Made], checkpoint: Made, benchmarks: Sequence[Benchmark] = ()
) -> Provenance:
    """The steps from which the checkpoint was made, itself last, and the artifacts that no step made."""
    by_id = {step.entry.ref.id: step for step in steps}
    needed: set[str] = set()
    sources: list[Ref] = []
    waiting = [checkpoint.entry.ref]
    while waiting:
        ref = waiting.pop()
        step = by_id.get(ref.id)
        if step is None:
            if ref not in sources:
                sources.append(ref)
        elif ref.id not in needed:
            needed.add(ref.id)
            waiting += task_inputs(step.task)
    return Provenance(
        run=run,
        checkpoint=checkpoint,
        steps=tuple(step for step in steps if step.entry.ref.id in needed),
        sources=tuple(sorted(sources, key=lambda ref: (ref.kind, ref.id))),
        scores=tuple(_scores(steps, checkpoint)),
        benchmarks=(*_own_benchmarks(steps, checkpoint), *benchmarks),
    )


def read_benchmarks(body: object, file: str, made: Made, query: str) -> list[Benchmark]:
    """The scores of the checkpoint ``made`` in a ``scores.json`` that ``mstarctl eval`` wrote.

    ``query`` is the run's own template. ``DataError`` when it is no such file, or does not say whose scores it holds;
    ``ConflictError`` when they are another model's.
    """
    asked = body.get("asked") if isinstance(body, Mapping) else None
    asked = asked if isinstance(asked, Mapping) else {}
    prompt = asked.get("prompt")
    how = "official"
    if prompt is not None:
        how = "run" if isinstance(prompt, Mapping) and prompt.get("template") == query else "other"
    found = _read(body, file, prompt=how, source="mstarctl eval")
    if not asked.get("weights"):
        raise DataError(
            f"{file} does not say which model its scores are of (asked.weights); run mstarctl eval again, which keeps "
            "the answers that are there"
        )
    if asked["weights"] != weights_digest(model_files(made)):
        raise ConflictError(
            f"{file} holds scores of another model than {made.name}: the digests of their weights differ; run mstarctl "
            "eval on this checkpoint (export it, then evaluate the folder)"
        )
    return found


def model_files(made: Made) -> dict[str, str]:
    """The sha256 of a checkpoint's files, by their names in a model folder."""
    parts = made.manifest.parts
    return {p.name.removeprefix(MODEL): p.sha256 for p in parts if p.name.startswith(MODEL)}


def _read(body: object, file: str, *, prompt: str, source: str) -> list[Benchmark]:
    rows = body.get("scores") if isinstance(body, Mapping) else None
    found = []
    try:
        for each in rows or ():
            correct, total = int(each["correct"]), int(each["total"])
            low, high = wilson_interval(correct, total)
            share = Share(value=correct / total, low=low, high=high, n=total)
            found.append(
                Benchmark(
                    name=str(each["benchmark"]),
                    title=str(each["title"]),
                    share=share,
                    prompt=prompt,
                    source=source,
                    by_judge=int(each.get("by_judge", 0)),
                )
            )
    except (KeyError, TypeError, ValueError, ZeroDivisionError) as error:
        raise DataError(
            f"{file} holds no scores ({type(error).__name__}: {error}); expected the scores.json of mstarctl eval"
        ) from None
    if not found:
        raise DataError(f"{file} holds no scores; expected the scores.json of mstarctl eval")
    return found


def _own_benchmarks(steps: Sequence[Made], checkpoint: Made) -> list[Benchmark]:
    """What the run's own last step found, if it asked this checkpoint."""
    return [
        benchmark
        for step in steps
        if isinstance(step.task, BenchmarkTask) and step.task.model.id == checkpoint.entry.ref.id
        for benchmark in _read(
            step.results,
            step.name,
            prompt="run" if step.task.prompt else "official",
            source=step.name,
        )
    ]


def _scores(steps: Sequence[Made], checkpoint: Made) -> list[Score]:
    """Every evaluation of the checkpoint, and the tests of the policies before it."""
    found = []
    for step in steps:
        task = step.task
        if not isinstance(task, EvaluateTask) or "greedy" not in step.results:
            continue
        own = checkpoint.entry.ref.id in {task.model.id, task.prm.id if task.prm and task.verify else ""}  # fmt: skip
        if own or step.name in {"base/test", "warm-up/test"}:
            of = "this model" if own else step.name.partition("/")[0]
            result = evaluation_of(step.results)
            found.append(Score(of=of, split=task.slice.split, step=step.name, found=result))
    return found


def seed_of(step: Made) -> int | None:
    """The seed that a step drew from; None where nothing is drawn."""
    return getattr(step.task, "seed", None)


def describe_step(step: Made) -> dict[str, Any]:
    """A step of the lineage for programs."""
    return {
        "name": step.name,
        "stage": step.task.stage,
        "id": step.entry.ref.id,
        "digest": step.entry.ref.digest,
        "seed": seed_of(step),
        "inputs": [ref.model_dump() for ref in task_inputs(step.task)],
        "adopted": step.entry.adopted,
        "versions": dict(sorted(step.manifest.versions.items())),
    }
