"""The real vLLM on the demo's model: it says what transformers says, and leaves nothing behind."""

from contextlib import closing
from dataclasses import replace
from functools import partial
from itertools import pairwise
from types import SimpleNamespace

import pytest
import torch

from mstar.demo.dataset import draw_split
from mstar.demo.digits import render_image
from mstar.demo.prompts import format_prompt
from mstar.demo.specs import base_folder
from mstar.errors import ModelError
from mstar.execution import Execution
from mstar.stages.backends import vllm_engine
from mstar.stages.backends.vllm_engine import EngineOptions
from mstar.stages.engines import open_sampler
from mstar.stages.protocols import Prompted
from mstar.tasks import Sampling
from tests.real_vllm import REAL_VLLM
from tests.stages.backends import rows
from tests.tiny import build_tiny_model

pytestmark = REAL_VLLM
SAMPLING = Sampling(n=4, max_new_tokens=72)
GREEDY = Sampling(n=1, temperature=0, max_new_tokens=72)


def opened(engine="vllm", rows=64, folder=None, **vllm):
    how = Execution(engine=engine, device="cpu", threads=1, sampling_rows=rows, vllm=vllm)
    return closing(open_sampler(folder or base_folder(), how))


def make_prompts(count, samples=4):
    return [
        Prompted(
            query_id=str(index),
            text=format_prompt(question.text, question.options),
            image=render_image(question.picture),
            seeds=tuple(2**62 + samples * index + sample for sample in range(samples)),
        )
        for index, question in enumerate(draw_split("validation", count, seed=0))
    ]


def sample(sampler, prompts, sampling=SAMPLING):
    return sampler.sample(prompts, sampling, "p", lambda count: None)


@pytest.fixture(scope="module")
def sampler():
    with opened() as found:
        yield found


def test_greedy_responses_equal_those_of_transformers(sampler):
    prompts = make_prompts(40, samples=1)
    with opened("transformers") as other:
        assert sample(sampler, prompts, GREEDY) == sample(other, prompts, GREEDY)


@pytest.mark.parametrize("kind", ["qwen2_5_vl", "qwen3_vl"])
def test_the_other_families_say_what_transformers_says(tmp_path, kind):
    folder = build_tiny_model(tmp_path, kind=kind, width=128)
    prompts = rows.make_prompts(20, samples=1)
    found = []
    for engine in ("vllm", "transformers"):
        with opened(engine, folder=folder) as other:
            found.append(sample(other, prompts, GREEDY))
    assert found[0] == found[1]


def test_shards_of_any_size_give_the_same_responses(sampler):
    prompts = make_prompts(24)
    whole = sample(sampler, prompts)
    for cuts in ((0, 5, 24), (0, 1, 12, 23, 24)):
        assert [
            group for a, b in pairwise(cuts) for group in sample(sampler, prompts[a:b])
        ] == whole
    assert sample(sampler, prompts[::-1]) == whole[::-1]


def test_banned_tokens_are_never_drawn(tmp_path):
    # With random weights all tokens are about as likely: of 100, each would come up many times in 1,000 draws.
    folder = build_tiny_model(tmp_path, width=128)
    hot = Sampling(n=4, temperature=2.0, max_new_tokens=32)
    with opened(folder=folder) as other:
        groups = sample(other, rows.make_prompts(12, samples=4), hot)
        drawn = [token for group in groups for response in group for token in response.tokens]
        assert len(drawn) > 1000
        assert len(set(drawn)) > other.family.vocabulary // 2
        assert not set(drawn) & set(other.family.banned)


def test_the_ban_fits_both_of_the_model_runners():
    from vllm.v1.sample.logits_processor import LogitsProcessor
    from vllm.v1.worker.gpu.sample.logits_processor import LogitsProcessor as SecondProcessor

    from mstar.stages.backends import vllm_bans

    assert issubclass(vllm_bans.Banning, LogitsProcessor)
    assert issubclass(vllm_bans.Banning, SecondProcessor)
    config = SimpleNamespace(additional_config=vllm_bans.asked((1,), 4))
    for where in (torch.device("cpu"), SimpleNamespace(device=torch.device("cpu"))):
        found = vllm_bans.Banning(config, where, False).apply(torch.zeros(1, 5))
        assert found.isinf().tolist() == [[False, True, False, False, True]]


