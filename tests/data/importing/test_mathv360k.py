"""MathV360K in its published format becomes splits that a run reads; what is wrong with it is counted and named."""

import json
from collections import Counter

import pyarrow.parquet as pq
import pytest

from mstar.data.importing.checking import find_splits
from mstar.data.importing.mathv360k import find_files, read_mathv360k
from mstar.data.importing.records import Asked, Shares
from mstar.data.importing.whole import import_data
from mstar.data.splits import find_split
from mstar.data.validate import check_splits
from mstar.errors import ConflictError, DataError
from tests.data.importing.published import HINT, item, mathv360k, png

SHARES = Shares(test=9, validation=6)


def quiet(*_):
    pass


def imported(folder, out, shares=SHARES, **how):
    asked = Asked(identity={"of": str(folder)}, shares=shares, **how)
    return import_data(read_mathv360k(*find_files(folder)), out, asked, quiet)


def problems(out):
    lines = (out / "import-problems.jsonl").read_text().splitlines()
    return {row["id"]: row for row in map(json.loads, lines)}


def rows(out):
    return [
        row
        for split in find_splits(out)
        for file in split.files
        for row in pq.read_table(file).to_pylist()
    ]


def test_half_is_labeled_half_is_not_and_test_and_validation_come_out_of_that_half(tmp_path):
    out = tmp_path / "out"
    report = imported(mathv360k(tmp_path / "in"), out)
    counts = {name: tally.rows for name, tally in report.splits.items()}
    assert counts == {"train": 30, "unlabeled": 15, "test": 9, "validation": 6}
    assert check_splits([find_split(out, name) for name in counts]) == counts
    owners: dict[str, str] = {}
    for split in find_splits(out):
        for file in split.files:
            for row in pq.read_table(file).to_pylist():
                assert owners.setdefault(row["image"]["path"], split.name) == split.name
                assert row["image"]["bytes"] == png(int(row["image"]["path"].split("/")[-1][:-4]))


def test_options_answers_types_and_sources_are_as_asked(tmp_path):
    imported(mathv360k(tmp_path / "in"), tmp_path / "out")
    choice = next(row for row in rows(tmp_path / "out") if row["id"] == "identity_1")
    assert choice["question"] == "What is 1?"
    assert choice["options"] == ["3", "4"]
    assert (choice["answer"], choice["type"], choice["source"]) == ("B", "choice", "IconQA")
    free = next(row for row in rows(tmp_path / "out") if row["id"] == "identity_0")
    assert (free["question"], free["answer"], free["type"]) == ("How many are 0?", "1", "integer")
    assert free["options"] == []


def test_conflicting_answers_are_all_dropped_and_equal_ones_kept_once(tmp_path):
    image = "IconQA/images/3.png"
    more = [
        item(900, image, "How tall?", "The answer is 5"),
        item(901, image, "How  tall?", "The answer is 6"),
        item(902, image, "How wide?", "The answer is 0.5"),
        item(903, image, "How wide?", "The answer is 1/2"),
        item(904, image, f"{HINT}Which?\nChoices:\n(A) x\n(B) y", "The answer is A"),
        item(905, image, f"{HINT}Which?\nChoices:\n(A) x\n(B) y", "The answer is x"),
        item(906, image, f"{HINT}Which?\nChoices:\n(A) y\n(B) x", "The answer is A"),
        item(907, "Other/images/same.png", "How tall?", "The answer is 7"),
    ]
    folder = mathv360k(tmp_path / "in", more=more, pictures={"Other/images/same.png": png(3)})
    report = imported(folder, tmp_path / "out")
    ids = {row["id"] for row in rows(tmp_path / "out")}
    assert not ids & {
        "identity_900",
        "identity_901",
        "identity_903",
        "identity_905",
        "identity_907",
    }
    assert {"identity_902", "identity_904", "identity_906"} <= ids
    assert report.dropped == {"its question has conflicting answers": 3, "is there already": 2}
    assert "answer '6'" in problems(tmp_path / "out")["identity_901"]["detail"]


def test_broken_images_are_counted_and_named_and_stop_nothing(tmp_path):
    more = [
        item(900, "VizWiz/images/torn.jpg", "What?", "The answer is a dog"),
        item(901, "VizWiz/images/torn.jpg", "What else?", "The answer is a cat"),
        item(902, "VizWiz/images/gone.jpg", "What?", "The answer is a dog"),
    ]
    torn = {"VizWiz/images/torn.jpg": png(5)[:40]}
    report = imported(mathv360k(tmp_path / "in", more=more, pictures=torn), tmp_path / "out")
    assert report.broken == 2
    assert report.dropped == {"its image is broken": 2, "its image is not there": 1}
    assert "VizWiz/images/torn.jpg" in problems(tmp_path / "out")["identity_901"]["detail"]
    assert "gone.jpg" in report.examples["its image is not there"][0]


