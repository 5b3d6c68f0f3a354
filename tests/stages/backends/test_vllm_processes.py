"""The real vLLM's processes: several at work, a model split over two, and nothing of them left however a stage ends."""

import os
import signal
import subprocess
import sys
import time
from contextlib import closing
from functools import partial
from typing import Any

import pytest

from mstar.demo.specs import base_folder
from mstar.errors import WorkerLost
from mstar.execution import Execution
from mstar.stages.backends.vllm_engine import EngineOptions
from mstar.stages.backends.vllm_process import process_environment
from mstar.stages.engines import open_sampler
from mstar.tasks import Sampling
from tests.real_vllm import REAL_VLLM
from tests.stages.backends.test_vllm_real import GREEDY, make_prompts, sample

pytestmark = REAL_VLLM
ENDLESS = Sampling(n=4, temperature=2.0, max_new_tokens=140)

STAGE = """
from tests.stages.backends.test_vllm_processes import ENDLESS, opened
from tests.stages.backends.test_vllm_real import make_prompts

with opened(TENSOR_PARALLEL) as sampler:
    while True:
        sampler.sample(make_prompts(8), ENDLESS, "p", lambda count: print("at work", flush=True))
"""


def opened(tensor_parallel=1, processes=1):
    vllm = {"tensor_parallel": tensor_parallel, "processes": processes}
    how = Execution(engine="vllm", device="cpu", threads=1, sampling_rows=64, vllm=vllm)
    return closing(open_sampler(base_folder(), how))


def engines(of=None):
    """The processes of vLLM's that a process has started, itself or through another."""
    psutil = pytest.importorskip("psutil")  # vLLM brings it
    return [child for child in psutil.Process(of).children(recursive=True) if child.is_running()]


def gone(processes, seconds=120):
    deadline = time.monotonic() + seconds
    while alive := [each for each in processes if each.is_running() and each.status() != "zombie"]:
        if time.monotonic() > deadline:
            return alive
        time.sleep(0.1)
    return []


@pytest.fixture(scope="module")
def expected():
    with opened() as sampler:
        found = sample(sampler, make_prompts(12)), sample(sampler, make_prompts(12, 1), GREEDY)
        assert engines()
    assert not engines()
    return found


def test_two_processes_say_what_one_says_and_are_gone_when_closed(expected):
    with opened(processes=2) as sampler:
        assert sample(sampler, make_prompts(12)) == expected[0]
        leaders = [each for each in engines() if os.getpgid(each.pid) == each.pid]
        assert len(leaders) == 2
    assert not engines()


def test_a_model_split_over_two_says_the_same_greedily(expected):
    with opened(tensor_parallel=2) as sampler:
        greedy = sample(sampler, make_prompts(12, 1), GREEDY)
        assert len(engines()) >= 3
    assert not engines()
    # Sums are taken in another order, so that two equally likely tokens may change places.
    same = sum(one == other for one, other in zip(greedy, expected[1], strict=True))
    assert same >= 11


def test_a_core_apart_says_the_same(expected, monkeypatch):
    """As on GPUs: prompts are prepared in one process while another draws."""
    apart = partial(EngineOptions)

    def options(**given):
        return apart(**given | {"apart": True})

    monkeypatch.setattr("mstar.stages.backends.vllm_sampler.EngineOptions", options)
    with opened() as sampler:
        assert sample(sampler, make_prompts(12)) == expected[0]
        assert len(engines()) >= 2
    assert not engines()


@pytest.mark.parametrize("tensor_parallel", [1, 2])
def test_engines_end_when_the_stage_is_killed_at_work(tensor_parallel):
    code = STAGE.replace("TENSOR_PARALLEL", str(tensor_parallel))
    stage = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", code],
        stdout=subprocess.PIPE,
        text=True,
        env=process_environment({}),
    )
    with stage:
        assert stage.stdout is not None
        assert stage.stdout.readline() == "at work\n"
        started = engines(stage.pid)
        assert len(started) >= (1 if tensor_parallel == 1 else 3)
        stage.send_signal(signal.SIGKILL)
        stage.wait()
        assert gone(started) == []


@pytest.mark.parametrize("tensor_parallel", [1, 2])
def test_an_engine_that_is_killed_fails_the_stage_as_one_that_may_be_tried_elsewhere(
    tensor_parallel,
):
    killed: list[Any] = []

    def kill(count):
        if not killed:
            leader = next(each for each in engines() if os.getpgid(each.pid) == each.pid)
            # Of a model that is split, one of vLLM's own workers; they are named by what they run.
            workers = [each for each in engines() if "spawn_main" in " ".join(each.cmdline())]
            killed.append((workers or [leader])[-1 if tensor_parallel > 1 else 0])
            killed[0].kill()

    with opened(tensor_parallel) as sampler:
        with pytest.raises(WorkerLost) as caught:
            sampler.sample(make_prompts(40), ENDLESS, "p", kill)
        assert not engines()
        if tensor_parallel == 1:
            assert "killed by SIGKILL" in str(caught.value)
            assert "the last it said: " in str(caught.value)
        assert caught.value.exit_code == 13
        assert sample(sampler, make_prompts(2))  # another engine is started for what is asked next
    assert not engines()
