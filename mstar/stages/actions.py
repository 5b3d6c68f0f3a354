"""What a score step does with scored responses: select for training, pair for the PRM, or label the PRM's steps.

Each action streams, writes ``examples.parquet`` and returns what it found. Add one here and in ``tasks.ScoreTask``.
"""

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from mstar.core.metrics import mean
from mstar.core.prm_data import balance, candidate_pairs, held_out, step_labels
from mstar.core.records import Example, Kind, Scored
from mstar.core.reward import process_reward
from mstar.core.selection import SelectionRule, by_query, select
from mstar.core.steps import split_steps
from mstar.errors import DataError
from mstar.stages.context import Context
from mstar.stages.inputs import load_split, part_files
from mstar.storage.artifacts import ArtifactWriter
from mstar.storage.reading import resolve
from mstar.storage.tables import TableWriter, read_tables
from mstar.tasks import Label, Pairs, ScoreTask, Select

Stream = Callable[[], Iterator[Scored]]
Action = Callable[[ScoreTask, Context, Stream, ArtifactWriter], dict[str, Any]]


def select_examples(
    task: ScoreTask, context: Context, stream: Stream, writer: ArtifactWriter
) -> dict[str, Any]:
    """Keep what the rule keeps; the counts that say whether evolving still has something to learn from."""
    assert isinstance(task.action, Select)
    rule = SelectionRule(**task.action.model_dump(exclude={"action"}))
    tally = _Tally(task.step_separator)
    kept = select(tally.watch(stream()), rule, seed=task.seed, separator=task.step_separator)

    def examples() -> Iterator[Example]:
        for item in kept:
            tally.keep(item)
            yield example_of(item)

    count = _write(examples(), context.scratch / "examples.parquet", writer, "examples.parquet")
    return {"selected": count} | tally.results()


def pair_examples(
    task: ScoreTask, context: Context, stream: Stream, writer: ArtifactWriter
) -> dict[str, Any]:
    """The PRM's responses: de-duplicated, few a question, balanced over right, wrong and the kinds of questions."""
    action = task.action
    assert isinstance(action, Pairs)
    kinds = _kinds(task, context)
    offered = {True: 0, False: 0}

    def candidates() -> Iterator[tuple[Scored, Kind]]:
        for group in by_query(stream()):
            # A response of no tokens has no step to judge.
            whole = [item for item in group if item.response.tokens]
            for item in candidate_pairs(whole, per_query=action.per_query, seed=task.seed):
                offered[item.grade.correct] += 1
                yield item, kinds[item.response.query_id]

    chosen = balance(candidates(), limit=action.limit, seed=task.seed)
    if not chosen:
        raise DataError(
            f"no balanced pairs for the PRM: {offered[True]} right and {offered[False]} wrong responses were offered, "
            "and both are needed; sample more queries or responses (prm.queries, prm.rollout)"
        )
    examples = (example_of(item, reward=float(item.grade.correct)) for item in chosen)
    count = _write(examples, context.scratch / "examples.parquet", writer, "examples.parquet")
    right = sum(item.grade.correct for item in chosen)
    return {
        "selected": count,
        "right": right,
        "wrong": count - right,
        "offered": sum(offered.values()),
    }


def label_examples(
    task: ScoreTask, context: Context, stream: Stream, writer: ArtifactWriter
) -> dict[str, Any]:
    """Label each step of the paired responses with the share of its completions that are right (section 3.3)."""
    action = task.action
    assert isinstance(action, Label)
    counts: dict[tuple[str, int], dict[int, tuple[int, int]]] = {}
    for item in stream():
        sample, _, end = item.response.prefix.partition("/")
        steps = counts.setdefault((item.response.query_id, int(sample)), {})
        right, drawn = steps.get(int(end), (0, 0))
        steps[int(end)] = (right + item.grade.correct, drawn + 1)
    pairs = part_files(context, resolve(context.store, action.pairs), "examples")
    labelled = [
        _labelled(pair, counts.get((pair.query_id, pair.sample), {}))
        for pair in read_tables(pairs, Example)
    ]

    def share(*, kept: bool) -> Iterator[Example]:
        for example in labelled:
            if held_out(example.query_id, seed=task.seed, share=action.held_out) is not kept:
                yield example

    scratch = context.scratch
    train = _write(share(kept=True), scratch / "examples.parquet", writer, "examples.parquet")
    held = _write(share(kept=False), scratch / "held_out.parquet", writer, "held_out.parquet")
    values = [label for example in labelled for label in example.labels]
    return {"selected": train, "held_out": held, "steps": len(values), "mean_label": mean(values)}


