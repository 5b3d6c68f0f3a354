"""Records in Parquet parts, and back: streamed both ways, the same bytes for the same records.

Row groups are cut by the records alone (never by how they were handed over), so a part's sha256 is a function of its
content and of the version of pyarrow.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from itertools import groupby, pairwise
from operator import attrgetter
from pathlib import Path
from types import TracebackType
from typing import Any, Generic, Self, TypeVar, cast

from mstar.core.records import Example, Finish, Grade, Response, Scored
from mstar.errors import IntegrityError
from mstar.storage.faults import explain, explained

R = TypeVar("R", Response, Scored, Example)

_GROUP_ROWS = 4096
_GROUP_TOKENS = 1 << 20
_BATCH_ROWS = 1024


@dataclass(frozen=True, slots=True)
class _Table:
    """How a record type lies in columns: where each column's value is in the record, its type, and the way back."""

    columns: dict[str, tuple[str, str]]
    build: Callable[[dict[str, Any]], Any]


_RESPONSE = {
    "query_id": ("query_id", "string"),
    "sample": ("sample", "int64"),
    "text": ("text", "string"),
    "tokens": ("tokens", "list int32"),
    "finish": ("finish", "string"),
    "temperature": ("temperature", "float64"),
    "policy": ("policy", "string"),
    "seed": ("seed", "int64"),
    "prefix": ("prefix", "string"),
}
_SCORED = {name: (f"response.{source}", kind) for name, (source, kind) in _RESPONSE.items()} | {
    "answer": ("grade.answer", "string?"),
    "correct": ("grade.correct", "bool"),
    "step_scores": ("step_scores", "list float64"),
}
_EXAMPLE = {
    "query_id": ("query_id", "string"),
    "sample": ("sample", "int64"),
    "text": ("text", "string"),
    "tokens": ("tokens", "list int32"),
    "finish": ("finish", "string"),
    "policy": ("policy", "string"),
    "seed": ("seed", "int64"),
    "reward": ("reward", "float64?"),
    "step_ends": ("step_ends", "list int32"),
    "labels": ("labels", "list float64"),
}
_REPEATING = [
    "query_id",
    "finish",
    "policy",
    "prefix",
    "answer",
]  # few values, so worth a dictionary


def _response(row: dict[str, Any]) -> Response:
    return Response(**row)


def _scored(row: dict[str, Any]) -> Scored:
    grade = Grade(answer=row.pop("answer"), correct=row.pop("correct"))
    scores = row.pop("step_scores")
    return Scored(response=Response(**row), grade=grade, step_scores=scores)


def _example(row: dict[str, Any]) -> Example:
    return Example(**row)


_TABLES: dict[type, _Table] = {
    Response: _Table(_RESPONSE, _response),
    Scored: _Table(_SCORED, _scored),
    Example: _Table(_EXAMPLE, _example),
}


