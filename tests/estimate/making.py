"""A plan for tests: a small model, round numbers, and no start-up that would hide what is computed."""

from typing import Any

from mstar.estimate.assumptions import Assumptions
from mstar.estimate.folders import DataFacts
from mstar.estimate.hardware import Gpu
from mstar.estimate.models import ModelFacts
from mstar.estimate.planning import Given, RunPlan, make_plan
from mstar.estimate.ranges import Range
from tests.runs import INPUTS, small_spec

GPU = Gpu(name="test", memory=80e9, arithmetic=100e12, bandwidth=1e12)
MODEL = ModelFacts(
    name="test",
    source="made up",
    parameters=1e9,
    vision_parameters=0.1e9,
    layers=10,
    hidden=1000,
    kv_heads=5,
    head_size=100,
    vocabulary=1000,
    vision_layers=10,
    vision_hidden=500,
    patches=4.0,
    image_tokens=Range.of(100),
)
EXACT = {
    "text_tokens": 100,
    "response_share": 0.5,
    "answer_tokens": 10,
    "steps": 4,
    "right": 0.5,
    "hinted_right": 0.5,
    "solved": 0.8,
    "usable": 0.5,
    "pairs_found": 0.5,
    "distinct": 1.0,
    "start_seconds": 1e-9,
    "store_mb_per_s": 1e12,
    "checked_per_s": 1e12,
    "train_utilisation": 0.5,
    "read_utilisation": 0.5,
    "bandwidth_transformers": 0.5,
    "round_ms_transformers": 10,
    "token_bytes": 2,
    "record_bytes": 100,
    "activation_bytes": 30,
    "memory_reserve": 0.1,
}


def numbers(**changes: Any) -> Assumptions:
    """Every assumption a single number, but for what is changed."""
    return Assumptions().said(EXACT | changes, "the test")


def given(spec: dict[str, Any] | None = None, **changes: Any) -> Given:
    """What a plan of ``small_spec`` is made from."""
    made = small_spec(**(spec or {}))
    fields: dict[str, Any] = {
        "spec": made,
        "data": DataFacts(queries=INPUTS.queries, source="the test"),
        "inputs": INPUTS,
        "models": {"model": MODEL},
        "images": {},
        "gpu": GPU,
        "numbers": numbers(),
    }
    return Given(**fields | changes)


def planned(spec: dict[str, Any] | None = None, **changes: Any) -> RunPlan:
    """The plan of ``small_spec`` with some keys changed."""
    return make_plan(given(spec, **changes))


def step(plan: RunPlan, name: str) -> Any:
    """One step of a plan."""
    return next(each for each in plan.steps if each.work.name == name)
