"""A teacher: a smaller model learns from a larger one's warm-up data and PRM (paper, section 4.2)."""

import itertools
from dataclasses import replace

import pytest
from pydantic import ValidationError

from mstar.config import RunSpec, load_spec
from mstar.controller.prepare import check_inputs, prepare
from mstar.demo.builtin import is_builtin, resolve_inputs
from mstar.demo.dataset import write_dataset
from mstar.demo.specs import base_folder
from mstar.errors import ConflictError, ModelError, SpecError
from mstar.history import load_run
from mstar.plan import Inputs
from mstar.recipe import follow, planned_names, planned_steps, recipe
from mstar.report.views import describe
from mstar.storage.folder import FolderStore
from mstar.tasks import EvaluateTask, Task, TrainTask, task_hash, task_inputs
from tests.runs import INPUTS, done, made_up, small_spec
from tests.tiny import write_tensors

STUDENT = replace(INPUTS, model=made_up("model", "student"), teacher=INPUTS.model)
FOR_ALL = {"select": {"rule": "all"}, "exploration": None}
MIXED = {"interval": "25%", "iterations": 4, "unlabeled": {"labels": "vote", "after": 0.5}}


def walked(spec: RunSpec, inputs: Inputs = STUDENT) -> dict[str, Task]:
    """Every step's task by name, each step having found something."""
    found: dict[str, Task] = {}
    program = recipe(spec, inputs)
    step = next(program, None)
    while step is not None:
        found[step.name] = step.task
        step = follow(program, step, done(step))
    return found


def taught(**changes: object) -> RunSpec:
    return small_spec(teacher="teacher", **changes)


def test_warm_up_data_and_prm_are_the_steps_of_the_teacher_s_own_run():
    mine = {name: task_hash(task) for name, task in walked(taught()).items()}
    own = {name: task_hash(task) for name, task in walked(small_spec(), INPUTS).items()}
    shared = {name for name, value in mine.items() if own.get(name) == value}
    assert shared == {"warm-up/generate", "warm-up/score"} | {
        name for name in own if name.startswith("prm/")
    }
    assert {"prm/completer", "prm/train", "prm/verify"} < shared
    assert mine["teacher/train"] == own["warm-up/train"]
    assert not {mine[name] for name in mine.keys() - shared - {"teacher/train"}} & {*own.values()}


def test_the_student_is_measured_before_and_after_and_evolves_from_its_own_warm_up():
    found = walked(taught())
    start = found["warm-up/train"]
    assert isinstance(start, TrainTask)
    assert start.model == STUDENT.model
    trained = task_hash(start)
    first = found["iter-01/train"]
    assert isinstance(first, TrainTask)
    assert first.model.id == trained
    for name, policy in (("base/test", STUDENT.model.id), ("warm-up/test", trained)):
        task = found[name]
        assert isinstance(task, EvaluateTask)
        assert task.model.id == policy


@pytest.mark.parametrize(
    ("evolve", "prm", "test", "completer"),
    [
        *((evolve, True, test, n) for evolve, test, n in itertools.product(
            ({}, MIXED, {"select": {"rule": "threshold"}}), (True, False), (0, 1)
        )),
        (FOR_ALL, False, True, 1),
    ],
)  # fmt: skip
def test_the_plan_known_beforehand_is_what_the_run_does(evolve, prm, test, completer):
    spec = taught(
        data={"test": "test" if test else None},
        prm={"completer_epochs": completer} if prm else None,
        evolve=evolve,
    )
    names = list(walked(spec))
    assert names == planned_names(spec, STUDENT)
    assert len(names) == planned_steps(spec)
    assert ("teacher/train" in names) is prm


def test_a_step_retokenizes_where_it_uses_what_another_model_wrote_and_nowhere_else():
    found = walked(taught(evolve=MIXED))
    retokenizing = {name for name, task in found.items() if getattr(task, "retokenize", False)}
    assert retokenizing == {
        "warm-up/train",
        *(f"iter-0{i}/evaluate" for i in range(5)),
        *(f"iter-0{i}/score" for i in range(1, 5)),
        *(f"iter-0{i}/score-unlabeled" for i in (3, 4)),
    }
    assert not any(
        getattr(task, "retokenize", False) for task in walked(small_spec(evolve=MIXED)).values()
    )


def test_without_a_prm_only_the_warm_up_data_is_another_s():
    found = walked(taught(evolve=FOR_ALL, prm=None))
    assert [name for name, task in found.items() if getattr(task, "retokenize", False)] == [
        "warm-up/train"
    ]
    reading = [name for name, task in found.items() if STUDENT.teacher in task_inputs(task)]
    assert reading == ["warm-up/generate"]


