"""Published files become questions, and a file that is not one is refused with one message."""

import json
from pathlib import Path

import pytest

from mstar.benchmarks.ai2d import AI2D as AI2D_BENCHMARK
from mstar.benchmarks.m3cot import M3COT as M3COT_BENCHMARK
from mstar.benchmarks.mathvista import MATHVISTA as MATHVISTA_BENCHMARK
from mstar.benchmarks.mmbench import MMBENCH, MMBENCH_R
from mstar.benchmarks.mmstar import MMSTAR as MMSTAR_BENCHMARK
from mstar.benchmarks.mmstar import MMSTAR_R, split_options
from mstar.benchmarks.registry import BENCHMARKS, PAPER, find_benchmarks, locate
from mstar.errors import DataError, SpecError
from tests.benchmarks.making import (
    AI2D,
    M3COT,
    MATHVISTA,
    MMSTAR,
    image,
    m3cot_row,
    mathvista_row,
    mmstar_row,
    number_row,
    png,
    rotations,
    tsv_row,
    write_all,
    write_json,
    write_parquet,
    write_tsv,
)


def test_mathvista_is_read_alike_from_parquet_and_from_json(tmp_path):
    rows = [mathvista_row(), number_row("2", "1.2", "float", precision=1.0, unit="cm")]
    parquet = write_parquet(tmp_path / "testmini-0.parquet", rows, MATHVISTA)
    plain = write_json(tmp_path / "testmini.json", rows)
    found = [asked.item for asked in MATHVISTA_BENCHMARK.read(parquet)]
    assert found == [asked.item for asked in MATHVISTA_BENCHMARK.read(plain)]
    assert [asked.image for asked in MATHVISTA_BENCHMARK.read(plain)] == [png(), png()]
    assert found[0].options == ("the cat", "the dog")
    assert (found[1].kind, found[1].precision) == ("float", 1)
    assert found[0].facets["skills"] == ("numeric commonsense",)


def test_mathvistas_prompt_is_the_published_query(tmp_path):
    rows = [
        mathvista_row("1"),
        number_row("2", "7", unit="cm"),
        number_row("3", "0.25", "float", precision=2.0),
        number_row("4", "[1]", "list"),
        mathvista_row("5", query="as published"),
    ]
    path = write_parquet(tmp_path / "testmini-0.parquet", rows, MATHVISTA)
    prompts = [asked.item.prompt for asked in MATHVISTA_BENCHMARK.read(path)]
    end = ", at the end.\nQuestion: "
    number = "Hint: Please answer the question requiring "
    places = "a floating-point number with two decimal places and provide the final value, e.g., 1.23, 1.34, 1.45"
    examples = "[1, 2, 3], [1.2, 1.3, 1.4]"
    letter = (
        "Hint: Please answer the question and provide the correct option letter, e.g., A, B, C, D"
    )
    assert prompts == [
        f"{letter}{end}Which is larger?\nChoices:\n(A) the cat\n(B) the dog",
        f"{number}an integer answer and provide the final value, e.g., 1, 2, 3{end}How many? (Unit: cm)",
        f"{number}{places}{end}How many?",
        f"{number}a Python list as an answer and provide the final list, e.g., {examples}{end}How many?",
        "as published",
    ]


def test_m3cots_prompt_has_context_and_choices(tmp_path):
    rows = [m3cot_row(), m3cot_row("b", context="It stands in a street.")]
    path = write_parquet(tmp_path / "test-0.parquet", rows, M3COT)
    plain, told = [asked.item.prompt for asked in M3COT_BENCHMARK.read(path)]
    question = (
        "[Question]\nWhat is it for?\n[Choices]\n(A) to sell food\n(B) to sleep\n(C) to drive"
        "\n\nLet's think step-by-step!"
    )
    assert plain == question
    assert told == f"[Context]\nIt stands in a street.\n\n{question}"


