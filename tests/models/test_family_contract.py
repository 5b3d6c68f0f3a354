"""What holds for every family, from the prompt to the loss, the cache and the saved folder."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from PIL import Image
from transformers import AutoModelForImageTextToText, DynamicCache

from mstar.core.records import Example, Finish, Response
from mstar.demo.specs import base_folder
from mstar.errors import ModelError
from mstar.execution import Execution
from mstar.models.family import FAMILIES, load_family
from mstar.models.prm import load_reward_model, save_head
from mstar.stages.backends.cache import repeat_rows
from mstar.stages.backends.decoding import Decoder, Row
from mstar.stages.backends.encoding import check_all_fit
from mstar.stages.backends.objectives import PolicyLoss, assemble, policy_item
from mstar.stages.backends.transformers_scorer import TransformersScorer
from mstar.stages.protocols import Prompted
from mstar.tasks import Sampling
from tests.models.tiny_families import TILE, draw_image

CPU = torch.device("cpu")
SIZES = [(16, 16), (56, 20), (20, 70), (33, 97), (300, 200)]
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
    "llava_onevision": 16 + 4 * 16 + 8,
    "llava": 4,
}
"""An image's tokens at the limits that ``tiny_families`` sets: pixels, tiles with the thumbnail, and so on."""


def ask(text="Two?", seed=0, size=(TILE, TILE)):
    return SimpleNamespace(query_id=f"q{seed}", text=text, image=draw_image(seed, size))


def prompted(seed, size, *, seeds=(0,)):
    text = "What is the sum?" + " Look." * seed
    return Prompted(query_id=f"q{seed}", text=text, image=draw_image(seed, size), seeds=seeds)


def load(path):
    family = load_family(path)
    return family, family.load(dtype=torch.float32, device=CPU)


def unequal(family):
    """Prompts of unequal images and texts, and answers of unequal lengths."""
    prompts = family.encode([ask("Two" + "?" * n, n, size) for n, size in enumerate(SIZES[:3])])
    return prompts, [family.tokenize(text) for text in ("12", "The answer is 12.", "")]


def close(found, expected):
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)


def test_each_model_type_has_the_family_that_the_table_names(folder):
    module, _, name = FAMILIES.get(folder.name, "mstar.models.generic:GenericFamily").partition(":")
    family = load_family(folder)
    assert (type(family).__module__, type(family).__name__) == (module, name)


def test_a_prompt_holds_one_image_where_the_family_puts_it(folder):
    assert load_family(folder).render("Two?") == PROMPTS[folder.name]


@pytest.mark.parametrize("size", SIZES)
def test_a_prompt_is_encoded_as_the_stock_processor_does(folder, size):
    family = load_family(folder)
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
    family = load_family(folder)
    prompts = [ask("Two" + "?" * n, n, size) for n, size in enumerate([*SIZES, SIZES[1]])]
    for one, code in zip(prompts, family.encode(prompts), strict=True):
        (alone,) = family.encode([one])
        assert (alone.tokens, alone.image_tokens) == (code.tokens, code.image_tokens)
        for name, tensor in alone.images.items():
            torch.testing.assert_close(code.images[name], tensor)


@pytest.mark.parametrize("size", SIZES)
def test_there_are_as_many_image_tokens_as_the_model_makes_features(folder, size):
    family, model = load(folder)
    (code,) = family.encode([ask(size=size)])
    with torch.inference_mode():
        features = model.get_image_features(**code.images).pooler_output
    flat = features if isinstance(features, torch.Tensor) else torch.cat(list(features))
    width = model.config.get_text_config().hidden_size
    assert code.image_tokens == code.tokens.count(family.placeholder) == flat.numel() // width


@pytest.mark.parametrize("size", [*SIZES, (5, 90), (640, 7)])
def test_what_a_prompt_costs_is_known_without_its_pixels(folder, size):
    family = load_family(folder)
    prompt = ask("Read both digits.\nThen add them.", size=size)
    (code,) = family.encode([prompt])
    assert family.measure([prompt]) == [(len(code.tokens), code.image_tokens)]


def test_a_large_image_takes_no_more_tokens_than_the_model_folder_allows(folder):
    family = load_family(folder)
    for size in ((2000, 1500), (1500, 1500), (900, 1700)):
        (code,) = family.encode([ask(size=size)])
        assert code.image_tokens <= MOST_IMAGE_TOKENS[folder.name]


