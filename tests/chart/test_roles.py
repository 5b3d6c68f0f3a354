from collections.abc import Callable
from typing import Any

import pytest

from tests.chart.rendering import PLAIN, Object, build, find, render
from tests.chart.rights import CONTROLLER, PEOPLE, rights

OBJECTS: dict[str, Callable[[], list[Object]]] = {
    "chart": render,
    "everything": lambda: render("everything", "fullnameOverride=mstar"),
    "plain": lambda: build(PLAIN / "s3"),
}
objects = pytest.mark.parametrize("objects", OBJECTS)


@objects
def test_a_controller_may_do_what_it_does_and_no_more(objects: str):
    role = find(OBJECTS[objects](), "Role", "mstar-controller")

    assert rights(role) == CONTROLLER


@objects
def test_people_may_do_what_mstarctl_does_and_no_more(objects: str):
    role = find(OBJECTS[objects](), "Role", "mstar-user")

    assert rights(role) == PEOPLE


@objects
def test_no_other_role_and_no_right_of_a_stage(objects: str):
    made = OBJECTS[objects]()
    bindings = [o for o in made if o["kind"] == "RoleBinding"]
    bound = {(b["roleRef"]["name"], s["kind"], s["name"]) for b in bindings for s in b["subjects"]}

    assert {o["metadata"]["name"] for o in made if o["kind"] == "Role"} == {
        "mstar-controller",
        "mstar-user",
    }
    assert {b["roleRef"]["kind"] for b in bindings} == {"Role"}
    assert {who for who in bound if who[0] == "mstar-controller"} == {
        ("mstar-controller", "ServiceAccount", "mstar-controller")
    }
    assert not any("stage" in name or "shared" in name for _, _, name in bound)


@objects
def test_no_account_hands_out_its_token_unasked(objects: str):
    accounts: list[Any] = [o for o in OBJECTS[objects]() if o["kind"] == "ServiceAccount"]

    assert accounts
    assert all(account["automountServiceAccountToken"] is False for account in accounts)


def test_people_get_their_role_by_the_values():
    binding = find(render("everything"), "RoleBinding", "stars-user")

    assert [subject["name"] for subject in binding["subjects"]] == ["researchers", "pipeline"]
