"""The responses that an analysis is about, read from the store query by query."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mstar.analysis.preferring import Rater
from mstar.core.records import Query, Scored
from mstar.data.splits import Sample, parquet
from mstar.history import Entry, Run
from mstar.report.collect import read_task
from mstar.report.responses import read_samples, table_files
from mstar.storage.manifest import Manifest, Ref
from mstar.storage.reading import resolve
from mstar.storage.store import Store
from mstar.storage.tables import group_by_query, read_tables
from mstar.tasks import GenerateTask, ScoreTask

ROLLOUT_QUERIES = 2000
"""Of an iteration's rollouts, the first so many queries: the intervals are narrow by then."""

SCORE = re.compile(r"iter-(\d+)/score")

Generator = Callable[[Sample], Rater | None]
"""Who wrote the questions: from one with its picture, what it knows of responses; None when it is not its own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A query, and what its generator knows of responses to it, if it is known."""

    query: Query
    rate: Rater | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Rollout:
    """One iteration's scored rollouts."""

    iteration: int
    temperature: float
    task: ScoreTask
    manifest: Manifest


def rollouts(store: Store, history: Sequence[Entry]) -> Iterator[Rollout]:
    """The score steps of a run's iterations in which the PRM was asked, on queries with true answers."""
    temperatures = {}
    for entry in history:
        task = read_task(store, entry.ref.id)
        if isinstance(task, GenerateTask):
            temperatures[entry.ref.id] = task.sampling.temperature
        match = SCORE.fullmatch(entry.name)
        if match and isinstance(task, ScoreTask) and task.prm:
            yield Rollout(
                iteration=int(match[1]),
                temperature=temperatures.get(task.responses.id, 1.0),
                task=task,
                manifest=resolve(store, entry.ref),
            )


def groups(files: Sequence[Path], limit: int | None = None) -> Iterator[list[Scored]]:
    """The responses of one query after the other, of the first ``limit`` queries."""
    for count, group in enumerate(group_by_query(read_tables(files, Scored))):
        if count == limit:
            return
        yield group


def scored_files(store: Store, manifest: Manifest, scratch: Path) -> list[Path]:
    """A step's tables of scored responses, checked."""
    return table_files(store, manifest, "scored", scratch)


def query_ids(files: Sequence[Path], limit: int | None = None) -> set[str]:
    """The ids of the first ``limit`` queries in tables of scored responses; nothing else is read of them."""
    found: dict[str, None] = {}
    for file in files:
        for query in parquet(file).read(columns=["query_id"]).column("query_id").to_pylist():
            if limit is not None and len(found) >= limit and query not in found:
                return set(found)
            found[query] = None
    return set(found)


def questions(
    store: Store,
    run: Run,
    split: str,
    wanted: set[str],
    scratch: Path,
    generator: Generator | None,
) -> Mapping[str, Asked]:
    """The queries called ``wanted``, without their images: what a generator wants of those, it takes now."""
    data: Ref = run.inputs.data
    return {
        sample.query.id: Asked(query=sample.query, rate=generator(sample) if generator else None)
        for sample in read_samples(store, data, split, wanted, scratch)
    }
