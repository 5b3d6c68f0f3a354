"""Tables of any columns: what each part of a row may look like, and what a missing column is answered with."""

import base64
import csv
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mstar.data.importing.fields import Columns, parse_columns
from mstar.data.importing.records import Reason, Row, Skipped
from mstar.data.importing.tables import Format, open_table, read_table
from mstar.errors import DataError, SpecError
from tests.data.importing.published import png


def read(form, path, *mapping, split=None, **how):
    table = open_table(Format(form), path, split)
    columns = parse_columns(mapping, table.columns, **how)
    return list(read_table(table, columns, path.parent))


def jsonl(path, *items):
    lines = (item if isinstance(item, str) else json.dumps(item) for item in items)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def usual(**changes):
    return {"image": "a.png", "question": "How many?", "answer": "3"} | changes


def test_columns_are_mapped_and_others_ignored(tmp_path):
    found = {"img": "p/a.png", "problem": "<image>How?", "solution": "The answer is 4.", "x": 1}
    path = jsonl(tmp_path / "t.jsonl", found)
    (row,) = read("jsonl", path, "image=img", "question=problem", "answer=solution")
    assert row == Row(
        id="row-0", image=str(tmp_path / "p/a.png"), name="p/a.png", question="How?", answer="4"
    )


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        (["3", "4"], ("3", "4")),
        ([3, 4], ("3", "4")),
        ('["3", "4"]', ("3", "4")),
        ("['3', '4']", ("3", "4")),
        ({"text": ["3", "4"], "label": ["A", "B"]}, ("3", "4")),
        ([], ()),
        (None, ()),
        ("", ()),
    ],
)
def test_options_may_be_written_in_many_ways(tmp_path, options, wanted):
    (row,) = read("jsonl", jsonl(tmp_path / "t.jsonl", usual(options=options)))
    assert row.options == wanted


def test_options_that_are_no_list_are_named(tmp_path):
    (row,) = read("jsonl", jsonl(tmp_path / "t.jsonl", usual(options="3 or 4")))
    assert row.reason is Reason.MALFORMED
    assert "'3 or 4'" in row.detail


def test_options_come_out_of_the_question_when_asked(tmp_path):
    item = usual(question="Which?\nChoices:\n(A) 3\n(B) 4", answer="A")
    path = jsonl(tmp_path / "t.jsonl", item)
    assert read("jsonl", path)[0].options == ()
    assert read("jsonl", path, choices_inside=True)[0].options == ("3", "4")


@pytest.mark.parametrize(
    ("start", "answer", "letter"),
    [(0, 1, "B"), (1, 1, "A"), (0, "1", "B"), (0, 2, None), (1, 0, None)],
)
def test_answers_may_be_numbers_of_options(tmp_path, start, answer, letter):
    path = jsonl(tmp_path / "t.jsonl", usual(options=["x", "y"], answer=answer))
    (row,) = read("jsonl", path, answer_from=start)
    if letter:
        assert row.answer == letter
    else:
        assert row.reason is Reason.UNUSABLE_ANSWER


@pytest.mark.parametrize(
    ("image", "wanted"),
    [
        ({"bytes": None, "path": "b.png"}, "b.png"),
        (["b.png"], "b.png"),
        ("data:image/png;base64," + base64.b64encode(png(1)).decode(), png(1)),
        (base64.b64encode(png(1) + b"\0" * 600).decode(), png(1) + b"\0" * 600),
    ],
)
def test_an_image_may_be_a_path_or_base64_or_a_list_of_one(tmp_path, image, wanted):
    (row,) = read("jsonl", jsonl(tmp_path / "t.jsonl", usual(image=image)))
    assert row.image == (wanted if isinstance(wanted, bytes) else str(tmp_path / wanted))


@pytest.mark.parametrize(
    ("image", "reason"),
    [
        (["a.png", "b.png"], Reason.SEVERAL_IMAGES),
        ([], Reason.NO_IMAGE),
        (None, Reason.NO_IMAGE),
        (7, Reason.NO_IMAGE),
        ("data:image/png;base64,!!", Reason.BROKEN_IMAGE),
    ],
)
def test_a_row_without_one_image_is_left_out_and_says_why(tmp_path, image, reason):
    (row,) = read("jsonl", jsonl(tmp_path / "t.jsonl", usual(image=image)))
    assert row.reason is reason


def test_a_line_that_is_no_object_is_named_and_the_others_stay(tmp_path):
    path = jsonl(tmp_path / "t.jsonl", usual(), "{torn", "[1]", usual(answer="4"))
    rows = read("jsonl", path)
    assert [getattr(row, "answer", None) for row in rows] == ["3", None, None, "4"]
    assert rows[1] == Skipped(
        id="t.jsonl:2", reason=Reason.MALFORMED, detail="line 2 of t.jsonl is no JSON object"
    )


def test_a_json_list_is_read_as_lines_are(tmp_path):
    path = tmp_path / "t.json"
    path.write_text(json.dumps([usual(), usual(answer="4")], indent=2))
    assert [row.answer for row in read("jsonl", path)] == ["3", "4"]


