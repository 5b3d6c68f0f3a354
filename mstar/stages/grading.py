"""How stages grade: typed checks alone, or with math-verify behind them, as the task says."""

import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from types import TracebackType
from typing import Self

from mstar.core.answers import canonical_answer, grade
from mstar.core.records import Query, Response, Scored
from mstar.core.voting import Namer
from mstar.equivalence.checking import Checker
from mstar.equivalence.pool import Pool, require_math_verify
from mstar.execution import Execution
from mstar.stages.context import Context
from mstar.storage.artifacts import ArtifactWriter
from mstar.storage.manifest import Manifest
from mstar.storage.reading import open_part
from mstar.tasks import AnswerCheck

UNDECIDED = "undecided.json"

Key = tuple[str, int, str]
"""A response: its query, its sample, and its prefix."""

WORKERS = 4
"""Processes that check answers when ``execution.threads`` names no number: each needs 100 MiB."""


class Grader:
    """Grades responses by ``answers``; a context manager that ends what it started.

    Raises ``MissingDependency`` at once when math-verify is wanted and not installed.
    """

    def __init__(self, answers: AnswerCheck, execution: Execution) -> None:
        self._answers = answers
        self._pool: Pool | None = None
        self._checker: Checker | None = None
        if answers.math_verify:
            require_math_verify()
            workers = execution.threads or min(WORKERS, os.cpu_count() or 1)
            self._pool = Pool(timeout=answers.timeout, workers=workers)
            self._checker = Checker(
                self._pool,
                relative_tolerance=answers.relative_tolerance,
                decimals=answers.decimals,
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._pool:
            self._pool.close()

    @property
    def may_be_undecided(self) -> bool:
        """Whether there can be responses that are neither right nor wrong."""
        return self._checker is not None

    @property
    def undecided(self) -> int:
        """Pairs of answers that were asked about and not decided in time, so far."""
        return self._checker.undecided if self._checker else 0

    def grade(
        self, responses: Iterable[Response], queries: dict[str, Query]
    ) -> tuple[list[Scored], list[Scored]]:
        """All responses graded, in their order; and those of them that were undecided, which are not right."""
        answers, listed = self._answers, list(responses)
        if self._checker is None:
            tolerance, decimals = answers.relative_tolerance, answers.decimals
            return [
                Scored(response=r, grade=grade(r.text, queries[r.query_id], tolerance, decimals))
                for r in listed
            ], []
        found = self._checker.grade_all((r.text, queries[r.query_id]) for r in listed)
        scored = [Scored(response=r, grade=g.grade) for r, g in zip(listed, found, strict=True)]
        return scored, [item for item, g in zip(scored, found, strict=True) if g.undecided]

    def namer(self, group: Sequence[Scored], options: Sequence[str]) -> Namer:
        """What the votes of one query's responses are counted under."""
        if self._checker is None:
            return canonical_answer
        given = (item.grade.answer for item in group)
        return self._checker.namer((answer for answer in given if answer is not None), options)


def key_of(item: Scored) -> Key:
    """What tells a response from all others of its step."""
    return item.response.query_id, item.response.sample, item.response.prefix


def write_undecided(keys: Sequence[Key], writer: ArtifactWriter) -> None:
    """Name a shard's undecided responses in a part of their own: the table of grades knows right and wrong alone."""
    writer.add_bytes(UNDECIDED, json.dumps(keys).encode(), rows=len(keys))


def read_undecided(shards: Sequence[Manifest], context: Context) -> set[Key]:
    """The undecided responses of all shards."""
    found: set[Key] = set()
    for shard in shards:
        path = open_part(context.store, shard.part(UNDECIDED), context.scratch)
        found.update(
            (query, sample, prefix) for query, sample, prefix in json.loads(path.read_bytes())
        )
    return found


def without(
    keys: set[Key], stream: Callable[[], Iterator[Scored]]
) -> Callable[[], Iterator[Scored]]:
    """The same stream but for the responses named by ``keys``."""
    return lambda: (item for item in stream() if key_of(item) not in keys)
