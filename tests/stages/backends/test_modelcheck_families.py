"""A model of each family, as its makers build it, is found to be well."""

import pytest

from mstar.stages.backends.modelcheck.examination import Wanted, examine
from tests.models.tiny_families import FAMILIES, build

NOT_HERE = {"vllm", "vllm = trainer", "rounding"}
"""What a machine without vLLM and without a GPU cannot try."""


@pytest.mark.parametrize("name", FAMILIES)
def test_a_family_passes_every_check(name, tmp_path):
    model = build(name, tmp_path / name)
    findings = list(examine(Wanted(model=model, device="cpu", max_pixels=1 << 20)))
    assert [(f.what, f.found) for f in findings if f.ok is False] == []
    assert {f.what for f in findings if f.ok is None} <= NOT_HERE