@pytest.mark.parametrize("cut", [1, 4])
def test_a_sequence_that_was_cut_inside_its_image_is_refused(folder, cut):
    family = load_family(folder)
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
    family = load_family(folder)
    codes = family.encode([ask(), ask(seed=1)])
    with pytest.raises(ModelError, match=r"row 1 .* the response holds a placeholder"):
        family.collate(codes, [(), (family.placeholder,)], pad="left")


@pytest.mark.parametrize("pad", ["left", "right"])
def test_a_row_means_the_same_in_a_batch_as_alone(folder, pad):
    family, model = load(folder)
    prompts, answers = unequal(family)
    together = family.collate(prompts, answers, pad=pad)
    with torch.inference_mode():
        whole = model(**together).logits
        for row, (prompt, answer) in enumerate(zip(prompts, answers, strict=True)):
            alone = model(**family.collate([prompt], [answer], pad=pad)).logits[0]
            close(whole[row][together["attention_mask"][row].bool()], alone)


def test_the_image_changes_what_is_predicted(folder):
    family, model = load(folder)
    prompts = family.encode([ask(seed=1), ask(seed=2)])
    assert prompts[0].tokens == prompts[1].tokens
    with torch.inference_mode():
        first, second = model(**family.collate(prompts, [(), ()], pad="left")).logits[:, -1]
    assert (first - second).abs().max() > 1e-3


def test_positions_are_those_that_the_model_computes_itself(folder):
    family, model = load(folder)
    prompts, answers = unequal(family)
    for prompt, answer in zip(prompts, answers, strict=True):
        batch = family.collate([prompt], [answer], pad="right")
        own = {name: value for name, value in batch.items() if name != "position_ids"}
        with torch.inference_mode():
            close(model(**batch).logits, model(**own).logits)
        if prompt.positions is None:
            assert batch["position_ids"][0].tolist() == list(range(batch["input_ids"].shape[1]))
            continue
        expected, _ = model.model.get_rope_index(
            batch["input_ids"],
            image_grid_thw=batch["image_grid_thw"],
            attention_mask=batch["attention_mask"],
            mm_token_type_ids=batch["mm_token_type_ids"],
        )
        assert torch.equal(batch["position_ids"], expected)
        assert int(expected.max()) + 1 == prompt.next_position + len(answer)


def example(family, text, finish=Finish.STOP):
    tokens = family.tokenize(text)
    return Example(
        query_id="q",
        sample=0,
        text=text,
        tokens=tokens,
        finish=finish,
        policy="p",
        seed=0,
    )


def test_the_loss_covers_the_response_and_its_end_and_nothing_else(folder):
    family, model = load(folder)
    prompts = family.encode([ask(seed=0, size=SIZES[1]), ask("Two??", 1)])
    examples = [example(family, "12"), example(family, "The answer", Finish.LENGTH)]
    items = [
        policy_item(family, one, row, len(prompts[row].tokens)) for row, one in enumerate(examples)
    ]
    inputs, answered, targets = assemble(family, prompts, items)
    expected = [(*examples[0].tokens, family.eos[0]), examples[1].tokens]
    for row, tokens in enumerate(expected):
        assert inputs["input_ids"][row][answered[row]].tolist() == list(tokens)
        assert not (inputs["input_ids"][row][answered[row]] == family.placeholder).any()
    with torch.inference_mode():
        found = PolicyLoss(model)(inputs, answered, targets)
        by_hand = torch.zeros(())
        for prompt, tokens in zip(prompts, expected, strict=True):
            alone = model(**family.collate([prompt], [tokens], pad="left")).logits[0]
            chances = alone.log_softmax(-1)[-len(tokens) - 1 : -1]
            by_hand -= chances.gather(1, torch.tensor(tokens)[:, None]).sum()
    close(found, by_hand)


def test_going_on_from_a_prompt_that_was_read_once_equals_reading_all_anew(folder):
    family, model = load(folder)
    prompts, _ = unequal(family)
    answers = [family.tokenize(text) for text in ("The answer is 12.", "Read both of them")]
    width = min(map(len, answers))
    answers = [answer[:width] for answer in answers]
    cache = DynamicCache(config=model.config.get_text_config())
    batch = family.collate(prompts, [()] * 3, pad="left")
    owners = torch.tensor([0, 2, 1, 1])
    tokens = torch.tensor([answers[row % 2] for row in range(4)])
    following = torch.tensor([prompts[owner].next_position for owner in owners])
    with torch.inference_mode():
        model(**batch, past_key_values=cache, use_cache=True, logits_to_keep=1)
        repeat_rows(cache, owners)
        mask = torch.cat([batch["attention_mask"][owners], torch.ones_like(tokens)], dim=1)
        found = model(
            input_ids=tokens,
            attention_mask=mask,
            position_ids=following[:, None] + torch.arange(width),
            past_key_values=cache,
            use_cache=True,
        ).logits
        for row, owner in enumerate(owners):
            anew = family.collate([prompts[owner]], [answers[row % 2]], pad="right")
            close(found[row], model(**anew).logits[0, -width:])


