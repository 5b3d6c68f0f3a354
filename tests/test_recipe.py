"""The recipe: which steps a run has, what each inherits, and that a history replays to the step after it."""

import itertools
from collections.abc import Sequence
from functools import cache

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mstar.config import Benchmarks, Evaluation, RunSpec
from mstar.errors import IntegrityError
from mstar.recipe import Done, Step, follow, next_step, planned_names, planned_steps, recipe
from mstar.storage.manifest import Ref
from mstar.tasks import (
    TASK,
    BenchmarkTask,
    EvaluateTask,
    GenerateTask,
    Queries,
    ScoreTask,
    Task,
    TrainTask,
    task_hash,
    task_inputs,
)
from tests.runs import INPUTS, done, small_spec

METHODS = ("sft", "iterative_rft", "rest_em", "continuous")
ALL = {"select": {"rule": "all"}, "exploration": None}


@cache
def walk(spec: RunSpec) -> tuple[tuple[Step, Done], ...]:
    """Every step of a run, with what it found."""
    found: list[tuple[Step, Done]] = []
    program = recipe(spec, INPUTS)
    step = next(program, None)
    while step is not None:
        found.append((step, done(step)))
        step = follow(program, step, found[-1][1])
    return tuple(found)


def tasks(spec: RunSpec) -> dict[str, Task]:
    return {step.name: step.task for step, _ in walk(spec)}


def refs(walked: Sequence[tuple[Step, Done]]) -> dict[str, Ref]:
    return {step.name: entry.ref for step, entry in walked}


def spec_of(method: str, *, prm: bool, warm: bool, test: bool, completer: int = 1) -> RunSpec:
    changes: dict[str, object] = {} if warm else {"warm_up": None}
    evolve = {"method": method} | ({} if prm else ALL)
    changes |= {"prm": {"completer_epochs": completer}} if prm else {"prm": None}
    return small_spec(data={"test": "test" if test else None}, evolve=evolve, **changes)


SPECS = [
    spec_of(method, prm=prm, warm=warm, test=test, completer=completer)
    for method, prm, warm, test, completer in itertools.product(
        METHODS, (True, False), (True, False), (True, False), (0, 2)
    )
    if prm or completer
] + [
    spec_of(method, prm=False, warm=True, test=test).model_copy(
        update={"evaluation": Evaluation(benchmarks=Benchmarks(path="files", base=base))}
    )
    for method, test, base in itertools.product(METHODS, (True, False), (True, False))
]


@pytest.mark.parametrize("spec", SPECS)
def test_the_plan_known_beforehand_is_what_the_run_does(spec):
    names = [step.name for step, _ in walk(spec)]
    assert names == planned_names(spec, INPUTS)
    assert len(names) == planned_steps(spec)
    assert len(set(names)) == len(names)


@given(spec=st.sampled_from(SPECS), data=st.data())
def test_any_prefix_of_a_history_gives_the_next_planned_step_again_and_again(spec, data):
    walked = walk(spec)
    length = data.draw(st.integers(0, len(walked)))
    history = [entry for _, entry in walked[:length]]
    expected = walked[length][0] if length < len(walked) else None
    assert next_step(spec, INPUTS, history) == expected
    assert next_step(spec, INPUTS, history) == expected


@given(spec=st.sampled_from(SPECS))
def test_a_step_reads_only_what_was_committed_before_it(spec):
    known = list(INPUTS.refs)
    for step, entry in walk(spec):
        assert all(ref in known for ref in task_inputs(step.task))
        known.append(entry.ref)


def test_the_phases_follow_each_other_as_in_the_paper():
    names = planned_names(spec_of("continuous", prm=True, warm=True, test=True), INPUTS)
    assert names == [
        "base/test",
        *(f"warm-up/{name}" for name in ("generate", "score", "train", "test")),
        *(
            f"prm/{name}"
            for name in ("completer", "generate", "pairs", "complete", "label", "train", "verify")
        ),
        "iter-00/evaluate",
        *(f"iter-01/{name}" for name in ("generate", "score", "train", "evaluate")),
        *(f"iter-02/{name}" for name in ("generate", "score", "train", "evaluate")),
        "final/test",
    ]


