"""The files that benchmarks are published as: Parquet with an image column, TSV with base64, JSON beside a folder.

Each reader streams rows as plain dicts, checks the columns first, and raises ``DataError`` that names file and column.
"""

import base64
import binascii
import csv
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from mstar.errors import DataError
from mstar.storage.faults import explained

Row = dict[str, Any]

ROWS_AT_ONCE = 64
LONGEST_FIELD = 1 << 30
"""Characters of a TSV field; a base64 image is one field."""

REFERENCE = 64
"""A TSV image of at most so many characters is the index of the row that has the image."""


def read_parquet(file: Path, columns: Sequence[str], optional: Sequence[str] = ()) -> Iterator[Row]:
    """Rows of a Parquet file with the named columns, and those of ``optional`` that it has."""
    try:
        source = pq.ParquetFile(file)
        names = source.schema_arrow.names
        _check(file, columns, names)
        wanted = [*columns, *(name for name in optional if name in names)]
        for batch in source.iter_batches(ROWS_AT_ONCE, columns=wanted):
            yield from batch.to_pylist()
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{file} cannot be read as Parquet: {error}") from None


def read_tsv(file: Path, columns: Sequence[str]) -> Iterator[Row]:
    """Rows of a TSV file, every column as text; what is empty or missing is left out of its row."""
    csv.field_size_limit(LONGEST_FIELD)
    try:
        with file.open(encoding="utf-8", newline="") as stream:
            rows = csv.DictReader(stream, delimiter="\t")
            _check(file, columns, rows.fieldnames or ())
            for number, row in enumerate(rows, 1):
                if None in row:
                    raise DataError(f"{file}, row {number}: more fields than the header has")
                found = {name: value for name, value in row.items() if value}
                _check_row(file, number, columns, found)
                yield found
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{file} cannot be read as TSV: {error}") from None


def read_json(file: Path, columns: Sequence[str]) -> Iterator[Row]:
    """Rows of a JSON file (a list, or an object of rows) or, by its ending, of a JSONL file."""
    try:
        if file.suffix == ".jsonl":
            with file.open(encoding="utf-8") as stream:
                rows = [json.loads(line) for line in stream if line.strip()]
        else:
            body = json.loads(file.read_text(encoding="utf-8"))
            rows = list(body.values()) if isinstance(body, dict) else body
    except (OSError, ValueError) as error:
        raise DataError(f"{file} cannot be read as JSON: {error}") from None
    if not isinstance(rows, list):
        raise DataError(f"{file}: expected a list of questions, found {type(rows).__name__}")
    for number, row in enumerate(rows, 1):
        if not isinstance(row, dict):
            raise DataError(
                f"{file}, question {number}: expected an object, found {type(row).__name__}"
            )
        _check(file, columns, row.keys(), place=f", question {number}")
        yield row


def picture(row: Mapping[str, Any], column: str, owner: str) -> bytes:
    """The bytes of a Parquet image: the struct that Hugging Face writes, or bytes alone."""
    value = row[column]
    data = value.get("bytes") if isinstance(value, Mapping) else value
    if not isinstance(data, bytes) or not data:
        raise DataError(
            f"{owner}: column {column} holds no image bytes; expected them in the file, as "
            "datasets.Dataset.to_parquet writes them"
        )
    return data


def picture_file(file: Path, name: object, owner: str) -> bytes:
    """The bytes of an image that a JSON row names, relative to its file, or to the folder above."""
    tried = [folder / str(name) for folder in (file.parent, file.parent.parent)]
    for path in tried:
        if path.is_file():
            with explained("read", path):
                return path.read_bytes()
    raise DataError(f"{owner}: its image is missing; expected {tried[0]} (unpack the images there)")


class TsvImages:
    """Images of a TSV file whose later rows may name an earlier row's index instead of repeating its image."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._known: dict[str, bytes] = {}

    def of(self, row: Row) -> bytes:
        """The row's image, decoded from base64."""
        index, text = row["index"], row["image"]
        if len(text) > REFERENCE:
            try:
                data = base64.b64decode(text, validate=False)
            except (binascii.Error, ValueError) as error:
                raise DataError(
                    f"{self._file}, index {index}: the image is no base64 ({error})"
                ) from None
            self._known[index] = data
            return data
        if text not in self._known:
            raise DataError(
                f"{self._file}, index {index}: image is {text!r}, but no earlier row with that index has an image"
            )
        return self._known[text]


def tsv_options(row: Row, letters: str) -> tuple[str, ...]:
    """The options of a TSV row, from its columns A, B and so on up to the first that is empty."""
    found: list[str] = []
    for letter in letters:
        if letter not in row:
            break
        found.append(str(row[letter]))
    return tuple(found)


def _check_row(file: Path, number: int, columns: Sequence[str], row: Row) -> None:
    lacking = [name for name in columns if name not in row]
    if lacking:
        raise DataError(f"{file}, row {number}: {', '.join(lacking)} is empty")


def _check(file: Path, columns: Sequence[str], found: Any, place: str = "") -> None:
    names = [str(name) for name in found]
    lacking = [name for name in columns if name not in names]
    if lacking:
        raise DataError(
            f"{file}{place}: missing columns: {', '.join(lacking)}; expected {', '.join(columns)}; "
            f"found {', '.join(names) or 'none'}; is it the published file?"
        )
