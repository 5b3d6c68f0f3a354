"""``mstarctl export`` and ``mstarctl track``: one message and the documented code for what is wrong."""

import importlib.util
import json

import pytest

from tests.report.making import make_run, make_spec, make_store


@pytest.fixture
def store(tmp_path):
    found = make_store(tmp_path)
    make_run(found, tmp_path, make_spec(), until=3)
    return found


@pytest.mark.parametrize("command", ["export", "track"])
def test_an_unknown_run_is_named_with_those_there_are(mstarctl, store, tmp_path, command):
    where = ("--to", tmp_path / "out") if command == "export" else ()
    code, _, said = mstarctl(command, "other", "--store", store.url, *where)
    assert code == 11
    assert "no run 'other'" in said
    assert "mstar" in said


def test_a_run_without_a_checkpoint_yet_exports_nothing(mstarctl, store, tmp_path):
    code, _, said = mstarctl("export", "mstar", "--store", store.url, "--to", tmp_path / "out")
    assert code == 11
    assert "no checkpoint yet" in said
    assert not (tmp_path / "out").exists()


def test_scores_that_cannot_be_read_are_said_before_anything_is_copied(mstarctl, store, tmp_path):
    (tmp_path / "scores.json").write_text("no json")
    for path in ("none.json", "scores.json"):
        code, _, said = mstarctl(
            "export", "mstar", "--store", store.url, "--to", tmp_path / "out", "--scores", tmp_path / path
        )  # fmt: skip
        assert code == 4
        assert path in said


def test_a_tracker_whose_package_is_missing_is_said_at_once(mstarctl, store, monkeypatch):
    find = importlib.util.find_spec
    lacking = {"wandb": None}
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *_: lacking.get(name, find("json"))
    )
    code, _, said = mstarctl("track", "mstar", "--store", store.url, "--to", "wandb")
    assert code == 12
    assert "mstar[wandb]" in said


def test_a_tracker_that_refuses_is_to_be_put_right_before_the_same_command_helps(
    mstarctl, store, monkeypatch
):
    from mstar.tracking.process import Telling

    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setattr(importlib.util, "find_spec", lambda *_: "found")
    monkeypatch.setattr(Telling, "look", lambda told, **_: told.failed.update(wandb="bad key"))
    code, _, said = mstarctl("track", "mstar", "--store", store.url, "--to", "wandb")
    assert code == 7
    assert "wandb: bad key. Once that is put right, the same command tells the rest" in said


def test_exporting_is_told_to_programs_as_json(mstarctl, tmp_path, monkeypatch):
    from tests.tiny import build_tiny_model

    store = make_store(tmp_path / "whole")
    model = build_tiny_model(tmp_path / "model")
    make_run(store, tmp_path, make_spec(), until=4, model=model)
    out = tmp_path / "out"
    code, said, _ = mstarctl("export", "mstar", "--store", store.url, "--to", out, "-o", "json")
    assert code == 0
    assert json.loads(said) | {"checkpoint": None} == {
        "to": str(out),
        "opened": True,
        "run": "mstar",
        "step": "warm-up/train",
        "kind": "policy",
        "checkpoint": None,
    }
