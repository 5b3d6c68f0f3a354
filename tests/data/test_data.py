"""A bad row costs one message before any compute is spent."""

import io

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from mstar.data import images
from mstar.data.images import decode_image
from mstar.data.splits import ImageCache, find_split, lookup
from mstar.data.validate import check_splits
from mstar.errors import DataError

SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("image", pa.struct([("bytes", pa.binary()), ("path", pa.string())])),
        ("question", pa.string()),
        ("options", pa.list_(pa.string())),
        ("answer", pa.string()),
    ]
)


def png(size=(4, 4), shade=7):
    buffer = io.BytesIO()
    Image.new("RGB", size, (shade, shade, shade)).save(buffer, format="PNG")
    return buffer.getvalue()


def row(number, **changes):
    usual = {
        "id": f"q{number}",
        "image": {"bytes": png(shade=number), "path": None},
        "question": "How many?",
        "options": [],
        "answer": "3",
    }
    return usual | changes


def write(folder, name, rows, group=3):
    table = pa.Table.from_pylist(rows, schema=SCHEMA)
    pq.write_table(table, folder / f"{name}.parquet", row_group_size=group)
    return find_split(folder, name)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"question": "  "}, "the question is empty"),
        ({"id": "q1"}, "duplicate id"),
        ({"id": " "}, "empty id"),
        ({"answer": ""}, "answer"),
        ({"options": ["1", "2"], "answer": "7"}, "answer"),
        ({"image": {"bytes": b"", "path": None}}, "image is missing"),
        ({"image": {"bytes": b"not a picture", "path": None}}, "in no known format"),
        ({"image": {"bytes": png((64, 64))[:90], "path": None}}, "corrupt"),
    ],
)
def test_a_bad_row_is_named_with_what_is_wrong(tmp_path, change, message):
    split = write(tmp_path, "train", [row(1), row(2, **change)])
    with pytest.raises(DataError, match=message):
        check_splits([split])


def test_an_id_in_two_splits_is_refused_because_test_would_leak_into_training(tmp_path):
    splits = [write(tmp_path, "train", [row(1)]), write(tmp_path, "test", [row(1)])]
    with pytest.raises(DataError, match="duplicate id, already in train"):
        check_splits(splits)


def test_an_image_too_large_is_refused_before_it_is_decoded(monkeypatch):
    monkeypatch.setattr(images, "MAX_SOURCE_PIXELS", 15)
    with pytest.raises(DataError, match=r"query q: the image is too large: 4 x 4 = 16 pixels"):
        decode_image(png(), "q")


def test_many_problems_are_counted_and_the_first_few_shown(tmp_path):
    split = write(tmp_path, "train", [row(n, question="") for n in range(9)])
    with pytest.raises(DataError, match="and 4 more"):
        check_splits([split])


def test_a_good_split_is_counted(tmp_path):
    assert check_splits([write(tmp_path, "train", [row(n) for n in range(7)])]) == {"train": 7}


@pytest.mark.parametrize("wanted", [[0], [6], [0, 3, 4], list(range(7)), []])
def test_rows_are_read_by_number_across_row_groups(tmp_path, wanted):
    split = write(tmp_path, "train", [row(n) for n in range(7)])
    assert [sample.query.id for sample in split.read(wanted)] == [f"q{n}" for n in wanted]


def test_a_row_that_is_not_there_is_an_error(tmp_path):
    split = write(tmp_path, "train", [row(n) for n in range(3)])
    with pytest.raises(DataError, match="index 3"):
        list(split.read([1, 3]))


def test_shards_of_a_split_read_as_one(tmp_path):
    for part, numbers in enumerate(([0, 1], [2, 3, 4])):
        write(tmp_path, f"train-{part:05d}", [row(n) for n in numbers])
    split = find_split(tmp_path, "train")
    assert [sample.query.id for sample in split.read()] == ["q0", "q1", "q2", "q3", "q4"]


def test_a_split_of_which_a_part_is_missing_is_refused_and_the_part_named(tmp_path):
    write(tmp_path, "train-00000-of-00001", [row(1)])
    (tmp_path / "train-00000-of-00001.parquet").rename(tmp_path / "train-00000-of-00002.parquet")
    with pytest.raises(DataError, match=r"not whole, it lacks train-00001-of-00002\.parquet"):
        find_split(tmp_path, "train")


def test_a_whole_split_beside_parts_of_it_is_refused_and_another_split_is_none_of_them(tmp_path):
    write(tmp_path, "train", [row(1)])
    write(tmp_path, "train-unlabeled", [row(2)])
    assert len(find_split(tmp_path, "train").files) == 1
    write(tmp_path, "train-00000-of-00001", [row(3)])
    with pytest.raises(
        DataError, match=r"both train\.parquet and train-00000-of-00001\.parquet are"
    ):
        find_split(tmp_path, "train")


def test_images_come_back_as_they_were(tmp_path):
    samples = list(write(tmp_path, "train", [row(n) for n in range(5)]).read())
    with ImageCache(samples, tmp_path) as cache:
        assert [cache[sample.query.id] for sample in samples] == [s.image for s in samples]


def test_a_query_that_is_not_in_the_split_is_named(tmp_path):
    split = write(tmp_path, "train", [row(1)])
    with pytest.raises(DataError, match="no query 'gone'"):
        lookup(split, {"q1", "gone"}, tmp_path)


def test_a_file_that_is_not_parquet_is_named(tmp_path):
    (tmp_path / "train.parquet").write_bytes(b"PAR1 is not enough")
    with pytest.raises(DataError, match=r"train\.parquet is not a Parquet file"):
        find_split(tmp_path, "train")


def test_a_missing_column_is_named_with_those_found(tmp_path):
    pq.write_table(pa.table({"id": ["a"], "question": ["?"]}), tmp_path / "train.parquet")
    with pytest.raises(DataError, match="column image, answer is missing; found id, question"):
        find_split(tmp_path, "train")


def test_a_missing_split_says_what_the_folder_has(tmp_path):
    write(tmp_path, "train", [row(1)])
    with pytest.raises(DataError, match=r"expected test\.parquet .* found train\.parquet"):
        find_split(tmp_path, "test")
