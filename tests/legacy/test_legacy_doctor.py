"""``mstarctl doctor --model`` on models with code of their own."""

from mstar.stages.backends.modelcheck.examination import Wanted, examine


def test_a_folder_with_code_of_its_own_is_found_well_where_that_code_may_run(standin):
    findings = list(examine(Wanted(model=standin, device="cpu", remote_code=True)))
    faults = {one.what: f"{one.found} {one.advice}" for one in findings if one.ok is False}
    assert not faults


def test_without_leave_its_code_does_not_run(standin):
    first = next(iter(examine(Wanted(model=standin, device="cpu"))))
    assert first.ok is False
    assert "remote_code" in f"{first.found} {first.advice}"
