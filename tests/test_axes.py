"""The axes of evolving in the recipe: each changes its own steps, and leaves the others' tasks as they are."""

import pytest

from mstar.config import RunSpec
from mstar.errors import IntegrityError, SpecError
from mstar.plan import Inputs
from mstar.recipe import Done, follow, next_step, planned_names, planned_steps, recipe
from mstar.tasks import (
    GenerateTask,
    Queries,
    ScoreTask,
    Select,
    Task,
    TrainTask,
    task_hash,
    task_inputs,
)
from tests.runs import INPUTS, done, small_spec

EACH = {"interval": "25%", "iterations": 4, "exploration": None}


def walked(spec: RunSpec) -> dict[str, tuple[Task, Done]]:
    """Every step with what it found, by name."""
    found: dict[str, tuple[Task, Done]] = {}
    program = recipe(spec, INPUTS)
    step = next(program, None)
    while step is not None:
        found[step.name] = (step.task, done(step))
        step = follow(program, step, found[step.name][1])
    return found


def hashes(spec: RunSpec) -> dict[str, str]:
    return {name: task_hash(task) for name, (task, _) in walked(spec).items()}


def score(spec: RunSpec, name: str) -> ScoreTask:
    task = walked(spec)[name][0]
    assert isinstance(task, ScoreTask)
    return task


def select(spec: RunSpec, name: str) -> Select:
    action = score(spec, name).action
    assert isinstance(action, Select)
    return action


def mixed(**unlabeled: object) -> RunSpec:
    return small_spec(evolve=EACH | {"unlabeled": unlabeled})


def test_a_threshold_without_alpha_takes_the_one_that_validation_chose():
    spec = small_spec(evolve=EACH | {"select": {"rule": "threshold"}})
    assert {select(spec, f"iter-0{i}/score").alpha for i in (1, 2, 3, 4)} == {0.75}


def test_a_threshold_with_alpha_keeps_it():
    spec = small_spec(evolve=EACH | {"select": {"rule": "threshold", "alpha": 0.3}})
    assert select(spec, "iter-01/score").alpha == 0.3


def test_a_measurement_without_alphas_is_refused_with_what_to_do():
    spec = small_spec(evolve=EACH | {"select": {"rule": "threshold"}})
    history = [found for _, found in walked(spec).values()]
    verify = next(i for i, found in enumerate(history) if found.name == "prm/verify")
    old = Done(name="prm/verify", ref=history[verify].ref, results={"queries": 8})
    with pytest.raises(IntegrityError, match="run with fresh"):
        next_step(spec, INPUTS, [*history[:verify], old])


def test_rules_share_everything_up_to_their_first_selection():
    rules = [{"rule": "top_k", "k": 1}, {"rule": "top_k", "k": 4}, {"rule": "threshold"}]
    found = [hashes(small_spec(evolve=EACH | {"select": rule})) for rule in rules]
    common = set.intersection(*(set(one.items()) for one in found))
    names = list(found[0])
    assert [name for name, _ in sorted(common, key=lambda item: names.index(item[0]))] == names[
        : names.index("iter-01/score")
    ]


def test_unlabeled_queries_add_two_steps_to_an_iteration_and_nothing_before():
    plain = hashes(small_spec(evolve=EACH))
    late = hashes(mixed(labels="vote", after=0.5))
    added = [name for name in late if name not in plain]
    assert added == [
        f"iter-0{i}/{what}-unlabeled" for i in (3, 4) for what in ("generate", "score")
    ]
    same = [name for name in plain if plain[name] == late[name]]
    assert same == list(plain)[: list(plain).index("iter-03/generate")]


@pytest.mark.parametrize("after", [0.0, 0.25, 0.5, 0.75, 0.9])
def test_steps_are_counted_with_the_unlabeled_ones(after):
    spec = mixed(labels="oracle", after=after)
    names = list(walked(spec))
    assert names == planned_names(spec, INPUTS)
    assert len(names) == planned_steps(spec)