def test_tasks_without_a_teacher_say_nothing_of_tokens():
    for task in walked(small_spec()).values():
        assert "retokenize" not in task.model_dump(mode="json")


def test_a_prm_is_not_trained_on_labels_of_other_tokens():
    task = walked(small_spec())["prm/train"]
    with pytest.raises(ValidationError, match="labels belong to the tokens"):
        TrainTask.model_validate(task.model_dump() | {"retokenize": True})


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"warm_up": None}, "warm_up is null, but a teacher teaches by its warm-up data"),
        ({"evolve": {"method": "sft"}}, "method sft learns from true answers alone"),
        ({"teacher": ""}, "teacher"),
    ],
)
def test_a_teacher_with_nothing_to_teach_is_a_mistake(changes, said):
    with pytest.raises(SpecError, match=said):
        small_spec(**{"teacher": "teacher"} | changes)


def test_a_relative_teacher_is_relative_to_the_file_that_names_it(tmp_path):
    (tmp_path / "lower").mkdir()
    lower = tmp_path / "lower" / "base.yaml"
    lower.write_text("{name: base, data: {path: data}, model: m, teacher: large}")
    upper = tmp_path / "upper.yaml"
    upper.write_text("{extends: lower/base.yaml, name: upper}")
    assert load_spec(lower).teacher == load_spec(upper).teacher == str(tmp_path / "lower" / "large")
    assert load_spec(upper, ["teacher=mine"]).teacher == str(tmp_path / "mine")
    assert load_spec(upper, ["teacher=demo:base"]).teacher == "demo:base"
    assert load_spec(upper, ["teacher=null"]).teacher is None


def test_a_built_in_teacher_becomes_its_folder():
    spec = small_spec(model="/models/small", teacher="demo:base")
    assert is_builtin(spec)
    assert resolve_inputs(spec).teacher == str(base_folder())
    assert resolve_inputs(spec).model == "/models/small"
    with pytest.raises(SpecError, match="teacher is 'demo:bass'"):
        resolve_inputs(small_spec(teacher="demo:bass"))


def test_a_run_says_that_it_has_a_teacher():
    assert "warm-up data and PRM of a larger model" in describe(taught())
    assert "larger" not in describe(small_spec())


def model_folder(folder, weights):
    folder.mkdir()
    for name in ("config.json", "preprocessor_config.json"):
        (folder / name).write_text("{}")
    write_tensors(folder / "model.safetensors", {}, of=weights)
    return str(folder)


@pytest.fixture
def spec(tmp_path):
    """A spec whose data and models are there."""
    write_dataset(tmp_path / "data", sizes={"train": 8, "validation": 2, "test": 2})
    return small_spec(
        data={"path": str(tmp_path / "data")},
        model=model_folder(tmp_path / "small", "s"),
        teacher=model_folder(tmp_path / "large", "l"),
        store=str(tmp_path / "store"),
    )


def test_the_teacher_is_stored_and_the_run_remembers_it(spec):
    store = FolderStore(spec.store)
    run = prepare(store, spec)
    assert run.inputs.teacher
    assert run.inputs.teacher != run.inputs.model
    assert run.inputs.teacher in run.inputs.refs
    assert load_run(store, run.name) == run
    own = prepare(store, spec.model_copy(update={"teacher": None, "name": "own"}))
    assert own.inputs == replace(run.inputs, teacher=None)


def test_a_teacher_that_is_no_model_is_refused_before_anything_is_written(spec, tmp_path):
    (tmp_path / "large" / "config.json").unlink()
    with pytest.raises(ModelError, match=r"large is not a model folder: no config\.json"):
        check_inputs(spec)
    with pytest.raises(ModelError, match="large is not a model folder"):
        prepare(FolderStore(spec.store), spec)
    assert not (tmp_path / "store").exists()


def test_a_teacher_may_move_and_may_not_change_or_go(spec, tmp_path):
    store = FolderStore(spec.store)
    run = prepare(store, spec)
    moved = spec.model_copy(update={"teacher": str((tmp_path / "large").rename(tmp_path / "l"))})
    assert prepare(store, moved).inputs == run.inputs
    write_tensors(tmp_path / "l" / "model.safetensors", {}, of="other")
    with pytest.raises(ConflictError, match="teacher: the folder holds another model"):
        prepare(store, moved)
    with pytest.raises(ConflictError, match=r"teacher: .*large -> None"):
        prepare(store, spec.model_copy(update={"teacher": None}))
