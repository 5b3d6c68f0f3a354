"""A model with code of its own means to the backends what it means to that code."""

import json
import shutil
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from mstar.controller.folders import ModelFolder
from mstar.errors import ModelError
from mstar.models.family import load_family
from mstar.models.legacy.minicpm import as_lists
from tests.legacy.building import build_standin
from tests.tiny import draw_image, encode_text

CPU = torch.device("cpu")
SIZES = [(16, 16), (40, 16), (16, 64)]


def ask(text, seed=0, size=(16, 16)):
    return SimpleNamespace(query_id=f"q{seed}", text=text, image=draw_image(seed, size))


def asked():
    return [ask("What" + "?" * 3 * n, n, size) for n, size in enumerate(SIZES)]


def load(family):
    return family.load(dtype=torch.float32, device=CPU)


def said_by_the_code(family, model, batch):
    """Logits from the remote model's own forward, called as its makers call it."""
    batch = dict(batch)
    kind = family.config.model_type
    if kind == "minicpmv":
        text = {name: batch.pop(name) for name in ("input_ids", "position_ids", "attention_mask")}
        data = {"input_ids": text["input_ids"], "position_ids": text["position_ids"]}
        data |= as_lists(**batch)
        return model.remote(data, attention_mask=text["attention_mask"], use_cache=False).logits
    if kind == "internvl_chat":
        model.remote.img_context_token_id = family.token("<IMG_CONTEXT>")
        batch["image_flags"] = torch.ones(len(batch["pixel_values"]), 1, dtype=torch.long)
    batch["input_ids"] = batch["input_ids"].clone()
    return model.remote(**batch, use_cache=False).logits


@pytest.mark.parametrize("pad", ["left", "right"])
def test_a_batch_says_what_the_folders_own_forward_says(family, pad):
    model = load(family)
    batch = family.collate(
        family.encode(asked()), [encode_text("ab"), (), encode_text("c")], pad=pad
    )
    with torch.inference_mode():
        found, expected = model(**batch).logits, said_by_the_code(family, model, batch)
    mask = batch["attention_mask"].bool()
    torch.testing.assert_close(found[mask], expected[mask], rtol=1e-4, atol=1e-5)
    with torch.inference_mode():
        last = model(**batch, logits_to_keep=2).logits
    torch.testing.assert_close(last, found[:, -2:], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("pad", ["left", "right"])
def test_a_row_means_the_same_in_a_batch_as_alone(family, pad):
    model, prompts = load(family), family.encode(asked())
    answers = [encode_text("ab"), encode_text("a longer one"), ()]
    together = family.collate(prompts, answers, pad=pad)
    with torch.inference_mode():
        whole = model(**together).logits
        for row, (prompt, answer) in enumerate(zip(prompts, answers, strict=True)):
            alone = model(**family.collate([prompt], [answer], pad=pad)).logits[0]
            mine = whole[row][together["attention_mask"][row].bool()]
            torch.testing.assert_close(mine, alone, rtol=1e-4, atol=1e-5)


def test_the_image_changes_what_is_predicted(family):
    prompts = family.encode([ask("What?", 1), ask("What?", 2)])
    assert prompts[0].tokens == prompts[1].tokens
    with torch.inference_mode():
        first, second = load(family)(**family.collate(prompts, [(), ()], pad="left")).logits[:, -1]
    assert (first - second).abs().max() > 1e-3


def test_going_on_from_a_cache_says_what_the_whole_row_says(family):
    model, prompts, answer = load(family), family.encode(asked()), encode_text("so it is")
    batch = family.collate(prompts, [()] * 3, pad="left")
    whole = family.collate(prompts, [answer] * 3, pad="left")
    rows = torch.tensor([2, 0, 0, 1])
    with torch.inference_mode():
        expected = model(**whole).logits[rows, -len(answer) :]
        cache = model.new_cache()
        model(**batch, past_key_values=cache, use_cache=True, logits_to_keep=1)
        cache.batch_select_indices(rows)
        following = torch.tensor([prompt.next_position for prompt in prompts])[rows]
        ones = torch.ones((4, len(answer)), dtype=torch.long)
        found = model(
            torch.tensor([answer] * 4),
            attention_mask=torch.cat([batch["attention_mask"][rows], ones], dim=1),
            position_ids=following[:, None] + torch.arange(len(answer)),
            past_key_values=cache,
            use_cache=True,
        ).logits
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_a_prompt_ends_where_the_model_answers_and_its_image_is_whole(family):
    small, large = family.encode([ask("Two?", 1), ask("Two?", 1, (64, 64))])
    said = family.decode([token for token in small.tokens if token >= 0])
    ends = {"minicpmv": "\n", "phi3_v": "\n\n", "internvl_chat": "assistant\n"}
    assert said.endswith("Two?" + ends[family.config.model_type])
    assert len(large.tokens) > len(small.tokens)
    assert small.next_position == len(small.tokens)


def test_placeholders_pad_and_unk_are_banned_and_what_ends_a_turn_is_not(family):
    tokenizer = family.tokenizer
    assert {*family.reserved, tokenizer.pad_token_id, tokenizer.unk_token_id} <= set(family.banned)
    first = {"minicpmv": "<|eot_id|>", "phi3_v": "<|end|>", "internvl_chat": "<|im_end|>"}
    assert tokenizer.convert_ids_to_tokens(family.eos[0]) == first[family.config.model_type]
    assert tokenizer.eos_token_id in family.eos
    assert not set(family.eos) & set(family.banned)


def test_every_parameter_is_in_one_group_for_freezing(family):
    model = load(family)
    groups = [family.parameters(model, group) for group in ("vision", "language", "embeddings")]
    ids = [id(parameter) for group in groups for parameter in group]
    assert all(groups)
    assert sorted(ids) == sorted(id(parameter) for parameter in model.parameters())
    assert id(model.get_input_embeddings().weight) in {id(parameter) for parameter in groups[2]}


def test_what_a_prompt_costs_is_known_from_the_images_size(family):
    for size in (*SIZES, (64, 64), (200, 30)):
        prompt = ask("Read both digits.\nThen add them.", size=size)
        (code,) = family.encode([prompt])
        assert family.measure([prompt]) == [(len(code.tokens), code.image_tokens)]
        assert 0 < code.image_tokens < len(code.tokens)


def test_a_sequence_that_was_cut_inside_its_image_is_refused(family):
    whole, other = family.encode([ask("Two?", size=(64, 64)), ask("Two?", 1)])
    at = whole.tokens.index(family.placeholder)
    cut = replace(whole, tokens=whole.tokens[:at] + whole.tokens[at + 1 :])
    with pytest.raises(ModelError, match=r"row 1 of a batch has .* image"):
        family.collate([other, cut], [(), ()], pad="right")


def test_training_reaches_every_part(family):
    model = load(family).train()
    batch = family.collate(family.encode(asked()), [encode_text("ab")] * 3, pad="right")
    batch.pop("attention_mask")
    model(**batch, use_cache=False).logits.square().mean().backward()
    untouched = [name for name, p in model.named_parameters() if p.grad is None]
    assert untouched == []


def test_a_saved_model_opens_by_itself_and_says_the_same(family, tmp_path):
    model = load(family)
    model.save_pretrained(tmp_path, state_dict=model.state_dict())
    family.save_processor(tmp_path)
    assert (tmp_path / "config.json").read_bytes() == (family.path / "config.json").read_bytes()
    assert {f.name for f in tmp_path.glob("*.py")} == {f.name for f in family.path.glob("*.py")}
    again = load_family(tmp_path, remote_code=True)
    assert again.banned == family.banned
    assert again.render("Hm") == family.render("Hm")
    batch = family.collate(family.encode(asked()), [()] * 3, pad="left")
    with torch.inference_mode():
        assert torch.equal(load(again)(**batch).logits, model(**batch).logits)


def test_code_runs_only_where_it_was_allowed(standin):
    with pytest.raises(ModelError, match=r"execution\.remote_code: true"):
        load_family(standin)


def test_code_of_another_repository_is_refused(standin, tmp_path):
    folder = shutil.copytree(standin, tmp_path / "copy")
    config = json.loads((folder / "config.json").read_text())
    config["auto_map"]["AutoConfig"] = "someone/else--" + config["auto_map"]["AutoConfig"]
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match="takes code from 'someone/else', not from the folder"):
        load_family(folder, remote_code=True)


