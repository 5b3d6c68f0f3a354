"""Time, GPU-hours, bytes and cost: by hand, and what must hold of any plan."""

import pytest
from hypothesis import given as examples
from hypothesis import strategies as st

from mstar.estimate.ranges import Range
from mstar.estimate.speed import Lengths, rows_at_once
from mstar.execution import Execution
from tests.estimate.making import GPU, MODEL, numbers, planned, step


def test_drawing_takes_as_long_as_its_weights_and_caches_need_from_memory():
    # 80 rows of 200 + 256 tokens of 20,000 bytes find room. A round moves the weights of 0.9e9 parameters, two bytes
    # each, and 80 caches of 328 tokens, at half of 1e12 bytes a second; 10 ms go beside it. 160 responses are two such
    # batches.
    plan = planned({"execution": {"sampling_rows": 80}})
    found = step(plan, "iter-01/generate")
    round_ = (1.8e9 + 80 * 328 * 20_000) / 0.5e12 + 0.010
    prompt = (200 * 1.8e9 + 100 * 4 * 0.2e9) / 50e12
    assert found.device.low == pytest.approx(10 * prompt + 2 * 256 * round_)
    assert found.device.low == pytest.approx(found.device.high)


def test_with_vllm_samples_of_a_prompt_share_its_cache():
    execution = Execution(engine="vllm", sampling_rows=100_000)
    lengths = Lengths(text=Range.of(900), image=Range.of(100), response=Range.of(100))
    alone = rows_at_once(MODEL, GPU, execution, lengths, numbers())
    shared = rows_at_once(MODEL, GPU, execution, lengths, numbers(), samples=10)
    assert alone.low == pytest.approx((0.9 * 80e9 - 2e9) / (1100 * 20_000))
    assert shared.low == pytest.approx(alone.low * 1100 / 200)


def test_training_is_six_operations_a_parameter_and_token():
    found = step(planned({"evolve": {"optimization": {"dtype": "bfloat16"}}}), "iter-01/train")
    tokens = 16 * (200 + 256) * 6 * 0.9e9 + 16 * 100 * 4 * 6 * 0.1e9
    assert found.device.low == pytest.approx(tokens / 50e12)


def test_a_frozen_tower_is_only_read():
    free = step(planned(), "iter-01/train").device.low
    frozen = step(planned({"evolve": {"optimization": {"freeze": ["vision"]}}}), "iter-01/train")
    assert free - frozen.device.low == pytest.approx(16 * 100 * 4 * 4 * 0.1e9 / 25e12)


def test_a_checkpoint_holds_float32_weights_and_two_moments():
    found = step(planned(), "iter-01/train")
    assert found.kept == Range.of(4e9 + 8e9)
    assert found.state == Range.of(8e9)


def test_deepspeed_in_bfloat16_writes_half_weights_and_its_own_copies():
    spec = {
        "execution": {"deepspeed": {"zero_stage": 2, "processes": 8}},
        "evolve": {"optimization": {"dtype": "bfloat16"}},
    }
    found = step(planned(spec), "iter-01/train")
    assert found.kept == Range.of(2e9 + 12e9 + 2e9)


def test_weights_beside_adapters_are_saved_as_they_were_loaded():
    optimization = {"dtype": "bfloat16", "lora": {"rank": 16}}
    found = step(planned({"evolve": {"optimization": optimization}}), "iter-01/train")
    assert found.kept.low - found.state.low == 2e9


def test_a_response_s_bytes_are_its_tokens_and_its_record():
    assert step(planned(), "iter-01/generate").kept == Range.of(160 * 256 * 2 + 160 * 100)


def test_gc_may_drop_every_iteration_s_state_but_the_last():
    store = planned().bucket
    assert store.droppable == Range.of(8e9)  # two iterations
    assert store.swept.low == store.inputs.low + store.steps.low - 8e9
    assert store.peak.low == store.inputs.low + store.steps.low + 12e9


def test_stages_add_up_to_all_and_cost_is_hours_times_price():
    plan = planned(price=3.0)
    *stages, whole = plan.stages
    assert [stage.name for stage in stages] == ["generate", "score", "train", "evaluate"]
    assert whole.gpu_hours.high == pytest.approx(sum(stage.gpu_hours.high for stage in stages))
    assert whole.wall.low == pytest.approx(sum(stage.wall.low for stage in stages))
    assert whole.steps == len(plan.steps)
    assert whole.cost == Range(whole.gpu_hours.low * 3, whole.gpu_hours.high * 3)


