"""A model is asked, its answers survive an interruption, and its scores are written."""

import json
from pathlib import Path

import pytest

from mstar.benchmarks.registry import BENCHMARKS, find_benchmarks, locate
from mstar.core.records import Finish, Response
from mstar.errors import ConflictError, DataError, IntegrityError, StorageError
from mstar.execution import Execution
from mstar.stages import benchmarking
from mstar.stages.benchmarking import Asking, evaluate_benchmarks
from mstar.tasks import Prompt
from tests.benchmarks.making import (
    MMSTAR,
    mmstar_row,
    png,
    rotations,
    write_all,
    write_parquet,
    write_tsv,
)


class Formula:
    """A sampler that answers by a function of the prompt; it stops like a killed one after ``patience`` calls."""

    def __init__(self, answer=lambda prompt: "B", patience=None):
        self.answer = answer
        self.patience = patience
        self.opened = self.closed = 0
        self.seen = []

    def open(self, model, execution):
        self.opened += 1
        return self

    def sample(self, prompts, sampling, policy, progress):
        if self.patience is not None and not self.patience:
            raise KeyboardInterrupt
        self.patience = None if self.patience is None else self.patience - 1
        assert (sampling.temperature, sampling.n) == (0, 1)
        self.seen += prompts
        progress(len(prompts))
        return [[self._respond(prompt, policy)] for prompt in prompts]

    def _respond(self, prompt, policy):
        return Response(
            query_id=prompt.query_id, sample=0, text=self.answer(prompt), tokens=(1,), finish=Finish.STOP,
            temperature=0, policy=policy, seed=prompt.seeds[0],
        )  # fmt: skip

    def close(self):
        self.closed += 1