def trained(method: str) -> tuple[list[TrainTask], dict[str, Ref]]:
    walked = walk(small_spec(evolve={"method": method, "iterations": 3} | ALL, prm=None))
    named = {step.name: step.task for step, _ in walked}
    found = [
        task
        for name, task in named.items()
        if name.startswith("iter") and isinstance(task, TrainTask)
    ]
    return found, refs(walked)


def test_continuous_training_inherits_model_and_optimizer_of_the_last_iteration():
    found, by_name = trained("continuous")
    start, first, second = (by_name[f"{p}/train"] for p in ("warm-up", "iter-01", "iter-02"))
    assert [task.model for task in found] == [start, first, second]
    assert [task.optimizer for task in found] == [None, first, second]


def test_iterative_rft_takes_the_last_model_and_a_fresh_optimizer():
    found, by_name = trained("iterative_rft")
    start, first, second = (by_name[f"{p}/train"] for p in ("warm-up", "iter-01", "iter-02"))
    assert [task.model for task in found] == [start, first, second]
    assert [task.optimizer for task in found] == [None, None, None]


def test_rest_em_takes_the_first_model_and_a_fresh_optimizer():
    found, by_name = trained("rest_em")
    assert [task.model for task in found] == [by_name["warm-up/train"]] * 3
    assert [task.optimizer for task in found] == [None, None, None]


@pytest.mark.parametrize("method", METHODS[1:])
def test_every_method_samples_and_evaluates_its_newest_policy(method):
    walked = walk(small_spec(evolve={"method": method}))
    named = {step.name: step.task for step, _ in walked}
    by_name = refs(walked)
    sampling, evaluation = named["iter-02/generate"], named["iter-01/evaluate"]
    final = named["final/test"]
    assert isinstance(sampling, GenerateTask)
    assert isinstance(evaluation, EvaluateTask)
    assert isinstance(final, EvaluateTask)
    assert sampling.model == evaluation.model == by_name["iter-01/train"]
    assert final.model == by_name["iter-02/train"]


def test_the_prm_is_asked_only_where_a_rule_needs_it():
    with_prm = tasks(small_spec(evolve={"select": {"rule": "all"}}))
    score, evaluation = with_prm["iter-01/score"], with_prm["iter-01/evaluate"]
    assert isinstance(score, ScoreTask)
    assert isinstance(evaluation, EvaluateTask)
    assert score.prm is None
    assert evaluation.prm is not None
    without = tasks(small_spec(evolve=ALL))
    assert not any(name.startswith("prm/") for name in without)


def test_exploring_picks_the_temperature_of_the_best_reward_pass_for_two_iterations():
    spec = small_spec(evolve={"iterations": 4, "exploration": {"lowest": 0.5, "step": 0.25}})
    history: list[Done] = []
    used: dict[str, float] = {}
    best = {"iter-00/evaluate": 0.5, "iter-02/evaluate": 1.5}
    while (step := next_step(spec, INPUTS, history)) is not None:
        if isinstance(step.task, GenerateTask):
            used[step.name] = step.task.sampling.temperature
        history.append(done(step, best=best.get(step.name, 1.0)))
    assert [used[f"iter-{index:02d}/generate"] for index in (1, 2, 3, 4)] == [0.5, 0.5, 1.5, 1.5]


def test_the_grid_is_measured_every_second_iteration_and_never_at_the_end():
    named = tasks(small_spec(evolve={"iterations": 4}))
    grids = []
    for index in range(5):
        task = named[f"iter-{index:02d}/evaluate"]
        assert isinstance(task, EvaluateTask)
        grids.append(len(task.temperatures))
    assert grids == [3, 1, 3, 1, 1]


