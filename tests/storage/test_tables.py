"""Records come back from Parquet as they went in, and the bytes depend on the records alone."""

from dataclasses import replace
from itertools import islice
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mstar.core.records import Example, Finish, Grade, Response, Scored
from mstar.errors import IntegrityError, NotFound, StorageError
from mstar.storage import tables
from mstar.storage.tables import TableWriter, group_by_query, read_table, read_tables

int32 = st.integers(0, 2**31 - 1)
int64 = st.integers(-(2**63), 2**63 - 1)
numbers = st.floats(allow_nan=False)
responses = st.builds(
    Response,
    query_id=st.text(),
    sample=st.integers(0, 2**40),
    text=st.text(),
    tokens=st.lists(int32).map(tuple),
    finish=st.sampled_from(Finish),
    temperature=numbers,
    policy=st.text(),
    seed=int64,
    prefix=st.text(),
)
scored = st.builds(
    Scored,
    response=responses,
    grade=st.builds(Grade, answer=st.none() | st.text(), correct=st.booleans()),
    step_scores=st.lists(numbers).map(tuple),
)
examples = st.builds(
    Example,
    query_id=st.text(),
    sample=st.integers(0, 2**40),
    text=st.text(),
    tokens=st.lists(int32).map(tuple),
    finish=st.sampled_from(Finish),
    policy=st.text(),
    seed=int64,
    reward=st.none() | numbers,
    step_ends=st.lists(int32).map(tuple),
    labels=st.lists(numbers).map(tuple),
)

RESPONSE = Response(
    query_id="q0",
    sample=0,
    text="3 + 4 = 7\n\\boxed{7}",
    tokens=(5, 6, 7),
    finish=Finish.STOP,
    temperature=1.0,
    policy="p",
    seed=1,
)


def write(path: Path, records, record) -> Path:
    with TableWriter(path, record) as writer:
        writer.write(records)
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tables")


@given(records=st.lists(responses, max_size=6))
def test_responses_come_back_as_they_went_in(folder: Path, records):
    assert list(read_table(write(folder / "r", records, Response), Response)) == records


@given(records=st.lists(scored, max_size=6))
def test_scored_responses_come_back_as_they_went_in(folder: Path, records):
    assert list(read_table(write(folder / "s", records, Scored), Scored)) == records


@given(records=st.lists(examples, max_size=6))
def test_examples_come_back_as_they_went_in(folder: Path, records):
    assert list(read_table(write(folder / "e", records, Example), Example)) == records


def test_types_come_back_exactly(tmp_path: Path):
    [back] = read_table(write(tmp_path / "r", [RESPONSE], Response), Response)
    assert type(back.finish) is Finish
    assert type(back.tokens) is tuple
    assert type(back.tokens[0]) is int
    assert back.token_count == 4


@given(records=st.lists(responses, max_size=6), cut=st.integers(0, 6))
def test_the_bytes_do_not_depend_on_how_records_were_handed_over(folder: Path, records, cut: int):
    whole = write(folder / "whole", records, Response).read_bytes()
    with TableWriter(folder / "pieces", Response) as writer:
        writer.write(records[:cut])
        for record in records[cut:]:
            writer.write([record])
        assert writer.rows == len(records)
    assert (folder / "pieces").read_bytes() == whole