def test_a_prefix_is_continued_as_the_response_itself_went_on(sampler):
    prompts = make_prompts(12, samples=1)
    whole = sample(sampler, prompts, GREEDY)
    cut = [
        replace(prompt, prefix=group[0].tokens[:3], prefix_name="0/3")
        for prompt, group in zip(prompts, whole, strict=True)
    ]
    for before, after in zip(whole, sample(sampler, cut, GREEDY), strict=True):
        assert after[0].tokens == before[0].tokens[3:]


def test_the_smallest_nucleus_is_the_greedy_response(sampler):
    prompts = make_prompts(12, samples=1)
    narrow = Sampling(n=1, temperature=1.0, top_p=1e-6, max_new_tokens=72)
    for one, other in zip(
        sample(sampler, prompts, narrow), sample(sampler, prompts, GREEDY), strict=True
    ):
        assert one[0].tokens == other[0].tokens


def test_rows_that_give_way_for_want_of_cache_say_the_same(sampler, monkeypatch):
    prompts, hot = make_prompts(24), Sampling(n=4, temperature=2.0, max_new_tokens=72)
    expected = sample(sampler, prompts, hot)
    # A MiB is 512 tokens here: of 64 rows of 60 to 140 tokens, those that began cannot all stay.
    little = partial(EngineOptions, cache_bytes=1 << 20)
    monkeypatch.setattr("mstar.stages.backends.vllm_sampler.EngineOptions", little)
    with opened() as small:
        assert sample(small, prompts, hot) == expected


def test_a_row_may_fill_the_context(sampler):
    (prompt,) = make_prompts(1, samples=1)
    room = sampler.family.context - len(sampler.family.encode([prompt])[0].tokens)
    endless = Sampling(n=1, temperature=2.0, max_new_tokens=room)
    assert sample(sampler, [prompt], endless)[0][0].token_count <= room
    more = Sampling(n=1, temperature=2.0, max_new_tokens=room + 1)
    with pytest.raises(ModelError, match=f"a response of up to {room + 1} make"):
        sample(sampler, [prompt], more)


def test_prompts_are_read_from_the_cache_by_later_samples_settings_and_calls(tmp_path):
    folder = build_tiny_model(
        tmp_path, width=128
    )  # a character a token: these prompts are longer than a block
    prompts = [
        replace(prompt, text="how many " * 8 + prompt.text)
        for prompt in rows.make_prompts(8, samples=4)
    ]
    settings = [Sampling(n=4, temperature=t, max_new_tokens=8) for t in (0.5, 1.0, 1.5)]
    with opened(folder=folder) as other:
        other.sample_each([(prompts, setting) for setting in settings], "p", lambda count: None)
        lengths = [length for length, _ in other.family.measure(prompts)]
        block = vllm_engine.CPU_BLOCK
        # The last token of a prompt is always read: what follows it is wanted.
        whole = sum((length - 1) // block * block for length in lengths)
        assert min(lengths) > 2 * block
        assert other.prompt_tokens == 12 * sum(lengths)
        assert other.cached_tokens == 11 * whole
        sample(other, prompts)
        assert other.prompt_tokens == 16 * sum(lengths)
        assert other.cached_tokens == 15 * whole


def test_a_model_that_vllm_does_not_load_is_refused_in_one_line(sampler, tmp_path):
    folder = build_tiny_model(tmp_path, kind="llava")
    with opened(folder=folder) as other, pytest.raises(ModelError) as caught:
        sample(other, rows.make_prompts(2))
    assert f"does not run the model in {folder}: " in str(caught.value)
    assert "vision_tower" in str(caught.value)
    assert "\n" not in str(caught.value)