def test_without_a_price_there_is_no_cost():
    assert planned().stages[-1].cost is None


@pytest.mark.parametrize("shards", [1, 2, 8])
def test_twice_the_shards_halve_the_wall_time_and_not_the_gpu_hours(shards):
    one = step(planned({"execution": {"shards": shards}}), "iter-01/generate")
    two = step(planned({"execution": {"shards": 2 * shards}}), "iter-01/generate")
    assert two.wall.low == pytest.approx(one.wall.low / 2, rel=1e-4)
    assert two.held.low == pytest.approx(one.held.low, rel=1e-4)


def test_each_shard_s_pod_pays_for_its_start():
    slow = numbers(start_seconds=100)
    one = step(planned({"execution": {"shards": 1}}, numbers=slow), "iter-01/generate")
    two = step(planned({"execution": {"shards": 2}}, numbers=slow), "iter-01/generate")
    assert two.held.low - one.held.low == pytest.approx(100, rel=1e-3)


def test_shards_that_wait_for_a_place_start_one_after_the_other():
    slow = numbers(start_seconds=100)
    spec = {
        "execution": {"shards": 4},
        "cluster": {"stages": {"generate": {"parallelism": 2}}},
    }
    all_at_once = step(planned({"execution": {"shards": 4}}, numbers=slow), "iter-01/generate")
    in_two_waves = step(planned(spec, numbers=slow), "iter-01/generate")
    assert in_two_waves.wall.low - all_at_once.wall.low > 100
    assert in_two_waves.held.low == pytest.approx(all_at_once.held.low, rel=1e-3)


def test_on_this_machine_shards_run_one_after_the_other():
    one = step(planned({"execution": {"shards": 1}}, local=True), "iter-01/generate")
    eight = step(planned({"execution": {"shards": 8}}, local=True), "iter-01/generate")
    assert one.wall == eight.wall


def test_ranks_divide_the_time_of_training_and_not_its_gpu_hours():
    alone = step(planned({"execution": {"deepspeed": {"processes": 1}}}), "iter-01/train")
    eight = step(planned({"execution": {"deepspeed": {"processes": 8}}}), "iter-01/train")
    assert eight.wall.low == pytest.approx(alone.wall.low / 8, rel=1e-4)
    assert eight.held.low == pytest.approx(alone.held.low, rel=1e-4)


def test_gpus_that_a_pod_holds_and_does_not_use_are_paid_for():
    held = {"limits": {"nvidia.com/gpu": 4}}
    spec = {"cluster": {"stages": {"score": {"resources": held}}}}
    one, four = step(planned(), "iter-01/score"), step(planned(spec), "iter-01/score")
    assert four.wall.low == pytest.approx(one.wall.low, rel=1e-4)
    assert four.held.low == pytest.approx(4 * one.held.low, rel=1e-4)


@examples(
    st.integers(2, 32), st.integers(0, 16), st.integers(1, 6), st.sampled_from(["top_k", "all"])
)
def test_more_samples_or_iterations_are_never_cheaper(samples, more, iterations, rule):
    def cost(n, turns):
        select = {"rule": rule, **({"k": 2} if rule == "top_k" else {})}
        evolve = {"rollout": {"samples": n}, "iterations": turns, "select": select}
        return planned({"evolve": evolve}, price=1.0, numbers=numbers(right=[0.1, 0.9])).stages[-1]

    less, same, longer = (
        cost(samples, iterations),
        cost(samples + more, iterations),
        cost(samples, iterations + 1),
    )
    for end in ("low", "high"):
        for other in (same, longer):
            assert getattr(other.gpu_hours, end) >= getattr(less.gpu_hours, end) * (1 - 1e-9)
            assert getattr(other.kept, end) >= getattr(less.kept, end) * (1 - 1e-9)
            assert getattr(other.wall, end) >= getattr(less.wall, end) * (1 - 1e-9)


@examples(st.floats(1e9, 1e11), st.floats(1.0, 4.0))
def test_a_larger_model_is_never_faster(parameters, factor):
    from dataclasses import replace

    small = planned(models={"model": replace(MODEL, parameters=parameters)})
    large = planned(models={"model": replace(MODEL, parameters=parameters * factor)})
    assert large.stages[-1].gpu_hours.low >= small.stages[-1].gpu_hours.low * (1 - 1e-9)
