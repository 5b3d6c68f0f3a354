"""Train: a policy on what a score step kept (or on bare answers), or a PRM on labelled steps."""

import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any, Self, overload

from mstar.core.metrics import area_under_curve, mean_squared_error
from mstar.core.records import Example, Finish, Query, Response
from mstar.data.images import decode_image
from mstar.data.splits import ImageCache, lookup
from mstar.errors import DataError, ModelError, SpecError
from mstar.stages.context import Context
from mstar.stages.engines import missing, open_scorer
from mstar.stages.gang import await_outcome
from mstar.stages.inputs import load_split, model_folder, part_files, sliced, user_turn
from mstar.stages.interim import Interim
from mstar.stages.protocols import Prompted, TrainingRow
from mstar.storage.artifacts import ArtifactWriter
from mstar.storage.manifest import Part, Ref
from mstar.storage.reading import materialise, resolve
from mstar.storage.tables import read_tables
from mstar.tasks import AnswerExamples, ScoredExamples, TrainTask, task_hash

BEGAN_WITH = "base.json"
"""In a checkpoint's ``trainer`` folder: the model that its adapters were begun beside."""


def train_whole(task: TrainTask, context: Context, writer: ArtifactWriter) -> dict[str, Any]:
    """Train, store ``model/`` and ``trainer/``, and say what was learned; a PRM is also measured on held-out steps.

    An earlier attempt's work goes on where it left a checkpoint inside the step, with the same outcome. In a gang the
    first machine does all but its share of training; the others return nothing, once the step is committed.
    """
    gang = context.gang
    if gang and gang.size > 1 and context.execution.deepspeed is None:
        raise SpecError(
            f"{gang.size} machines train together only under DeepSpeed: set execution.deepspeed (its processes are "
            "the ranks on each machine), or train on one"
        )
    identity = task_hash(task)
    try:
        from mstar.stages.backends.launch import train_in_ranks
    except ModuleNotFoundError as error:
        raise missing(error) from None
    with context.timed("load"):
        state = _trainer_state(task, context)
        base = _beginning(task, state)
        weights = model_folder(context, base)
        examples = list(_examples(task, context, weights))
        others = list(_scored(task, context, task.also.score, weights)) if task.also else []
        if not examples and not others:
            raise DataError(
                "there is nothing to train on: no response was right (or none passed the selection). Sample more "
                "responses, raise the temperature, or loosen what selects: evolve.select; of the warm-up "
                "warm_up.min_steps (more are drawn with warm_up.queries), of the PRM prm.queries"
            )
        rows, images = _rows(task, context, examples, others)
    out = context.scratch / "checkpoint"
    elsewhere: list[Part] = []
    with images, context.timed("train"):
        report = train_in_ranks(
            task.objective,
            weights,
            context.execution,
            rows,
            task.optimization,
            seed=task.seed,
            resume_from=state,
            save_to=out,
            progress=context.track(len(rows) * task.optimization.epochs, "examples"),
            interim=Interim(context.store, identity, context.attempt, context.scratch),
            stopping=context.stopping,
            gang=gang,
            handed=elsewhere.extend,
        )
    if gang and gang.rank > 0:
        await_outcome(context, identity, elsewhere)
        return {}
    context.usage.update(report.usage)
    if task.optimization.lora:
        (out / "trainer" / BEGAN_WITH).write_text(base.model_dump_json() + "\n")
    results: dict[str, Any] = {
        "objective": task.objective,
        "examples": report.examples,
        "tokens": report.tokens,
        "global_step": report.global_step,
        "optimizer_steps": len(report.losses),
        "learning_rate": report.learning_rate,
        "first_loss": report.losses[0],
        "last_loss": report.losses[-1],
        "mean_loss": sum(report.losses) / len(report.losses),
    }
    if task.also:
        results["unlabeled_examples"] = len(others)
    if task.objective == "prm":
        with context.timed("measure"):
            results["held_out"] = _held_out(task, context, out)
    with context.timed("write"):
        writer.add_bytes("losses.json", json.dumps(list(report.losses)).encode())
        writer.add_folder("", out, move=True)
        for part in elsewhere:
            writer.adopt(part)
    return results


class Rows(Sequence[TrainingRow]):
    """Training rows whose images are decoded when asked for: memory holds the texts, a scratch file the pictures."""

    def __init__(
        self,
        task: TrainTask,
        examples: Sequence[Example],
        queries: dict[str, Query],
        images: "Pictures",
    ) -> None:
        self._task = task
        self._examples = examples
        self._queries = queries
        self._images = images

    def __len__(self) -> int:
        return len(self._examples)

    @overload
    def __getitem__(self, index: int) -> TrainingRow: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[TrainingRow]: ...
    def __getitem__(self, index: int | slice) -> TrainingRow | Sequence[TrainingRow]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        example = self._examples[index]
        query = self._queries[example.query_id]
        picture = decode_image(self._images[query.id], query.id)
        text = user_turn(self._task.prompt, query)
        return TrainingRow(
            prompt=Prompted(query_id=query.id, text=text, image=picture), example=example
        )


