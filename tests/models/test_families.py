"""What holds for every family: prompts and batches mean to the model what they would mean alone."""

from types import SimpleNamespace

import pytest
import torch

from mstar.demo.specs import base_folder
from mstar.errors import ModelError
from mstar.models.family import load_family
from tests.tiny import draw_image, encode_text

CPU = torch.device("cpu")


def ask(text, seed=0, size=(16, 16)):
    return SimpleNamespace(query_id=f"q{seed}", text=text, image=draw_image(seed, size))


def load(path):
    family = load_family(path)
    return family, family.load(dtype=torch.float32, device=CPU)


@pytest.mark.parametrize("pad", ["left", "right"])
def test_a_row_means_the_same_in_a_batch_as_alone(any_model, pad):
    family, model = load(any_model)
    prompts = family.encode([ask("What" + "?" * 3 * n, n, (16 + 8 * n, 16)) for n in range(3)])
    answers = [encode_text("ab"), encode_text("a longer one"), ()]
    together = family.collate(prompts, answers, pad=pad)
    with torch.inference_mode():
        whole = model(**together).logits
        for row, (prompt, answer) in enumerate(zip(prompts, answers, strict=True)):
            alone = model(**family.collate([prompt], [answer], pad=pad)).logits[0]
            mine = whole[row][together["attention_mask"][row].bool()]
            torch.testing.assert_close(mine, alone, rtol=1e-4, atol=1e-5)


def test_the_image_changes_what_is_predicted(any_model):
    family, model = load(any_model)
    prompts = family.encode([ask("What?", 1), ask("What?", 2)])
    assert prompts[0].tokens == prompts[1].tokens
    batch = family.collate(prompts, [(), ()], pad="left")
    with torch.inference_mode():
        first, second = model(**batch).logits[:, -1]
    assert (first - second).abs().max() > 1e-3


def test_positions_are_those_that_the_model_computes_itself(any_model):
    family, model = load(any_model)
    sizes = [(16, 16), (40, 16), (16, 64)]
    prompts = family.encode([ask("Hm" * n, n, size) for n, size in enumerate(sizes)])
    batch = family.collate(prompts, [encode_text("yes")] * 3, pad="left")
    own = dict(batch)
    del own["position_ids"]
    with torch.inference_mode():
        expected, found = model(**own).logits, model(**batch).logits
    mask = batch["attention_mask"].bool()
    if prompts[0].positions is None:
        # Left padding needs explicit positions here: without them the model counts the padding too.
        expected = torch.cat(
            [
                model(**family.collate([p], [encode_text("yes")], pad="left")).logits[0]
                for p in prompts
            ]
        )
        torch.testing.assert_close(found[mask], expected, rtol=1e-4, atol=1e-5)
    else:
        torch.testing.assert_close(found[mask], expected[mask], rtol=1e-5, atol=1e-6)


def test_placeholders_pad_bos_and_unk_are_banned_and_eos_is_not(any_model):
    family, _ = load(any_model)
    tokenizer = family.tokenizer
    names = ["<pad>", "<unk>", "<|im_start|>", "<|image_pad|>"]
    assert set(tokenizer.convert_tokens_to_ids(names)) <= set(family.banned)
    assert family.eos == (tokenizer.eos_token_id,)
    assert not set(family.eos) & set(family.banned)


def test_a_prompt_ends_where_the_model_answers(any_model):
    family, _ = load(any_model)
    (prompt,) = family.encode([ask("Two?")])
    assert family.decode(prompt.tokens) == "Two?\n"


def test_pieces_join_to_the_text(any_model):
    family, _ = load(any_model)
    tokens = family.tokenize("one\ntwo: \\boxed{3}")
    assert tokens == encode_text("one\ntwo: \\boxed{3}")
    assert "".join(family.pieces(tokens)) == family.decode(tokens) == "one\ntwo: \\boxed{3}"


def test_a_text_that_another_model_wrote_becomes_tokens_that_this_one_could_have_drawn(any_model):
    family, _ = load(any_model)
    text = "one\ntwo: \\boxed{3}"
    assert family.retokenize(text) == family.tokenize(text)
    strange = (
        f"one<|image_pad|>\n<|im_end|>t\N{SNOWMAN}wo: {family.tokenizer.pad_token}\\boxed{{3}}"
    )
    assert family.retokenize(strange) == encode_text(text)
    assert family.retokenize("") == family.retokenize("\N{SNOWMAN}") == ()


def test_one_text_drawn_in_different_tokens_is_one_text_to_another_model():
    family = load_family(base_folder())
    letters = [family.tokenize(letter) for letter in " = 12"]
    whole, apart = family.tokenize(" = 12"), tuple(token for (token,) in letters)
    assert (len(whole), len(apart)) == (1, 5)
    assert family.decode(apart) == family.decode(whole)
    assert family.retokenize(family.decode(apart)) == whole


def test_text_after_a_prefix_is_what_it_adds(any_model):
    family, _ = load(any_model)
    assert family.decode(encode_text(" 4."), prefix=encode_text("It is")) == " 4."


def test_freezing_groups_share_nothing_and_cover_what_they_name(any_model):
    family, model = load(any_model)
    groups = {name: family.parameters(model, name) for name in ("vision", "language", "embeddings")}
    ids = {name: {id(p) for p in found} for name, found in groups.items()}
    assert all(ids.values())
    assert not ids["vision"] & ids["language"]
    assert not ids["language"] & ids["embeddings"]
    assert id(model.get_input_embeddings().weight) in ids["embeddings"]


def test_an_image_larger_than_the_limit_is_refused_by_name(any_model):
    family = load_family(any_model, max_pixels=255)
    with pytest.raises(ModelError, match=r"query q7 has 16 x 16 = 256 pixels; at most 255"):
        family.encode([ask("What?", 7)])


def test_a_placeholder_in_the_question_is_refused(any_model):
    family = load_family(any_model)
    with pytest.raises(ModelError, match="q0"):
        family.encode([ask("What is <|image_pad|>?")])


def test_an_image_that_the_processor_refuses_is_named(tiny_model):
    family = load_family(tiny_model)
    with pytest.raises(ModelError, match="q3"):
        family.encode([ask("What?", 3, (4000, 1))])


def test_images_of_any_mode_are_taken(any_model):
    family = load_family(any_model)
    image = draw_image(1)
    modes = [image, image.convert("L"), image.convert("RGBA"), image.convert("P")]
    prompts = [SimpleNamespace(query_id="q", text="?", image=one) for one in modes]
    assert len({len(code.tokens) for code in family.encode(prompts)}) == 1


def test_a_saved_processor_makes_a_folder_that_opens_again(any_model, tmp_path):
    family, model = load(any_model)
    model.save_pretrained(tmp_path)
    family.save_processor(tmp_path)
    again = load_family(tmp_path)
    assert again.encode([ask("What?")])[0].tokens == family.encode([ask("What?")])[0].tokens