def test_a_tsv_with_options_in_columns_and_images_in_base64(tmp_path):
    path = tmp_path / "t.tsv"
    with path.open("w", newline="") as file:
        writer = csv.writer(file, delimiter="\t")
        writer.writerow(["index", "image", "question", "A", "B", "C", "answer", "category"])
        image = base64.b64encode(png(1) + b"\0" * 200_000).decode()
        writer.writerow([17, image, 'Which "one"?\nLook.', "x", "y", "", "B", "logic"])
    (row,) = read("tsv", path, "options=A,B,C", "id=index", "source=category")
    assert row.image == png(1) + b"\0" * 200_000
    assert (row.id, row.options, row.answer, row.source) == ("17", ("x", "y"), "B", "logic")
    assert row.question == 'Which "one"?\nLook.'


def test_a_tsv_whose_first_column_has_no_name_is_read_as_any_other(tmp_path):
    path = tmp_path / "t.tsv"
    path.write_text("\timage\tquestion\tanswer\n0\ta.png\tHow many?\t3\n")
    (row,) = read("tsv", path)
    assert (row.question, row.answer) == ("How many?", "3")


def test_a_tsv_line_with_too_many_fields_is_named(tmp_path):
    path = tmp_path / "t.tsv"
    path.write_text("image\tquestion\tanswer\na.png\tq\t1\ta\tb\nb.png\tq\t1\n")
    assert read("tsv", path)[:1] == [
        Skipped(
            id="t.tsv:2",
            reason=Reason.MALFORMED,
            detail="the line has more fields than the head",
        )
    ]


def test_parquet_files_of_a_folder_are_read_in_order(tmp_path):
    for number in (1, 0):
        rows = [usual(answer=str(number), image={"bytes": png(number), "path": None}, other=[1])]
        pq.write_table(pa.Table.from_pylist(rows), tmp_path / f"{number}.parquet")
    assert [(row.answer, row.image) for row in read("parquet", tmp_path)] == [
        ("0", png(0)),
        ("1", png(1)),
    ]


def saved(folder, splits=("train",)):
    import datasets

    features = datasets.Features(
        {
            "image": datasets.Image(),
            "question": datasets.Value("string"),
            "options": datasets.Sequence(datasets.Value("string")),
            "answer": datasets.ClassLabel(names=["A", "B"]),
        }
    )
    made = {
        name: datasets.Dataset.from_dict(
            {
                "image": [{"bytes": png(n), "path": None} for n in range(3)],
                "question": [f"{name} {n}?" for n in range(3)],
                "options": [["x", "y"]] * 3,
                "answer": [n % 2 for n in range(3)],
            },
            features=features,
        )
        for name in splits
    }
    whole = datasets.DatasetDict(made) if len(splits) > 1 else made[splits[0]]
    whole.save_to_disk(str(folder))
    return folder


def test_what_datasets_saves_is_read_with_its_class_labels_spelled_out(tmp_path):
    rows = read("hf", saved(tmp_path / "d"))
    assert [row.answer for row in rows] == ["A", "B", "A"]
    assert rows[1].options == ("x", "y")
    assert rows[2].image == png(2)


def test_of_several_splits_one_must_be_chosen(tmp_path):
    folder = saved(tmp_path / "d", ("train", "test"))
    assert read("hf", folder, split="test")[0].question == "test 0?"
    with pytest.raises(DataError, match="several splits: choose one with --split: train, test"):
        read("hf", folder)
    with pytest.raises(DataError, match="no split dev"):
        read("hf", folder, split="dev")


@pytest.mark.parametrize("mark", ["", "-725687bf7a18d64b"])
def test_parquet_as_the_hub_keeps_it_is_read_by_split(tmp_path, mark):
    (tmp_path / "data").mkdir()
    train = [f"train-0000{number}-of-00002{mark}" for number in range(2)]
    for name in (*train, f"test-00000-of-00001{mark}"):
        table = pa.Table.from_pylist([usual(question=name)])
        pq.write_table(table, tmp_path / "data" / f"{name}.parquet")
    questions = [row.question for row in read("hf", tmp_path, split="train")]
    assert questions == train
    (tmp_path / "data" / f"{train[1]}.parquet").unlink()
    with pytest.raises(DataError, match="not whole, it lacks train-00001-of-00002"):
        read("hf", tmp_path, split="train")


def test_a_missing_column_is_named_with_those_there_and_what_to_do():
    with pytest.raises(
        DataError, match=r"no column answer; there are image, question, solution.*--map"
    ):
        parse_columns([], ["image", "question", "solution"])
    assert parse_columns(["answer=s"], ["image", "question", "s", "id"]) == Columns(
        answer="s", id="id"
    )


@pytest.mark.parametrize(
    ("pair", "message"),
    [("questoin=q", "did you mean question"), ("question", "PART=COLUMN"), ("question=", "PART=")],
)
def test_a_wrong_mapping_is_named(pair, message):
    with pytest.raises(SpecError, match=message):
        parse_columns([pair], ["q"])


@pytest.mark.parametrize("form", ["parquet", "hf", "jsonl", "tsv"])
def test_nothing_to_import_is_one_message(tmp_path, form):
    with pytest.raises(DataError, match="nothing at"):
        open_table(Format(form), tmp_path / "none")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"no \*|holds neither"):
        open_table(Format(form), tmp_path / "empty")


def test_a_file_that_is_no_parquet_is_named(tmp_path):
    (tmp_path / "t.parquet").write_text("no")
    with pytest.raises(DataError, match="is not a Parquet file"):
        open_table(Format.PARQUET, tmp_path / "t.parquet")