class Pictures:
    """Images of queries of one data set or two, by query."""

    def __init__(self) -> None:
        self._caches: dict[str, ImageCache] = {}
        self._open = ExitStack()

    def add(self, ids: Iterable[str], cache: ImageCache) -> None:
        """Take over ``cache``, which holds the images of ``ids``."""
        self._open.enter_context(cache)
        self._caches |= dict.fromkeys(ids, cache)

    def __getitem__(self, query_id: str) -> bytes:
        return self._caches[query_id][query_id]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._open.close()


def _rows(
    task: TrainTask, context: Context, examples: Sequence[Example], others: Sequence[Example] = ()
) -> tuple[Rows, Pictures]:
    """Rows of the examples and of ``others``, which answer the queries of the task's second data set."""
    name = (
        task.examples.split
        if isinstance(task.examples, ScoredExamples)
        else task.examples.slice.split
    )
    sources = [(task.data, name, examples)]
    if task.also:
        sources.append((task.also.data, task.also.split, others))
    queries: dict[str, Query] = {}
    pictures = Pictures()
    for data, part, wanted in sources:
        split = load_split(context, data, part)
        found, images = lookup(split, {example.query_id for example in wanted}, context.scratch)
        pictures.add(found, images)
        queries |= found
    return Rows(task, [*examples, *others], queries, pictures), pictures


def _scored(task: TrainTask, context: Context, score: Ref, weights: Path) -> Iterator[Example]:
    files = part_files(context, resolve(context.store, score), "examples")
    examples = read_tables(files, Example)
    if not task.retokenize:
        return examples
    from mstar.models.family import load_family

    family = load_family(
        weights, max_pixels=context.execution.max_pixels, remote_code=context.execution.remote_code
    )
    return (replace(example, tokens=family.retokenize(example.text)) for example in examples)


def _examples(task: TrainTask, context: Context, weights: Path) -> Iterator[Example]:
    if isinstance(task.examples, ScoredExamples):
        return _scored(task, context, task.examples.score, weights)
    return _answers(task, task.examples, context, weights)


def _answers(
    task: TrainTask, source: AnswerExamples, context: Context, weights: Path
) -> Iterator[Example]:
    """The true answer of each query as its response (the paper's SFT row)."""
    from mstar.models.family import load_family

    family = load_family(
        weights, max_pixels=context.execution.max_pixels, remote_code=context.execution.remote_code
    )
    split = load_split(context, task.data, source.slice.split)
    for sample in split.read(sliced(split, source.slice)):
        text = source.template.format(answer=sample.query.answer)
        yield Example(
            query_id=sample.query.id,
            sample=0,
            text=text,
            tokens=family.tokenize(text),
            finish=Finish.STOP,
            policy="ground truth",
            seed=0,
        )


def _trainer_state(task: TrainTask, context: Context) -> Path | None:
    """The earlier checkpoint's folder, whose ``trainer/`` goes on; None for a fresh optimizer."""
    if task.optimizer is None:
        return None
    manifest = resolve(context.store, task.optimizer)
    if not any(part.name.startswith("trainer/") for part in manifest.parts):
        raise ModelError(
            f"checkpoint {task.optimizer.id[:12]} holds no optimizer state (trainer/), so training cannot go on from "
            "it; use a checkpoint written by a train step, or start with a fresh optimizer"
        )
    return materialise(context.store, manifest, "", context.scratch)


def _beginning(task: TrainTask, state: Path | None) -> Ref:
    """The weights to load: the task's own, or those that adapters which go on were begun beside.

    A checkpoint's model has its adapters merged in and rounded; to go on from that would merge them twice.
    """
    path = state / "trainer" / BEGAN_WITH if state else None
    if task.optimization.lora is None or path is None or not path.is_file():
        return task.model
    return Ref.model_validate_json(path.read_bytes())


def _held_out(task: TrainTask, context: Context, checkpoint: Path) -> dict[str, Any] | None:
    """The PRM's error on steps it was not trained on, against always guessing their mean."""
    if not isinstance(task.examples, ScoredExamples):
        return None
    manifest = resolve(context.store, task.examples.score)
    examples = list(read_tables(part_files(context, manifest, "held_out"), Example))
    if not examples:
        return None
    rows, images = _rows(task, context, examples)
    scorer = open_scorer(checkpoint / "model", context.execution, task.step_separator)
    with images:
        judged = scorer.score(
            [row.prompt for row in rows],
            [_as_response(row.example) for row in rows],
            lambda _: None,
        )
    predictions: list[float] = []
    labels: list[float] = []
    for example, verdict in zip(examples, judged, strict=True):
        if verdict.step_ends == example.step_ends:
            predictions += verdict.scores
            labels += example.labels
    if not labels:
        return None
    average = sum(labels) / len(labels)
    return {
        "steps": len(labels),
        "mse": mean_squared_error(predictions, labels),
        "mse_of_mean": mean_squared_error([average] * len(labels), labels),
        "auc": area_under_curve(predictions, [label >= 0.5 for label in labels]),
    }


def _as_response(example: Example) -> Response:
    return Response(
        query_id=example.query_id,
        sample=example.sample,
        text=example.text,
        tokens=example.tokens,
        finish=example.finish,
        temperature=1.0,
        policy=example.policy,
        seed=example.seed,
    )
