"""``doctor --model``: a line a check as it is made, JSON for programs, exit codes, never a traceback."""

import json
import os
import shutil

import pytest
import typer
from mstarctl import health

from mstar.demo.specs import base_folder
from mstar.errors import ModelError

SMALL = ("--device", "cpu", "--max-pixels", str(1 << 18))


@pytest.fixture
def broken(tmp_path):
    """The demo's model with half of its weights."""
    folder = shutil.copytree(base_folder(), tmp_path / "broken")
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[: weights.stat().st_size // 2])
    return folder


def test_the_demo_s_own_model_is_well(mstarctl):
    code, out, _ = mstarctl("doctor", "--model", base_folder(), *SMALL)
    assert code == 0, out
    lines = out.splitlines()
    assert lines[0].startswith("ok  folder             qwen2_vl, read by Qwen")
    assert not [line for line in lines if line.startswith("NO")]
    assert lines[-1] == "no fault found; docs/models.md says what each line means"


def test_a_broken_model_ends_with_its_code_and_says_what_works_all_the_same(mstarctl, broken):
    code, out, error = mstarctl("doctor", "--model", broken, *SMALL, "-o", "json")
    assert code == ModelError.exit_code
    assert "Traceback" not in out + error
    found = {finding["what"]: finding for finding in json.loads(out)}
    assert found["pictures"]["ok"] is True
    assert found["weights"]["ok"] is False
    assert found["loss mask"]["ok"] is None


def test_a_folder_that_is_not_there_is_one_fault(mstarctl, tmp_path):
    code, out, error = mstarctl("doctor", "--model", tmp_path / "nowhere", *SMALL)
    assert code == ModelError.exit_code
    assert "there is no such folder" in out
    assert "1 of 19 lines are faults: folder (docs/models.md)" in out
    assert "Traceback" not in out + error


def test_a_device_that_is_not_here_names_the_option(mstarctl, monkeypatch):
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    code, _, error = mstarctl("doctor", "--model", base_folder(), "--device", "cuda")
    assert code == ModelError.exit_code
    assert "Set execution.device (of doctor, --device) to auto or cpu." in error


def test_a_prm_that_is_none_is_a_fault(mstarctl):
    code, out, _ = mstarctl("doctor", "--prm", base_folder(), *SMALL)
    assert code == ModelError.exit_code
    assert "is not a PRM" in out


def test_lines_come_as_checks_are_made(monkeypatch):
    from mstar.stages.backends.modelcheck import examination
    from mstar.stages.backends.modelcheck.finding import Finding

    seen = []

    def examine(wanted):
        yield Finding(what="first", ok=True, found="fine", seconds=2.0)
        seen.append("second asked")
        yield Finding(what="second", ok=False, found="bad", advice="mend it", code=15)

    monkeypatch.setattr(examination, "examine", examine)
    monkeypatch.setattr(typer, "echo", seen.append)
    code = health.examine_model(
        base_folder(),
        None,
        engine="transformers",
        device="cpu",
        dtype="float32",
        max_pixels=None,
        remote_code=False,
        as_json=False,
    )
    assert code == 15
    assert seen[0] == "ok  first              fine  [2.0 s]"
    assert seen[1] == "second asked"
    assert seen[3] == "    mend it"


@pytest.mark.parametrize(
    "option", [("--engine", "vllm"), ("--dtype", "bfloat16"), ("--max-pixels", "9")]
)
def test_an_option_about_a_model_needs_one(mstarctl, option):
    code, _, error = mstarctl("doctor", *option)
    assert code == 2
    assert "give --model" in error


def test_a_device_that_is_not_there_is_refused_at_once(mstarctl, monkeypatch):
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    code, _, error = mstarctl("doctor", "--model", base_folder(), "--device", "cuda")
    assert code == ModelError.exit_code
    assert error.startswith("mstarctl: ")
    assert os.linesep in error
