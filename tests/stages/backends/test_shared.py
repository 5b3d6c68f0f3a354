"""Responses to one prompt read together are what they are read apart: values, losses and gradients."""

import pytest
import torch

from mstar.models.family import load_family
from mstar.models.prm import load_reward_model
from mstar.stages.backends import accelerate_trainer
from mstar.stages.backends.accelerate_trainer import AccelerateTrainer
from mstar.stages.backends.encoding import EncodedRows
from mstar.stages.backends.objectives import StepValueLoss, assemble, value_item
from mstar.stages.backends.shared import can_share
from tests.stages.backends.rows import make_groups, make_rows
from tests.stages.backends.training import distance, train
from tests.tiny import build_tiny_model

CPU = torch.device("cpu")


@pytest.fixture(scope="module", params=["qwen2_vl", "qwen2_5_vl", "qwen3_vl", "llava"])
def prm(request, tmp_path_factory):
    family = load_family(
        build_tiny_model(tmp_path_factory.mktemp(request.param), kind=request.param)
    )
    torch.manual_seed(0)
    model = load_reward_model(family, dtype=torch.float32, device=CPU, fresh_head=True)
    return family, StepValueLoss(model).train()


@pytest.fixture
def prompts_read(monkeypatch):
    """How many prompts, each with its image, each forward of a PRM reads."""
    seen = []
    real = StepValueLoss.forward

    def forward(self, inputs, answered, targets):
        given = inputs.get("prompts", inputs)
        seen.append(len(given["input_ids"]))
        return real(self, inputs, answered, targets)

    monkeypatch.setattr(StepValueLoss, "forward", forward)
    return seen


def gradients(family, loss, rows, *, shared):
    encoded = EncodedRows(family, rows)
    items = [
        value_item(family, example, row, length)
        for row, (example, length) in enumerate(encoded.read())
    ]
    prompts = encoded.fetch(range(len(rows)))
    loss.zero_grad()
    total = loss(*assemble(family, prompts, items, shared=shared))
    total.backward()
    return total.item(), {
        n: p.grad.clone() for n, p in loss.named_parameters() if p.grad is not None
    }


def test_gradients_are_those_of_reading_each_response_with_its_own_prompt(prm):
    family, loss = prm
    rows = make_groups(3, 4)
    alone, expected = gradients(family, loss, rows, shared=False)
    found, got = gradients(family, loss, rows, shared=True)
    assert found == pytest.approx(alone, rel=1e-5)
    assert got.keys() == expected.keys()
    assert any("visual" in name or "vision" in name for name in got)
    largest = max(gradient.abs().max().item() for gradient in expected.values())
    assert largest > 0
    for name, gradient in expected.items():
        torch.testing.assert_close(got[name], gradient, rtol=1e-3, atol=1e-5 * largest)


@pytest.mark.parametrize("micro", [None, 5])
def test_training_reads_a_prompt_once_a_micro_batch_and_learns_the_same(
    tiny_model, tmp_path, monkeypatch, prompts_read, micro
):
    rows = make_groups(4, 6)
    shared = train(tiny_model, rows, tmp_path / "shared", objective="prm", micro_batch=micro)
    read = sum(prompts_read)
    assert read < len(rows) * 0.8
    prompts_read.clear()
    monkeypatch.setattr(accelerate_trainer, "can_share", lambda backbone: False)
    apart = train(tiny_model, rows, tmp_path / "apart", objective="prm", micro_batch=micro)
    assert sum(prompts_read) == len(rows)
    assert shared.losses == pytest.approx(apart.losses, rel=1e-4)
    assert distance(tmp_path / "shared", tmp_path / "apart") < 1e-4


def test_which_examples_an_optimizer_step_is_of_does_not_change(tiny_model, tmp_path, monkeypatch):
    batches: list[list[list[str]]] = []
    real = AccelerateTrainer._step

    def step(self, session, encoded, batch):
        batches[-1].append([item.name for item in batch])
        return real(self, session, encoded, batch)

    monkeypatch.setattr(AccelerateTrainer, "_step", step)
    for able in (True, False):
        monkeypatch.setattr(accelerate_trainer, "can_share", lambda backbone, able=able: able)
        batches.append([])
        train(tiny_model, make_groups(4, 4), tmp_path / str(able), objective="prm")
    assert batches[0] == batches[1]


def test_prompts_that_do_not_repeat_are_read_as_ever(tiny_model, tmp_path, prompts_read):
    train(tiny_model, make_rows(8, steps=True), tmp_path, objective="prm")
    assert prompts_read == [8]


def test_what_cannot_keep_keys_and_values_does_not_share(prm, monkeypatch):
    _, loss = prm
    backbone = loss.model.backbone
    assert can_share(backbone)
    assert not can_share(torch.nn.Linear(2, 2))
    backbone.gradient_checkpointing_enable()
    assert not can_share(backbone)
    backbone.gradient_checkpointing_disable()
    monkeypatch.setattr(type(backbone), "__module__", "transformers_modules.model")
    assert not can_share(backbone)