@pytest.fixture
def model(tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    return folder


@pytest.fixture
def evaluate(tmp_path, model):
    """``evaluate_benchmarks`` on files in ``data``, into ``out``."""

    def run(sampler, *names, asking=None, **execution):
        sources = locate(find_benchmarks(names), tmp_path / "data", {})
        return evaluate_benchmarks(
            model, sources, tmp_path / "out", asking=asking or Asking(), execution=Execution(**execution),
            tell=lambda *_: None, sampler=sampler.open,
        )  # fmt: skip

    return run


def test_every_benchmark_is_scored_and_written(tmp_path, evaluate):
    write_all(tmp_path / "data")
    sampler = Formula(lambda prompt: "B")
    scores = {found.benchmark: found.overall for found in evaluate(sampler, *BENCHMARKS)}
    counts = {name: (count.correct, count.total) for name, count in scores.items()}
    assert counts == {
        "mathvista": (1, 3),
        "m3cot": (0, 2),
        "mmstar": (3, 3),
        "mmstar-r": (2, 2),
        "mmbench": (0, 2),  # right in one rotation of three
        "mmbench-r": (0, 1),
        "ai2d": (2, 2),
        "ai2d-no-mask": (1, 1),
    }
    assert (sampler.opened, sampler.closed) == (1, 1)
    body = json.loads((tmp_path / "out" / "scores.json").read_text())
    assert body["asked"] | {"model": None, "files": None} == {
        "weights": None, "model": None, "prompt": None, "max_new_tokens": 1024, "limit": None, "files": None,
    }  # fmt: skip
    assert set(body["asked"]["files"]) == {benchmark.base for benchmark in BENCHMARKS.values()}
    written = body["scores"]
    assert [one["benchmark"] for one in written] == list(BENCHMARKS)
    assert (tmp_path / "out" / "m3cot.txt").read_text().endswith("Total: 2, Correct: 0.00%\n")
    verdicts = (tmp_path / "out" / "mmstar.verdicts.jsonl").read_text().splitlines()
    assert json.loads(verdicts[0]) == {"id": "0", "answer": "B", "correct": True, "by": "rule"}


def test_a_model_that_follows_the_options_text_is_right_in_every_rotation(tmp_path, evaluate):
    write_tsv(tmp_path / "data" / "MMBench_DEV_EN_V11.tsv", rotations(1))
    (found,) = evaluate(Formula(lambda prompt: r"\boxed{a dog}"), "mmbench")
    assert found.overall.correct == 1


def test_an_interrupted_evaluation_goes_on_and_asks_nothing_twice(tmp_path, evaluate, monkeypatch):
    monkeypatch.setitem(benchmarking.AT_ONCE, "transformers", 2)
    rows = [mmstar_row(index) for index in range(7)]
    write_parquet(tmp_path / "data" / "mmstar.parquet", rows, MMSTAR)
    killed = Formula(patience=2)
    with pytest.raises(KeyboardInterrupt):
        evaluate(killed, "mmstar")
    assert killed.closed == 1
    answers = tmp_path / "out" / "mmstar.answers.jsonl"
    answers.write_bytes(answers.read_bytes() + b'{"id": "4", "te')
    rest = Formula()
    (found,) = evaluate(rest, "mmstar")
    assert [prompt.query_id for prompt in rest.seen] == ["4", "5", "6"]
    assert found.overall.total == 7
    assert len(answers.read_text().splitlines()) == 8


def test_what_the_engine_cannot_read_is_not_taken_for_a_folder_that_cannot_be_written(
    tmp_path, evaluate
):
    class Broken(Formula):
        def open(self, model, execution):
            raise OSError("a shard of the weights is gone")

    write_all(tmp_path / "data")
    with pytest.raises(OSError, match=r"^a shard of the weights is gone$"):
        evaluate(Broken(), "mmstar")


def test_a_folder_that_cannot_be_written_is_named(tmp_path, evaluate):
    write_all(tmp_path / "data")
    (tmp_path / "out").write_text("a file")
    with pytest.raises(StorageError, match=r"cannot write .*out: a file stands where a folder"):
        evaluate(Formula(), "mmstar")


def test_scores_of_known_answers_need_no_model(tmp_path, evaluate):
    write_all(tmp_path / "data")
    first = evaluate(Formula(), "mmstar")
    again = Formula()
    assert evaluate(again, "mmstar") == first
    assert not again.opened


def test_a_part_asked_first_leaves_the_rest_to_the_whole(tmp_path, evaluate):
    write_all(tmp_path / "data")
    part, whole = Formula(), Formula()
    evaluate(part, "mmstar-r")
    evaluate(whole, "mmstar")
    assert [prompt.query_id for prompt in part.seen] == ["0", "1"]
    assert [prompt.query_id for prompt in whole.seen] == ["2"]


def test_answers_of_another_model_or_prompt_are_never_mixed(tmp_path, evaluate, model):
    write_all(tmp_path / "data")
    evaluate(Formula(), "mmstar")
    with pytest.raises(
        ConflictError, match=r"mmstar\.answers\.jsonl holds answers .*: max_new_tokens differ"
    ):
        evaluate(Formula(), "mmstar", asking=Asking(max_new_tokens=9))
    (model / "model.safetensors").write_bytes(b"trained on")
    with pytest.raises(ConflictError, match="model differ"):
        evaluate(Formula(), "mmstar")
    (tmp_path / "out" / "mmstar.answers.jsonl").write_text("what is this\n")
    with pytest.raises(IntegrityError, match="is no file of answers"):
        evaluate(Formula(), "mmstar")


def test_a_limit_counts_questions_with_all_their_rotations(tmp_path, evaluate):
    write_all(tmp_path / "data")
    sampler = Formula()
    (found,) = evaluate(sampler, "mmbench", asking=Asking(limit=1))
    assert [prompt.query_id for prompt in sampler.seen] == ["1", "1000001", "2000001"]
    assert (found.overall.total, found.responses) == (1, 3)


def test_a_template_takes_the_place_of_the_official_prompt(tmp_path, evaluate):
    write_all(tmp_path / "data")
    official, own = Formula(), Formula()
    evaluate(official, "ai2d")
    Path(tmp_path / "out" / "ai2d.answers.jsonl").unlink()
    evaluate(own, "ai2d", asking=Asking(prompt=Prompt(template="Q: {question}{options}\nBox it.")))
    assert official.seen[0].text.endswith(
        "Please select the correct answer from the options above. \n"
    )
    assert own.seen[0].text == (
        "Q: What is it?\nOptions:\n(A) a cat\n(B) a dog\n(C) a cow\nBox it."
    )


def test_a_question_that_is_there_twice_is_named(tmp_path, evaluate):
    write_parquet(tmp_path / "data" / "mmstar.parquet", [mmstar_row(3), mmstar_row(3)], MMSTAR)
    with pytest.raises(DataError, match="mmstar: the question 3 is there twice"):
        evaluate(Formula(), "mmstar")


def test_a_file_without_questions_is_refused(tmp_path, evaluate):
    write_parquet(tmp_path / "data" / "mmstar.parquet", [], MMSTAR)
    with pytest.raises(DataError, match=r"mmstar\.parquet: no questions of mmstar"):
        evaluate(Formula(), "mmstar")


def test_a_broken_image_is_named(tmp_path, evaluate):
    row = mmstar_row(5, image={"bytes": b"\x89PNG broken", "path": "5.png"})
    write_parquet(tmp_path / "data" / "mmstar.parquet", [row], MMSTAR)
    with pytest.raises(DataError, match=r"mmstar, .*mmstar\.parquet: query 5: the image is"):
        evaluate(Formula(), "mmstar")


def test_a_picture_that_is_too_large_is_named_with_the_option_that_raises_the_limit(
    tmp_path, evaluate
):
    row = mmstar_row(5, image={"bytes": png(size=64), "path": "5.png"})
    write_parquet(tmp_path / "data" / "mmstar.parquet", [row], MMSTAR)
    with pytest.raises(DataError, match=r"query 5: .*at most 4095 .* raise --max-pixels\."):
        evaluate(Formula(), "mmstar", asking=Asking(pixels_by="--max-pixels"), max_pixels=4095)