ACTIONS: dict[str, Action] = {
    "select": select_examples,
    "pairs": pair_examples,
    "label": label_examples,
}


def example_of(item: Scored, *, reward: float | None = None) -> Example:
    """A scored response as a training example, with where it came from."""
    response = item.response
    if reward is None and item.step_scores:
        reward = process_reward(item.step_scores)
    return Example(
        query_id=response.query_id,
        sample=response.sample,
        text=response.text,
        tokens=response.tokens,
        finish=response.finish,
        policy=response.policy,
        seed=response.seed,
        reward=reward,
    )


def _labelled(pair: Example, steps: dict[int, tuple[int, int]]) -> Example:
    ends = sorted(steps)
    labels = step_labels([steps[end] for end in ends], final_correct=pair.reward == 1.0)
    return Example(
        query_id=pair.query_id,
        sample=pair.sample,
        text=pair.text,
        tokens=pair.tokens,
        finish=pair.finish,
        policy=pair.policy,
        seed=pair.seed,
        reward=pair.reward,
        step_ends=(*ends, len(pair.tokens)),
        labels=labels,
    )


def _write(examples: Iterable[Example], path: Path, writer: ArtifactWriter, name: str) -> int:
    with TableWriter(path, Example) as table:
        table.write(examples)
        count = table.rows
    writer.add_file(name, path, rows=count, move=True)
    return count


def _kinds(task: ScoreTask, context: Context) -> dict[str, Kind]:
    split = load_split(context, task.data, task.split)
    return {sample.query.id: sample.query.kind for sample in split.read()}


class _Tally:
    """Counts over a stream that is read once: what there was, and what was kept of it."""

    def __init__(self, separator: str) -> None:
        self.separator = separator
        self.queries = self.solved = self.responses = self.correct = self.answered = 0
        self.steps = {True: 0, False: 0}
        self.rewards: dict[bool, float] = {True: 0.0, False: 0.0}
        self.rewarded = {True: 0, False: 0}
        self.kept_queries: set[str] = set()
        self.kept = 0

    def watch(self, scored: Iterable[Scored]) -> Iterator[Scored]:
        for group in by_query(scored):
            right = [item for item in group if item.grade.correct]
            self.queries += 1
            self.solved += bool(right)
            self.responses += len(group)
            self.correct += len(right)
            self.answered += sum(item.grade.answer is not None for item in group)
            for item in right:
                self._count(item, kept=False, sign=1)
            yield from group

    def keep(self, item: Scored) -> None:
        self.kept += 1
        self.kept_queries.add(item.response.query_id)
        self._count(item, kept=False, sign=-1)
        self._count(item, kept=True, sign=1)

    def _count(self, item: Scored, *, kept: bool, sign: int) -> None:
        self.steps[kept] += sign * len(split_steps(item.response.text, self.separator))
        if item.step_scores:
            self.rewards[kept] += sign * process_reward(item.step_scores)
            self.rewarded[kept] += sign

    def results(self) -> dict[str, Any]:
        """Steps and rewards of what was kept against the other right responses (the paper's figure 2)."""
        others = self.correct - self.kept

        def ratio(total: float, count: int) -> float | None:
            return round(total / count, 6) if count > 0 else None

        return {
            "queries": self.queries,
            "solved": self.solved,
            "responses": self.responses,
            "correct": self.correct,
            "answered": self.answered,
            "selected_queries": len(self.kept_queries),
            "steps_selected": ratio(self.steps[True], self.kept),
            "steps_other": ratio(self.steps[False], others),
            "reward_selected": ratio(self.rewards[True], self.rewarded[True]),
            "reward_other": ratio(self.rewards[False], self.rewarded[False]),
        }