def test_a_mixed_iteration_samples_both_splits_and_trains_on_both():
    found = walked(mixed(labels="vote"))
    labeled, unlabeled = (found[f"iter-01/{n}"][0] for n in ("generate", "generate-unlabeled"))
    train, kept = found["iter-01/train"][0], found["iter-01/score-unlabeled"][1].ref
    assert isinstance(labeled, GenerateTask)
    assert isinstance(unlabeled, GenerateTask)
    assert isinstance(labeled.source, Queries)
    assert isinstance(unlabeled.source, Queries)
    assert (labeled.source.data, unlabeled.source.data) == (INPUTS.data, INPUTS.unlabeled)
    assert labeled.source.slice.count == unlabeled.source.slice.count == 5
    assert labeled.model == unlabeled.model
    assert labeled.sampling == unlabeled.sampling
    assert isinstance(train, TrainTask)
    assert train.also
    assert (train.also.score, train.also.data) == (kept, INPUTS.unlabeled)
    assert kept in task_inputs(train)


def test_votes_ask_the_prm_whatever_the_rule_and_true_answers_only_where_the_rule_does():
    everything = {"select": {"rule": "all"}}
    found = {}
    for labels in ("vote", "oracle"):
        evolve = EACH | everything | {"unlabeled": {"labels": labels}}
        spec = small_spec(evolve=evolve, **({} if labels == "vote" else {"prm": None}))
        task = score(spec, "iter-01/score-unlabeled")
        assert task.labels == ("vote" if labels == "vote" else None)
        found[labels] = task.prm is not None
        assert score(spec, "iter-01/score").prm is None
    assert found == {"vote": True, "oracle": False}
    assert score(mixed(labels="oracle"), "iter-01/score-unlabeled").prm


def test_an_unlabeled_split_that_the_data_lacks_is_refused_before_the_first_step():
    data = Inputs(data=INPUTS.data, queries={"train": 40, "validation": 8}, model=INPUTS.model)
    with pytest.raises(SpecError, match="'unlabeled', but the data set has train, validation"):
        next_step(mixed(), data, [])


def test_an_unlabeled_split_too_small_for_one_iteration_is_refused_before_the_first_step():
    few = Inputs(
        data=INPUTS.data,
        queries={**INPUTS.queries, "unlabeled": 4},
        model=INPUTS.model,
        unlabeled=INPUTS.unlabeled,
    )
    with pytest.raises(SpecError, match="takes 5 unlabeled queries"):
        next_step(mixed(), few, [])


@pytest.mark.parametrize(("tune_on", "chosen"), [("reward_pass_at_2", 0.75), ("pass_at_k", 1.0)])
def test_what_exploration_is_tuned_on_decides_the_temperature_alone(tune_on, chosen):
    grid = {"lowest": 0.5, "highest": 1.0, "step": 0.25, "tune_on": tune_on}
    found = walked(small_spec(evolve={"exploration": grid}))
    task = found["iter-01/generate"][0]
    assert isinstance(task, GenerateTask)
    assert task.sampling.temperature == chosen


def test_fresh_changes_the_identity_of_every_step_and_no_parameter():
    usual, other = walked(small_spec()), walked(small_spec(fresh="again"))
    assert usual.keys() == other.keys()
    for name, (task, _) in usual.items():
        again = other[name][0]
        assert again.salt == "again"
        assert task_hash(again) != task_hash(task)
    first = next(iter(usual))
    assert other[first][0].model_copy(update={"salt": None}) == usual[first][0]


def test_tasks_keep_the_identity_they_had_before_these_axes():
    spec = small_spec()
    for task, _ in walked(spec).values():
        fields = task.model_dump(mode="json")
        assert not {"salt", "labels", "also"} & fields.keys()
    assert hashes(spec)["base/test"] == (
        "21b53e3bcf24e9f012fd0a450dcb7c4eebc2c4b14dd16a8d658d2226b08ae6c1"
    )
