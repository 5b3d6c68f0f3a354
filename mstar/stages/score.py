"""Score: grade responses, ask the PRM about their steps, and keep what training needs.

A shard grades and scores; ``finish_score`` streams over what all shards wrote and applies the task's action, which
needs neither a model nor a GPU.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from mstar.core.pseudo import vote_label
from mstar.core.records import Query, Response, Scored
from mstar.core.seeds import derive_seed
from mstar.core.selection import by_query
from mstar.data.images import decode_image
from mstar.data.splits import ImageCache, lookup
from mstar.stages.actions import ACTIONS
from mstar.stages.context import Context
from mstar.stages.engines import open_scorer
from mstar.stages.grading import Grader, Key, key_of, read_undecided, without, write_undecided
from mstar.stages.inputs import load_split, model_folder, part_files, read_responses, user_turn
from mstar.stages.protocols import Prompted, StepScorer, batches
from mstar.storage.artifacts import ArtifactWriter
from mstar.storage.manifest import Manifest
from mstar.storage.tables import TableWriter, read_tables
from mstar.tasks import Prompt, ScoreTask, Select

RESPONSES_AT_ONCE = 4096


def score_shard(
    task: ScoreTask, context: Context, shard: tuple[int, int], writer: ArtifactWriter
) -> dict[str, Any]:
    """Grade this shard's responses into ``scored.parquet``; with a PRM, score the steps of the right ones.

    A wrong response's reward is 0 whatever the PRM says of it (``R = H(1(correct) * R_p)``), so the PRM is not asked;
    but where labels come from a vote, all responses vote. The grade here is always by the data set's own answer.
    """
    grader, undecided = Grader(task.answers, context.execution), list[Key]()
    with context.timed("load"):
        wanted = {r.query_id for r in _mine(task, context, shard)}
        total = sum(1 for _ in _mine(task, context, shard))
        split = load_split(context, task.data, task.split)
        queries, images = lookup(split, wanted, context.scratch, images=task.prm is not None)
        scorer = None
        if task.prm:
            scorer = open_scorer(
                model_folder(context, task.prm),
                context.execution,
                task.step_separator,
                retokenize=task.retokenize,
            )
    counts = {"responses": 0, "correct": 0, "answered": 0}
    path = context.scratch / "scored.parquet"
    progress = context.track(total, "responses")
    with grader, images, TableWriter(path, Scored) as table:
        for chunk in batches(_mine(task, context, shard), RESPONSES_AT_ONCE):
            with context.timed("grade"):
                scored, left_open = grader.grade(chunk, queries)
                undecided += map(key_of, left_open)
            if scorer:
                with context.timed("score"):
                    scored = score_steps(
                        scored,
                        scorer,
                        queries,
                        images,
                        task.prompt,
                        wrong_too=task.labels == "vote",
                    )
            with context.timed("write"):
                table.write(scored)
            counts["responses"] += len(scored)
            counts["correct"] += sum(item.grade.correct for item in scored)
            counts["answered"] += sum(item.grade.answer is not None for item in scored)
            progress(len(scored))
    writer.add_file("scored.parquet", path, rows=counts["responses"], move=True)
    if grader.may_be_undecided:
        counts["undecided"] = len(undecided)
        write_undecided(undecided, writer)
    return counts


def finish_score(
    task: ScoreTask, context: Context, shards: Sequence[Manifest], writer: ArtifactWriter
) -> dict[str, Any]:
    """Apply the action to all shards' responses, in shard order; what it found."""
    files = [file for shard in shards for file in part_files(context, shard, "scored")]

    def stream() -> Iterator[Scored]:
        return read_tables(files, Scored)

    if task.labels != "vote":
        with context.timed("select"):
            known = stream
            if task.answers.math_verify and not isinstance(task.action, Select):
                # To teach a PRM that these are wrong would be to teach it what nobody knows.
                known = without(read_undecided(shards, context), stream)
            return ACTIONS[task.action.action](task, context, known, writer)
    with context.timed("load"):
        split = load_split(context, task.data, task.split)
        options = {sample.query.id: sample.query.options for sample in split.read()}
    grader = Grader(task.answers, context.execution)
    ballot = Ballot(options, grader)
    with grader, context.timed("select"):
        found = ACTIONS[task.action.action](task, context, lambda: ballot.count(stream()), writer)
    return found | {"pseudo_labels": ballot.results()}


class Ballot:
    """Grades a stream by weighted votes instead of by answers, and counts how the votes went (paper, section 3.4)."""

    def __init__(self, options: Mapping[str, Sequence[str]], grader: Grader) -> None:
        self._options = options
        self._grader = grader
        self.labeled = self.true = self.agreeing = self.conflicting = 0

    def count(self, scored: Iterable[Scored]) -> Iterator[Scored]:
        """The same responses in the same order, right where they agree with their query's winner."""
        for group in by_query(scored):
            options = self._options[group[0].response.query_id]
            voted = vote_label(group, options, self._grader.namer(group, options))
            agreeing = sum(item.grade.correct for item in voted.responses)
            if voted.label is not None:
                self.labeled += 1
                self.true += voted.true
                self.agreeing += agreeing
                self.conflicting += len(group) - agreeing
            yield from voted.responses

    def results(self) -> dict[str, int]:
        """Queries with a pseudo-label, of these with the true one, and the responses that agree with it or not.

        Where answers can be undecided, also between how many of them that was so: they count as different.
        """
        return {
            "labeled": self.labeled,
            "true": self.true,
            "agreeing": self.agreeing,
            "conflicting": self.conflicting,
        } | ({"undecided": self._grader.undecided} if self._grader.may_be_undecided else {})


def score_steps(
    scored: Sequence[Scored],
    scorer: StepScorer,
    queries: dict[str, Query],
    images: ImageCache,
    prompt: Prompt,
    *,
    wrong_too: bool = False,
) -> list[Scored]:
    """The same items in the same order, right ones (all, with ``wrong_too``) with the PRM's step scores.

    A response without any token has no step; it is left without scores. Equal responses to a query, of which a low
    temperature draws many, are scored once.
    """
    wanted = [s for s in scored if s.response.tokens and (s.grade.correct or wrong_too)]
    distinct = {_content(item): item.response for item in wanted}
    prompts: dict[str, Prompted] = {}
    for query_id in dict.fromkeys(response.query_id for response in distinct.values()):
        text = user_turn(prompt, queries[query_id])
        picture = decode_image(images[query_id], query_id)
        prompts[query_id] = Prompted(query_id=query_id, text=text, image=picture)
    responses = list(distinct.values())
    asked = [prompts[response.query_id] for response in responses]
    judged = dict(zip(distinct, scorer.score(asked, responses, lambda _: None), strict=True))
    chosen = {id(item) for item in wanted}
    return [
        replace(item, step_scores=judged[_content(item)].scores) if id(item) in chosen else item
        for item in scored
    ]


def _content(item: Scored) -> tuple[str, tuple[int, ...]]:
    return item.response.query_id, item.response.tokens


def _mine(task: ScoreTask, context: Context, shard: tuple[int, int]) -> Iterator[Response]:
    """The responses of one shard: whole queries, spread by a hash so that shards need not know each other."""
    index, count = shard
    for response in read_responses(context, task.responses):
        if count == 1 or derive_seed("shard", response.query_id) % count == index:
            yield response
