"""A smaller model of another tokenizer learns from its teacher, through the real stages at minimal size."""

import json
from dataclasses import replace

import pytest
from transformers import PreTrainedTokenizerFast

from mstar.config import parse_spec
from mstar.controller.loop import Controller
from mstar.controller.prepare import prepare
from mstar.core.records import Example, Response, Scored
from mstar.core.steps import split_steps
from mstar.data.splits import find_split
from mstar.demo.dataset import write_dataset
from mstar.demo.model import build_model, build_processor, save_model
from mstar.demo.specs import base_folder, read_recipe
from mstar.demo.tokenizer import SPECIAL_TOKENS
from mstar.execution import Execution
from mstar.executors.fake import FakeExecutor
from mstar.history import load_history
from mstar.models.family import load_family
from mstar.recipe import planned_steps
from mstar.stages.backends.transformers_scorer import TransformersScorer
from mstar.stages.inputs import prompted
from mstar.stages.run import Request, run_request
from mstar.storage import keys
from mstar.storage.folder import FolderStore
from mstar.storage.reading import materialise, open_part, resolve
from mstar.storage.tables import read_tables
from mstar.tasks import TASK, ScoreTask
from tests.controller.test_controller import Silent

pytestmark = pytest.mark.slow
ONE_THREAD = Execution(threads=1, sampling_rows=256)


def build_student(folder):
    """An untrained small model that numbers the demo's tokens backwards."""
    processor = build_processor()
    parts = json.loads(processor.tokenizer.backend_tokenizer.to_str())
    vocabulary = parts["model"]["vocab"]
    first, last = len(SPECIAL_TOKENS), len(vocabulary) - 1
    for token, number in vocabulary.items():
        vocabulary[token] = number if number < first else first + last - number
    (folder / "tokenizer.json").write_text(json.dumps(parts))
    old = processor.tokenizer
    names = {name: getattr(old, name) for name in ("pad_token", "bos_token", "eos_token")}
    processor.tokenizer = PreTrainedTokenizerFast(
        tokenizer_file=str(folder / "tokenizer.json"),
        **names,
        additional_special_tokens=list(SPECIAL_TOKENS[3:]),
        clean_up_tokenization_spaces=False,
        model_max_length=256,
    )
    save_model(folder, build_model(processor, seed=0, size="small"), processor)
    return folder