def test_m3cot_is_read_from_its_jsonl_too(tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "1.png").write_bytes(png())
    row = m3cot_row() | {"image": "images/1.png"}
    path = tmp_path / "test.jsonl"
    path.write_text(json.dumps(row) + "\n", encoding="utf-8")
    (asked,) = M3COT_BENCHMARK.read(path)
    assert (asked.item.answer, asked.image) == ("A", png())


def test_mmstar_is_read_alike_with_options_in_the_text_and_in_columns(tmp_path):
    parquet = write_parquet(tmp_path / "mmstar.parquet", [mmstar_row()], MMSTAR)
    row = tsv_row(0, question="Where is it?", category="math", l2_category="geometry")
    texts = {"A": "on the book, beside the cat", "B": "under the bed", "C": "nowhere", "D": "here."}
    tsv = write_tsv(tmp_path / "MMStar.tsv", [row | texts])
    (one,), (other,) = MMSTAR_BENCHMARK.read(parquet), MMSTAR_BENCHMARK.read(tsv)
    assert one == other
    assert one.item.prompt == (
        "Question: Where is it?\nOptions:\nA. on the book, beside the cat\nB. under the bed\nC. nowhere\nD. here.\n"
        "Please select the correct answer from the options above. \n"
    )


@pytest.mark.parametrize(
    ("question", "options"),
    [
        ("How?\nOptions: A: 1, B: 2", ("1", "2")),
        ("How?\nOptions: A: x, y, B: ratio 1: 2", ("x, y", "ratio 1: 2")),
        ("How? (A) 1 (B) 2", ()),
        ("How?\nOptions: A: 1, C: 2", ()),
    ],
)
def test_options_are_split_off_only_where_they_are_whole(question, options):
    assert split_options(question) == (("How?" if options else question), options)


def test_rotations_of_mmbench_share_group_and_image(tmp_path):
    path = write_tsv(tmp_path / "MMBench_DEV_EN_V11.tsv", rotations(7, hint="Look closely."))
    found = list(MMBENCH.read(path))
    assert [asked.item.id for asked in found] == ["7", "1000007", "2000007"]
    assert {asked.item.group for asked in found} == {"7"}
    assert {asked.image for asked in found} == {png()}
    assert [asked.item.answer for asked in found] == ["B", "A", "C"]
    assert found[0].item.prompt.startswith(
        "Hint: Look closely.\nQuestion: What is it?\nOptions:\nA. a cat\n"
    )
    assert found[0].item.facets["l2-category"] == ("LR",)


def test_ai2d_is_read_from_tsv_and_from_parquet(tmp_path):
    tsv = write_tsv(tmp_path / "AI2D_TEST.tsv", [tsv_row()])
    row = {
        "question": "What is it?",
        "options": ["a cat", "a dog", "a cow"],
        "answer": "1",
        "image": image(),
    }
    parquet = write_parquet(tmp_path / "test-0.parquet", [row], AI2D)
    (one,), (other,) = AI2D_BENCHMARK.read(tsv), AI2D_BENCHMARK.read(parquet)
    assert one.item.prompt == other.item.prompt
    assert one.item.answer == other.item.answer == "B"


@pytest.mark.parametrize(
    ("benchmark", "name", "row", "lacking"),
    [
        (MATHVISTA_BENCHMARK, "testmini.parquet", mathvista_row(), "decoded_image"),
        (M3COT_BENCHMARK, "test-0.parquet", m3cot_row(), "topic"),
        (MMSTAR_BENCHMARK, "mmstar.parquet", mmstar_row(), "l2_category"),
    ],
)
def test_a_parquet_file_without_a_column_is_one_message(tmp_path, benchmark, name, row, lacking):
    schema = {"testmini.parquet": MATHVISTA, "test-0.parquet": M3COT, "mmstar.parquet": MMSTAR}[
        name
    ]
    path = tmp_path / name
    write_parquet(path, [row], schema.remove(schema.get_field_index(lacking)))
    with pytest.raises(DataError, match=f"{name}: missing columns: {lacking}; expected .*; found "):
        list(benchmark.read(path))


