"""What holds for every family's prompts: where the image goes, what it costs, what is refused before any work.

None of these needs the weights; what does is in ``test_family_contract``.
"""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from PIL import Image

from mstar.demo.specs import base_folder
from mstar.errors import ModelError
from mstar.models.family import FAMILIES
from mstar.stages.backends.encoding import check_all_fit
from tests.models.making import SIZES, ask, open_family, prompted
from tests.models.tiny_families import TILE

SYSTEM = "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
QWEN = "<|im_start|>user\n<|vision_start|><|image_pad|><|vision_end|>Two?<|im_end|>\n<|im_start|>assistant\n"
PROMPTS = {
    "qwen2_vl": SYSTEM + QWEN,
    "qwen2_5_vl": SYSTEM + QWEN,
    "qwen3_vl": QWEN,
    "internvl": "<|im_start|>user\n<IMG_CONTEXT>\nTwo?<|im_end|>\n<|im_start|>assistant\n",
    "smolvlm": "<|im_start|>User:<image>Two?<end_of_utterance>\nAssistant:",
    "llava_onevision": "<|im_start|>user <image>\nTwo?<|im_end|><|im_start|>assistant\n",
    "llava": "<|im_start|><|image_pad|>Two?\n",
}
MOST_IMAGE_TOKENS = {
    "qwen2_vl": 64,
    "qwen2_5_vl": 64,
    "qwen3_vl": 64,
    "internvl": 28,
    "smolvlm": 40,
    "llava_onevision": 16 + 12 * (12 + 1),  # rows of a grid of 12 x 12, which is nine tiles
    "llava": 4,
}
"""An image's tokens at the limits that ``tiny_families`` sets: pixels, tiles with the thumbnail, and so on."""


def test_each_model_type_has_the_family_that_the_table_names(folder):
    module, _, name = FAMILIES.get(folder.name, "mstar.models.generic:GenericFamily").partition(":")
    family = open_family(folder)
    assert (type(family).__module__, type(family).__name__) == (module, name)


def test_a_prompt_holds_one_image_where_the_family_puts_it(folder):
    assert open_family(folder).render("Two?") == PROMPTS[folder.name]


@pytest.mark.parametrize("size", SIZES)
def test_a_prompt_is_encoded_as_the_stock_processor_does(folder, size):
    family = open_family(folder)
    prompt = ask(size=size)
    content = [{"type": "image", "image": prompt.image}, {"type": "text", "text": prompt.text}]
    stock = family.processor.apply_chat_template(
        [{"role": "user", "content": content}],
        add_generation_prompt=True,
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
    )
    (code,) = family.encode([prompt])
    assert list(code.tokens) == stock["input_ids"][0].tolist()
    assert torch.equal(code.images["pixel_values"].flatten(), stock["pixel_values"].flatten())


def test_prompts_encoded_together_are_those_encoded_alone(folder):
    family = open_family(folder)
    prompts = [ask("Two" + "?" * n, n, size) for n, size in enumerate([*SIZES, SIZES[1]])]
    for one, code in zip(prompts, family.encode(prompts), strict=True):
        (alone,) = family.encode([one])
        assert (alone.tokens, alone.image_tokens) == (code.tokens, code.image_tokens)
        for name, tensor in alone.images.items():
            torch.testing.assert_close(code.images[name], tensor)


@pytest.mark.parametrize("size", [*SIZES, (5, 90), (640, 7)])
def test_what_a_prompt_costs_is_known_without_its_pixels(folder, size):
    family = open_family(folder)
    prompt = ask("Read both digits.\nThen add them.", size=size)
    (code,) = family.encode([prompt])
    assert family.measure([prompt]) == [(len(code.tokens), code.image_tokens)]


def test_a_large_image_takes_no_more_tokens_than_the_model_folder_allows(folder):
    family = open_family(folder)
    for size in ((2000, 1500), (1500, 1500), (900, 1700)):
        (code,) = family.encode([ask(size=size)])
        assert code.image_tokens <= MOST_IMAGE_TOKENS[folder.name]


@pytest.mark.parametrize("cut", [1, 4])
def test_a_sequence_that_was_cut_inside_its_image_is_refused(folder, cut):
    family = open_family(folder)
    whole, other = family.encode([ask(size=(300, 200)), ask(seed=1)])
    at = whole.tokens.index(family.placeholder)
    broken = replace(
        whole,
        tokens=whole.tokens[:at] + whole.tokens[at + cut :],
        positions=None if whole.positions is None else whole.positions[:, cut:],
        token_inputs={name: values[cut:] for name, values in whole.token_inputs.items()},
    )
    with pytest.raises(ModelError, match=rf"row 0 .* has {whole.image_tokens - cut} image tokens"):
        family.collate([broken, other], [(), ()], pad="right")


