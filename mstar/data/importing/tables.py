"""Tables of any columns, streamed: JSON lines (or one JSON list), TSV, Parquet, and what ``datasets`` saves."""

import csv
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import chain, islice
from pathlib import Path
from typing import Any

import pyarrow as pa

from mstar.data.importing.fields import Columns, make_row
from mstar.data.importing.json_list import read_json_list
from mstar.data.importing.records import Reason, Row, Skipped
from mstar.data.splits import ROWS_AT_ONCE, parquet
from mstar.errors import DataError
from mstar.shards import lacking, shard_of

LONGEST_FIELD = 1 << 30
"""Characters a field of a TSV file may have: pictures in base64 are long."""

LOOKED_AT = 100
"""Rows that say which columns a file has where each row could have its own."""


class Format(StrEnum):
    """What kind of table."""

    JSONL = "jsonl"
    PARQUET = "parquet"
    TSV = "tsv"
    HF = "hf"


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """An opened table: its files, its columns (None where each row has its own), and class labels spelled out."""

    format: Format
    files: tuple[Path, ...]
    columns: tuple[str, ...]
    names: Mapping[str, Any] = field(default_factory=dict)

    def read(self, wanted: tuple[str, ...]) -> Iterator[Mapping[str, Any] | Skipped]:
        """All rows in order; those of a columnar file hold ``wanted`` only."""
        return chain.from_iterable(_rows(self.format, file, wanted) for file in self.files)


def open_table(form: Format, path: Path, split: str | None = None) -> Table:
    """The table at ``path``; ``split`` chooses where ``datasets`` has saved several. ``DataError`` when it is none."""
    if not path.exists():
        raise DataError(f"nothing at {path} to import")
    if form is Format.HF:
        files = _saved(path, split)
    else:
        files = tuple(sorted(path.glob(f"*.{form}"))) if path.is_dir() else (path,)
        if not files:
            raise DataError(f"no *.{form} in {path}")
    if path.is_dir() and (missing := lacking(file.name for file in files)):
        raise DataError(f"{path} is not whole, it lacks {missing}; put that there")
    if form in {Format.JSONL, Format.TSV}:
        rows = (row for row in _rows(form, files[0], ()) if not isinstance(row, Skipped))
        first = dict.fromkeys(chain.from_iterable(islice(rows, LOOKED_AT)))
        return Table(format=form, files=files, columns=tuple(first))
    schema = parquet(files[0]).schema_arrow if _columnar(files[0]) else _stream(files[0]).schema
    return Table(format=form, files=files, columns=tuple(schema.names), names=_class_labels(schema))


def read_table(table: Table, columns: Columns, root: Path) -> Iterator[Row | Skipped]:
    """All rows of a table; ``root`` is where the paths of images begin."""
    for number, record in enumerate(table.read(columns.needed())):
        if isinstance(record, Skipped):
            yield record
        else:
            yield make_row(record, number, columns, root, table.names)


def _rows(
    form: Format, file: Path, wanted: tuple[str, ...]
) -> Iterator[Mapping[str, Any] | Skipped]:
    if form is Format.JSONL:
        return _json(file)
    if form is Format.TSV:
        return _tsv(file)
    batches = (
        parquet(file).iter_batches(ROWS_AT_ONCE, columns=list(wanted))
        if _columnar(file)
        else (batch.select(list(wanted)) for batch in _sliced(_stream(file)))
    )
    return chain.from_iterable(batch.to_pylist() for batch in batches)


def _json(file: Path) -> Iterator[Mapping[str, Any] | Skipped]:
    with file.open(encoding="utf-8", errors="replace") as lines:
        start = lines.read(64).lstrip(" \t\r\n\ufeff")
    items = enumerate(read_json_list(file)) if start.startswith("[") else _lines(file)
    for number, item in items:
        if isinstance(item, dict):
            yield item
        else:
            detail = f"line {number + 1} of {file.name} is no JSON object"
            yield Skipped(id=f"{file.name}:{number + 1}", reason=Reason.MALFORMED, detail=detail)


def _lines(file: Path) -> Iterator[tuple[int, Any]]:
    with file.open(encoding="utf-8-sig", errors="replace") as lines:
        for number, line in enumerate(lines):
            if line.strip():
                try:
                    yield number, json.loads(line)
                except ValueError:
                    yield number, None


def _tsv(file: Path) -> Iterator[Mapping[str, Any] | Skipped]:
    csv.field_size_limit(LONGEST_FIELD)
    with file.open(encoding="utf-8-sig", errors="replace", newline="") as lines:
        reader = csv.DictReader(lines, delimiter="\t")
        try:
            for row in reader:
                where = f"{file.name}:{reader.line_num}"
                if None in row:
                    detail = "the line has more fields than the head"
                    yield Skipped(id=where, reason=Reason.MALFORMED, detail=detail)
                else:
                    yield row
        except csv.Error as error:
            raise DataError(f"{file}:{reader.line_num}: no TSV ({error})") from None


def _saved(path: Path, split: str | None) -> tuple[Path, ...]:
    """Files of a folder that ``save_to_disk`` wrote, or of Parquet files as the hub keeps them."""
    if (several := path / "dataset_dict.json").is_file():
        path /= _chosen(path, json.loads(several.read_text("utf-8"))["splits"], split)
    if (state := path / "state.json").is_file():
        listed = json.loads(state.read_text("utf-8"))["_data_files"]
        return tuple(path / item["filename"] for item in listed)
    if path.is_file():
        return (path,)
    found: dict[str, list[Path]] = {}
    for file in sorted(path.rglob("*.parquet")):
        found.setdefault(shard_of(file.name) or file.stem, []).append(file)
    if not found:
        raise DataError(
            f"{path} holds neither what datasets' save_to_disk writes nor Parquet files"
        )
    return tuple(found[_chosen(path, list(found), split)])


def _chosen(path: Path, splits: list[str], split: str | None) -> str:
    if split is None and len(splits) == 1:
        return splits[0]
    if split not in splits:
        asked = "several splits" if split is None else f"no split {split}"
        raise DataError(f"{path} has {asked}: choose one with --split: {', '.join(splits)}")
    return split


def _columnar(file: Path) -> bool:
    return file.suffix == ".parquet"


def _stream(file: Path) -> Any:
    try:
        return pa.ipc.open_stream(pa.memory_map(str(file)))
    except (pa.ArrowInvalid, OSError) as error:
        reason = str(error).splitlines()[0]
        raise DataError(f"{file} is no Arrow file of datasets ({reason})") from None


def _sliced(stream: Any) -> Iterator[Any]:
    """Batches as small as those of a Parquet file; ``datasets`` writes them as large as it likes."""
    for batch in stream:
        for start in range(0, len(batch), ROWS_AT_ONCE):
            yield batch.slice(start, ROWS_AT_ONCE)


def _class_labels(schema: Any) -> dict[str, Any]:
    """Names of each column that ``datasets`` stores as numbers of classes."""
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
    except (KeyError, ValueError, TypeError):
        return {}
    return {
        column: feature["names"]
        for column, feature in features.items()
        if isinstance(feature, dict) and feature.get("_type") == "ClassLabel"
    }