def test_a_tsv_file_without_a_column_is_one_message(tmp_path):
    row = tsv_row()
    del row["l2-category"], row["answer"]
    path = write_tsv(tmp_path / "MMBench_DEV_EN_V11.tsv", [row])
    with pytest.raises(DataError, match="missing columns: answer, l2-category; expected index"):
        list(MMBENCH.read(path))


def test_a_json_file_without_a_column_names_the_question(tmp_path):
    path = write_json(tmp_path / "testmini.json", [mathvista_row()])
    body = json.loads(path.read_text())
    del body["1"]["answer_type"]
    path.write_text(json.dumps(body))
    with pytest.raises(DataError, match="question 1: missing columns: answer_type"):
        list(MATHVISTA_BENCHMARK.read(path))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"answer": "E"}, "index 1: answer 'E' is the letter of none of 3 options"),
        ({"answer": ""}, "row 1: answer is empty"),
        ({"image": "12"}, "index 1: image is '12', but no earlier row"),
        ({"index": "x"}, "index x: the index is no whole number"),
    ],
)
def test_a_wrong_row_is_named(tmp_path, changes, message):
    path = write_tsv(tmp_path / "MMBench_DEV_EN_V11.tsv", [tsv_row(**changes)])
    with pytest.raises(DataError, match=message):
        list(MMBENCH.read(path))


def test_a_question_without_an_image_is_named(tmp_path):
    path = write_parquet(tmp_path / "mmstar.parquet", [mmstar_row(4, image=None)], MMSTAR)
    with pytest.raises(DataError, match="index 4: column image holds no image bytes"):
        list(MMSTAR_BENCHMARK.read(path))
    json_path = write_json(tmp_path / "testmini.json", [mathvista_row()])
    (tmp_path / "images" / "1.jpg").unlink()
    with pytest.raises(DataError, match=r"pid 1: its image is missing; expected .*1\.jpg"):
        list(MATHVISTA_BENCHMARK.read(json_path))


def test_what_is_no_parquet_or_json_is_one_message(tmp_path):
    for name, benchmark in (
        ("testmini.parquet", MATHVISTA_BENCHMARK),
        ("testmini.json", MATHVISTA_BENCHMARK),
    ):
        path = tmp_path / name
        path.write_text("version https://git-lfs.github.com/spec/v1")
        with pytest.raises(DataError, match=f"{name} cannot be read as"):
            list(benchmark.read(path))


def test_published_names_are_found_below_a_folder(tmp_path):
    write_all(tmp_path)
    sources = locate(tuple(BENCHMARKS.values()), tmp_path, {})
    names = {source.benchmark.name: source.files[0].name for source in sources}
    assert names["mathvista"].startswith("testmini-")
    assert names["m3cot"] == "test-00000-of-00001.parquet"
    assert names["mmstar"] == names["mmstar-r"] == "mmstar.parquet"
    assert names["mmbench"] == names["mmbench-r"] == "MMBench_DEV_EN_V11.tsv"
    assert (names["ai2d"], names["ai2d-no-mask"]) == ("AI2D_TEST.tsv", "AI2D_TEST_NO_MASK.tsv")


def test_a_name_that_sets_share_counts_only_in_a_folder_called_like_the_benchmark(tmp_path):
    write_parquet(tmp_path / "M3CoT" / "test-0.parquet", [m3cot_row()], M3COT)
    with pytest.raises(DataError, match=r"(?s)ai2d: AI2D_TEST\.tsv or .*--file NAME=PATH"):
        locate(find_benchmarks(["ai2d", "m3cot"]), tmp_path, {})
    row = {"question": "q", "options": ["a", "b"], "answer": "0", "image": image()}
    file = write_parquet(tmp_path / "lmms-lab__ai2d" / "test-0.parquet", [row], AI2D)
    assert locate(find_benchmarks(["ai2d"]), tmp_path, {})[0].files == (file,)
    given = locate(find_benchmarks(["ai2d-no-mask"]), tmp_path, {"ai2d-no-mask": file})
    assert given[0].files == (file,)