def test_greedy_decoding_takes_what_a_full_forward_likes_best(folder):
    family, model = load(folder)
    prompts, _ = unequal(family)
    rows = [Row(prompt=prompt, prefix=(), seed=0) for prompt in prompts]
    sampling = Sampling(n=1, temperature=0, top_p=1.0, max_new_tokens=6)
    drawn = Decoder(model, family, banned=family.banned).decode(rows, sampling, lambda _: None)
    for prompt, tokens in zip(prompts, drawn, strict=True):
        assert 0 < len(tokens) <= 6
        with torch.inference_mode():
            logits = model(**family.collate([prompt], [tokens], pad="left")).logits[0]
        logits = logits[-len(tokens) - 1 : -1].index_fill(
            1, torch.tensor(family.banned), -torch.inf
        )
        picked = logits.gather(1, torch.tensor(tokens)[:, None])[:, 0]
        close(picked, logits.max(dim=1).values)


def test_whatever_an_image_is_made_of_is_banned_and_no_end_is(folder):
    family = load_family(folder)
    tokenizer = family.tokenizer
    (code,) = family.encode([ask("", size=(300, 200))])
    special = set(tokenizer.all_special_ids) | set(tokenizer.get_added_vocab().values())
    text = set(tokenizer(family.render(""), add_special_tokens=False)["input_ids"])
    brought_by_the_image = (set(code.tokens) - text) & special | {family.placeholder}
    named = {tokenizer.pad_token_id, tokenizer.bos_token_id, tokenizer.unk_token_id} - {None}
    assert brought_by_the_image | (named - set(family.eos)) <= set(family.banned)
    assert not set(family.eos) & set(family.banned)
    assert family.eos[0] == tokenizer.eos_token_id


def test_every_parameter_is_in_one_group(folder):
    family, model = load(folder)
    groups = [family.parameters(model, name) for name in ("vision", "language", "embeddings")]
    ids = [id(parameter) for group in groups for parameter in group]
    assert all(groups)
    assert sorted(ids) == sorted(id(parameter) for parameter in model.parameters())
    assert id(model.get_input_embeddings().weight) in {id(parameter) for parameter in groups[2]}


@pytest.mark.parametrize("frozen", [("vision",), ("language", "embeddings"), ()])
def test_what_is_frozen_has_no_gradient_and_all_else_has(folder, frozen):
    family, model = load(folder)
    groups = {name: family.parameters(model, name) for name in ("vision", "language", "embeddings")}
    for name in frozen:
        for parameter in groups[name]:
            parameter.requires_grad = False
    prompts, _ = unequal(family)
    items = [
        policy_item(family, example(family, "The answer is 12."), row, len(prompt.tokens))
        for row, prompt in enumerate(prompts)
    ]
    PolicyLoss(model.train())(*assemble(family, prompts, items)).backward()
    for name, parameters in groups.items():
        moved = [p.grad is not None and bool(p.grad.abs().max() > 0) for p in parameters]
        assert not any(moved) if name in frozen else sum(moved) > len(moved) / 2


def test_a_saved_folder_gives_the_same_logits_here_and_in_transformers_alone(folder, tmp_path):
    family, model = load(folder)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.01)
    model.save_pretrained(tmp_path)
    family.save_processor(tmp_path)
    again, loaded = load(tmp_path)
    alone = AutoModelForImageTextToText.from_pretrained(tmp_path).eval()
    prompts, answers = unequal(again)
    assert [p.tokens for p in prompts] == [p.tokens for p in unequal(family)[0]]
    batch = again.collate(prompts, answers, pad="left")
    with torch.inference_mode():
        expected = model(**batch).logits
        assert torch.equal(loaded(**batch).logits, expected)
        assert torch.equal(alone(**batch).logits, expected)


