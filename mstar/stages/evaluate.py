"""Evaluate: greedy accuracy, Pass@K, Reward-Pass@2 over temperatures, and the PRM as a verifier (section 4.1)."""

from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, replace
from itertools import islice
from typing import Any

from mstar.core.metrics import mean, mean_pass_at_k, reward_pass_at_k, wilson_interval
from mstar.core.records import Query, Scored
from mstar.core.rules.threshold import AlphaTable
from mstar.core.selection import by_query
from mstar.core.voting import best_of_n, majority_vote, weighted_vote
from mstar.data.splits import ImageCache, Sample, Split
from mstar.stages.context import Context
from mstar.stages.engines import open_sampler, open_scorer
from mstar.stages.grading import Grader
from mstar.stages.inputs import load_split, model_folder, prompted, sample_seeds, sliced
from mstar.stages.protocols import Prompted, batches
from mstar.stages.score import score_steps
from mstar.storage.artifacts import ArtifactWriter
from mstar.storage.tables import TableWriter, read_tables
from mstar.tasks import EvaluateTask, Sampling

QUERIES_AT_ONCE = 1024
REWARD_PASS = 2
"""The paper's Reward-Pass@2: a right response among the PRM's two best."""

Graded = tuple[list[Scored], int]
"""The responses to some queries at one setting, and how many of them nobody could grade in time."""


def evaluate_whole(task: EvaluateTask, context: Context, writer: ArtifactWriter) -> dict[str, Any]:
    """Measure a policy; every graded response goes to ``scored.parquet`` (greedy ones at temperature 0).

    With a PRM all responses are sampled first: the policy's engine is stopped, and its memory free, before the PRM is
    loaded.
    """
    grader = Grader(task.answers, context.execution)
    with context.timed("load"):
        split = load_split(context, task.data, task.slice.split)
        rows = sliced(split, task.slice)
    measures = [_Measure(task, sampling, grader) for sampling in _settings(task)]
    path = context.scratch / "scored.parquet"
    graded = context.scratch / "graded.parquet" if task.prm else path
    with grader:
        with (
            closing(_sampled(task, context, split, rows, grader)) as sampled,
            TableWriter(graded, Scored) as table,
        ):
            for chunk, found in sampled:
                known = {sample.query.id: sample.query for sample in chunk}
                for measure, (scored, undecided) in zip(measures, found, strict=True):
                    measure.undecided += undecided
                    if not task.prm:
                        measure.add(scored, known)
                    table.write(scored)
            count = table.rows
        if task.prm:
            stream = read_tables([graded], Scored)
            with TableWriter(path, Scored) as table:
                for measure, scored, known in _judged(task, context, split, rows, measures, stream):
                    measure.add(scored, known)
                    table.write(scored)
            graded.unlink()
    writer.add_file("scored.parquet", path, rows=count, move=True)
    return _results(task, len(rows), measures)


def _settings(task: EvaluateTask) -> list[Sampling]:
    limit = task.max_new_tokens
    greedy = [Sampling(n=1, temperature=0, max_new_tokens=limit)] if task.greedy else []
    return greedy + [
        Sampling(n=task.samples, temperature=temperature, max_new_tokens=limit)
        for temperature in task.temperatures
    ]


def _sampled(
    task: EvaluateTask, context: Context, split: Split, rows: Sequence[int], grader: Grader
) -> Generator[tuple[list[Sample], list[Graded]], None, None]:
    """Chunks of queries, with the graded responses at each setting; the sampler is closed after the last."""
    settings = _settings(task)
    with context.timed("load"):
        sampler = open_sampler(model_folder(context, task.model), context.execution)
    progress = context.track(len(rows) * len(settings), "prompts")
    with closing(sampler):
        with context.timed("sample"):
            sampler.prepare(_prompts(task, split.read(rows), 1), task.max_new_tokens)
        for chunk in batches(split.read(rows), QUERIES_AT_ONCE):
            prompts = list(_prompts(task, chunk, task.samples))
            asks = [([_first(prompt, s.n) for prompt in prompts], s) for s in settings]
            with context.timed("sample"):
                found = sampler.sample_each(asks, task.model.digest, progress)
            known = {sample.query.id: sample.query for sample in chunk}
            with context.timed("grade"):
                graded = [
                    grader.grade((r for responses in answers for r in responses), known)
                    for answers in found
                ]
            yield chunk, [(scored, len(undecided)) for scored, undecided in graded]


def _prompts(task: EvaluateTask, samples: Iterable[Sample], count: int) -> Iterator[Prompted]:
    """Samples as prompts, with the same seeds at every temperature: what differs between two is the temperature."""
    for sample in samples:
        yield prompted(task.prompt, sample, sample_seeds(task.seed, sample.query.id, "", count))


def _first(prompt: Prompted, count: int) -> Prompted:
    return replace(prompt, seeds=prompt.seeds[:count])


