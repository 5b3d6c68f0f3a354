"""``mstarctl data``: import, check and show, for people and for programs."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from mstarctl.main import app
from typer.testing import CliRunner

from mstar.errors import DataError
from tests.data.importing.published import item, mathv360k, png

FEW = ("--test", "9", "--validation", "6", "--workers", "1")


def run(*arguments):
    return CliRunner().invoke(app, ["data", *map(str, arguments)])


@pytest.fixture
def imported(tmp_path):
    more = [
        item(900, "IconQA/images/3.png", "How tall?", "The answer is 5"),
        item(901, "IconQA/images/3.png", "How tall?", "The answer is 6"),
        item(902, "X/images/gone.png", "How tall?", "The answer is 6"),
    ]
    folder = mathv360k(tmp_path / "in", more=more)
    told = run("import", "mathv360k", folder, "--out", tmp_path / "out", *FEW)
    assert told.exit_code == 0, told.output
    return tmp_path / "out", told.stdout


def test_an_import_says_what_it_made_what_it_left_out_and_where_to_look(imported):
    out, said = imported
    assert "Read 63 rows and 21 images, of which 1 cannot be used." in said
    assert "Left out 2: its question has conflicting answers, such as identity_90" in said
    assert "Left out 1: its image is not there, such as identity_902: X/images" in said
    for word in (
        "train",
        "unlabeled",
        "validation",
        "test",
        "integer 67%",
        "import-problems.jsonl",
    ):
        assert word in said
    assert f"mstarctl data show {out}" in " ".join(said.split())


def test_a_share_that_test_and_validation_leave_no_room_for_is_said(imported, tmp_path):
    _, said = imported
    assert "--labeled" not in said
    few = run(
        "import", "mathv360k", tmp_path / "in", "--out", tmp_path / "o", *FEW, "--labeled", 0.9
    )
    assert "train has 45 of the 54 rows that --labeled 0.9 asks for: test takes 9 and" in few.stdout


def test_an_import_again_is_told_from_its_report_and_programs_get_all_of_it(imported, tmp_path):
    out, _ = imported
    told = run("import", "mathv360k", tmp_path / "in", "--out", out, *FEW, "-o", "json")
    body = json.loads(told.stdout)
    assert body["out"] == str(out)
    assert body["read"] == 63
    assert body["splits"]["test"]["rows"] == 9
    assert body["splits"]["train"]["sources"] == {"IconQA": 30}


def test_a_table_is_imported_with_its_columns_mapped(tmp_path):
    (tmp_path / "pictures").mkdir()
    lines = []
    for number in range(30):
        (tmp_path / "pictures" / f"{number}.png").write_bytes(png(number))
        lines.append({"img": f"{number}.png", "q": f"What is {number}?", "a": str(number)})
    table = tmp_path / "mine.jsonl"
    table.write_text("".join(json.dumps(line) + "\n" for line in lines))
    maps = [f"--map={part}" for part in ("image=img", "question=q", "answer=a")]
    where = ("--images", tmp_path / "pictures", "--out", tmp_path / "out")
    told = run("import", "jsonl", table, *maps, *where, *FEW, "-o", "json")
    splits = json.loads(told.stdout)["splits"]
    assert {name: split["rows"] for name, split in splits.items()} == {
        "train": 15,
        "test": 9,
        "validation": 6,
    }


@pytest.mark.parametrize("form", ["jsonl", "parquet", "tsv", "hf"])
def test_every_kind_of_table_has_a_command_with_help(form):
    told = run("import", form, "--help")
    assert told.exit_code == 0
    assert "--map" in told.stdout


def test_check_counts_what_is_there(imported):
    out, _ = imported
    body = json.loads(run("check", out, "-o", "json").stdout)
    assert body["shared"] == {}
    assert {name: split["rows"] for name, split in body["splits"].items()} == {
        "train": 30,
        "unlabeled": 15,
        "validation": 6,
        "test": 9,
    }
    assert body["splits"]["train"]["images"] == 10
    assert "train" in run("check", out).stdout


def write(path, rows):
    pq.write_table(pa.Table.from_pylist(rows), path)


def test_check_refuses_an_image_in_two_splits(tmp_path):
    for name in ("train", "test"):
        picture = {"bytes": png(1), "path": None}
        row = {"id": name, "image": picture, "question": "?", "answer": "3"}
        write(tmp_path / f"{name}.parquet", [row])
    told = run("check", tmp_path)
    assert isinstance(told.exception, DataError)
    assert "splits share images" in str(told.exception)
    assert "train and test: 1" in str(told.exception)
    assert "test in test asks about an image of train" in str(told.exception)


def test_check_of_no_data_is_one_message(tmp_path):
    assert "no *.parquet" in str(run("check", tmp_path).exception)
    assert "no data folder" in str(run("check", tmp_path / "none").exception)


def test_show_writes_one_page_with_pictures_inside_and_nothing_fetched(imported, tmp_path):
    out, _ = imported
    page = tmp_path / "p" / "page.html"
    told = run("show", out, "--out", page, "--samples", 4, "-o", "json")
    facts = json.loads(told.stdout)
    assert (facts["samples"], facts["bytes"]) == (16, page.stat().st_size)
    text = page.read_text()
    assert text.count("<img ") == text.count("data:image/png;base64,") == 16
    for word in ("http://", "https://", "<script"):
        assert word not in text
    for word in ("unlabeled", "validation", "IconQA 100%", "identity_", "How many are"):
        assert word in text


def test_show_marks_the_right_option_and_escapes_what_data_say(tmp_path):
    picture = {"bytes": png(1), "path": None}
    row = {"id": "q", "image": picture, "question": "<b>?", "options": ["x", "<i>y"], "answer": "B"}
    write(tmp_path / "mine.parquet", [row])
    page = tmp_path / "page.html"
    assert run("show", tmp_path, "--split", "mine", "--out", page).exit_code == 0
    text = page.read_text()
    assert '<li class="true">B  &lt;i&gt;y</li>' in text
    assert "<li>A  x</li>" in text
    assert "&lt;b&gt;?" in text


def test_a_broken_picture_leaves_its_place_empty_on_the_page(tmp_path):
    row = {"id": "q", "image": {"bytes": b"no", "path": None}, "question": "?", "answer": "3"}
    write(tmp_path / "mine.parquet", [row])
    page = tmp_path / "page.html"
    assert run("show", tmp_path, "--out", page).exit_code == 0
    assert "No picture" in page.read_text()


def test_an_import_that_is_interrupted_says_how_to_go_on(tmp_path, monkeypatch):
    folder = mathv360k(tmp_path / "in")

    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("mstar.data.importing.whole.write_shard", stop)
    told = run("import", "mathv360k", folder, "--out", tmp_path / "out", *FEW)
    assert told.exit_code == 130
    assert "goes on where this stopped" in told.stderr
    monkeypatch.undo()
    again = run("import", "mathv360k", folder, "--out", tmp_path / "out", *FEW, "-o", "json")
    assert json.loads(again.stdout)["resumed"] == 20


def test_a_split_is_for_what_datasets_saved_alone(tmp_path):
    told = run("import", "jsonl", tmp_path, "--split", "train")
    assert told.exit_code == 2
    assert "--split" in told.output