def test_a_reward_model_gives_responses_to_one_prompt_the_values_that_each_has_alone(
    folder, tmp_path
):
    family = load_family(folder)
    model = load_reward_model(family, dtype=torch.float32, device=CPU, fresh_head=True)
    model.backbone.save_pretrained(tmp_path)
    family.save_processor(tmp_path)
    save_head(model.head.state_dict(), tmp_path)
    scorer = TransformersScorer(tmp_path, Execution(device="cpu", threads=1))
    texts = ["Read both.\nThe answer", "12.\n", "What is\nthe sum\nof them"]
    prompts = [prompted(0, SIZES[1]), prompted(0, SIZES[1]), prompted(2, SIZES[2])]
    responses = [
        Response(
            query_id=prompt.query_id,
            sample=number,
            text=text,
            tokens=family.tokenize(text),
            finish=Finish.STOP,
            temperature=1.0,
            policy="p",
            seed=0,
        )
        for number, (prompt, text) in enumerate(zip(prompts, texts, strict=True))
    ]
    judged = scorer.score(prompts, responses, lambda _: None)
    for prompt, response, found in zip(prompts, responses, judged, strict=True):
        (code,) = family.encode([prompt])
        with torch.inference_mode():
            values = model(**family.collate([code], [response.tokens], pad="right"))[0]
        values = values[len(code.tokens) :]
        assert len(found.scores) == len(response.text.split("\n")) - response.text.endswith("\n")
        close(torch.tensor(found.scores), values[[end - 1 for end in found.step_ends]])


def test_a_prompt_ends_where_the_model_answers(folder):
    family = load_family(folder)
    (code,) = family.encode([ask()])
    end = family.render("Two?").partition("Two?")[2]
    assert family.tokenizer.decode(code.tokens).endswith(end)


def test_pieces_join_to_the_text(folder):
    family = load_family(folder)
    text = "one\ntwo: \\boxed{3}"
    tokens = family.tokenize(text)
    assert "".join(family.pieces(tokens)) == family.decode(tokens) == text


def test_text_after_a_prefix_is_what_it_adds(folder):
    family = load_family(folder)
    head, tail = family.tokenize("It is"), family.tokenize(" 4.")
    assert family.decode(tail, prefix=head) == " 4."


def test_a_text_that_another_model_wrote_becomes_tokens_that_this_one_could_have_drawn(folder):
    family = load_family(folder)
    word, end = family.tokenizer.convert_ids_to_tokens([family.placeholder, family.eos[0]])
    tokens = family.retokenize(f"one{word}\ntwo{end}")
    assert not set(tokens) & {*family.banned, *family.eos}
    assert family.decode(tokens) == "one\ntwo"
    assert family.retokenize("one\ntwo") == family.tokenize("one\ntwo")
    assert family.retokenize("") == ()


def test_one_text_drawn_in_different_tokens_is_one_text_to_another_model():
    family = load_family(base_folder())
    letters = [family.tokenize(letter) for letter in " = 12"]
    whole, apart = family.tokenize(" = 12"), tuple(token for (token,) in letters)
    assert (len(whole), len(apart)) == (1, 5)
    assert family.decode(apart) == family.decode(whole)
    assert family.retokenize(family.decode(apart)) == whole


def test_an_image_larger_than_the_limit_is_refused_by_name(folder):
    family = load_family(folder, max_pixels=255)
    with pytest.raises(ModelError, match=r"query q7: the image has 16 x 16 = 256 pixels; at most"):
        family.check([ask(seed=7)])


def test_a_question_that_holds_what_stands_for_an_image_is_refused(folder):
    family = load_family(folder)
    for word in family.tokenizer.convert_ids_to_tokens(list(family.reserved)):
        with pytest.raises(ModelError, match="query q3 holds"):
            family.check([ask(f"What is {word}?", 3)])


def test_a_prompt_over_the_context_is_refused_by_its_numbers_before_its_image_is_processed(
    known, monkeypatch
):
    family = load_family(known)
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
    family = load_family(known)
    family.context = 12
    with pytest.raises(ModelError, match="query q2: its image of 300 x 200 pixels alone") as told:
        family.check([ask(seed=2, size=(300, 200))])
    assert family.image_limit in str(told.value)


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "LA", "1", "CMYK"])
def test_an_image_of_any_mode_is_taken(folder, mode):
    family = load_family(folder)
    picture = Image.new(mode, (TILE, TILE))
    (code,) = family.encode([SimpleNamespace(query_id="q", text="?", image=picture)])
    (plain,) = family.encode([ask("?")])
    assert code.tokens == plain.tokens


def test_an_image_of_a_shape_that_the_model_cannot_take_is_named(tiny_model):
    with pytest.raises(ModelError, match=r"query q3: .* takes no image of 4000 x 1 pixels"):
        load_family(tiny_model).check([ask(seed=3, size=(4000, 1))])
