"""``mstarctl eval``, with the model that ships with the project, and with a judge on this machine."""

import json

import pytest
from mstarctl.main import app
from typer.testing import CliRunner

from mstar.analysis import endpoint
from mstar.demo.specs import base_folder
from mstar.errors import DataError, ModelError, SpecError
from tests.analysis.making import completion, judge
from tests.benchmarks.making import (
    MATHVISTA,
    number_row,
    write_all,
    write_parquet,
)


@pytest.fixture
def call(tmp_path, monkeypatch):
    """The command on files in ``data``, into ``out``."""
    monkeypatch.setenv("no_proxy", "*")

    def run(*options, model=None):
        given = [
            "--model",
            model or base_folder(),
            "--data",
            tmp_path / "data",
            "--out",
            tmp_path / "out",
        ]
        length = ["--max-new-tokens", "8", "--threads", "1", "--device", "cpu"]
        return CliRunner().invoke(app, ["eval", *map(str, [*given, *length, *options])])

    return run


def test_the_shipped_model_is_scored_on_the_papers_five(tmp_path, call):
    write_all(tmp_path / "data")
    result = call()
    assert result.exit_code == 0, result.output
    assert "MathVista testmini\nCorrect: " in result.output
    assert "MMBench-R dev v1.1 (circular)" in result.output
    assert "/3 of 1000" in result.output
    found = json.loads((tmp_path / "out" / "scores.json").read_text())["scores"]
    assert [one["benchmark"] for one in found] == [
        "mathvista",
        "m3cot",
        "mmstar-r",
        "mmbench-r",
        "ai2d",
    ]
    assert all(one["total"] for one in found)
    answers = (tmp_path / "out" / "mathvista.answers.jsonl").read_text().splitlines()
    assert all(json.loads(line)["text"] for line in answers[1:])
    again = call("-o", "json")
    assert json.loads(again.stdout)["scores"] == found


def test_a_judge_reads_what_the_rule_cannot(tmp_path, call):
    rows = [number_row("1"), number_row("2", question="How many more?")]
    write_parquet(tmp_path / "data" / "testmini-0.parquet", rows, MATHVISTA)
    with judge(lambda _: completion("14")) as (url, script):
        result = call(
            "--benchmarks", "mathvista", "--judge", url, "--judge-model", "m", "-o", "json"
        )
    assert result.exit_code == 0, result.output
    (found,) = json.loads(result.stdout)["scores"]
    assert found["by_judge"] == len(script.seen)
    assert found["by_judge"] + found["unread"] <= 2


def test_a_judge_that_fails_is_said_at_the_end_and_stays_with_the_scores(
    tmp_path, call, monkeypatch
):
    monkeypatch.setattr(endpoint, "PAUSES", ())
    write_parquet(tmp_path / "data" / "testmini-0.parquet", [number_row("1")], MATHVISTA)
    with judge(lambda _: (500, {}, b"down")) as (url, script):
        result = call("--benchmarks", "mathvista", "--judge", url, "--judge-model", "m")
    assert result.exit_code == 0, result.output
    assert len(script.seen) == 1, "the rule read no answer"
    assert "the judge failed at 1 of 1 (it answers 500 " in result.output
    body = json.loads((tmp_path / "out" / "scores.json").read_text())
    assert (body["judge"]["asked"], body["judge"]["failed"]) == (1, 1)


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        (("--benchmarks", "mathvsta"), SpecError, "did you mean mathvista"),
        (("--benchmarks", "m3cot"), DataError, "m3cot: test-*.parquet"),
        (("--file", "m3cot"), SpecError, "expected NAME=PATH"),
        (("--file", "m3cot=nowhere"), SpecError, "there is no nowhere"),
        (
            ("--benchmarks", "mathvista", "--prompt", "{question}"),
            SpecError,
            "--prompt lacks {options}",
        ),
        (
            ("--benchmarks", "mathvista", "--prompt", "{x}"),
            SpecError,
            "only {question} and {options}",
        ),
        (
            ("--benchmarks", "mathvista", "--prompt", "{question.x}{question}{options}"),
            SpecError,
            "only {question} and {options}",
        ),
        (
            ("--benchmarks", "mathvista", "--judge", "http://localhost/v1"),
            SpecError,
            "--judge-model",
        ),
    ],
)
def test_a_mistake_is_one_message(tmp_path, call, options, error, words):
    write_parquet(tmp_path / "data" / "testmini-0.parquet", [number_row("1")], MATHVISTA)
    result = call(*options)
    assert isinstance(result.exception, error), result.output
    assert words in str(result.exception)


def test_a_folder_that_is_no_model_is_refused_before_anything_is_read(tmp_path, call):
    write_parquet(tmp_path / "data" / "testmini-0.parquet", [number_row("1")], MATHVISTA)
    result = call("--benchmarks", "mathvista", model=tmp_path)
    assert isinstance(result.exception, ModelError)
    assert not (tmp_path / "out").exists()
