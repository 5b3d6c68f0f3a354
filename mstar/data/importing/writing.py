"""Splits as Parquet files. Rows of one image lie together, and a row group stores their image once.

MathV360K asks nine questions about an image: stored with each of them, 6 GB of pictures would be 52.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from mstar.data.importing.sifting import read_line
from mstar.data.importing.wording import KINDS
from mstar.errors import DataError, StorageError

GROUP_BYTES = 64 << 20
"""Bytes of images in a row group, each row counted: what a reader must hold."""

GROUP_ROWS = 1024
FILE_BYTES = 512 << 20
"""Bytes of different images in a file."""

FILE_ROWS = 50_000

# Written from a dictionary a picture is neither copied nor hashed for each of its rows; readers see plain bytes.
IMAGE = pa.struct([("bytes", pa.dictionary(pa.int32(), pa.binary())), ("path", pa.string())])
SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("image", IMAGE),
        ("question", pa.string()),
        ("options", pa.list_(pa.string())),
        ("answer", pa.string()),
        ("source", pa.string()),
        ("type", pa.string()),
    ]
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a picture's bytes are: in a file from ``start`` on, or the whole file when that is None."""

    path: str
    start: int | None
    size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Shard:
    """One file to write: its rows by where the spool has them, each with the number of its place."""

    target: Path
    spool: Path
    rows: tuple[tuple[int, int], ...]
    places: tuple[Place, ...]


def plan_shards(
    folder: Path, spool: Path, split: str, rows: Iterable[tuple[int, Place]]
) -> Iterator[Shard]:
    """The files of a split; ``rows`` are (start in the spool, picture), those of one picture together."""
    number = 0
    chosen: list[tuple[int, int]] = []
    places: list[Place] = []
    size = 0

    def shard() -> Shard:
        return Shard(
            target=folder / f"{split}-{number:05d}.parquet",
            spool=spool,
            rows=tuple(chosen),
            places=tuple(places),
        )

    for start, place in rows:
        if not places or places[-1] != place:
            if chosen and (size + place.size > FILE_BYTES or len(chosen) >= FILE_ROWS):
                yield shard()
                number, chosen, places, size = number + 1, [], [], 0
            places.append(place)
            size += place.size
        chosen.append((start, len(places) - 1))
    if chosen:
        yield shard()


def write_shard(shard: Shard) -> int:
    """Write the file, whole or not at all. How many rows it has."""
    partial = shard.target.with_suffix(".partial")
    try:
        with (
            shard.spool.open("rb") as spool,
            pq.ParquetWriter(
                partial,
                SCHEMA,
                # A dictionary of images is what stores each once; it must hold all of a row group.
                use_dictionary=["image.bytes", "image.path", "source", "type", "answer"],
                dictionary_pagesize_limit=2 * GROUP_BYTES,
                compression={name: "zstd" for name in _leaves() if name != "image.bytes"},
                write_statistics=["id"],
                store_schema=False,
            ) as writer,
        ):
            for table in _groups(shard, spool):
                writer.write_table(table)
        partial.replace(shard.target)
    except OSError as error:
        raise StorageError(f"{shard.target} cannot be written: {error}") from None
    return len(shard.rows)


def _groups(shard: Shard, spool: Any) -> Iterator[Any]:
    """Tables of at most ``GROUP_ROWS`` rows and ``GROUP_BYTES`` of images, one row at least."""
    lines: list[list[Any]] = []
    numbers: list[int] = []
    images: list[bytes] = []
    held, current = 0, -1
    for start, number in shard.rows:
        if number != current:
            current, data = number, _bytes(shard.places[number])
            images.append(data)
        if lines and (held + len(data) > GROUP_BYTES or len(lines) >= GROUP_ROWS):
            yield _table(lines, numbers, images)
            lines, numbers, images, held = [], [], [data], 0
        lines.append(read_line(spool, start))
        numbers.append(len(images) - 1)
        held += len(data)
    if lines:
        yield _table(lines, numbers, images)


def _table(lines: list[list[Any]], numbers: list[int], images: list[bytes]) -> Any:
    queries, names, questions, options, answers, sources, kinds = zip(*lines, strict=True)
    data = pa.DictionaryArray.from_arrays(
        pa.array(numbers, pa.int32()), pa.array(images, pa.binary())
    )
    pictures = pa.StructArray.from_arrays([data, pa.array(names)], ["bytes", "path"])
    types = [KINDS[kind] for kind in kinds]
    columns = [queries, pictures, questions, options, answers, sources, types]
    arrays = [
        pa.array(column, field.type) if isinstance(column, tuple | list) else column
        for column, field in zip(columns, SCHEMA, strict=True)
    ]
    return pa.Table.from_arrays(arrays, schema=SCHEMA)


def _bytes(place: Place) -> bytes:
    with Path(place.path).open("rb") as file:
        file.seek(place.start or 0)
        data = file.read(place.size + (place.start is None))
    if len(data) != place.size:
        raise DataError(f"{place.path} changed while it was imported; start the import again")
    return data


def _leaves() -> list[str]:
    found = []
    for field in SCHEMA:
        if field.name == "image":
            found += ["image.bytes", "image.path"]
        else:
            found.append("options.list.element" if field.name == "options" else field.name)
    return found
