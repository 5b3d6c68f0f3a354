"""Responses are what the model says, and depend on their own seed alone."""

import random
from dataclasses import replace

import pytest
import torch

from mstar.core.records import Finish
from mstar.errors import ModelError
from mstar.execution import Execution
from mstar.stages.backends.draws import pick, uniforms
from mstar.stages.backends.transformers_sampler import TransformersSampler
from mstar.tasks import Sampling
from tests.stages.backends.rows import make_prompts
from tests.tiny import build_tiny_model, encode_text

SAMPLING = Sampling(n=3, temperature=1.0, max_new_tokens=24)


def sampler(folder, **execution):
    return TransformersSampler(folder, Execution(device="cpu", **execution))


def sample(folder, prompts, sampling=SAMPLING, **execution):
    return sampler(folder, **execution).sample(prompts, sampling, "p", lambda count: None)


@pytest.fixture(scope="session", params=["qwen2_vl", "qwen2_5_vl", "llava"])
def any_model(request, tmp_path_factory):
    return build_tiny_model(tmp_path_factory.mktemp("any"), kind=request.param)


def test_responses_do_not_depend_on_batch_size_or_order(any_model):
    prompts = make_prompts(9)
    expected = sample(any_model, prompts, sampling_rows=512)
    shuffled = random.Random(0).sample(prompts, len(prompts))
    for rows in (1, 4, 7, 20):
        found = {
            group[0].query_id: group for group in sample(any_model, shuffled, sampling_rows=rows)
        }
        assert [found[prompt.query_id] for prompt in prompts] == expected


def test_a_response_is_drawn_token_by_token_from_the_whole_forward(any_model):
    """The reference: no cache, no batch; one full forward a token."""
    prompts = make_prompts(3, samples=2)
    drawer = sampler(any_model)
    model, family = drawer.decoder.model, drawer.family
    for prompt, group in zip(prompts, drawer.sample(prompts, SAMPLING, "p", print), strict=True):
        (code,) = family.encode([prompt])
        for response, seed in zip(group, prompt.seeds, strict=True):
            numbers = uniforms([seed], [0], SAMPLING.max_new_tokens)[0]
            tokens: list[int] = []
            for number in numbers:
                batch = family.collate([code], [tokens], pad="left")
                with torch.no_grad():
                    logits = model(**batch).logits[:, -1]
                logits[:, list(family.banned)] = -torch.inf
                token = int(pick(logits, number[None], temperature=1.0, top_p=1.0))
                if token in family.eos:
                    break
                tokens.append(token)
            assert response.tokens == tuple(tokens)


def test_greedy_responses_equal_those_of_generate(any_model):
    prompts = [replace(prompt, seeds=(0,)) for prompt in make_prompts(5)]
    drawer = sampler(any_model)
    greedy = Sampling(n=1, temperature=0, max_new_tokens=24)
    family = drawer.family
    for prompt, (response,) in zip(
        prompts, drawer.sample(prompts, greedy, "p", print), strict=True
    ):
        batch = family.collate(family.encode([prompt]), [()], pad="left")
        del batch["position_ids"]
        output = drawer.decoder.model.generate(
            **batch, do_sample=False, max_new_tokens=24, suppress_tokens=list(family.banned)
        )
        tokens = output[0, batch["input_ids"].shape[1] :].tolist()
        assert list(response.tokens) == [token for token in tokens if token not in family.eos]


def test_a_prefix_is_continued_as_the_response_itself_went_on(tiny_model):
    prompts = make_prompts(4, samples=1)
    whole = sample(tiny_model, prompts)
    cut = [group[0].tokens[:4] for group in whole]
    resumed = [
        replace(prompt, prefix=tokens, prefix_name=f"{index}/0")
        for index, (prompt, tokens) in enumerate(zip(prompts, cut, strict=True))
    ]
    for index, (before, after) in enumerate(zip(whole, sample(tiny_model, resumed), strict=True)):
        assert after[0].tokens[: len(before[0].tokens) - 4] == before[0].tokens[4:]
        assert after[0].prefix == f"{index}/0"


def test_a_completion_holds_only_what_was_added(tiny_model):
    prompt = replace(make_prompts(1)[0], prefix=encode_text("first step\n"), prefix_name="0/1")
    (group,) = sample(tiny_model, [prompt])
    family = sampler(tiny_model).family
    assert all(response.text == family.decode(response.tokens) for response in group)


def test_prefixes_of_one_query_are_not_confused(tiny_model):
    prompt = make_prompts(1)[0]
    prefixes = [encode_text(text) for text in ("a", "bb\n", "")]
    variants = [replace(prompt, prefix=prefix) for prefix in prefixes]
    together = sample(tiny_model, variants)
    assert together == [sample(tiny_model, [variant])[0] for variant in variants]


def test_banned_tokens_are_never_drawn_even_at_a_high_temperature(tiny_model):
    hot = Sampling(n=16, temperature=50.0, max_new_tokens=60)
    prompts = make_prompts(6, samples=16)
    drawer = sampler(tiny_model)
    drawn = {
        token
        for group in drawer.sample(prompts, hot, "p", print)
        for response in group
        for token in response.tokens
    }
    assert len(drawn) > 60
    assert not drawn & set(drawer.family.banned)


def test_a_prompt_beyond_the_context_is_refused_before_the_model_runs(tiny_model):
    drawer = sampler(tiny_model)
    drawer.decoder.model.forward = None
    long = replace(make_prompts(1)[0], text="x" * 481)
    with pytest.raises(ModelError, match=r"query q0: a prompt of \d+ tokens.*context of 512"):
        drawer.sample([*make_prompts(3), long], SAMPLING, "p", print)


def test_an_image_beyond_the_limit_is_refused(tiny_model):
    with pytest.raises(ModelError, match="pixels"):
        sample(tiny_model, make_prompts(1), max_pixels=100)


def test_progress_counts_each_prompt_once(tiny_model):
    told: list[int] = []
    sampler(tiny_model, sampling_rows=5).sample(make_prompts(7), SAMPLING, "p", told.append)
    assert sum(told) == 7
    assert min(told) > 0


def test_a_prompt_without_seeds_gets_no_responses(tiny_model):
    prompts = [replace(make_prompts(1)[0], seeds=()), *make_prompts(2)]
    assert [len(group) for group in sample(tiny_model, prompts)] == [0, 3, 3]
    assert sample(tiny_model, []) == []


def test_a_response_that_reaches_the_limit_says_so(tiny_model):
    (group,) = sample(tiny_model, make_prompts(1), Sampling(n=3, max_new_tokens=1))
    for response in group:
        assert response.finish is (Finish.LENGTH if response.tokens else Finish.STOP)


def test_a_device_that_is_absent_is_refused(tiny_model):
    if torch.cuda.is_available():
        pytest.skip("this machine has CUDA")
    with pytest.raises(ModelError, match="'cuda'"):
        TransformersSampler(tiny_model, Execution(device="cuda"))


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_model_that_says_no_numbers_is_refused_and_draws_nothing(tiny_model, temperature):
    drawer = sampler(tiny_model)
    with torch.no_grad():
        drawer.decoder.model.get_output_embeddings().weight[5] = torch.nan
    sampling = Sampling(n=1, temperature=temperature, max_new_tokens=24)
    with pytest.raises(ModelError, match=r"NaN or infinity where token 1 .*doctor --model"):
        drawer.sample(make_prompts(2), sampling, "p", lambda count: None)