def test_a_folder_without_its_code_is_refused(standin, tmp_path):
    folder = shutil.copytree(standin, tmp_path / "copy")
    for file in folder.glob("configuration_*.py"):
        file.unlink()
    with pytest.raises(ModelError, match="has no configuration_"):
        load_family(folder, remote_code=True)


def test_weights_of_another_model_are_refused(standin, tmp_path):
    folder = shutil.copytree(standin, tmp_path / "copy")
    from safetensors.torch import load_file, save_file

    weights = load_file(folder / "model.safetensors")
    weights = {name: tensor for name, tensor in weights.items() if "norm" not in name}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    again = load_family(folder, remote_code=True)
    with pytest.raises(ModelError, match=r"lack \d+ tensors"):
        load(again)


def test_a_tokenizer_of_another_model_is_refused(tmp_path):
    folder = build_standin(tmp_path / "phi3v", "phi3v")
    other = build_standin(tmp_path / "internvl", "internvl")
    for file in other.glob("*token*"):
        shutil.copy(file, folder)
    with pytest.raises(ModelError, match=r"the tokenizer in .* has no token"):
        load_family(folder, remote_code=True)


def test_text_that_stands_for_an_image_is_refused(family):
    word = {"minicpmv": "<image>", "phi3_v": "<|image_2|>", "internvl_chat": "<IMG_CONTEXT>"}
    with pytest.raises(ModelError, match="stands for an image"):
        family.encode([ask("see " + word[family.config.model_type])])


def test_what_is_read_of_a_folder_before_a_run_agrees_with_the_family(standin, family):
    found = ModelFolder(standin)
    assert found.context == family.context
    assert len(dict(found.tokens)) == family.vocabulary
    assert found.image_words == []
