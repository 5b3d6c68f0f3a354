"""Measurements: when they may be used, what they change, and their file."""

import json
from dataclasses import replace

import pytest

from mstar import errors
from mstar.estimate.calibration import (
    Calibration,
    check_fits,
    device_of,
    parse_calibration,
    save_calibration,
)
from mstar.estimate.hardware import find_gpu
from mstar.estimate.planning import make_plan
from mstar.estimate.ranges import Range
from tests.estimate.making import MODEL, given, numbers, planned, step
from tests.runs import INPUTS, made_up, small_spec

RAW = {
    "format": "mstar-calibration",
    "device": {"kind": "cuda", "name": "NVIDIA H100 80GB HBM3", "memory": 85e9},
    "model": "m",
    "parameters": 1e9,
    "engine": "transformers",
    "dtype": "float32",
    "start_seconds": 5,
    "load_seconds": 2,
    "prompt_tokens": 150,
    "image_tokens": 100,
    "generate": {
        "prompt_seconds": 0.01, "token_seconds": 0.001, "rows": 16, "responses": 16, "response_tokens": 20,
    },
    "score": {"prompt_seconds": 0.02, "token_seconds": 0.0001, "responses": 16},
    "train": {"token_seconds": 0.0005, "examples": 64},
}  # fmt: skip


def measured(**changes):
    return parse_calibration(RAW | changes, "cal.yaml")


def plan(calibration, **changes):
    exact = numbers(measured_spread=1, length_growth=1, size_scaling=1)
    device = device_of(calibration, None, "cal.yaml")
    return planned(
        **{"calibration": calibration, "gpu": device, "numbers": exact, "local": True} | changes
    )


def test_measured_seconds_are_what_a_plan_counts_with():
    found = plan(measured())
    drawn = step(found, "iter-01/generate")
    assert drawn.work.generated == Range.of(160 * 20)
    assert drawn.device.low == pytest.approx(10 * 0.01 + 160 * 20 * 0.001)
    trained = step(found, "iter-01/train")
    assert trained.device.low == pytest.approx(16 * (150 + 20) * 0.0005)
    judged = step(found, "iter-01/score")
    assert judged.device.low == pytest.approx(10 * 0.02 + 80 * 20 * 0.0001)


def test_every_step_loads_and_only_the_first_starts_a_process_here():
    found = plan(measured())
    made = [each for each in found.steps if each.work.prompts.high]
    first, second = made[0], made[1]
    assert first.wall.low == pytest.approx(first.device.low + 5 + 2, abs=1e-3)
    assert second.wall.low == pytest.approx(second.device.low + 2, abs=1e-3)


def test_lengths_of_made_up_weights_say_nothing():
    drawn = step(plan(measured(random=True)), "iter-01/generate")
    assert drawn.work.generated == Range.of(160 * 256)


def test_another_model_s_seconds_go_by_its_size():
    inputs = replace(INPUTS, teacher=made_up("model", "large"))
    models = {"model": MODEL, "teacher": replace(MODEL, parameters=3e9)}
    found = plan(measured(), spec={"teacher": "large"}, inputs=inputs, models=models)
    drawn = step(found, "warm-up/generate")
    assert drawn.device.low == pytest.approx(3 * (40 * 0.01 + 640 * 20 * 0.001))


def test_what_was_not_measured_is_assumed_where_the_gpu_is_known():
    found = plan(measured(train=None, left_out={"train": "out of memory"}))
    assert "train_utilisation" in found.assumptions


def test_what_was_not_measured_on_an_unknown_device_is_refused():
    cpu = {"kind": "cpu", "name": "x86_64 CPU, 1 threads", "memory": 16e9}
    lacking = measured(device=cpu, train=None, left_out={"train": "out of memory"})
    with pytest.raises(errors.SpecError, match=r"no train \(out of memory\)"):
        plan(lacking)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"parameters": 2e9}, "2,000,000,000 parameters"),
        ({"engine": "vllm"}, "the engine vllm; the spec asks for transformers"),
        ({"dtype": "bfloat16"}, "training in bfloat16"),
    ],
)
def test_a_measurement_of_something_else_is_refused(change, said):
    with pytest.raises(errors.SpecError, match=said):
        check_fits(measured(**change), small_spec(), MODEL, "cal.yaml")


def test_a_measurement_of_this_spec_is_taken():
    check_fits(measured(), small_spec(), MODEL, "cal.yaml")


def test_another_gpu_than_the_measured_one_is_refused():
    with pytest.raises(errors.SpecError, match="contradicts --gpu a100-80"):
        device_of(measured(), find_gpu("a100-80"), "cal.yaml")
    assert device_of(measured(), find_gpu("h100"), "cal.yaml").memory == 85e9


@pytest.mark.parametrize(
    ("device", "gigabytes", "known"),
    [
        ("NVIDIA A100-SXM4-80GB", 85, "a100-80"),
        ("NVIDIA A100-PCIE-40GB", 42, "a100-40"),
        ("NVIDIA H100 PCIe", 85, "h100-pcie"),
        ("NVIDIA L40S", 48, "l40s"),
        ("NVIDIA GeForce RTX 4090", 25, "rtx-4090"),
        ("NVIDIA GeForce RTX 3090", 25, None),
        ("NVIDIA RTX 6000 Ada Generation", 51, None),
    ],
)
def test_a_measured_gpu_has_the_figures_of_the_one_it_is_called_and_of_no_other(
    device, gigabytes, known
):
    named = {"kind": "cuda", "name": device, "memory": gigabytes * 1e9}
    found = device_of(measured(device=named), None, "cal.yaml")
    assert found.arithmetic == (find_gpu(known).arithmetic if known else 0.0)


@pytest.mark.parametrize("name", ["RTX 3090", "rtx3090", "rtx-3090"])
def test_a_gpu_that_a_person_describes_may_be_called_as_its_driver_calls_it(name):
    device = {"kind": "cuda", "name": "NVIDIA GeForce RTX 3090", "memory": 25e9}
    described = replace(find_gpu("rtx-4090"), name=name, arithmetic=71e12)
    found = device_of(measured(device=device), described, "cal.yaml")
    assert found.arithmetic == 71e12


def test_the_file_comes_back_as_it_was_written(tmp_path):
    path = tmp_path / "cal.yaml"
    save_calibration(measured(), path)
    assert parse_calibration(json.loads(path.read_text()), str(path)) == measured()


def test_a_place_that_cannot_be_written_is_said(tmp_path):
    with pytest.raises(errors.StorageError, match="cannot be written"):
        save_calibration(measured(), tmp_path / "none" / "cal.yaml")


def test_a_damaged_file_names_what_is_wrong_in_it():
    with pytest.raises(
        errors.SpecError, match=r"(?s)cal\.yaml is no calibration.*parameters.*--calibrate"
    ):
        parse_calibration(RAW | {"parameters": "many"}, "cal.yaml")


def test_a_measurement_needs_no_assumption_of_hardware():
    found = make_plan(
        given(calibration=measured(), gpu=device_of(measured(), None, "cal"), local=True)
    )
    assert not {"read_utilisation", "train_utilisation", "round_ms_transformers"} & set(
        found.assumptions
    )
    assert {"measured_spread", "length_growth"} <= set(found.assumptions)


def test_the_defaults_of_the_record_are_of_this_version():
    assert isinstance(measured(), Calibration)
    assert measured().version == 1