class TableWriter(Generic[R]):
    """Streams records into a local Parquet file; memory is bounded by one row group.

    As a context manager it finishes the file, or removes it when the block fails.
    """

    def __init__(self, path: Path, record: type[R]) -> None:
        import pyarrow.parquet as pq

        table = _TABLES[record]
        self.rows: int = 0
        self._path: Path = path
        self._schema = _schema(cast("type", record))
        self._values = attrgetter(*(source for source, _ in table.columns.values()))
        self._tokens = attrgetter(table.columns["tokens"][0])
        self._group: list[tuple[Any, ...]] = []
        self._group_tokens = 0
        with explained("write", path):
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = pq.ParquetWriter(
                path,
                self._schema,
                compression="zstd",
                use_dictionary=[name for name in _REPEATING if name in table.columns],
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if error is None:
            self.close()
            return
        try:
            self._file.close()
        finally:
            self._path.unlink(missing_ok=True)

    def write(self, records: Iterable[R]) -> None:
        """Append records."""
        for record in records:
            tokens = len(self._tokens(record))
            if self._group and (
                len(self._group) >= _GROUP_ROWS or self._group_tokens + tokens > _GROUP_TOKENS
            ):
                self._write_group()
            self._group.append(self._values(record))
            self._group_tokens += tokens
            self.rows += 1

    def close(self) -> None:
        """Write what is left and finish the file."""
        if self._group:
            self._write_group()
        with explained("write", self._path):
            self._file.close()

    def _write_group(self) -> None:
        import pyarrow as pa

        columns = zip(*self._group, strict=True)
        arrays = [pa.array(c, field.type) for c, field in zip(columns, self._schema, strict=True)]
        with explained("write", self._path):
            self._file.write_table(pa.Table.from_arrays(arrays, schema=self._schema))
        self._group, self._group_tokens = [], 0


def read_table(path: Path, record: type[R]) -> Iterator[R]:
    """The records of a Parquet file in order; memory is bounded by one row group."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    build = _TABLES[record].build
    try:
        with path.open("rb") as stream, pq.ParquetFile(stream) as file:
            _check_columns(path, cast("type", record), file.schema_arrow)
            for batch in file.iter_batches(_BATCH_ROWS, use_threads=False):
                yield from cast("Iterator[R]", map(build, _rows(batch)))
    except (pa.ArrowException, OSError, ValueError) as error:
        if isinstance(error, OSError) and error.errno:  # else it is pyarrow's word for damaged data
            raise explain(error, "read", path) from error
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise IntegrityError(
            f"{path} is not a readable table of {record.__name__} records ({reason}). "
            "It is truncated, altered or another file: restore it, or have the step run again"
        ) from error


def read_tables(paths: Iterable[Path], record: type[R]) -> Iterator[R]:
    """The records of several files, one file after the other."""
    for path in paths:
        yield from read_table(path, record)


def group_by_query(records: Iterable[R]) -> Iterator[list[R]]:
    """The records of one query after the other; those of a query must stand together."""
    for _, group in groupby(records, key=_query_id):
        yield list(group)


def _query_id(record: Response | Scored | Example) -> str:
    return record.response.query_id if isinstance(record, Scored) else record.query_id


@cache
def _schema(record: type) -> Any:
    import pyarrow as pa

    types = {
        "string": pa.string(),
        "int64": pa.int64(),
        "float64": pa.float64(),
        "bool": pa.bool_(),
        "list int32": pa.list_(pa.field("element", pa.int32(), nullable=False)),
        "list float64": pa.list_(pa.field("element", pa.float64(), nullable=False)),
    }
    return pa.schema(
        pa.field(name, types[kind.removesuffix("?")], nullable=kind.endswith("?"))
        for name, (_, kind) in _TABLES[record].columns.items()
    )


def _check_columns(path: Path, record: type, found: Any) -> None:
    expected = _schema(record)
    if found.equals(expected):
        return
    missing = [name for name in expected.names if name not in found.names]
    unknown = [name for name in found.names if name not in expected.names]
    changed = [
        f"{name} ({found.field(name).type} where {expected.field(name).type} was expected)"
        for name in expected.names
        if name in found.names and not found.field(name).equals(expected.field(name))
    ]
    told = [
        f"{what} {', '.join(names)}"
        for what, names in (("lacks", missing), ("also has", unknown), ("has another", changed))
        if names
    ]
    raise IntegrityError(
        f"{path} is not a table of {record.__name__} records: it {'; '.join(told) or 'has them in another order'}. "
        "It is from another stage or version: give the step the artifact it expects"
    )


def _rows(batch: Any) -> Iterator[dict[str, Any]]:
    import pyarrow as pa

    names = batch.schema.names
    columns: list[Iterable[Any]] = []
    for name, column in zip(names, batch.columns, strict=True):
        if pa.types.is_list(column.type):
            columns.append(_tuples(column))
        elif name == "finish":
            columns.append(map(Finish, column.to_pylist()))
        else:
            columns.append(column.to_pylist())
    for values in zip(*columns, strict=True):
        yield dict(zip(names, values, strict=True))


def _tuples(column: Any) -> Iterator[tuple[Any, ...]]:
    """A list column as tuples, cut from one pass over its flat values."""
    ends = column.offsets.to_pylist()
    flat = column.values.slice(ends[0], ends[-1] - ends[0]).to_pylist()
    for start, end in pairwise(ends):
        yield tuple(flat[start - ends[0] : end - ends[0]])