def test_a_response_that_holds_a_placeholder_is_refused(folder):
    family = open_family(folder)
    codes = family.encode([ask(), ask(seed=1)])
    with pytest.raises(ModelError, match=r"row 1 .* the response holds a placeholder"):
        family.collate(codes, [(), (family.placeholder,)], pad="left")


def test_whatever_an_image_is_made_of_is_banned_and_no_end_is(folder):
    family = open_family(folder)
    tokenizer = family.tokenizer
    (code,) = family.encode([ask("", size=(300, 200))])
    special = set(tokenizer.all_special_ids) | set(tokenizer.get_added_vocab().values())
    text = set(tokenizer(family.render(""), add_special_tokens=False)["input_ids"])
    brought_by_the_image = (set(code.tokens) - text) & special | {family.placeholder}
    named = {tokenizer.pad_token_id, tokenizer.bos_token_id, tokenizer.unk_token_id} - {None}
    assert brought_by_the_image | (named - set(family.eos)) <= set(family.banned)
    assert not set(family.eos) & set(family.banned)
    assert family.eos[0] == tokenizer.eos_token_id


def test_a_prompt_ends_where_the_model_answers(folder):
    family = open_family(folder)
    (code,) = family.encode([ask()])
    end = family.render("Two?").partition("Two?")[2]
    assert family.tokenizer.decode(code.tokens).endswith(end)


def test_pieces_join_to_the_text(folder):
    family = open_family(folder)
    text = "one\ntwo: \\boxed{3}"
    tokens = family.tokenize(text)
    assert "".join(family.pieces(tokens)) == family.decode(tokens) == text


def test_text_after_a_prefix_is_what_it_adds(folder):
    family = open_family(folder)
    head, tail = family.tokenize("It is"), family.tokenize(" 4.")
    assert family.decode(tail, prefix=head) == " 4."


def test_a_text_that_another_model_wrote_becomes_tokens_that_this_one_could_have_drawn(folder):
    family = open_family(folder)
    word, end = family.tokenizer.convert_ids_to_tokens([family.placeholder, family.eos[0]])
    tokens = family.retokenize(f"one{word}\ntwo{end}")
    assert not set(tokens) & {*family.banned, *family.eos}
    assert family.decode(tokens) == "one\ntwo"
    assert family.retokenize("one\ntwo") == family.tokenize("one\ntwo")
    assert family.retokenize("") == ()


def test_one_text_drawn_in_different_tokens_is_one_text_to_another_model():
    family = open_family(base_folder())
    letters = [family.tokenize(letter) for letter in " = 12"]
    whole, apart = family.tokenize(" = 12"), tuple(token for (token,) in letters)
    assert (len(whole), len(apart)) == (1, 5)
    assert family.decode(apart) == family.decode(whole)
    assert family.retokenize(family.decode(apart)) == whole


def test_an_image_larger_than_the_limit_is_refused_by_name(folder):
    family = open_family(folder, max_pixels=255)
    with pytest.raises(ModelError, match=r"query q7: the image has 16 x 16 = 256 pixels; at most"):
        family.check([ask(seed=7)])


def test_a_question_that_holds_what_stands_for_an_image_is_refused(folder):
    family = open_family(folder)
    for word in family.tokenizer.convert_ids_to_tokens(list(family.reserved)):
        with pytest.raises(ModelError, match="query q3 holds"):
            family.check([ask(f"What is {word}?", 3)])


def test_a_prompt_over_the_context_is_refused_by_its_numbers_before_its_image_is_processed(
    known, monkeypatch
):
    family = open_family(known)
    monkeypatch.setattr(family, "process", None)
    prompt = prompted(1, (300, 200))
    ((length, image),) = family.measure([prompt])
    check_all_fit(family, [prompt], [family.context - length])
    with pytest.raises(ModelError) as told:
        check_all_fit(family, [prompt], [family.context - length + 1])
    for part in ("query q1", f"{length} tokens", f"{image} of them its image", "1025", "lower"):
        assert part in str(told.value)
    assert family.image_limit in str(told.value)


def test_an_image_that_fills_the_context_alone_is_refused_with_the_limit_to_lower(known):
    family = open_family(known)
    family.context = 12
    with pytest.raises(ModelError, match="query q2: its image of 300 x 200 pixels alone") as told:
        family.check([ask(seed=2, size=(300, 200))])
    assert family.image_limit in str(told.value)


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "LA", "1", "CMYK"])
def test_an_image_of_any_mode_is_taken(folder, mode):
    family = open_family(folder)
    picture = Image.new(mode, (TILE, TILE))
    (code,) = family.encode([SimpleNamespace(query_id="q", text="?", image=picture)])
    (plain,) = family.encode([ask("?")])
    assert code.tokens == plain.tokens


def test_an_image_of_a_shape_that_the_model_cannot_take_is_named(tiny_model):
    with pytest.raises(ModelError, match=r"query q3: .* takes no image of 4000 x 1 pixels"):
        open_family(tiny_model).check([ask(seed=3, size=(4000, 1))])
