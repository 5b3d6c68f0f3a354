"""What steps ask for, against counts done by hand."""

import pytest

from mstar.estimate.ranges import Range
from mstar.recipe import Done
from tests.estimate.making import given, numbers, planned, step
from tests.runs import done

# small_spec: 40 training queries, 8 for validation, 12 for test, 16 samples, 512 new tokens (256 by the assumption),
# an interval of a quarter: 10 queries an iteration.


def works(spec=None, **changes):
    return {each.work.name: each.work for each in planned(spec, **changes).steps}


def test_an_iteration_draws_all_samples_of_its_share_of_the_queries():
    work = works()["iter-01/generate"]
    assert work.prompts == Range.of(10)
    assert work.rows == Range.of(10 * 16)
    assert work.generated == Range.of(10 * 16 * 256)


def test_top_k_keeps_k_of_each_solved_query():
    assert works()["iter-01/train"].examples == Range.of(10 * 0.8 * 2)


def test_all_right_responses_are_kept_without_a_rule_s_k():
    found = works({"evolve": {"select": {"rule": "all"}}})
    assert found["iter-01/train"].examples == Range.of(10 * 16 * 0.5)


def test_a_limit_bounds_what_is_kept_whatever_is_assumed():
    found = works({"evolve": {"select": {"rule": "all", "limit": 7}}})
    assert found["iter-01/train"].examples == Range.of(7)


def test_epochs_count_each():
    spec = {"warm_up": {"optimization": {"epochs": 3}, "deduplicate": False, "limit": 10}}
    assert works(spec)["warm-up/train"].examples == Range.of(30)


def test_the_prm_s_completions_follow_from_pairs_steps_and_samples():
    found = works()
    # 40 queries x 4 responses x 0.5 that can be balanced; 4 steps have 3 ends inside; 8 completions of half a response.
    assert found["prm/complete"].prompts == Range.of(80 * 3)
    assert found["prm/complete"].generated == Range.of(80 * 3 * 8 * 128)
    assert found["prm/train"].examples == Range.of(80 * 0.9)


def test_only_right_responses_are_judged_in_training_and_all_in_evaluation():
    found = works()
    assert found["iter-01/score"].judged == Range.of(10 * 16 * 0.5)
    grid = 3  # 0.5, 0.75, 1.0
    assert found["iter-00/evaluate"].judged == Range.of(8 * 2 * grid)
    assert found["iter-00/evaluate"].prompts == Range.of(8 * (grid + 1))
    assert found["base/test"].judged == Range.of(0)


def test_sft_passes_every_query_once():
    found = works({"evolve": {"method": "sft"}, "warm_up": None})
    assert found["sft/train"].examples == Range.of(40)
    assert found["sft/train"].trained == Range.of(400)


def test_unlabeled_queries_are_trained_on_beside_the_labeled():
    found = works({"evolve": {"unlabeled": {}}})
    assert found["iter-01/generate"].prompts == Range.of(5)
    assert found["iter-01/generate-unlabeled"].prompts == Range.of(5)
    assert found["iter-01/train"].examples == Range.of(2 * 5 * 0.8 * 2)
    assert found["iter-01/score-unlabeled"].judged == Range.of(5 * 16)


def test_a_committed_step_takes_nothing_and_says_what_its_followers_get():
    results = {
        "warm-up/generate": {"responses": 640, "tokens": 6400},
        "warm-up/score": {"responses": 640, "selected": 123},
    }

    def known(one):
        found = done(one)
        return (
            Done(name=one.name, ref=found.ref, results=results[one.name])
            if one.name in results
            else None
        )

    plan = planned(known=known)
    assert step(plan, "warm-up/generate").wall == Range.of(0)
    assert step(plan, "warm-up/generate").work.adopted
    assert step(plan, "warm-up/train").work.examples == Range.of(123)
    assert step(plan, "warm-up/train").work.trained == Range.of(1230)


def test_a_teacher_draws_the_warm_up_and_the_pupil_the_rest():
    from dataclasses import replace

    from tests.estimate.making import MODEL
    from tests.runs import INPUTS, made_up

    spec = {"teacher": "large"}
    inputs = replace(INPUTS, teacher=made_up("model", "large"))
    found = works(spec, inputs=inputs, models={"model": MODEL, "teacher": MODEL})
    assert found["warm-up/generate"].model == "teacher"
    assert found["warm-up/train"].model == "model"
    assert found["teacher/train"].model == "teacher"
    assert found["iter-01/generate"].model == "model"
    assert found["iter-01/score"].prm == "teacher"


def test_only_what_was_asked_for_is_shown_as_assumed():
    plan = planned({"evolve": {"method": "sft"}, "warm_up": None})
    assert "answer_tokens" in plan.assumptions
    assert "steps" not in plan.assumptions
    assert "bandwidth_vllm" not in plan.assumptions


def test_assumptions_that_are_ranges_give_ranges():
    plan = planned(numbers=numbers(response_share=[0.25, 0.5]))
    assert step(plan, "iter-01/generate").work.generated == Range(160 * 128, 160 * 256)


def test_a_response_never_has_more_than_it_may():
    found = given(
        {"evolve": {"rollout": {"max_new_tokens": 8}}}, numbers=numbers(response_share=[0.5, 1])
    )
    from mstar.estimate.planning import make_plan

    assert step(make_plan(found), "iter-01/generate").work.generated == Range(160 * 4, 160 * 8)


@pytest.mark.parametrize("rule", ["random", "longest", "shortest", "top_k"])
def test_rules_with_a_k_keep_alike(rule):
    found = works({"evolve": {"select": {"rule": rule, "k": 2}}})
    assert found["iter-01/train"].examples == Range.of(16)