def test_the_folder_one_stands_in_has_its_name_too(tmp_path, monkeypatch):
    row = {"question": "?", "options": ["x", "y"], "answer": "0", "image": image()}
    write_parquet(tmp_path / "ai2d" / "test-0.parquet", [row], AI2D)
    monkeypatch.chdir(tmp_path / "ai2d")
    (found,) = locate(find_benchmarks(["ai2d"]), Path(), {})
    assert found.files == (Path("test-0.parquet"),)


def test_a_set_of_which_a_part_is_missing_is_refused_and_the_part_named(tmp_path):
    first = tmp_path / "data" / "testmini-00000-of-00002-725687bf7a18d64b.parquet"
    write_parquet(first, [mathvista_row()], MATHVISTA)
    for given in ({}, {"mathvista": first}, {"mathvista": first.parent}):
        with pytest.raises(
            DataError, match=r"not whole: .*lacks testmini-00001-of-00002-\*\.parquet"
        ):
            locate(find_benchmarks(["mathvista"]), tmp_path, given)
    second = tmp_path / "data" / "testmini-00001-of-00002-0123456789abcdef.parquet"
    write_parquet(second, [mathvista_row("2")], MATHVISTA)
    for given in ({}, {"mathvista": first}):
        (found,) = locate(find_benchmarks(["mathvista"]), tmp_path, given)
        assert found.files == (first, second)


def test_a_set_that_is_there_twice_is_refused_and_both_are_named(tmp_path):
    for place in ("one", "other/data"):
        write_parquet(tmp_path / place / "testmini.parquet", [mathvista_row()], MATHVISTA)
    with pytest.raises(
        DataError, match=r"one/testmini\.parquet and .*other/data/testmini\.parquet"
    ):
        locate(find_benchmarks(["mathvista"]), tmp_path, {})
    given = {"mathvista": tmp_path / "one" / "testmini.parquet"}
    assert locate(find_benchmarks(["mathvista"]), tmp_path, given)[0].files == (given["mathvista"],)


@pytest.mark.parametrize(
    ("row", "words"),
    [
        (mathvista_row(answer="the mouse"), "'the mouse' is none of the 2 choices"),
        (number_row("1", "abc"), "'abc' is no integer"),
        (number_row("1", "abc", "float"), "'abc' is no float"),
    ],
)
def test_an_answer_of_mathvista_that_no_response_could_reach_is_refused(tmp_path, row, words):
    path = write_parquet(tmp_path / "testmini.parquet", [row], MATHVISTA)
    with pytest.raises(DataError, match=f"pid 1: answer {words}"):
        list(MATHVISTA_BENCHMARK.read(path))


def test_unknown_benchmarks_are_named_with_the_nearest():
    assert [found.name for found in find_benchmarks(["paper", "mathvista"])] == list(PAPER)
    with pytest.raises(SpecError, match=r"'mathvsta'; did you mean mathvista\?"):
        find_benchmarks(["mathvsta"])
    with pytest.raises(SpecError, match="no benchmark is named"):
        find_benchmarks([])


def test_parts_keep_the_reasoning_categories(tmp_path):
    write_all(tmp_path)
    stars = [asked.item for asked in MMSTAR_R.read(tmp_path / "mmstar.parquet")]
    assert [MMSTAR_R.keep(item) for item in stars] == [True, True, False]
    items = [asked.item for asked in MMBENCH_R.read(tmp_path / "MMBench_DEV_EN_V11.tsv")]
    assert [MMBENCH_R.keep(item) for item in items] == [True] * 3 + [False] * 3