def _judged(
    task: EvaluateTask,
    context: Context,
    split: Split,
    rows: Sequence[int],
    measures: Sequence["_Measure"],
    stream: Iterator[Scored],
) -> Iterator[tuple["_Measure", list[Scored], dict[str, Query]]]:
    """What was sampled, in the order in which it was; at temperatures above 0 with the PRM's step scores."""
    assert task.prm is not None
    with context.timed("load"):
        prm = model_folder(context, task.prm)
        scorer = open_scorer(
            prm, context.execution, task.step_separator, retokenize=task.retokenize
        )
    judged = sum(measure.sampling.temperature > 0 for measure in measures)
    progress = context.track(len(rows) * judged, "prompts scored")
    for chunk in batches(split.read(rows), QUERIES_AT_ONCE):
        known = {sample.query.id: sample.query for sample in chunk}
        with ImageCache(chunk, context.scratch) as images:
            for measure in measures:
                scored = list(islice(stream, len(chunk) * measure.sampling.n))
                if measure.sampling.temperature > 0:
                    with context.timed("score"):
                        scored = score_steps(
                            scored, scorer, known, images, task.prompt, wrong_too=True
                        )
                    progress(len(chunk))
                yield measure, scored, known


class _Measure:
    """Running figures of one temperature; memory holds a few numbers a query."""

    def __init__(self, task: EvaluateTask, sampling: Sampling, grader: Grader) -> None:
        self.task = task
        self.sampling = sampling
        self.grader = grader
        self.counts: list[tuple[int, int]] = []
        self.by_kind: dict[str, list[bool]] = {}
        self.reward_pass: list[bool] = []
        self.tokens = self.answered = self.responses = self.undecided = 0
        sizes = [2**i for i in range(sampling.n.bit_length()) if 2**i <= sampling.n]
        self.votes: dict[int, dict[str, int]] = {
            n: {"best_of_n": 0, "weighted_vote": 0, "majority_vote": 0} for n in sizes
        }
        self.alphas = AlphaTable()

    def add(self, scored: Iterable[Scored], queries: dict[str, Query]) -> None:
        for group in by_query(scored):
            query = queries[group[0].response.query_id]
            right = sum(item.grade.correct for item in group)
            self.counts.append((len(group), right))
            self.by_kind.setdefault(query.kind.value, []).append(bool(right))
            self.tokens += sum(item.response.token_count for item in group)
            self.answered += sum(item.grade.answer is not None for item in group)
            self.responses += len(group)
            if self.task.prm and self.sampling.temperature > 0:
                judged = [item for item in group if item.step_scores]
                self.reward_pass.append(bool(judged) and reward_pass_at_k(judged, REWARD_PASS))
                if self.task.verify:
                    self.alphas.add(judged)
                    self._vote(judged, query)

    def _vote(self, judged: Sequence[Scored], query: Query) -> None:
        options, name = query.options, self.grader.namer(judged, query.options)
        for size, tally in self.votes.items():
            first = [item for item in judged if item.response.sample < size]
            if first:
                tally["best_of_n"] += best_of_n(first).grade.correct
                tally["weighted_vote"] += weighted_vote(first, options, name).grade.correct
                tally["majority_vote"] += majority_vote(first, options, name).grade.correct

    def greedy(self) -> dict[str, Any]:
        correct = sum(right for _, right in self.counts)
        low, high = wilson_interval(correct, len(self.counts))
        kinds = {
            kind: mean([float(right) for right in found]) for kind, found in self.by_kind.items()
        }
        return {
            "correct": correct,
            "accuracy": correct / len(self.counts),
            "low": low,
            "high": high,
            "tokens": self.tokens,
            "answered": self.answered,
            "by_kind": dict(sorted(kinds.items())),
        } | self._undecided()

    def sampled(self, greedy: float | None) -> dict[str, Any]:
        usable = [k for k in self.task.pass_at if k <= self.sampling.n]
        passes = {str(k): mean_pass_at_k(self.counts, k) for k in usable}
        best = passes[str(max(usable))] if usable else None
        return {
            "temperature": self.sampling.temperature,
            "accuracy": sum(right for _, right in self.counts) / self.responses,
            "pass_at": passes,
            "pass_minus_greedy": None if best is None or greedy is None else best - greedy,
            "reward_pass_at_2": mean([float(hit) for hit in self.reward_pass])
            if self.reward_pass
            else None,
            "tokens": self.tokens,
            "answered": self.answered,
        } | self._undecided()

    def _undecided(self) -> dict[str, int]:
        return {"undecided": self.undecided} if self.grader.may_be_undecided else {}

    def verification(self) -> dict[str, dict[str, float]]:
        total = len(self.counts)
        return {
            str(size): {name: correct / total for name, correct in tally.items()}
            for size, tally in self.votes.items()
        }


def _results(task: EvaluateTask, queries: int, measures: Iterable[_Measure]) -> dict[str, Any]:
    results: dict[str, Any] = {
        "queries": queries,
        "samples": task.samples,
        "greedy": None,
        "sampled": [],
    }
    accuracy = None
    for measure in measures:
        if measure.sampling.temperature == 0:
            results["greedy"] = measure.greedy()
            accuracy = results["greedy"]["accuracy"]
        else:
            results["sampled"].append(measure.sampled(accuracy))
            if task.verify and task.prm:
                results["verification"] = measure.verification()
                results["alphas"] = [asdict(row) for row in measure.alphas.rows()]
    return results
