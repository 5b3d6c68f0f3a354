"""Memory of a GPU: by hand, and what must hold of any model and setting."""

from dataclasses import replace

import pytest
from hypothesis import given as examples
from hypothesis import strategies as st

from mstar.estimate import memory
from mstar.estimate.layout import Setup
from mstar.estimate.ranges import Range
from mstar.estimate.speed import Lengths
from mstar.execution import Execution
from mstar.optimization import Optimization
from tests.estimate.making import GPU, MODEL, numbers, planned

LENGTHS = Lengths(text=Range.of(100), image=Range.of(100), response=Range.of(100))
HALF = Optimization(dtype="bfloat16", batch_size=8)
FULL = Optimization(dtype="float32", batch_size=8)


def need(setup, optimization=HALF, model=MODEL):
    found = memory.training(model, setup, optimization, LENGTHS, numbers())
    return {name: part.low for name, part in found.parts.items()}


def test_adamw_in_float32_takes_sixteen_bytes_a_parameter():
    found = need(Setup(), FULL)
    assert (found["weights"], found["gradients"], found["optimizer"]) == (4e9, 4e9, 8e9)


@pytest.mark.parametrize(
    ("stage", "expected"),
    [(0, (2e9, 2e9, 12e9)), (1, (2e9, 2e9, 3e9)), (2, (2e9, 0.5e9, 3e9)), (3, (0.5e9, 0.5e9, 3e9))],
)
def test_zero_divides_optimizer_then_gradients_then_weights(stage, expected):
    found = need(Setup(zero=stage, ranks=4))
    assert (found["weights"], found["gradients"], found["optimizer"]) == expected


def test_offloading_takes_the_optimizer_off_the_gpu():
    found = need(Setup(zero=2, ranks=4, offload="optimizer"))
    assert (found["weights"], found["gradients"], found["optimizer"]) == (2e9, 0, 0)
    assert need(Setup(zero=3, ranks=4, offload="parameters"))["weights"] == 0


def test_activations_follow_rows_tokens_layers_and_width():
    found = need(Setup(zero=1, ranks=8))["activations"]  # one row a rank
    decoder = 300 * 30 * 1000 * 10
    tower = 100 * 4 * 30 * 500 * 10
    words = 100 * 1000 * 10
    assert found == decoder + tower + words
    assert need(Setup(zero=1, ranks=4))["activations"] == 2 * found
    assert need(Setup(zero=1, ranks=4, micro_batch=1))["activations"] == found


def test_recomputing_keeps_two_bytes_a_unit_and_one_layer():
    found = need(Setup(zero=1, ranks=8, recomputed=True))["activations"]
    assert found == 300 * 2 * 1000 * 10 + 300 * 30 * 1000 + 100 * 4 * 30 * 500 + 100 * 1000 * 10


def test_a_frozen_group_has_no_gradient_and_no_moments():
    found = need(Setup(), FULL.model_copy(update={"freeze": ("vision",)}))
    assert found["gradients"] == pytest.approx(3.6e9)
    assert found["optimizer"] == pytest.approx(7.2e9)
    assert found["weights"] == 4e9


def test_adapters_make_gradients_and_optimizer_small():
    found = need(Setup(lora=16), FULL)
    assert found["optimizer"] < 0.02 * need(Setup(), FULL)["optimizer"]


SETUPS = st.builds(
    Setup,
    ranks=st.integers(1, 64),
    zero=st.integers(0, 3),
    micro_batch=st.none() | st.integers(1, 64),
    recomputed=st.booleans(),
)
SIZES = st.floats(1e8, 1e11)


@examples(SETUPS, SIZES, st.sampled_from([HALF, FULL]))
def test_a_higher_zero_stage_never_needs_more_on_a_gpu(setup, parameters, optimization):
    model = replace(MODEL, parameters=parameters, vision_parameters=parameters / 10)
    needed = [
        memory.training(
            model, replace(setup, zero=stage), optimization, LENGTHS, numbers()
        ).bytes.high
        for stage in (0, 1, 2, 3)
    ]
    assert needed == sorted(needed, reverse=True)


