"""Training attends as it is asked to, or says why it cannot."""

import logging

import pytest
import torch

from mstar.errors import MissingDependency, ModelError
from mstar.execution import Execution
from mstar.models.family import load_family
from mstar.stages.backends import attending
from mstar.stages.backends.attending import FLASH, attend_as_asked
from tests.stages.backends.rows import make_rows
from tests.stages.backends.training import train

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


@pytest.fixture
def model(tiny_model):
    return load_family(tiny_model).load(dtype=torch.float32, device=CPU)


@pytest.fixture
def set_to(model, monkeypatch):
    """What the model is set to, without setting it: flash attention needs its package and a device."""
    found: list[str] = []

    def note(name):
        found.append(name)
        model.config._attn_implementation_internal = name

    monkeypatch.setattr(model, "set_attn_implementation", note)
    return found


@pytest.mark.parametrize("asked", ["auto", "eager", "sdpa"])
def test_losses_are_the_same_by_any_attention_and_the_log_names_it(
    tiny_model, tmp_path, asked, caplog
):
    with caplog.at_level(logging.INFO, logger="mstar"):
        report = train(tiny_model, make_rows(16), tmp_path / "0", attention=asked)
    expected = train(tiny_model, make_rows(16), tmp_path / "1", attention="sdpa")
    assert report.losses == pytest.approx(expected.losses, rel=1e-4)
    named = {"auto": "sdpa"}.get(asked, asked)
    assert f"training in float32 with {named} attention" in caplog.text


@pytest.mark.parametrize(
    ("installed", "device", "dtype", "taken"),
    [
        (True, CUDA, torch.bfloat16, FLASH),
        (True, CUDA, torch.float32, "sdpa"),
        (True, CPU, torch.bfloat16, "sdpa"),
        (False, CUDA, torch.bfloat16, "sdpa"),
    ],
)
def test_auto_takes_flash_attention_where_everything_fits(
    model, set_to, monkeypatch, installed, device, dtype, taken
):
    monkeypatch.setattr(attending, "is_flash_attn_2_available", lambda: installed)
    assert attend_as_asked(model, Execution(), device, dtype) == taken
    assert set_to == ([FLASH] if taken == FLASH else [])


def test_a_model_that_knows_no_flash_attention_keeps_its_own(model, set_to, monkeypatch):
    monkeypatch.setattr(attending, "is_flash_attn_2_available", lambda: True)
    monkeypatch.setattr(model, "_supports_flash_attn", False)
    assert attend_as_asked(model, Execution(), CUDA, torch.bfloat16) == "sdpa"
    assert set_to == []


def test_a_part_that_knows_no_flash_attention_leaves_the_whole_as_it_was(
    model, monkeypatch, caplog
):
    asked: list[str] = []

    def refuse_flash(name):
        asked.append(name)
        if name == FLASH:
            raise ValueError("not supported for vision_config")

    monkeypatch.setattr(attending, "is_flash_attn_2_available", lambda: True)
    monkeypatch.setattr(model, "set_attn_implementation", refuse_flash)
    assert attend_as_asked(model, Execution(), CUDA, torch.bfloat16) == "sdpa"
    assert asked == [FLASH, "sdpa"]
    assert "attention stays sdpa" in caplog.text


def test_flash_attention_asked_for_where_it_cannot_be_is_refused(model, monkeypatch):
    asked = Execution(attention=FLASH)
    monkeypatch.setattr(attending, "is_flash_attn_2_available", lambda: False)
    with pytest.raises(ModelError, match="this step computes in bfloat16 on cpu"):
        attend_as_asked(model, asked, CPU, torch.bfloat16)
    with pytest.raises(ModelError, match="in float32 on cuda"):
        attend_as_asked(model, asked, CUDA, torch.float32)
    with pytest.raises(MissingDependency, match=r"flash-attn .* is not installed"):
        attend_as_asked(model, asked, CUDA, torch.bfloat16)


def test_an_attention_that_the_model_does_not_know_is_refused(model, monkeypatch):
    def refuse(name):
        raise ValueError(f"{name} is not supported")

    monkeypatch.setattr(model, "set_attn_implementation", refuse)
    with pytest.raises(ModelError, match="cannot attend by eager"):
        attend_as_asked(model, Execution(attention="eager"), CPU, torch.float32)
