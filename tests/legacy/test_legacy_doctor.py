"""``mstarctl doctor --model`` on models with code of their own."""

from mstar.stages.backends.modelcheck.examination import Wanted, examine
from tests.legacy.building import build_standin


def test_a_folder_with_code_of_its_own_is_found_well_where_that_code_may_run(standin):
    findings = list(examine(Wanted(model=standin, device="cpu", remote_code=True)))
    faults = {one.what: f"{one.found} {one.advice}" for one in findings if one.ok is False}
    assert not faults


def test_a_model_that_cannot_use_a_cache_is_examined_as_it_is_sampled(tmp_path, monkeypatch):
    def no_cache(decoder, state, token):
        raise AssertionError("the sampler does not go on from a cache of this model")

    monkeypatch.setattr("mstar.stages.backends.decoding.Decoder._step", no_cache)
    folder = build_standin(tmp_path / "whole", "internvl", architecture="Phi3ForCausalLM")
    findings = list(examine(Wanted(model=folder, device="cpu", remote_code=True)))
    assert [one for one in findings if one.ok is False] == []


def test_without_leave_its_code_does_not_run(standin):
    first = next(iter(examine(Wanted(model=standin, device="cpu"))))
    assert first.ok is False
    assert "remote_code" in f"{first.found} {first.advice}"
