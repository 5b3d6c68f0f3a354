"""What a look at all splits together shows: shared images, odd images, kinds and sources."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from mstar.data import validate
from mstar.data.importing.checking import check_data, find_splits
from mstar.errors import DataError
from tests.data.importing.published import encoded, png


def write(folder, name, *images, **more):
    rows = [
        {
            "id": f"{name}-{number}",
            "image": {"bytes": image, "path": None},
            "question": "How many?",
            "answer": "3",
        }
        | more
        for number, image in enumerate(images)
    ]
    pq.write_table(pa.Table.from_pylist(rows), folder / f"{name}.parquet")


def quiet(*_):
    pass


def test_every_split_is_found_however_its_files_are_called(tmp_path):
    parts = ("train-00000-of-00002", "train-00001-of-00002", "mine-00000")
    for name in ("test", "validation-00000-of-00001-725687bf7a18d64b", "a-b", *parts):
        write(tmp_path, name, png(1))
    found = {split.name: len(split.files) for split in find_splits(tmp_path)}
    assert found == {"train": 2, "validation": 1, "test": 1, "a-b": 1, "mine": 1}


def test_rows_images_kinds_and_sources_are_counted(tmp_path):
    write(tmp_path, "train", png(1), png(1), png(2), png(1), source="IconQA")
    tally = check_data(find_splits(tmp_path), quiet).splits["train"]
    assert (tally.rows, tally.images) == (4, 2)
    assert (tally.types, tally.sources) == ({"integer": 4}, {"IconQA": 4})


def test_images_that_splits_share_are_counted_by_pair(tmp_path):
    write(tmp_path, "train", png(1), png(2), png(3))
    write(tmp_path, "test", png(2), png(2), png(3), png(4))
    found = check_data(find_splits(tmp_path), quiet)
    assert found.shared == {"train and test": 2}
    assert found.examples[0] == "test-0 in test asks about an image of train"


def test_odd_images_are_counted_once_each(tmp_path):
    cmyk = encoded(Image.new("CMYK", (4, 4)), "JPEG")
    write(tmp_path, "train", cmyk, png(1), cmyk)
    assert check_data(find_splits(tmp_path), quiet).odd == {"CMYK": 1}


def test_what_stops_a_run_stops_the_check(tmp_path):
    write(tmp_path, "train", png(1), b"junk", b"junk")
    with pytest.raises(DataError, match="in no known format") as told:
        check_data(find_splits(tmp_path), quiet)
    assert "train-2" in str(told.value)


def test_an_image_asked_about_by_row_after_row_is_decoded_once(tmp_path, monkeypatch):
    decoded = []
    monkeypatch.setattr(validate, "check_image", lambda data, *_: decoded.append(data))
    write(tmp_path, "train", png(1), png(1), png(2), png(2), png(1))
    check_data(find_splits(tmp_path), quiet)
    assert decoded == [png(1), png(2), png(1)]
