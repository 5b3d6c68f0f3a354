"""The contract that every sampler keeps, whatever engine is behind it."""

from collections.abc import Iterator
from contextlib import ExitStack, closing

import pytest

from mstar.core.records import Finish
from mstar.demo.specs import base_folder
from mstar.errors import ModelError
from mstar.execution import Execution
from mstar.stages.engines import open_sampler
from mstar.stages.protocols import Prompted, Sampler
from mstar.tasks import Sampling
from tests.fake_vllm import World, installed
from tests.real_vllm import REAL_VLLM
from tests.tiny import build_tiny_model, draw_image

SAMPLING = Sampling(n=4, temperature=1.0, max_new_tokens=16)


@pytest.fixture(
    scope="module", params=["transformers", "fake vllm", pytest.param("vllm", marks=REAL_VLLM)]
)
def sampler(request, tmp_path_factory) -> Iterator[Sampler]:
    with ExitStack() as stack:
        if request.param == "fake vllm":
            stack.enter_context(installed(World()))
        engine = request.param.removeprefix("fake ")
        # The tiny model's heads are too small for vLLM's attention on a CPU; the demo's are not.
        folder = (
            base_folder()
            if request.param == "vllm"
            else build_tiny_model(tmp_path_factory.mktemp(engine))
        )
        how = Execution(engine=engine, device="cpu", sampling_rows=10)
        yield stack.enter_context(closing(open_sampler(folder, how)))


def make_prompts(count: int, samples: int = 4) -> list[Prompted]:
    return [
        Prompted(
            query_id=f"q{index}",
            text="How many" + "?" * index,
            image=draw_image(index),
            seeds=tuple(100 * index + sample for sample in range(samples)),
        )
        for index in range(count)
    ]


def sample(sampler, prompts, sampling=SAMPLING):
    return sampler.sample(prompts, sampling, "the-policy", lambda count: None)


def test_each_prompt_gets_one_response_a_seed_in_order(sampler):
    prompts = make_prompts(5)
    groups = sample(sampler, prompts)
    for prompt, group in zip(prompts, groups, strict=True):
        assert [response.query_id for response in group] == [prompt.query_id] * 4
        assert [response.sample for response in group] == [0, 1, 2, 3]
        assert tuple(response.seed for response in group) == prompt.seeds


def test_a_response_says_where_it_comes_from(sampler):
    for response in sample(sampler, make_prompts(1))[0]:
        assert response.policy == "the-policy"
        assert response.temperature == SAMPLING.temperature
        assert response.prefix == ""


def test_a_response_has_at_most_the_tokens_allowed(sampler):
    for group in sample(sampler, make_prompts(4)):
        for response in group:
            assert response.token_count <= SAMPLING.max_new_tokens
            if response.finish is Finish.LENGTH:
                assert len(response.tokens) == SAMPLING.max_new_tokens


def test_the_same_seed_gives_the_same_response_in_any_company(sampler):
    prompts = make_prompts(6)
    groups = sample(sampler, prompts)
    assert [sample(sampler, [prompt])[0] for prompt in prompts] == groups


def test_other_seeds_give_other_responses(sampler):
    texts = [response.text for group in sample(sampler, make_prompts(4)) for response in group]
    assert len(set(texts)) > len(texts) // 2


def test_a_greedy_response_depends_on_no_seed(sampler):
    greedy = Sampling(n=1, temperature=0, max_new_tokens=16)
    first = make_prompts(1, samples=1)[0]
    other = Prompted(query_id="q0", text=first.text, image=first.image, seeds=(987,))
    texts = {sample(sampler, [prompt], greedy)[0][0].text for prompt in (first, other)}
    assert len(texts) == 1


def test_a_prefix_is_continued_and_not_repeated(sampler):
    first = make_prompts(1)[0]
    whole = max(sample(sampler, [first])[0], key=lambda response: len(response.tokens))
    prompt = Prompted(
        query_id=first.query_id,
        text=first.text,
        image=first.image,
        seeds=(1, 2),
        prefix=whole.tokens[:3],
        prefix_name="0/1",
    )
    for response in sample(sampler, [prompt])[0]:
        assert response.prefix == "0/1"
        assert len(response.tokens) <= SAMPLING.max_new_tokens


def test_progress_adds_up_to_the_prompts(sampler):
    told: list[int] = []
    sampler.sample(make_prompts(7), SAMPLING, "p", told.append)
    assert sum(told) == 7


def test_a_prompt_without_seeds_gets_no_responses(sampler):
    assert [len(group) for group in sample(sampler, make_prompts(2, samples=0))] == [0, 0]
    assert sample(sampler, []) == []


def test_a_prompt_beyond_the_context_is_refused(sampler):
    endless = Sampling(n=4, max_new_tokens=sampler.family.context)
    with pytest.raises(ModelError, match="query q0: a prompt of"):
        sample(sampler, make_prompts(2), endless)
