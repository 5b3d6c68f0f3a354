"""Score steps with an answer check that cannot decide all: its workers are real, their comparison is a test's."""

import io
import json
import sys
from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from mstar.core.records import Example, Finish, Grade, Response, Scored
from mstar.equivalence.pool import Pool
from mstar.errors import MissingDependency
from mstar.execution import Execution
from mstar.stages import grading
from mstar.stages.evaluate import _Measure
from mstar.stages.grading import Grader
from mstar.stages.run import Request, run_request
from mstar.stages.score import Ballot
from mstar.storage.artifacts import ArtifactWriter, commit_dataset
from mstar.storage.folder import FolderStore
from mstar.storage.manifest import Manifest, Ref
from mstar.storage.reading import open_part
from mstar.storage.tables import TableWriter, read_tables
from mstar.tasks import (
    AnswerCheck,
    EvaluateTask,
    Label,
    Pairs,
    Prompt,
    Sampling,
    ScoreTask,
    Select,
    Slice,
    task_hash,
)

COMMAND = (sys.executable, str(Path(__file__).parents[1] / "equivalence" / "roots.py"))
MATH = AnswerCheck(math_verify=True, timeout=60)
ANSWERS = (r"2\sqrt{3}", r"\sqrt{12}", r"\sqrt{5}", r"\sqrt{999}", "no")
"""To 2 sqrt(3): right as text, right by algebra, wrong, never decided, and wrong without being asked."""
ONE = Execution(threads=1, device="cpu")


@pytest.fixture(autouse=True)
def _workers_of_a_test(monkeypatch):
    monkeypatch.setattr(grading, "Pool", partial(Pool, command=COMMAND))
    monkeypatch.setattr(grading, "require_math_verify", lambda: None)


def responses(prefix=""):
    return [
        Response(
            query_id=query,
            sample=sample,
            text=f"so\n\\boxed{{{answer}}}",
            tokens=(1, 2, 3),
            finish=Finish.STOP,
            temperature=1.0,
            policy="p",
            seed=sample,
            prefix=prefix,
        )
        for query in ("q0", "q1")
        for sample, answer in enumerate(ANSWERS)
    ]


@pytest.fixture
def score(tmp_path):
    """Runs a score step over the responses, and gives its manifest and store."""
    store = FolderStore(tmp_path / "store")
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8)).save(buffer, format="PNG")
    rows = [
        {
            "id": name,
            "image": {"bytes": buffer.getvalue(), "path": None},
            "question": "?",
            "options": options,
            "answer": r"2\sqrt{3}",
        }
        for name, options in (("q0", []), ("q1", [r"2\sqrt{3}", "yes"]))
    ]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "train.parquet")
    data = commit_dataset(store, {"train.parquet": tmp_path / "train.parquet"})

    def run(action, answers, *, prefix="", shards=1):
        path = tmp_path / "responses.parquet"
        with (
            ArtifactWriter(store, ("0" if prefix else "1") * 64, "1") as writer,
            TableWriter(path, Response) as table,
        ):
            table.write(responses(prefix))
            table.close()
            writer.add_file("responses.parquet", path)
            generated = writer.commit().manifest
        task = ScoreTask(
            data=Ref.of(data),
            split="train",
            responses=Ref.of(generated),
            prompt=Prompt(),
            answers=answers,
            action=action,
            seed=0,
        )
        how = ONE.model_copy(update={"shards": shards})
        request = Request(store=store.url, task=task, execution=how)
        return run_request(request, lambda *_: None, scratch=tmp_path), store

    return run


def table(store, manifest: Manifest, name, record, folder):
    return list(read_tables([open_part(store, manifest.part(name), folder)], record))


@pytest.mark.parametrize("shards", [1, 3])
def test_undecided_responses_are_counted_apart_and_named(score, shards):
    manifest, store = score(Select(rule="all"), MATH, shards=shards)
    found = manifest.results
    assert (found["responses"], found["correct"], found["undecided"]) == (10, 4, 2)
    assert found["selected"] == 4
    parts = [part for part in manifest.parts if part.name.endswith("/undecided.json")]
    assert len(parts) == shards
    named = [key for part in parts for key in json.loads(store.get(part.key))]
    assert sorted(named) == [["q0", 3, ""], ["q1", 3, ""]]


