"""What holds for every family's model: features, batches, positions, loss, cache, freezing, and the saved folder.

What holds for its prompts is in ``test_family_prompts``.
"""

from typing import Any

import pytest
import torch
from transformers import AutoModelForImageTextToText, DynamicCache

from mstar.controller.folders import ModelFolder
from mstar.core.records import Example, Finish, Response
from mstar.execution import Execution
from mstar.models.family import load_family
from mstar.models.prm import load_reward_model, save_head
from mstar.stages.backends.cache import repeat_rows
from mstar.stages.backends.decoding import Decoder, Row
from mstar.stages.backends.objectives import PolicyLoss, assemble, policy_item
from mstar.stages.backends.transformers_scorer import TransformersScorer
from mstar.tasks import Sampling
from tests.models.making import CPU, SIZES, ask, close, load, prompted, unequal


@pytest.mark.parametrize("size", SIZES)
def test_there_are_as_many_image_tokens_as_the_model_makes_features(folder, size):
    family, model = load(folder)
    (code,) = family.encode([ask(size=size)])
    with torch.inference_mode():
        features = model.get_image_features(**code.images).pooler_output
    flat = features if isinstance(features, torch.Tensor) else torch.cat(list(features))
    width = model.config.get_text_config().hidden_size
    assert code.image_tokens == code.tokens.count(family.placeholder) == flat.numel() // width


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


def test_what_is_read_of_a_folder_before_a_run_agrees_with_the_family(folder):
    found = ModelFolder(folder)
    family: Any = load_family(folder)
    assert found.context == family.context
    assert len(dict(found.tokens)) == family.vocabulary
    assert set(found.image_words) <= set(
        family.tokenizer.convert_ids_to_tokens(list(family.reserved))
    )
    assert {"q_proj", "down_proj"} <= found.layers
