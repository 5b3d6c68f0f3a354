"""What a step would only tell later is found in a model's folder before anything is written."""

import json
import time

import pytest

from mstar.controller.folders import ModelFolder, check_models
from mstar.demo.specs import base_folder
from mstar.errors import ModelError, SpecError
from tests.runs import small_spec
from tests.tiny import write_tensors

LAYER = "model.layers.0.self_attn.{}.weight"


@pytest.fixture
def folder(tmp_path):
    """What a folder's small files say, with two matrices."""
    place = tmp_path / "model"
    place.mkdir()
    text = {"vocab_size": 3, "max_position_embeddings": 1000}
    write(place / "config.json", {"text_config": text, "image_token_id": 2})
    write(place / "preprocessor_config.json", {})
    tokens = [{"id": 2, "content": "<image>"}]
    write(place / "tokenizer.json", {"model": {"vocab": {"a": 0, "b": 1}}, "added_tokens": tokens})
    shapes = {
        LAYER.format("q_proj"): (2, 3),
        LAYER.format("v_proj"): (2, 3),
        "model.norm.weight": (3,),
    }
    write_tensors(place / "model.safetensors", shapes)
    return place


def write(file, value):
    file.write_text(json.dumps(value))


def spec(folder, **changes):
    return small_spec(**{"model": str(folder)} | changes)


def trained(targets, key="evolve"):
    return {key: {"optimization": {"lora": {"targets": targets}}}}


def test_a_folder_that_is_whole_and_fits_is_taken(folder):
    check_models(spec(folder, **trained(["q_proj", "language_model.layers.0.self_attn.v_proj"])))
    check_models(spec(folder, teacher=str(folder)))
    assert ModelFolder(base_folder()).context == 256


@pytest.mark.parametrize("key", ["warm_up", "prm", "evolve"])
def test_a_target_of_adapters_that_no_layer_is_called_is_refused_with_those_there_are(folder, key):
    with pytest.raises(SpecError) as caught:
        check_models(spec(folder, **trained(["q_proj", "nope_proj"], key)))
    said = str(caught.value)
    assert said.startswith(f"{key}.optimization.lora.targets names nope_proj, but no layer")
    assert said.endswith("there are q_proj, v_proj")


def test_a_tokenizer_that_knows_more_than_the_model_embeds_is_refused(folder):
    write(folder / "config.json", {"text_config": {"vocab_size": 2}})
    with pytest.raises(ModelError, match=r"knows 3 tokens and the model embeds 2"):
        check_models(spec(folder))


def test_weights_that_were_cut_short_are_refused(folder):
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    with pytest.raises(ModelError, match=r"model\.safetensors has [\d,]+ bytes, and should have"):
        check_models(spec(folder))
    weights.write_text("version https://git-lfs.github.com/spec/v1")
    with pytest.raises(ModelError, match="is not a safetensors file"):
        check_models(spec(folder))


def test_files_that_the_index_of_the_weights_names_must_be_there(folder):
    first, second = (f"model-0000{number}-of-00002.safetensors" for number in (1, 2))
    write(folder / "model.safetensors.index.json", {"weight_map": {"a": first, "b": second}})
    (folder / "other.safetensors").write_text("not read")
    check_models(spec(folder))  # one file holds all, and nobody reads the index
    (folder / "model.safetensors").rename(folder / first)
    with pytest.raises(ModelError, match=f"lacks 1 of the 2 files .* among them {second}"):
        check_models(spec(folder))


def test_responses_that_leave_no_room_for_a_prompt_are_refused(folder):
    check_models(spec(folder, evolve={"rollout": {"max_new_tokens": 999}}))
    with pytest.raises(SpecError, match=r"evolve\.rollout\.max_new_tokens is 1000, .* of 1000"):
        check_models(spec(folder, evolve={"rollout": {"max_new_tokens": 1000}}))
    with pytest.raises(SpecError, match=r"prm\.rollout\.max_new_tokens is 2000"):
        check_models(spec(folder, prm={"rollout": {"max_new_tokens": 2000}}))


def test_a_phase_that_the_run_does_not_have_is_not_checked(folder):
    check_models(
        spec(
            folder,
            **trained(["nope_proj"], "prm"),
            evolve={"select": {"rule": "all"}, "exploration": None},
        )
    )
    check_models(spec(folder, **trained(["nope_proj"], "warm_up"), evolve={"method": "sft"}))


def test_a_prompt_that_holds_the_token_of_an_image_is_refused(folder):
    with pytest.raises(SpecError, match=r"prompts\.query holds '<image>'"):
        check_models(spec(folder, prompts={"query": "<image>{question}"}))


def test_a_folder_of_a_large_tokenizer_is_checked_in_a_moment(folder):
    words = {f"word {number}": number for number in range(150_000)}
    write(folder / "tokenizer.json", {"model": {"vocab": words}})
    write(folder / "config.json", {"text_config": {"vocab_size": 150_000}})
    start = time.process_time()
    ModelFolder(folder)
    assert time.process_time() - start < 1