def test_rows_that_are_no_rows_are_counted_and_named(tmp_path):
    image = "IconQA/images/0.png"
    two = item(901, image, "<image> and this?", "The answer is 1")
    long = item(902, image, "one?", "The answer is 1")
    long["conversations"] *= 2
    more = [
        {"id": "identity_900", "conversations": item(0, image, "q?", "1")["conversations"]},
        two,
        long,
        item(903, image, f"{HINT}Which?\nChoices:\n(A) x\n(B) y", "The answer is C"),
        item(904, [image, image], "which?", "The answer is 1"),
        item(905, image, "", "The answer is 1"),
        item(906, image, "how?", "The answer is "),
        "no row",
    ]
    report = imported(mathv360k(tmp_path / "in", more=more), tmp_path / "out")
    reasons = {query: row["reason"] for query, row in problems(tmp_path / "out").items()}
    assert reasons == {
        "identity_900": "names no image",
        "identity_901": "has several images",
        "identity_902": "not readable as a row",
        "identity_903": "its answer cannot be checked",
        "identity_904": "has several images",
        "identity_905": "not readable as a row",
        "identity_906": "its answer cannot be checked",
        "row-67": "not readable as a row",
    }
    assert report.read == 68


def test_an_id_that_comes_twice_gets_a_number(tmp_path):
    more = [item(0, "IconQA/images/1.png", "Another?", "The answer is 1")]
    imported(mathv360k(tmp_path / "in", more=more), tmp_path / "out")
    counts = Counter(row["id"] for row in rows(tmp_path / "out"))
    assert counts["identity_0"] == counts["identity_0#2"] == 1


def test_text_with_half_a_character_can_be_stored(tmp_path):
    more = [item(900, "IconQA/images/1.png", "Why \ud83d?", "The answer is 1")]
    imported(mathv360k(tmp_path / "in", more=more), tmp_path / "out")
    assert any(row["question"] == "Why ??" for row in rows(tmp_path / "out"))


def test_an_image_is_stored_once_however_many_questions_ask_about_it(tmp_path):
    from PIL import Image

    from tests.data.importing.published import encoded

    noise = {f"X/images/{n}.png": encoded(Image.effect_noise((200, 200), 80)) for n in range(3)}
    more = [
        item(1000 + n, f"X/images/{n % 3}.png", f"Question {n}?", "The answer is 1")
        for n in range(90)
    ]
    folder = mathv360k(tmp_path / "in", more=more, pictures=noise)
    imported(folder, tmp_path / "out", Shares(labeled=1.0, test=1, validation=1))
    stored = sum(file.stat().st_size for file in (tmp_path / "out").glob("*.parquet"))
    assert stored < 1.3 * sum(map(len, noise.values()))


def test_the_same_import_again_reads_nothing_and_another_is_refused(tmp_path):
    folder, out = mathv360k(tmp_path / "in"), tmp_path / "out"
    first = imported(folder, out)
    asked = Asked(identity={"of": str(folder)}, shares=SHARES)
    assert import_data(iter(()), out, asked, quiet) == first
    with pytest.raises(ConflictError, match="another import"):
        imported(folder, out, seed=1)


def test_a_folder_with_other_things_is_refused_and_left_alone(tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "mine.txt").touch()
    with pytest.raises(ConflictError, match="not empty"):
        imported(mathv360k(tmp_path / "in"), out)
    assert [path.name for path in out.iterdir()] == ["mine.txt"]


def test_too_few_rows_say_so_and_asking_for_fewer_goes_on_in_the_same_folder(tmp_path):
    folder, out = mathv360k(tmp_path / "in"), tmp_path / "out"
    with pytest.raises(DataError, match="--test and --validation"):
        imported(folder, out, Shares())
    report = imported(folder, out)
    assert report.resumed == 20


def test_where_no_image_is_found_the_message_asks_for_the_folder(tmp_path):
    folder = mathv360k(tmp_path / "in", images=0, more=[item(1, "X/1.png", "how?", "1")])
    with pytest.raises(DataError, match=r"none of 1 rows .* folder of images the right one"):
        imported(folder, tmp_path / "out")


def test_a_list_without_rows_says_that_it_is_empty(tmp_path):
    with pytest.raises(DataError, match="no rows"):
        imported(mathv360k(tmp_path / "in", images=0), tmp_path / "out")


@pytest.mark.parametrize("missing", ["train_samples_all_tuning.json", "data_images"])
def test_a_missing_file_is_named(tmp_path, missing):
    folder = mathv360k(tmp_path / "in")
    (folder / missing).rename(tmp_path / "away")
    with pytest.raises(DataError, match=missing):
        find_files(folder)


@pytest.mark.parametrize("torn", ['{"id": 1}', "", '[{"id": "identity_0", "ima', '[{"id": 1} oops'])
def test_a_file_that_is_no_whole_json_list_is_refused(tmp_path, torn):
    folder = mathv360k(tmp_path / "in")
    (folder / "train_samples_all_tuning.json").write_text(torn)
    with pytest.raises(DataError, match=r"no JSON"):
        imported(folder, tmp_path / "out")
