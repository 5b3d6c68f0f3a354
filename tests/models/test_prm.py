"""The PRM is the completer with a head that starts as the mean of the token embeddings."""

import json
import re

import pytest
import torch
from transformers import AutoModelForImageTextToText

from mstar.errors import ModelError
from mstar.models.family import load_family
from mstar.models.prm import FIRST_VALUE, is_reward_model, load_reward_model, save_head
from tests.tiny import build_tiny_model

CPU = torch.device("cpu")


def fresh(path):
    return load_reward_model(load_family(path), dtype=torch.float32, device=CPU, fresh_head=True)


@pytest.fixture
def saved(tiny_model, tmp_path):
    family, model = load_family(tiny_model), fresh(tiny_model)
    with torch.no_grad():
        model.head.weight.add_(0.25)
    model.backbone.save_pretrained(tmp_path)
    family.save_processor(tmp_path)
    save_head(model.head.state_dict(), tmp_path)
    return tmp_path, model


def test_the_head_starts_as_the_mean_of_the_token_embeddings(tiny_model):
    model = fresh(tiny_model)
    mean = model.backbone.get_input_embeddings().weight.mean(dim=0)
    torch.testing.assert_close(model.head.weight[0], mean)
    assert model.head.bias.item() == FIRST_VALUE


def test_a_saved_prm_loads_as_it_was(saved):
    folder, model = saved
    assert is_reward_model(folder)
    again = load_reward_model(load_family(folder), dtype=torch.float32, device=CPU)
    torch.testing.assert_close(again.head.weight, model.head.weight)
    torch.testing.assert_close(again.head.bias, model.head.bias)


def test_a_saved_prm_opens_in_transformers_alone(saved):
    folder, model = saved
    backbone = AutoModelForImageTextToText.from_pretrained(folder)
    for mine, theirs in zip(model.backbone.parameters(), backbone.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs)


def test_training_goes_on_from_a_prm_with_its_head(saved):
    folder, model = saved
    torch.testing.assert_close(fresh(folder).head.weight, model.head.weight)


def test_a_completer_is_not_taken_for_a_prm(tiny_model):
    assert not is_reward_model(tiny_model)
    with pytest.raises(ModelError, match=r"is not a PRM: it has no prm\.json"):
        load_reward_model(load_family(tiny_model), dtype=torch.float32, device=CPU)


def test_a_head_of_another_size_is_refused(saved):
    folder, _ = saved
    save_head({"weight": torch.zeros(1, 7), "bias": torch.zeros(1)}, folder)
    with pytest.raises(ModelError, match="head"):
        load_reward_model(load_family(folder), dtype=torch.float32, device=CPU)


def test_a_missing_head_is_refused(saved):
    folder, _ = saved
    (folder / "prm_head.safetensors").unlink()
    with pytest.raises(ModelError, match="head"):
        load_reward_model(load_family(folder), dtype=torch.float32, device=CPU)


@pytest.mark.parametrize("marker", [json.dumps({"format": "mstar-prm", "version": 2}), "{"])
def test_a_prm_of_another_format_is_refused(saved, marker):
    folder, _ = saved
    (folder / "prm.json").write_text(marker)
    with pytest.raises(ModelError, match=rf"prm\.json holds {re.escape(marker)}; this version"):
        load_reward_model(load_family(folder), dtype=torch.float32, device=CPU)


def test_values_are_one_a_token(tmp_path):
    model = fresh(build_tiny_model(tmp_path, seed=3))
    values = model(input_ids=torch.tensor([[20, 21, 22]]))
    assert values.shape == (1, 3)
