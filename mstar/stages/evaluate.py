"""Evaluate: greedy accuracy, Pass@K, Reward-Pass@2 over temperatures, and the PRM as a verifier (section 4.1)."""

from collections.abc import Iterable, Sequence
from contextlib import closing
from dataclasses import asdict
from typing import Any

from mstar.core.metrics import mean, mean_pass_at_k, reward_pass_at_k, wilson_interval
from mstar.core.records import Query, Scored
from mstar.core.rules.threshold import AlphaTable
from mstar.core.selection import by_query
from mstar.core.voting import best_of_n, majority_vote, weighted_vote
from mstar.data.splits import ImageCache, Sample
from mstar.stages.context import Context
from mstar.stages.engines import open_sampler, open_scorer
from mstar.stages.grading import Grader
from mstar.stages.inputs import load_split, model_folder, prompted, sample_seeds, sliced
from mstar.stages.protocols import Progress, Sampler, StepScorer, batches
from mstar.stages.score import score_steps
from mstar.storage.artifacts import ArtifactWriter
from mstar.storage.tables import TableWriter
from mstar.tasks import EvaluateTask, Sampling

QUERIES_AT_ONCE = 1024
REWARD_PASS = 2
"""The paper's Reward-Pass@2: a right response among the PRM's two best."""


def evaluate_whole(task: EvaluateTask, context: Context, writer: ArtifactWriter) -> dict[str, Any]:
    """Measure a policy; every graded response goes to ``scored.parquet`` (greedy ones at temperature 0)."""
    grader = Grader(task.answers, context.execution)
    with context.timed("load"):
        split = load_split(context, task.data, task.slice.split)
        rows = sliced(split, task.slice)
        policy = model_folder(context, task.model)
        sampler = open_sampler(policy, context.execution, alone=task.prm is None)
        scorer = None
        if task.prm:
            prm = model_folder(context, task.prm)
            scorer = open_scorer(
                prm, context.execution, task.step_separator, retokenize=task.retokenize
            )
    settings = _settings(task)
    progress = context.track(len(rows) * len(settings), "prompts")
    run = _Run(task, context, sampler, scorer, progress, grader)
    measures = {sampling.temperature: _Measure(task, sampling, grader) for sampling in settings}
    path = context.scratch / "scored.parquet"
    queries = 0
    with closing(sampler), grader, TableWriter(path, Scored) as table:
        for chunk in batches(split.read(rows), QUERIES_AT_ONCE):
            known, images = lookup_chunk(chunk, context)
            queries += len(chunk)
            with images:
                for sampling in settings:
                    scored, undecided = run.measure(chunk, known, images, sampling)
                    measures[sampling.temperature].add(scored, known)
                    measures[sampling.temperature].undecided += undecided
                    table.write(scored)
        count = table.rows
    writer.add_file("scored.parquet", path, rows=count, move=True)
    return _results(task, queries, measures.values())


def lookup_chunk(chunk: Sequence[Sample], context: Context) -> tuple[dict[str, Query], ImageCache]:
    """Queries and images of one chunk of samples."""
    return {s.query.id: s.query for s in chunk}, ImageCache(chunk, context.scratch)


def _settings(task: EvaluateTask) -> list[Sampling]:
    limit = task.max_new_tokens
    greedy = [Sampling(n=1, temperature=0, max_new_tokens=limit)] if task.greedy else []
    return greedy + [
        Sampling(n=task.samples, temperature=temperature, max_new_tokens=limit)
        for temperature in task.temperatures
    ]


class _Run:
    """Samples, grades and scores one chunk of queries at one setting."""

    def __init__(
        self,
        task: EvaluateTask,
        context: Context,
        sampler: Sampler,
        scorer: StepScorer | None,
        progress: Progress,
        grader: Grader,
    ) -> None:
        self.task = task
        self.context = context
        self.sampler = sampler
        self.scorer = scorer
        self.progress = progress
        self.grader = grader

    def measure(
        self,
        chunk: Sequence[Sample],
        queries: dict[str, Query],
        images: ImageCache,
        sampling: Sampling,
    ) -> tuple[list[Scored], int]:
        """The graded responses, and how many of them nobody could grade in time."""
        task = self.task
        # The same seeds at every temperature: what differs between two temperatures is then the temperature.
        prompts = [
            prompted(task.prompt, s, sample_seeds(task.seed, s.query.id, "", sampling.n))
            for s in chunk
        ]
        with self.context.timed("sample"):
            found = self.sampler.sample(prompts, sampling, task.model.digest, self.progress)
        with self.context.timed("grade"):
            scored, undecided = self.grader.grade((r for some in found for r in some), queries)
        if self.scorer and sampling.temperature > 0:
            with self.context.timed("score"):
                scored = score_steps(
                    scored, self.scorer, queries, images, task.prompt, wrong_too=True
                )
        return scored, len(undecided)


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
