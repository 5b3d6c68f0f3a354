"""A few queries of each iteration with everything sampled for them: what the browser of responses shows.

The same queries are drawn whatever the run and the day, so two runs over one slice show the same ones. Tables are
streamed; memory holds the drawn queries only.
"""

import base64
import io
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory

from mstar.core.records import Example, Finish, Query, Scored
from mstar.core.seeds import derive_seed
from mstar.core.steps import split_steps
from mstar.data.images import decode_image, opened
from mstar.data.splits import Sample, Split, parquet
from mstar.report.views import Iteration, RunView
from mstar.storage.manifest import Manifest, Ref
from mstar.storage.reading import open_part, resolve
from mstar.storage.store import Store
from mstar.storage.tables import group_by_query, read_tables

QUERIES_READ = 4096
"""Queries are drawn from so many of an iteration's first ones: a page about a large run is written as fast."""

KEPT_BYTES = 24_000
"""An image up to this size goes into the page as it is; a larger one is drawn smaller."""

THUMBNAIL = 448
"""The longer side, in pixels, of an image that is drawn smaller."""

BROWSER_FORMATS = frozenset({"PNG", "JPEG", "GIF", "WEBP"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """Equal responses to one query: ``count`` of them, ``selected`` of which went into training.

    ``scores`` holds a number for each step, or nothing when the PRM was not asked.
    """

    steps: tuple[str, ...]
    scores: tuple[float, ...]
    answer: str | None
    correct: bool
    cut: bool
    count: int
    selected: int
    greedy: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """One iteration's drawn queries with their responses. ``source`` is ``training`` or ``validation``.

    ``queries`` is how many there were in all. A group's key is the query's in the album.
    """

    run: str
    iteration: int
    source: str
    temperature: float | None
    queries: int
    groups: tuple[tuple[str, tuple[Shown, ...]], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """A query's image, ready for a page."""

    source: str
    width: int
    height: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Album:
    """All looks, and each query in them once, by data set, split and id."""

    looks: tuple[Look, ...]
    queries: dict[str, tuple[Query, Picture]]


def collect_responses(store: Store, runs: Sequence[RunView], count: int) -> Album:
    """``count`` queries of each iteration's rollout, and half as many of its validation."""
    looks: list[Look] = []
    wanted: dict[tuple[str, str], set[str]] = {}
    data = {run.data.digest: run.data for run in runs}
    with TemporaryDirectory(prefix="mstar-report-") as folder:
        scratch = Path(folder)
        for run in runs:
            splits = {"training": run.spec.data.train, "validation": run.spec.data.validation}
            for look in _looks(store, run, count, scratch):
                place = (run.data.digest, splits[look.source])
                wanted.setdefault(place, set()).update(query for query, _ in look.groups)
                groups = tuple((_key(place, query), shown) for query, shown in look.groups)
                looks.append(replace(look, groups=groups))
        queries = {
            _key((digest, split), sample.query.id): (sample.query, picture_of(sample))
            for (digest, split), ids in wanted.items()
            for sample in read_samples(store, data[digest], split, ids, scratch)
        }
    return Album(looks=tuple(looks), queries=queries)


def _key(place: tuple[str, str], query: str) -> str:
    digest, split = place
    return f"{digest[:8]}/{split}/{query}"


def draw_queries(scored: Iterable[Scored], count: int) -> dict[str, list[Scored]]:
    """All responses of ``count`` queries drawn by their ids alone, of the first ``QUERIES_READ``."""
    kept: dict[str, list[Scored]] = {}
    order: dict[str, int] = {}
    for group in islice(group_by_query(scored), QUERIES_READ):
        query = group[0].response.query_id
        if query not in kept:
            kept[query], order[query] = [], derive_seed("report", query)
        kept[query] += group
        if len(kept) > count:
            last = max(order, key=order.__getitem__)
            del kept[last], order[last]
    return dict(sorted(kept.items()))


def merge(
    responses: Iterable[Scored], chosen: set[tuple[str, int]], separator: str
) -> tuple[Shown, ...]:
    """Equal responses as one; greedy first, then right before wrong, selected before others, frequent before rare."""
    found: dict[tuple[bool, str], Shown] = {}
    for item in responses:
        response = item.response
        greedy = response.temperature == 0
        earlier = found.get((greedy, response.text))
        found[greedy, response.text] = Shown(
            steps=split_steps(response.text, separator),
            scores=item.step_scores,
            answer=item.grade.answer,
            correct=item.grade.correct,
            cut=response.finish is Finish.LENGTH,
            count=1 + (earlier.count if earlier else 0),
            selected=((response.query_id, response.sample) in chosen)
            + (earlier.selected if earlier else 0),
            greedy=greedy,
        )
    return tuple(
        sorted(
            found.values(),
            key=lambda s: (not s.greedy, not s.correct, not s.selected, -s.count, s.steps),
        )
    )


def picture_of(sample: Sample) -> Picture:
    """The image as a data URI: as it is when browsers show it and it is small, else drawn smaller.

    ``DataError`` for one that cannot be read.
    """
    with opened(sample.image, f"query {sample.query.id}") as picture:
        form, (width, height) = picture.format, picture.size
    data, kind = sample.image, (form or "").lower()
    if form not in BROWSER_FORMATS or len(data) > KEPT_BYTES:
        small = decode_image(sample.image, sample.query.id)
        small.thumbnail((THUMBNAIL, THUMBNAIL))
        buffer, (width, height) = io.BytesIO(), small.size
        small.save(buffer, "JPEG", quality=82, optimize=True)
        data, kind = buffer.getvalue(), "jpeg"
    text = base64.b64encode(data).decode()
    return Picture(source=f"data:image/{kind};base64,{text}", width=width, height=height)


def read_samples(
    store: Store, data: Ref, split: str, wanted: set[str], scratch: Path
) -> Iterator[Sample]:
    """The queries called ``wanted`` with their images; only the ids of the others are read."""
    parts = sorted(
        (p for p in resolve(store, data).parts if _is_split(p.name, split)), key=lambda p: p.name
    )
    found = Split(split, tuple(open_part(store, part, scratch) for part in parts))
    rows: list[int] = []
    offset = 0
    for file in found.files:
        ids = parquet(file).read(columns=["id"]).column("id").to_pylist()
        rows += [offset + index for index, query in enumerate(ids) if str(query) in wanted]
        offset += len(ids)
    return found.read(rows)


def _is_split(name: str, split: str) -> bool:
    return name == f"{split}.parquet" or name.startswith(f"{split}-")


def _looks(store: Store, run: RunView, count: int, scratch: Path) -> Iterator[Look]:
    separator = run.spec.prompts.step_separator
    for iteration in run.iterations:
        phase = f"iter-{iteration.index:02d}"
        if score := run.step(f"{phase}/score"):
            manifest = resolve(store, score.ref)
            kept = draw_queries(_scored(store, manifest, scratch), count)
            files = table_files(store, manifest, "examples", scratch)
            chosen = {
                (e.query_id, e.sample) for e in read_tables(files, Example) if e.query_id in kept
            }
            yield Look(
                run=run.name,
                iteration=iteration.index,
                source="training",
                temperature=iteration.temperature,
                queries=iteration.selection.queries if iteration.selection else 0,
                groups=tuple((q, merge(items, chosen, separator)) for q, items in kept.items()),
            )
        if evaluate := run.step(f"{phase}/evaluate"):
            temperature = _shown_temperature(run.iterations, iteration)
            scored = (
                item
                for item in _scored(store, resolve(store, evaluate.ref), scratch)
                if item.response.temperature in {0, temperature}
            )
            kept = draw_queries(scored, max(1, count // 2))
            yield Look(
                run=run.name,
                iteration=iteration.index,
                source="validation",
                temperature=temperature,
                queries=iteration.evaluation.queries if iteration.evaluation else 0,
                groups=tuple((q, merge(items, set(), separator)) for q, items in kept.items()),
            )


def _shown_temperature(iterations: Sequence[Iteration], at: Iteration) -> float | None:
    """Of the temperatures that an iteration was evaluated at, the one nearest to what is sampled at next."""
    if at.evaluation is None:
        return None
    following = (i.temperature for i in iterations if i.index > at.index and i.temperature)
    aim = next(following, None) or at.temperature or 1.0
    nearest = at.evaluation.nearest(aim)
    return nearest.temperature if nearest else None


def _scored(store: Store, manifest: Manifest, scratch: Path) -> Iterator[Scored]:
    return read_tables(table_files(store, manifest, "scored", scratch), Scored)


def table_files(store: Store, manifest: Manifest, stem: str, scratch: Path) -> list[Path]:
    """Local files of all parts ``<stem>.parquet`` and ``<shard>/<stem>.parquet``, in order."""
    wanted = (p for p in manifest.parts if PurePosixPath(p.name).name == f"{stem}.parquet")
    return [open_part(store, part, scratch) for part in sorted(wanted, key=lambda p: p.name)]
