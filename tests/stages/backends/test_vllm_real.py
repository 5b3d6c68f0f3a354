"""The real vLLM on the demo's model: it says what transformers says, and leaves nothing behind."""

import os
import weakref
from contextlib import closing
from dataclasses import replace
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
from mstar.stages.engines import open_sampler
from mstar.stages.protocols import Prompted
from mstar.tasks import Sampling
from tests.real_vllm import REAL_VLLM
from tests.stages.backends import rows
from tests.tiny import build_tiny_model

pytestmark = REAL_VLLM
SAMPLING = Sampling(n=4, max_new_tokens=72)
GREEDY = Sampling(n=1, temperature=0, max_new_tokens=72)


def opened(engine="vllm", rows=64, folder=None):
    how = Execution(engine=engine, device="cpu", threads=1, sampling_rows=rows)
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
def test_the_other_families_say_what_transformers_says(sampler, tmp_path, kind):
    sampler.close()
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


def test_banned_tokens_are_never_drawn(sampler):
    prompts = make_prompts(12)
    common = {group[0].tokens[0] for group in sample(sampler, prompts)}
    sampler.close()  # a process has one engine at a time; this one starts again when it is asked
    with opened() as other:
        other.family.banned = (*other.family.banned, *common)
        for sampling in (SAMPLING, GREEDY, Sampling(n=4, temperature=2.0, max_new_tokens=72)):
            for group in sample(other, prompts, sampling):
                for response in group:
                    assert response.tokens
                    assert not set(response.tokens) & set(other.family.banned)


def test_the_ban_fits_both_of_the_model_runners():
    from vllm.v1.sample.logits_processor import LogitsProcessor
    from vllm.v1.worker.gpu.sample.logits_processor import LogitsProcessor as SecondProcessor

    processor = vllm_engine.banning((1,), 4)
    assert issubclass(processor, LogitsProcessor)
    assert issubclass(processor, SecondProcessor)
    for where in (torch.device("cpu"), SimpleNamespace(device=torch.device("cpu"))):
        found = processor(None, where, False).apply(torch.zeros(1, 5))
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
    from vllm.v1.core.sched.scheduler import Scheduler

    prompts, hot = make_prompts(24), Sampling(n=4, temperature=2.0, max_new_tokens=72)
    expected = sample(sampler, prompts, hot)
    sampler.close()
    gave_way: list[str] = []
    preempt = Scheduler._preempt_request

    def counting(self, request, *others, **named):
        gave_way.append(request.request_id)
        preempt(self, request, *others, **named)

    monkeypatch.setattr(Scheduler, "_preempt_request", counting)
    monkeypatch.setattr(vllm_engine, "CPU_CACHE_BYTES", 1 << 20)
    with opened() as small:
        assert sample(small, prompts, hot) == expected
    assert gave_way


def test_a_row_may_fill_the_context(sampler):
    (prompt,) = make_prompts(1, samples=1)
    (length,) = sampler._measure([prompt]).values()
    room = sampler.family.context - length
    endless = Sampling(n=1, temperature=2.0, max_new_tokens=room)
    assert sample(sampler, [prompt], endless)[0][0].token_count <= room


def test_nothing_is_left_when_an_engine_is_closed_or_breaks(sampler):
    psutil = pytest.importorskip("psutil")  # vLLM brings it

    def state():
        threads = (torch.get_num_threads(), torch.set_num_threads, torch.get_default_dtype())
        children = psutil.Process().children(recursive=True)
        return dict(os.environ), threads, children, torch.distributed.is_initialized()

    sampler.close()
    before = state()
    models = []

    def broken(count):
        models.append(weakref.ref(other.engine._engine.model_executor.driver_worker.get_model()))
        raise KeyboardInterrupt

    with opened() as other:
        with pytest.raises(KeyboardInterrupt):
            other.sample(make_prompts(4), SAMPLING, "p", broken)
        assert state() == before
        sample(other, make_prompts(2))
    assert state() == before
    assert [model() for model in models] == [None]


def test_a_model_that_vllm_does_not_load_is_refused_in_one_line(sampler, tmp_path):
    sampler.close()
    folder = build_tiny_model(tmp_path, kind="llava")
    with opened(folder=folder) as other, pytest.raises(ModelError) as caught:
        sample(other, rows.make_prompts(2))
    assert f"does not run the model in {folder}: " in str(caught.value)
    assert "vision_tower" in str(caught.value)
    assert "\n" not in str(caught.value)