def test_a_score_step_works_with_the_library_itself(score, monkeypatch):
    pytest.importorskip("math_verify")
    monkeypatch.undo()
    manifest, _ = score(Select(rule="all"), AnswerCheck(math_verify=True, timeout=60))
    assert (manifest.results["correct"], manifest.results["undecided"]) == (4, 0)
    assert "math-verify" in manifest.versions


def test_without_math_verify_nothing_is_undecided_and_no_count_is_kept(score):
    manifest, _ = score(Select(rule="all"), AnswerCheck())
    assert manifest.results["correct"] == 2
    assert "undecided" not in manifest.results
    assert not [part for part in manifest.parts if "undecided" in part.name]


def test_an_undecided_response_teaches_the_prm_nothing(score, tmp_path):
    manifest, store = score(Pairs(per_query=16), MATH)
    pairs = table(store, manifest, "examples.parquet", Example, tmp_path)
    assert manifest.results["offered"] == 8
    assert all(r"\sqrt{999}" not in pair.text for pair in pairs)


def test_an_undecided_completion_counts_neither_as_right_nor_as_wrong(score, tmp_path):
    pairs, _ = score(Pairs(per_query=16), MATH)
    labelled, store = score(Label(pairs=Ref.of(pairs), held_out=0), MATH, prefix="0/1")
    examples = table(store, labelled, "examples.parquet", Example, tmp_path)
    first = next(example for example in examples if example.sample == 0)
    assert first.labels[0] == 0.5  # two right of four, the fifth is undecided


def scored(*answers):
    return [
        Scored(
            response=Response(
                query_id="q",
                sample=sample,
                text="",
                tokens=(1,),
                finish=Finish.STOP,
                temperature=1.0,
                policy="p",
                seed=sample,
            ),
            grade=Grade(answer=answer, correct=answer == r"\sqrt{12}"),
            step_scores=(0.5,),
        )
        for sample, answer in enumerate(answers)
    ]


def test_a_pseudo_label_is_won_by_equal_expressions_together():
    group = scored("5", r"\sqrt{12}", "5", r"2\sqrt{3}", r"\sqrt{12}", r"\sqrt{999}")
    with Grader(MATH, ONE) as grader:
        ballot = Ballot({"q": ()}, grader)
        agreeing = [item.grade.correct for item in ballot.count(group)]
        found = ballot.results()
    assert agreeing == [False, True, False, True, True, False]
    assert (found["labeled"], found["agreeing"], found["conflicting"]) == (1, 3, 3)
    assert found["undecided"] > 0


def test_an_evaluation_says_how_many_were_undecided_only_where_some_can_be():
    ref = Ref(kind="model", id="m", digest="d")
    for answers in (MATH, AnswerCheck()):
        task = EvaluateTask(
            data=ref, slice=Slice(split="test"), model=ref, prompt=Prompt(), answers=answers, seed=0
        )
        with Grader(answers, ONE) as grader:
            measure = _Measure(task, Sampling(n=1, temperature=0), grader)
            measure.counts, measure.undecided = [(1, 1)], 3
            assert measure.greedy().get("undecided") == (3 if answers.math_verify else None)


def test_the_keys_of_the_answer_check_are_left_out_of_a_task_at_their_defaults():
    assert AnswerCheck().model_dump(mode="json") == {"relative_tolerance": 0.0}
    assert AnswerCheck(math_verify=True).model_dump(mode="json").keys() == {
        "relative_tolerance",
        "math_verify",
    }
    assert "timeout" in AnswerCheck(math_verify=True, timeout=2).model_dump(mode="json")


def test_math_verify_and_its_deadline_are_part_of_a_steps_identity():
    ref = Ref(kind="model", id="m", digest="d")
    hashes = set()
    for answers in (AnswerCheck(), AnswerCheck(math_verify=True), MATH, AnswerCheck(decimals=2)):
        task = EvaluateTask(
            data=ref, slice=Slice(split="test"), model=ref, prompt=Prompt(), answers=answers, seed=0
        )
        hashes.add(task_hash(task))
    assert len(hashes) == 4


def test_a_step_that_wants_a_missing_math_verify_says_so_before_it_works(score, monkeypatch):
    def missing():
        raise MissingDependency("math-verify is not installed")

    monkeypatch.setattr(grading, "require_math_verify", missing)
    with pytest.raises(MissingDependency, match="math-verify"):
        score(Select(rule="all"), MATH)