@examples(SETUPS, SIZES)
def test_more_ranks_or_recomputing_or_fewer_rows_never_need_more(setup, parameters):
    model = replace(MODEL, parameters=parameters)

    def bytes_(other):
        return memory.training(model, other, HALF, LENGTHS, numbers()).bytes.high

    now = bytes_(setup) * (1 + 1e-9)
    assert bytes_(replace(setup, ranks=2 * setup.ranks)) <= now
    assert bytes_(replace(setup, recomputed=True)) <= now
    assert bytes_(replace(setup, micro_batch=1)) <= now


@examples(SETUPS, st.floats(1e9, 3e10))
def test_what_is_advised_fits(setup, parameters):
    model = replace(MODEL, parameters=parameters)
    found = memory.advised(model, setup, HALF, LENGTHS, GPU, numbers())
    assert bool(found.advice) is not bool(found.fits)


def test_a_model_that_fits_nowhere_is_said_to_fit_nowhere():
    model = replace(MODEL, parameters=5e13)
    found = memory.advised(model, Setup(zero=3, ranks=64), HALF, LENGTHS, GPU, numbers())
    assert found.fits is False
    assert found.advice == ("more or larger GPUs, or a smaller model: no setting alone",)


def test_who_hears_that_one_setting_is_enough_does_not_hear_of_it_with_another():
    small = replace(GPU, memory=5e9)
    found = memory.advised(MODEL, Setup(zero=2, ranks=4), HALF, LENGTHS, small, numbers())
    assert found.fits is False
    assert len(found.advice) == len(set(found.advice)) > 1
    alone = [one for one in found.advice if "," not in one]
    assert not any(one in other and one != other for one in alone for other in found.advice)


def test_whether_it_fits_is_open_where_the_assumptions_leave_it_open():
    need_ = memory.Need(who="it", parts={"weights": Range(60e9, 90e9)})
    assert memory.verdict(need_, GPU, numbers()).fits is None
    assert (
        memory.verdict(replace(need_, parts={"weights": Range.of(71e9)}), GPU, numbers()).fits
        is True
    )
    assert (
        memory.verdict(replace(need_, parts={"weights": Range.of(73e9)}), GPU, numbers()).fits
        is False
    )


def test_sampling_with_transformers_needs_all_rows_and_vllm_room_for_one():
    row = (200 + 512) * 2 * 10 * 500 * 2
    for engine, rows in (("transformers", 64), ("vllm", 1)):
        execution = Execution(engine=engine, sampling_rows=64)
        found = memory.generating(MODEL, execution, LENGTHS, 2.0, 512)
        assert found.parts["weights"] == Range.of(2e9)
        assert found.parts["caches"] == Range.of(row * rows)


def test_an_evaluation_holds_both_models():
    execution = Execution()
    first = memory.generating(MODEL, execution, LENGTHS, 2.0, 100)
    second = memory.scoring(MODEL, execution, LENGTHS, 2.0)
    assert memory.together(first, second).parts["weights"] == Range.of(4e9)


def test_a_plan_warns_of_what_cannot_fit_and_says_what_would():
    large = replace(MODEL, parameters=8.5e9, layers=32, hidden=4096, vocabulary=128_256)
    plan = planned(
        {
            "execution": {"deepspeed": {"processes": 8}},
            "evolve": {"optimization": {"batch_size": 512}},
        },
        models={"model": large},
    )
    (warning,) = [w for w in plan.warnings if w.startswith("training") and "execution" in w][:1]
    assert "cannot fit" in warning
    assert "What would fit: execution.micro_batch=" in warning


def test_a_plan_warns_of_a_quota_and_says_what_a_sweep_leaves():
    (warning,) = [w for w in planned(quota=20e9).warnings if "quota" in w]
    assert "will need" in warning
    assert "gc --drop-trainer-state" in warning
    assert not [w for w in planned(quota=1e12).warnings if "quota" in w]
