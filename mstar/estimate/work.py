"""What a run's steps ask for, in numbers: prompts, tokens, examples. Pure, in the order of the plan.

A step that is committed says what came out, and what follows it is then known so much better; of any other it is
counted from the spec and the assumptions.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from mstar.benchmarks.registry import find_benchmarks
from mstar.cluster import Stage
from mstar.core.rules import find_rule
from mstar.estimate.assumptions import Assumptions
from mstar.estimate.ranges import ZERO, Range
from mstar.optimization import Optimization
from mstar.plan import Step
from mstar.storage.manifest import Ref
from mstar.tasks import (
    AnswerExamples,
    BenchmarkTask,
    EvaluateTask,
    GenerateTask,
    Label,
    Pairs,
    Queries,
    ScoreTask,
    Select,
    Slice,
    TrainTask,
    task_hash,
)

Found = Mapping[str, Any]
"""A committed step's results."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """What one step does. ``model`` is the base that its policy came from: ``model`` or ``teacher``; ``prm`` likewise.

    ``prompts`` are read, with an image each, and ``read`` more tokens behind them; ``generated`` tokens are drawn.
    ``judged`` responses of ``judged_tokens`` are scored by a PRM, after ``judged_prompts`` prompts. ``checked``
    responses are graded. ``examples`` with ``trained`` response tokens are trained on, each epoch counted.
    ``rows`` and ``tokens`` are what the step leaves in tables.
    """

    name: str
    stage: Stage
    identity: str
    model: str = "model"
    prm: str | None = None
    adopted: bool = False
    prompts: Range = ZERO
    read: Range = ZERO
    generated: Range = ZERO
    judged_prompts: Range = ZERO
    judged: Range = ZERO
    judged_tokens: Range = ZERO
    checked: Range = ZERO
    examples: Range = ZERO
    trained: Range = ZERO
    optimization: Optimization | None = None
    rows: Range = ZERO
    tokens: Range = ZERO


@dataclass(frozen=True, slots=True, kw_only=True)
class _Made:
    """What later steps read of a step: responses to queries, or examples. ``tokens`` are of one response."""

    queries: Range = ZERO
    samples: int = 1
    responses: Range = ZERO
    tokens: Range = ZERO
    examples: Range = ZERO
    right: str = "right"


@dataclass(slots=True, kw_only=True)
class Workload:
    """Turns steps into work, one after another. ``queries`` are counted by split.

    ``longest`` is the most tokens that a training response may have: answers to benchmarks are taken to be no longer.
    """

    queries: Mapping[str, int]
    numbers: Assumptions
    hinted: str
    response_tokens: Callable[[int], Range]
    models: dict[str, str]
    longest: int
    _made: dict[str, _Made] = field(default_factory=dict)

    def of(self, step: Step, found: Found | None) -> Work:
        """The work of the next step; ``found`` when it is committed. Its successors rest on it."""
        task, identity = step.task, task_hash(step.task)
        if isinstance(task, GenerateTask):
            work, made = self._generate(step.name, identity, task)
        elif isinstance(task, ScoreTask):
            work, made = self._score(step.name, identity, task)
        elif isinstance(task, TrainTask):
            work, made = self._train(step.name, identity, task), _Made()
            self.models[identity] = self.models[task.model.id]
        elif isinstance(task, BenchmarkTask):
            work, made = self._benchmarks(step.name, identity, task), _Made()
        else:
            work, made = self._evaluate(step.name, identity, task), _Made()
        if found is not None:
            made = _as_found(made, found)
            work = Work(
                name=work.name, stage=work.stage, identity=identity, adopted=True, rows=work.rows
            )
        self._made[identity] = made
        return work

    def _generate(self, name: str, identity: str, task: GenerateTask) -> tuple[Work, _Made]:
        n = task.sampling.n
        tokens = self.response_tokens(task.sampling.max_new_tokens)
        read = ZERO
        if isinstance(task.source, Queries):
            prompts = Range.of(self._count(task.source.slice))
            queries = prompts
        else:
            pairs = self._made[task.source.responses.id]
            steps = self.numbers["steps"]
            prompts = pairs.examples * Range(max(0.0, steps.low - 1), max(0.0, steps.high - 1))
            queries = prompts
            # On average a prefix is half of its response, and its completion the other half.
            tokens = pairs.tokens * 0.5
            read = prompts * tokens
        responses = prompts * n
        work = Work(
            name=name,
            stage="generate",
            identity=identity,
            model=self.models[task.model.id],
            prompts=prompts,
            read=read,
            generated=responses * tokens,
            rows=responses,
            tokens=responses * tokens,
        )
        right = "hinted_right" if task.prompt.template == self.hinted else "right"
        made = _Made(queries=queries, samples=n, responses=responses, tokens=tokens, right=right)
        return work, made

    def _score(self, name: str, identity: str, task: ScoreTask) -> tuple[Work, _Made]:
        read = self._made[task.responses.id]
        kept = self._kept(task.action, read)
        judged = judged_prompts = ZERO
        if task.prm:
            asked = Range.of(1.0) if task.labels == "vote" else self.numbers[read.right]
            judged = read.responses * asked * self.numbers["distinct"]
            judged_prompts = read.queries.least(judged)
        work = Work(
            name=name,
            stage="score",
            identity=identity,
            prm=self.models[task.prm.id] if task.prm else None,
            judged_prompts=judged_prompts,
            judged=judged,
            judged_tokens=judged * read.tokens,
            checked=read.responses,
            rows=read.responses + kept,
            tokens=(read.responses + kept) * read.tokens,
        )
        tokens = (
            self._made[task.action.pairs.id].tokens
            if isinstance(task.action, Label)
            else read.tokens
        )
        return work, _Made(queries=read.queries, tokens=tokens, examples=kept)

    def _kept(self, action: Select | Pairs | Label, read: _Made) -> Range:
        if isinstance(action, Label):
            return self._made[action.pairs.id].examples * (1 - action.held_out)
        if isinstance(action, Pairs):
            most = (read.queries * min(action.per_query, read.samples)).least(action.limit)
            return most * self.numbers["pairs_found"]
        right = read.responses * self.numbers[read.right]
        if action.deduplicate or action.min_steps > 1:
            right = right * self.numbers["usable"]
        needs = find_rule(action.rule).needs
        if "alpha" in needs:
            right = right * self.numbers["threshold_kept"]
        caps = [action.per_query, action.k if "k" in needs else None]
        for cap in caps:
            if cap is not None:
                right = right.least(read.queries * self.numbers["solved"] * cap)
        return right if action.limit is None else right.least(action.limit)

    def _train(self, name: str, identity: str, task: TrainTask) -> Work:
        if isinstance(task.examples, AnswerExamples):
            kept = Range.of(self._count(task.examples.slice))
            tokens = kept * self.numbers["answer_tokens"]
        else:
            made = self._made[task.examples.score.id]
            kept, tokens = made.examples, made.examples * made.tokens
        if task.also:
            other = self._made[task.also.score.id]
            kept, tokens = kept + other.examples, tokens + other.examples * other.tokens
        epochs = task.optimization.epochs
        return Work(
            name=name,
            stage="train",
            identity=identity,
            model=self.models[task.model.id],
            examples=kept * epochs,
            trained=tokens * epochs,
            optimization=task.optimization,
            rows=kept * epochs,
        )

    def _evaluate(self, name: str, identity: str, task: EvaluateTask) -> Work:
        count = float(self._count(task.slice))
        settings = len(task.temperatures) + bool(task.greedy)
        sampled = Range.of(count * task.samples * len(task.temperatures))
        responses = sampled + (count if task.greedy else 0.0)
        tokens = self.response_tokens(task.max_new_tokens)
        asked = sampled * self.numbers["distinct"] if task.prm else ZERO
        return Work(
            name=name,
            stage="evaluate",
            identity=identity,
            model=self.models[task.model.id],
            prm=self.models[task.prm.id] if task.prm else None,
            prompts=Range.of(count * settings),
            generated=responses * tokens,
            judged_prompts=Range.of(count * len(task.temperatures)) if task.prm else ZERO,
            judged=asked,
            judged_tokens=asked * tokens,
            checked=responses,
            rows=responses,
            tokens=responses * tokens,
        )

    def _benchmarks(self, name: str, identity: str, task: BenchmarkTask) -> Work:
        """One greedy answer to each question of each benchmark."""
        questions = self.numbers["benchmark_questions"] * len(find_benchmarks(task.benchmarks))
        tokens = questions * self.response_tokens(min(task.max_new_tokens, self.longest))
        return Work(
            name=name,
            stage="evaluate",
            identity=identity,
            model=self.models[task.model.id],
            prompts=questions,
            generated=tokens,
            checked=questions,
            rows=questions,
            tokens=tokens,
        )

    def _count(self, part: Slice) -> int:
        return part.count if part.count is not None else self.queries[part.split] - part.start


def base_models(model: Ref, teacher: Ref | None) -> dict[str, str]:
    """Which base each artifact came from, to begin with."""
    return {model.id: "model"} | ({teacher.id: "teacher"} if teacher else {})


def _as_found(made: _Made, found: Found) -> _Made:
    """What a committed step has really made."""
    responses = found.get("responses")
    if "selected" in found:
        return _Made(
            queries=made.queries,
            samples=made.samples,
            tokens=made.tokens,
            examples=Range.of(float(found["selected"])),
        )
    if responses and "tokens" in found:
        return _Made(
            queries=Range.of(responses / made.samples),
            samples=made.samples,
            responses=Range.of(float(responses)),
            tokens=Range.of(found["tokens"] / responses),
            right=made.right,
        )
    return made
