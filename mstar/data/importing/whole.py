"""An import from beginning to end, and how it goes on after it was interrupted.

What is unfinished lies in ``.import`` inside the target folder, and moves out of it when it is whole: a folder with
``import.json`` is a data set, one with ``.import`` is not yet.
"""

import fcntl
import hashlib
import json
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from mstar.data.importing.dividing import divide
from mstar.data.importing.gallery import Gallery, Seen
from mstar.data.importing.pictures import killed, open_pool
from mstar.data.importing.records import SPLITS, Asked, Reason, Report, Row, Skipped, Tally, Tell
from mstar.data.importing.sifting import Problems, Sifted, counted
from mstar.data.importing.wording import KINDS
from mstar.data.importing.writing import Place, Shard, plan_shards, write_shard
from mstar.errors import ConflictError, DataError, StorageError

DONE = "import.json"
PROBLEMS = "import-problems.jsonl"
WORK = ".import"


def import_data(rows: Iterable[Row | Skipped], out: Path, asked: Asked, tell: Tell) -> Report:
    """Write the splits of ``rows`` into ``out``. A bad row is left out, counted and named in ``import-problems.jsonl``.

    An import that was interrupted goes on where it was; one that is whole is not done again. Raises ``ConflictError``
    when ``out`` holds anything else, ``DataError`` when no row can be used or there are too few.
    """
    if (found := finished(out, asked)) is not None:
        return found
    with _work_folder(out) as work:
        sifted = Sifted(work / "rows.jsonl")
        with Problems(work / PROBLEMS) as problems:
            with Gallery(work, asked.workers, tell) as gallery:
                sifted.take(rows, gallery, problems)
                seen = gallery.finish()
            report = Report(read=sifted.read, images=len(seen), resumed=gallery.resumed)
            report.broken = sum(bool(image.problem) for image in seen)
            report.fixed = dict(Counter(what for image in seen for what in image.fixed))
            groups = sifted.settle(seen, problems)
            if not groups:
                raise DataError(_nothing(report, problems))
            splits, spare = divide(groups, asked.shares, asked.seed)
            sifted.leave_over(spare, problems)
        report.dropped, report.examples = dict(problems.counts), problems.examples
        names = (name for name in SPLITS if name in splits)
        report.splits = {name: _tally(splits[name], sifted, seen) for name in names}
        places = _places(seen, gallery)
        planned: list[Shard] = []
        for name in report.splits:
            lines = (
                (sifted.start[row], places[seen[sifted.image[row]].digest]) for row in splits[name]
            )
            planned += plan_shards(work / "shards", sifted.spool, name, lines)
        _write(work / "shards", planned, asked.workers, tell)
        _publish(out, work, planned, asked, report)
    return report


def finished(out: Path, asked: Asked) -> Report | None:
    """The report of the same import when ``out`` holds it already; ``ConflictError`` when it holds another."""
    if not (out / DONE).is_file():
        return None
    stored = json.loads((out / DONE).read_text("utf-8"))
    if stored["asked"] != _plain(asked):
        raise ConflictError(f"{out} holds another import already (see its {DONE}); name another")
    fields = stored["report"]
    fields["splits"] = {name: Tally(**tally) for name, tally in fields["splits"].items()}
    return Report(**fields)


@contextmanager
def _work_folder(out: Path) -> Iterator[Path]:
    """Where an import works, held against others. What lies there of an earlier one is used, whatever it was asked."""
    work = out / WORK
    try:
        work.mkdir(parents=True, exist_ok=True)
        held = (work / "lock").open("w")
    except OSError as error:
        raise StorageError(f"{out} cannot be written: {error}") from None
    with held:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise ConflictError(f"another import writes into {out}; wait for its end") from None
        if not (work / "begun").exists() and any(path.name != WORK for path in out.iterdir()):
            shutil.rmtree(work)
            raise ConflictError(f"{out} is not empty; name a new folder")
        try:
            (work / "begun").touch()
            yield work
        except OSError as error:
            raise StorageError(
                f"the import into {out} stopped: {error}; the same command goes on where it was"
            ) from None


def _plain(asked: Asked) -> dict[str, Any]:
    """What decides the result, as JSON gives it back."""
    facts = {"identity": asked.identity, "shares": asdict(asked.shares), "seed": asked.seed}
    plain: dict[str, Any] = json.loads(json.dumps(facts))
    return plain


def _tally(rows: list[int], sifted: Sifted, seen: list[Seen]) -> Tally:
    return Tally(
        rows=len(rows),
        images=len({seen[sifted.image[row]].digest for row in rows}),
        types=counted(KINDS, (sifted.kind[row] for row in rows)),
        sources=counted(sifted.sources, (sifted.source[row] for row in rows)),
    )


def _places(seen: list[Seen], gallery: Gallery) -> dict[str, Place]:
    """Where each picture is, by digest: in the first of the files that show it."""
    places: dict[str, Place] = {}
    for image, path in zip(seen, gallery.paths, strict=True):
        if not image.problem and image.digest not in places:
            kept = str(gallery.blob) if image.start is not None or path is None else path
            places[image.digest] = Place(path=kept, start=image.start, size=image.size)
    return places


def _write(folder: Path, shards: list[Shard], workers: int, tell: Tell) -> None:
    """Write the files that are not there yet; those of another plan are not there."""
    digest = hashlib.sha256()
    for shard in shards:
        digest.update(repr((shard.target.name, shard.rows, shard.places)).encode())
    plan = folder / "plan"
    if not plan.is_file() or plan.read_text("utf-8") != digest.hexdigest():
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        plan.write_text(digest.hexdigest(), encoding="utf-8")
    total = sum(len(shard.rows) for shard in shards)
    missing = [shard for shard in shards if not shard.target.is_file()]
    done = total - sum(len(shard.rows) for shard in missing)
    for rows in _each(missing, workers):
        done += rows
        tell(done, total, "rows written")


def _each(shards: list[Shard], workers: int) -> Iterator[int]:
    if workers == 1 or len(shards) < 2:
        yield from map(write_shard, shards)
        return
    pool = open_pool(min(workers, len(shards)))
    try:
        yield from pool.map(write_shard, shards)
    except BrokenProcessPool:
        raise killed("writes") from None
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _publish(out: Path, work: Path, shards: list[Shard], asked: Asked, report: Report) -> None:
    """Move what is whole out of the work folder, the report last. Killed in between, the next import does it again."""
    try:
        for stale in out.glob("*.parquet"):
            stale.unlink()
        for shard in shards:
            shard.target.rename(out / shard.target.name)
        (work / PROBLEMS).replace(out / PROBLEMS)
        whole = work / DONE
        body = {"asked": _plain(asked), "report": asdict(report)}
        whole.write_text(json.dumps(body, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        whole.rename(out / DONE)
    except OSError as error:
        raise StorageError(f"{out} cannot be written: {error}") from None
    shutil.rmtree(work, ignore_errors=True)


def _nothing(report: Report, problems: Problems) -> str:
    why = "\n  ".join(
        f"{count:,} rows: {reason}, such as {problems.examples[reason][0]}"
        for reason, count in problems.counts.most_common()
    )
    advice = (
        "; is the folder of images the right one?"
        if problems.counts.get(Reason.MISSING_IMAGE)
        else ""
    )
    if not report.read:
        return "there are no rows in it, so nothing to import"
    return f"none of {report.read:,} rows can be used{advice}\n  {why}"