def test_without_exploration_the_temperature_is_the_spec_s():
    named = tasks(small_spec(evolve=ALL | {"rollout": {"temperature": 0.7}}))
    for index in (1, 2):
        task = named[f"iter-{index:02d}/generate"]
        assert isinstance(task, GenerateTask)
        assert task.sampling.temperature == 0.7


def test_iterations_pass_different_queries_in_one_order():
    slices = []
    for name, task in tasks(small_spec(evolve={"interval": "25%", "iterations": 4})).items():
        if name.startswith("iter") and isinstance(task, GenerateTask):
            assert isinstance(task.source, Queries)
            slices.append((task.source.slice.start, task.source.slice.count))
    assert slices == [(0, 10), (10, 10), (20, 10), (30, 10)]


def test_two_runs_that_differ_in_how_they_evolve_share_their_warm_up():
    first = tasks(small_spec(name="one"))
    second = tasks(small_spec(name="two", evolve={"method": "rest_em", "iterations": 3}))
    shared = {"base/test"} | {name for name in first if name.startswith(("warm-up/", "prm/"))}
    hashes = ({n: task_hash(t[n]) for n in shared} for t in (first, second))
    assert next(hashes) == next(hashes)


def test_another_seed_changes_every_sampled_step():
    first, second = tasks(small_spec()), tasks(small_spec(seed=1))
    for name in ("warm-up/generate", "iter-01/generate"):
        assert task_hash(first[name]) != task_hash(second[name])


@pytest.mark.parametrize("change", [{"seed": 1}, {"warm_up": None}, {"model": "x"}])
def test_a_history_of_another_spec_is_refused(change):
    other = small_spec(**change)
    history = [entry for _, entry in walk(other)][:8]
    if change == {"model": "x"}:  # the folder's place is no part of what a step reads
        assert next_step(small_spec(), INPUTS, history) is not None
        return
    with pytest.raises(IntegrityError, match="start a run of another name"):
        next_step(small_spec(), INPUTS, history)


def test_a_history_longer_than_the_recipe_is_refused():
    history = [entry for _, entry in walk(small_spec())]
    with pytest.raises(IntegrityError, match="asks for nothing more"):
        next_step(small_spec(), INPUTS, [*history, history[0]])


def test_a_small_split_is_taken_whole():
    named = tasks(small_spec(evaluation={"queries": 1000}, warm_up={"queries": 1000}))
    evaluation, warm = named["iter-00/evaluate"], named["warm-up/generate"]
    assert isinstance(evaluation, EvaluateTask)
    assert isinstance(warm, GenerateTask)
    assert isinstance(warm.source, Queries)
    assert evaluation.slice.count == 8
    assert warm.source.slice.count == 40


def test_a_run_with_benchmarks_ends_with_them_and_asks_them_of_its_base_too():
    spec = small_spec(evaluation={"benchmarks": {"path": "files", "names": ["ai2d"]}})
    named = tasks(spec)
    assert list(named)[1] == "base/benchmarks"
    assert list(named)[-1] == "final/benchmarks"
    last = named["final/benchmarks"]
    assert isinstance(last, BenchmarkTask)
    assert last.model == refs(walk(spec))["iter-02/train"]
    assert last.prompt
    assert last.prompt.template == spec.prompts.query
    assert TASK.validate_python(last.model_dump(mode="json")) == last


def test_benchmarks_may_be_asked_as_the_official_tools_ask():
    spec = small_spec(evaluation={"benchmarks": {"path": "files", "prompt": "official"}})
    last = tasks(spec)["final/benchmarks"]
    assert isinstance(last, BenchmarkTask)
    assert last.prompt is None


def test_benchmarks_change_no_other_step():
    plain = tasks(small_spec())
    more = tasks(small_spec(evaluation={"benchmarks": {"path": "files"}}))
    assert {name: task for name, task in more.items() if "benchmarks" not in name} == plain
