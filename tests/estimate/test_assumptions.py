"""What a person says in place of an assumption, and what is remembered of it."""

import pytest

from mstar import errors
from mstar.estimate.assumptions import DEFAULTS, Assumptions
from mstar.estimate.hardware import GPUS, find_gpu, parse_gpu
from mstar.estimate.ranges import Range


def test_every_assumption_has_a_unit_and_a_reason():
    for name, found in DEFAULTS.items():
        assert found.unit, name
        assert found.why, name
        assert found.value.low > 0


def test_what_is_said_replaces_what_is_assumed_and_keeps_who_said_it():
    numbers = Assumptions().said({"right": [0.2, 0.3], "steps": 4, "image_kb": "1e2"}, "mine.yaml")
    assert numbers["right"] == Range(0.2, 0.3)
    assert numbers["steps"] == Range.of(4)
    assert numbers["image_kb"] == Range.of(100)
    assert numbers.asked["right"].source == "mine.yaml"
    assert numbers.is_said("right")
    assert not numbers.is_said("solved")


def test_only_what_was_asked_for_is_remembered():
    numbers = Assumptions()
    assert numbers.asked == {}
    assert numbers["solved"].low > 0
    assert list(numbers.asked) == ["solved"]


def test_an_assumption_that_there_is_not_names_the_nearest():
    with pytest.raises(errors.SpecError, match="did you mean solved"):
        Assumptions().said({"sloved": 1}, "mine.yaml")


@pytest.mark.parametrize(
    "value",
    ["much", [3, 2], [1, 2, 3], 0, -1, 1.1, [0.5, 2], True, None, {"a": 1}, "nan", [1, "inf"]],
)
def test_what_is_no_number_is_refused(value):
    said = r"mine\.yaml: right is .*; expected a number above 0 and at most 1, or two of them"
    with pytest.raises(errors.SpecError, match=said):
        Assumptions().said({"right": value}, "mine.yaml")


def test_a_gpu_is_a_known_name_or_four_figures():
    assert find_gpu("H100") is GPUS["h100"]
    mine = parse_gpu(
        {"name": "x", "memory_gb": 10, "teraflops": 20, "terabytes_per_s": 0.5}, "f: gpu"
    )
    assert (mine.memory, mine.arithmetic, mine.bandwidth) == (10e9, 20e12, 0.5e12)
    for wrong in ({"name": "x"}, 3, None):
        with pytest.raises(errors.SpecError, match="terabytes_per_s"):
            parse_gpu(wrong, "f: gpu")


def test_an_unknown_gpu_says_how_to_describe_one():
    with pytest.raises(errors.SpecError, match=r"did you mean h100\?; describe another one"):
        find_gpu("h10")
