"""Benchmarks as a run's last step: looked at before anything runs, stored with the run, asked by the evaluator."""

import json
import re

import pytest
from mstarctl.show import summary

from mstar.benchmarks.registry import find_benchmarks, locate
from mstar.controller.benchmarks import benchmark_sources, check_benchmarks, stored_files
from mstar.demo.specs import base_folder
from mstar.errors import DataError
from mstar.execution import Execution
from mstar.stages.run import Request, run_request
from mstar.storage.artifacts import commit_dataset, commit_model
from mstar.storage.folder import FolderStore
from mstar.storage.manifest import Ref
from mstar.storage.reading import open_part
from mstar.tasks import BenchmarkTask, Prompt
from tests.benchmarks.making import MATHVISTA, mathvista_row, write_all, write_parquet
from tests.report.making import make_spec

PAPER = ("mathvista", "m3cot", "mmstar-r", "mmbench-r", "ai2d")


def sources(folder, *names):
    return locate(find_benchmarks(names), folder, {})


def mathvista(folder, *rows):
    write_parquet(folder / "MathVista" / "testmini.parquet", list(rows), MATHVISTA)
    return sources(folder, "mathvista")


def test_questions_are_counted_by_benchmark_before_a_run_begins(tmp_path):
    found = check_benchmarks(sources(write_all(tmp_path), "mathvista", "mmbench", "mmbench-r"))
    assert found["mathvista"] == 3
    assert found["mmbench"] > found["mmbench-r"] > 0


def test_a_picture_that_cannot_be_read_is_named_before_a_run_begins(tmp_path):
    broken = mathvista_row("7", decoded_image={"bytes": b"no picture", "path": "7.png"})
    with pytest.raises(
        DataError, match=r"cannot be used:\n  mathvista, .*testmini\.parquet: query 7"
    ):
        check_benchmarks(mathvista(tmp_path, mathvista_row("6"), broken))


def test_an_image_that_the_last_step_would_refuse_is_named_before_a_run_begins(tmp_path):
    found = mathvista(tmp_path, mathvista_row("6"))
    assert check_benchmarks(found, max_pixels=16 * 16) == {"mathvista": 1}
    with pytest.raises(DataError, match=r"query 6: .*= 256 pixels; .*raise execution\.max_pixels"):
        check_benchmarks(found, max_pixels=16 * 16 - 1)


def test_a_run_whose_benchmarks_are_missing_is_told_what_to_do_in_its_spec(tmp_path):
    spec = make_spec(evaluation={"benchmarks": {"path": str(tmp_path), "names": ["mathvista"]}})
    with pytest.raises(DataError, match=r"evaluation\.benchmarks\.path") as caught:
        benchmark_sources(spec)
    assert "--file" not in str(caught.value)


def test_a_question_that_is_there_twice_and_a_benchmark_without_questions_are_named(tmp_path):
    with pytest.raises(DataError, match="mathvista question 6 is there twice"):
        check_benchmarks(mathvista(tmp_path, mathvista_row("6"), mathvista_row("6")))
    with pytest.raises(DataError, match="mathvista: no question of it"):
        check_benchmarks(mathvista(tmp_path / "other"))


def test_a_step_scores_a_committed_policy_on_the_papers_five(tmp_path):
    store = FolderStore(tmp_path / "store")
    files = stored_files(sources(write_all(tmp_path / "data"), *PAPER))
    assert "mmbench/MMBench_DEV_EN_V11.tsv" in files
    task = BenchmarkTask(
        data=Ref.of(commit_dataset(store, files)),
        benchmarks=("paper",),
        model=Ref.of(commit_model(store, base_folder())),
        prompt=Prompt(template="{question}{options}"),
        max_new_tokens=8,
    )
    request = Request(
        store=str(tmp_path / "store"), task=task, execution=Execution(device="cpu", threads=1)
    )
    told = []
    manifest = run_request(request, lambda *said: told.append(said), scratch=tmp_path)
    assert [score["benchmark"] for score in manifest.results["scores"]] == list(PAPER)
    assert told
    assert manifest.results["tokens"] > len(PAPER), "what it cost is part of a report's total"
    assert re.match(r"mathvista \d+\.\d%, m3cot \d+\.\d%, mmstar-r ", summary(manifest.results))
    names = {part.name for part in manifest.parts}
    assert {"mathvista.answers.jsonl", "mmbench.verdicts.jsonl", "mmbench-r.txt"} <= names
    path = open_part(store, manifest.part("mathvista.answers.jsonl"), tmp_path)
    assert json.loads(path.read_text().splitlines()[1])["text"]