def spec(root, **changes):
    raw = read_recipe()
    # Many epochs, so that an untrained model learns to write what its teacher writes.
    often = {"epochs": 25, "batch_size": 16, "learning_rate": 3.0e-3, "freeze": []}
    warm_up = raw["warm_up"]["optimization"] | often
    raw["warm_up"] |= {"queries": 16, "optimization": warm_up}
    raw["prm"] |= {"queries": 16, "completer_epochs": 0, "completions": 2}
    raw["evolve"] |= {
        "iterations": 1,
        "interval": 0.5,
        "exploration": {"lowest": 0.5, "highest": 1.0, "step": 0.5},
    }
    raw["evaluation"] |= {"queries": 6, "samples": 4, "pass_at": [1, 4]}
    raw |= {"data": {"path": str(root / "data")}, "store": str(root / "store")}
    return parse_spec(raw | changes)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A store with the teacher's finished run and its student's, and what was really run for each."""
    root = tmp_path_factory.mktemp("transfer")
    write_dataset(root / "data", sizes={"train": 48, "validation": 6, "test": 8})
    (root / "student").mkdir()
    student = build_student(root / "student")
    store = FolderStore(root / "store")
    asked: dict[str, list[str]] = {"teacher": [], "student": []}

    def work(job):
        asked[job.run].append(job.step)
        request = Request(store=job.store, task=job.task, execution=ONE_THREAD, attempt=job.attempt)
        run_request(request, lambda *_: None, scratch=root)

    models = {
        "teacher": {"model": str(base_folder())},
        "student": {"model": str(student), "teacher": str(base_folder())},
    }
    for name, changes in models.items():
        run = prepare(store, spec(root, name=name, **changes))
        Controller(store, FakeExecutor(work), run, Silent()).advance()
        assert len(load_history(store, name)) == planned_steps(run.spec)
    return store, root, asked


def manifests(store, run):
    return {entry.name: resolve(store, entry.ref) for entry in load_history(store, run)}


def table(finished, run, step, stem, record):
    store, root, _ = finished
    manifest = manifests(store, run)[step]
    parts = [part for part in manifest.parts if part.name.endswith(f"{stem}.parquet")]
    return list(read_tables([open_part(store, part, root) for part in parts], record))


def again(finished, run, step, folder, **changes):
    """A step of a finished run with its task changed, in the same store."""
    store, *_ = finished
    task = TASK.validate_json(store.get(keys.task(manifests(store, run)[step].id)))
    changed = task.model_copy(update=changes)
    request = Request(store=store.url, task=changed, execution=ONE_THREAD, attempt="again")
    return run_request(request, lambda *_: None, scratch=folder)


def families(root):
    return load_family(base_folder()), load_family(root / "student")


def test_the_student_s_run_makes_nothing_that_its_teacher_s_has_made(finished):
    store, _, asked = finished
    assert asked["student"] == [
        "base/test",
        "warm-up/train",
        "warm-up/test",
        "iter-00/evaluate",
        *(f"iter-01/{step}" for step in ("generate", "score", "train", "evaluate")),
        "final/test",
    ]
    adopted = {entry.name for entry in load_history(store, "student") if entry.adopted}
    assert {"warm-up/score", "teacher/train", "prm/verify"} < adopted


def test_the_student_learns_to_write_what_its_teacher_wrote_in_tokens_of_its_own(finished):
    store, root, _ = finished
    teacher, student = families(root)
    found = manifests(store, "student")
    examples = table(finished, "student", "warm-up/score", "examples", Example)
    texts = [example.text for example in examples]
    assert [teacher.decode(example.tokens) for example in examples] == texts
    assert [student.decode(student.retokenize(text)) for text in texts] == texts
    assert teacher.tokenize(texts[0]) != student.tokenize(texts[0])
    # Untrained it writes noise; taught in the teacher's numbers it would write noise again.
    assert found["base/test"].results["greedy"]["answered"] == 0
    assert found["warm-up/test"].results["greedy"]["answered"] >= 4


def test_the_teacher_s_prm_reads_the_student_s_texts_in_its_own_tokens(finished):
    store, root, _ = finished
    teacher, student = families(root)
    task = TASK.validate_json(store.get(keys.task(manifests(store, "student")["iter-01/score"].id)))
    assert isinstance(task, ScoreTask)
    scored = table(finished, "student", "iter-01/score", "scored", Scored)
    assert all(bool(item.step_scores) == item.grade.correct for item in scored)
    judged = [item for item in scored if item.step_scores]
    texts = [item.response.text for item in judged]
    assert [student.decode(item.response.tokens) for item in judged] == texts

    prm = manifests(store, "student")["prm/train"]
    scorer = TransformersScorer(materialise(store, prm, "model/", root), ONE_THREAD)
    samples = {s.query.id: s for s in find_split(root / "data", "train").read()}
    prompts = [prompted(task.prompt, samples[item.response.query_id]) for item in judged]
    own = [replace(i.response, tokens=teacher.tokenize(i.response.text)) for i in judged]
    expected = scorer.score(prompts, own, lambda _: None)
    for item, verdict in zip(judged, expected, strict=True):
        assert item.step_scores == pytest.approx(verdict.scores, abs=1e-4)
        assert len(verdict.scores) == len(split_steps(item.response.text))


def test_what_the_student_keeps_for_itself_stays_in_the_tokens_that_it_drew(finished):
    responses = table(finished, "student", "iter-01/generate", "responses", Response)
    drawn = {(r.query_id, r.sample): r.tokens for r in responses}
    examples = table(finished, "student", "iter-01/score", "examples", Example)
    assert examples
    assert all(drawn[e.query_id, e.sample] == e.tokens for e in examples)


def drawn_as_cut(family, items):
    """Whether each was drawn in the tokens that the tokenizer cuts its text into: not promised, and so here."""
    return all(family.tokenize(item.text) == item.tokens for item in items)


def test_where_tokenizers_agree_a_prm_says_the_same_with_retokenizing(finished, tmp_path):
    store, root, _ = finished
    own = table(finished, "teacher", "iter-01/score", "scored", Scored)
    assert drawn_as_cut(families(root)[0], [item.response for item in own])
    changed = again(finished, "teacher", "iter-01/score", tmp_path, retokenize=True)
    parts = [part for part in changed.parts if part.name.endswith("scored.parquet")]
    assert list(read_tables([open_part(store, part, root) for part in parts], Scored)) == own


def test_where_tokenizers_agree_training_gives_the_same_weights_with_retokenizing(
    finished, tmp_path
):
    store, root, _ = finished
    examples = table(finished, "teacher", "warm-up/score", "examples", Example)
    assert drawn_as_cut(families(root)[0], examples)
    changed = again(finished, "teacher", "warm-up/train", tmp_path, retokenize=True)
    own = manifests(store, "teacher")["warm-up/train"]
    assert changed.results == own.results
    assert {part.name: part.sha256 for part in changed.parts} == {
        part.name: part.sha256 for part in own.parts
    }
