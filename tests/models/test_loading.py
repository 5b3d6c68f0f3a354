"""A folder that is not a model gives one clear message, before any work."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from mstar.errors import ModelError
from mstar.models.family import load_family

CPU = torch.device("cpu")


@pytest.fixture
def copy(tiny_model, tmp_path):
    return shutil.copytree(tiny_model, tmp_path / "copy")


def load(path):
    return load_family(path).load(dtype=torch.float32, device=CPU)


def test_a_folder_that_does_not_exist_is_named(tmp_path):
    with pytest.raises(ModelError, match=r"nowhere is not a model folder: there is no such folder"):
        load_family(tmp_path / "nowhere")


def test_a_folder_without_a_config_says_what_is_missing(tmp_path):
    with pytest.raises(ModelError, match=r"no config\.json.*save_pretrained"):
        load_family(tmp_path)


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"model_type": 3}'])
def test_a_broken_config_is_refused(tmp_path, content):
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(ModelError, match=r"config\.json"):
        load_family(tmp_path)


def test_an_unknown_architecture_is_refused(copy):
    (copy / "config.json").write_text(json.dumps({"model_type": "no_such_model"}))
    with pytest.raises(ModelError, match="no_such_model"):
        load_family(copy)


def test_a_model_without_images_is_refused(copy):
    (copy / "config.json").write_text(json.dumps({"model_type": "llama"}))
    with pytest.raises(ModelError, match="vision-language"):
        load_family(copy)


def test_an_architecture_with_positions_of_its_own_is_not_taken_for_a_generic_one(copy):
    (copy / "config.json").write_text(json.dumps({"model_type": "glm4v"}))
    with pytest.raises(ModelError, match="computes its own image positions"):
        load_family(copy)


def test_a_folder_without_a_processor_is_refused(copy):
    for path in copy.glob("*"):
        if path.name not in {"config.json", "model.safetensors"}:
            path.unlink()
    with pytest.raises(ModelError, match="processor"):
        load_family(copy)


def test_a_processor_without_a_chat_template_is_refused(copy):
    (copy / "chat_template.jinja").unlink()
    with pytest.raises(ModelError, match="chat template"):
        load_family(copy)


def test_missing_weights_are_refused(copy):
    (copy / "model.safetensors").unlink()
    with pytest.raises(ModelError, match="cannot be loaded"):
        load(copy)


def test_truncated_weights_are_refused(copy):
    path = copy / "model.safetensors"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(ModelError, match="cannot be loaded"):
        load(copy)


def test_an_absent_tensor_is_an_error_and_not_random_numbers(copy):
    path = copy / "model.safetensors"
    weights = load_file(path)
    weights.pop(next(name for name in weights if name.endswith("q_proj.weight")))
    save_file(weights, path, metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"lack 1 tensors.*q_proj"):
        load(copy)


def test_a_family_is_read_without_weights(copy):
    (copy / "model.safetensors").unlink()
    assert load_family(copy).pieces([20, 21])