def test_row_groups_are_bounded_by_rows_and_by_tokens(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(tables, "_GROUP_ROWS", 10)
    monkeypatch.setattr(tables, "_GROUP_TOKENS", 100)
    short = [replace(RESPONSE, sample=number) for number in range(25)]
    path = write(tmp_path / "short", short, Response)
    assert _groups(path) == [10, 10, 5]
    assert list(read_table(path, Response)) == short
    long = [replace(RESPONSE, tokens=tuple(range(60))) for _ in range(3)]
    assert _groups(write(tmp_path / "long", long, Response)) == [1, 1, 1]
    longer = [replace(RESPONSE, tokens=tuple(range(600)))]
    assert _groups(write(tmp_path / "longer", longer, Response)) == [1]


def _groups(path: Path) -> list[int]:
    metadata = pq.read_metadata(path)
    return [metadata.row_group(index).num_rows for index in range(metadata.num_row_groups)]


def test_many_rows_come_back_over_batches_and_groups(tmp_path: Path):
    records = [
        Scored(
            response=replace(RESPONSE, query_id=f"q{number // 4}", tokens=tuple(range(number % 7))),
            grade=Grade(answer=None if number % 3 else "7", correct=number % 3 == 0),
            step_scores=(0.5,) * (number % 3),
        )
        for number in range(10_000)
    ]
    path = write(tmp_path / "s", records, Scored)
    assert _groups(path) == [4096, 4096, 1808]
    assert list(read_table(path, Scored)) == records
    assert list(islice(read_table(path, Scored), 3)) == records[:3]
    assert list(read_tables([path, path], Scored)) == records * 2


def test_no_records_are_a_table_too(tmp_path: Path):
    assert list(read_table(write(tmp_path / "r", [], Response), Response)) == []


def test_a_failed_block_leaves_no_file(tmp_path: Path):
    def records():
        yield RESPONSE
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write(tmp_path / "r", records(), Response)
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_told_as_such(tmp_path: Path):
    if not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full")
    (tmp_path / "r").symlink_to("/dev/full")
    with pytest.raises(StorageError, match=f"cannot write {tmp_path}/r: the disk is full"):
        write(tmp_path / "r", [replace(RESPONSE, text="x" * 10_000_000)], Response)


def test_a_table_of_other_records_is_refused_with_its_columns(tmp_path: Path):
    path = write(tmp_path / "r", [RESPONSE], Response)
    with pytest.raises(
        IntegrityError,
        match=r"is not a table of Example records: it lacks reward, step_ends, labels; also has temperature, prefix\.",
    ):
        list(read_table(path, Example))
    with pytest.raises(IntegrityError, match=r"it lacks answer, correct, step_scores\."):
        list(read_table(path, Scored))


def test_a_column_of_another_type_is_named(tmp_path: Path):
    table = pq.read_table(write(tmp_path / "r", [RESPONSE], Response))
    at = table.schema.get_field_index("seed")
    pq.write_table(table.set_column(at, "seed", pa.array(["1"])), tmp_path / "other")
    with pytest.raises(
        IntegrityError, match=r"has another seed \(string where int64 was expected\)"
    ):
        list(read_table(tmp_path / "other", Response))


def test_an_unknown_finish_reason_is_refused(tmp_path: Path):
    schema = tables._schema(Response)
    table = pq.read_table(write(tmp_path / "r", [RESPONSE], Response))
    at = schema.get_field_index("finish")
    odd = table.set_column(at, schema.field("finish"), pa.array(["tired"]))
    pq.write_table(odd, tmp_path / "odd")
    with pytest.raises(IntegrityError, match="'tired' is not a valid Finish"):
        list(read_table(tmp_path / "odd", Response))


def test_what_is_no_parquet_is_refused(tmp_path: Path):
    path = write(
        tmp_path / "r", [replace(RESPONSE, text=str(n) * 50) for n in range(500)], Response
    )
    data = path.read_bytes()
    middle = len(data) // 4
    damaged = (
        data[:middle] + bytes(b ^ 255 for b in data[middle : middle + 200]) + data[middle + 200 :]
    )
    for bad in (b"", b"not a table", data[:-10], data[: len(data) // 2], damaged):
        path.write_bytes(bad)
        with pytest.raises(IntegrityError, match="is not a readable table of Response records"):
            list(read_table(path, Response))


def test_a_missing_file_is_not_found(tmp_path: Path):
    with pytest.raises(NotFound, match="there is no such file"):
        list(read_table(tmp_path / "absent", Response))


def test_records_are_grouped_by_query_in_order():
    records = [replace(RESPONSE, query_id=name, sample=n) for n, name in enumerate("aabccc")]
    assert [[r.sample for r in group] for group in group_by_query(records)] == [
        [0, 1],
        [2],
        [3, 4, 5],
    ]
    graded = [Scored(response=r, grade=Grade(answer=None, correct=False)) for r in records]
    assert [len(group) for group in group_by_query(iter(graded))] == [2, 1, 3]
    assert list(group_by_query(iter([]))) == []
