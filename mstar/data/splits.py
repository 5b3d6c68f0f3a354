"""Splits on disk: columns, streaming reads, and random access to images in bounded memory.

A row has ``id``, ``image`` (``{bytes, path}``, as Hugging Face writes it), ``question``, ``answer`` and optionally
``options``. Other columns are kept in the file and never read.
"""

import mmap
import tempfile
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pyarrow as pa
import pyarrow.parquet as pq

from mstar.core.records import Query
from mstar.errors import DataError
from mstar.shards import lacking, shard_of

REQUIRED = ("id", "image", "question", "answer")
OPTIONAL = ("options",)
ROWS_AT_ONCE = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """A query with its encoded image."""

    query: Query
    image: bytes


@dataclass(frozen=True, slots=True)
class Split:
    """One split: its Parquet files in order, read as one table."""

    name: str
    files: tuple[Path, ...]

    def rows(self) -> int:
        """Number of queries, from the files' footers."""
        return sum(map(self.file_rows, self.files))

    def file_rows(self, file: Path) -> int:
        """Number of queries in one of the files, from its footer."""
        return int(parquet(file).metadata.num_rows)

    def read(self, indices: Sequence[int] | None = None) -> Iterator[Sample]:
        """Samples at ascending ``indices`` (all when None), in order; skips row groups that hold none of them."""
        wanted = iter(range(self.rows()) if indices is None else indices)
        target = next(wanted, None)
        offset = 0
        for file in self.files:
            source = parquet(file)
            columns = [name for name in (*REQUIRED, *OPTIONAL) if name in source.schema_arrow.names]
            for group in range(source.metadata.num_row_groups):
                size = source.metadata.row_group(group).num_rows
                if target is not None and target < offset + size:
                    start = offset
                    for batch in source.iter_batches(
                        ROWS_AT_ONCE, row_groups=[group], columns=columns
                    ):
                        table = (
                            batch.to_pylist()
                            if target is not None and target < start + len(batch)
                            else []
                        )
                        while target is not None and target < start + len(batch):
                            yield _sample(table[target - start], self.name, target)
                            target = next(wanted, None)
                        start += len(batch)
                offset += size
        if target is not None:
            raise DataError(f"split {self.name} has {offset} queries; index {target} was asked for")


def find_split(folder: Path, name: str) -> Split:
    """The split ``name`` in a data folder: ``name.parquet``, or ``name-*.parquet`` in sorted order.

    ``DataError`` when there is none, both, or a part of it (``name-00000-of-00002.parquet`` alone).
    """
    if not folder.is_dir():
        raise DataError(f"no data folder at {folder}; data.path must hold {name}.parquet")
    single = folder / f"{name}.parquet"
    shards = tuple(sorted(folder.glob(f"{name}-*.parquet")))
    files = (single,) if single.exists() else shards
    if not files:
        found = ", ".join(sorted(path.name for path in folder.iterdir())[:8]) or "nothing"
        raise DataError(f"{folder}: expected {name}.parquet or {name}-*.parquet, found {found}")
    parts = [path.name for path in shards if shard_of(path.name) == name]
    if parts and single.exists():
        raise DataError(
            f"{folder}: both {single.name} and {parts[0]} are there; which of them is the split {name}? "
            "Keep one of the two in the folder"
        )
    if gone := lacking(parts):
        raise DataError(
            f"{folder}: split {name} is not whole, it lacks {gone}; put that there, or rename the rest if it is "
            "meant to be all"
        )
    for file in files:
        names = parquet(file).schema_arrow.names
        if missing := [column for column in REQUIRED if column not in names]:
            raise DataError(
                f"{file}: column {', '.join(missing)} is missing; found {', '.join(names)}"
            )
    return Split(name, files)


def parquet(file: Path) -> pq.ParquetFile:
    """An open Parquet file, memory-mapped; ``DataError`` when it is not one."""
    try:
        return pq.ParquetFile(file, memory_map=True)
    except (pa.ArrowInvalid, OSError) as error:
        raise DataError(
            f"{file} is not a Parquet file ({str(error).splitlines()[0]}); write it again"
        ) from None


class ImageCache:
    """Encoded images of many queries in one unlinked scratch file: random access, constant memory."""

    def __init__(self, samples: Iterable[Sample], scratch: Path) -> None:
        self._places: dict[str, tuple[int, int]] = {}
        self._file = tempfile.TemporaryFile(dir=scratch)  # noqa: SIM115 - closed by close(), lives as long as this
        offset = 0
        for sample in samples:
            self._file.write(sample.image)
            self._places[sample.query.id] = (offset, len(sample.image))
            offset += len(sample.image)
        self._file.flush()
        self._map = mmap.mmap(self._file.fileno(), 0, access=mmap.ACCESS_READ) if offset else None

    def __getitem__(self, query_id: str) -> bytes:
        start, size = self._places[query_id]
        return self._map[start : start + size] if self._map else b""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Give the scratch space back."""
        if self._map:
            self._map.close()
        self._file.close()


def lookup(
    split: Split, wanted: Collection[str], scratch: Path, *, images: bool = True
) -> tuple[dict[str, Query], ImageCache]:
    """The queries called ``wanted`` by id, and their images (none when ``images`` is False).

    Raises ``DataError`` when the split has no query of one of the ids.
    """
    queries: dict[str, Query] = {}

    def chosen() -> Iterator[Sample]:
        for sample in split.read():
            if sample.query.id in wanted:
                queries[sample.query.id] = sample.query
                if images:
                    yield sample

    cache = ImageCache(chosen(), scratch)
    if unknown := set(wanted) - queries.keys():
        cache.close()
        raise DataError(
            f"split {split.name} has no query {min(unknown)!r}, which earlier responses answer"
        )
    return queries, cache


def _sample(row: dict[str, Any], split: str, index: int) -> Sample:
    where = f"{split} row {index}"
    image = row["image"]
    if not isinstance(image, dict) or not isinstance(image.get("bytes"), bytes | None):
        raise DataError(
            f"{where}: image must be {{bytes, path}} as Hugging Face writes it, found {type(image).__name__}"
        )
    text = {}
    for column in ("id", "question", "answer"):
        value = row[column]
        if value is None:
            raise DataError(f"{where}: {column} is empty; every query needs one")
        text[column] = str(value)
    options = tuple(str(option) for option in row.get("options") or ())
    return Sample(
        query=Query(
            id=text["id"], question=text["question"], answer=text["answer"], options=options
        ),
        image=image.get("bytes") or b"",
    )
