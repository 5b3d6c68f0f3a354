"""vLLM against the trainer, with a fake of the package, and with the real one where it is installed."""

import multiprocessing
import os
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from mstar.errors import MissingDependency, ModelError, WorkerLost
from mstar.stages.backends.modelcheck import agreeing, vllm_draws
from mstar.stages.backends.modelcheck.examination import Wanted, examine
from mstar.stages.backends.modelcheck.finding import Fault, NotTried
from mstar.stages.backends.modelcheck.patient import DRAWN_TOKENS
from mstar.stages.backends.modelcheck.vllm_draws import Answer, Request
from tests.fake_vllm import World, installed
from tests.real_vllm import REAL_VLLM
from tests.stages.backends.patients import ON_CPU, admitted
from tests.tiny import build_tiny_model


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return build_tiny_model(tmp_path_factory.mktemp("well"))


@pytest.fixture
def patient(folder):
    found = admitted(folder)
    found.execution = ON_CPU.model_copy(update={"engine": "vllm"})
    return found


def answering(patient, *, wrong=0.0, extra=0):
    """A vLLM that draws what the transformers sampler draws; ``wrong`` is added to each log-probability."""

    def ask(request):
        drawn = agreeing.draw(patient)
        assert [seed is None for seed in request.seeds] == list(drawn.greedy)
        return [
            Answer(
                prompt_tokens=len(code.tokens) + extra,
                tokens=tokens,
                logprobs=tuple(value + wrong for value in logprobs),
            )
            for code, tokens, logprobs in zip(
                drawn.codes, drawn.tokens, drawn.logprobs, strict=True
            )
        ]

    return ask


def test_an_engine_that_agrees_is_well(patient):
    patient.ask_vllm = answering(patient)
    assert "in 7 rows" in vllm_draws.draws(patient)
    assert "log-probabilities: largest difference" in vllm_draws.agreement(patient)


def test_an_engine_that_computes_something_else_is_a_fault(patient):
    patient.ask_vllm = answering(patient, wrong=0.01)
    vllm_draws.draws(patient)
    with pytest.raises(Fault, match=r"largest difference 1\.0e-02") as caught:
        vllm_draws.agreement(patient)
    assert "execution.engine transformers" in caught.value.advice


def test_an_engine_that_reads_another_prompt_is_a_fault(patient):
    patient.ask_vllm = answering(patient, extra=2)
    with pytest.raises(Fault, match="vLLM reads the prompt as"):
        vllm_draws.draws(patient)


def test_an_engine_that_nobody_asked_for_is_not_started(patient, monkeypatch):
    patient.execution = ON_CPU
    for there, said in ((None, "not installed"), (object(), "--engine vllm")):
        monkeypatch.setattr(vllm_draws, "find_spec", lambda name, there=there: there)
        with pytest.raises(NotTried, match=said):
            vllm_draws.draws(patient)


REQUEST = Request(
    model=Path("model"),
    execution=ON_CPU,
    dtype="float32",
    context=256,
    prompts=(("one", SimpleNamespace()), ("two", SimpleNamespace())),  # type: ignore[arg-type]
    seeds=(None, 7),
    ends=(3,),
    banned=(0, 1),
    vocabulary=10,
)


def test_vllm_is_asked_for_its_own_log_probabilities_of_what_it_draws():
    seen = {}

    class FakeLLM:
        def __init__(self, **options):
            seen.update(options)

        def generate(self, prompts, parameters, *, use_tqdm):
            assert [asked.temperature for asked in parameters] == [0.0, 1.0]
            assert {asked.max_tokens for asked in parameters} == {DRAWN_TOKENS}
            steps = [{4: SimpleNamespace(logprob=-0.5)}, {3: SimpleNamespace(logprob=-1)}]
            drawn = SimpleNamespace(token_ids=[4, 3], logprobs=steps)
            return [SimpleNamespace(prompt_token_ids=[9] * 5, outputs=[drawn]) for _ in prompts]

    with installed(World()):
        vars(sys.modules["vllm"])["LLM"] = FakeLLM
        answers = vllm_draws.generate(REQUEST)
        on_a_gpu = vllm_draws.engine_options(REQUEST, "cuda")
    assert answers == [Answer(prompt_tokens=5, tokens=(4, 3), logprobs=(-0.5, -1.0))] * 2
    assert (seen["max_model_len"], seen["max_num_seqs"], seen["dtype"]) == (256, 2, "float32")
    assert seen["enable_chunked_prefill"] is False
    assert "enable_chunked_prefill" not in on_a_gpu
    never = {"banned": [0, 1], "vocabulary": 10}
    assert seen["additional_config"] == on_a_gpu["additional_config"] == {"mstar": never}


def break_off(request):
    """Ends the process as the kernel would."""
    os._exit(7)


def refuse(request):
    """What no engine could have sent as it is."""

    class Local(Exception):
        pass

    raise Local("no kernel for this head size")


def miss(request):
    """What a machine without vLLM says."""
    raise MissingDependency("needs vllm")


@pytest.mark.parametrize(
    ("work", "error", "said"),
    [
        (break_off, WorkerLost, "code 7"),
        (refuse, ModelError, "does not run this model: no kernel for this head size"),
        (miss, MissingDependency, "needs vllm"),
    ],
)
def test_what_happens_to_the_process_becomes_one_error(monkeypatch, work, error, said):
    request = replace(REQUEST, prompts=())
    # A forked process has this one's stand-in for ``generate``.
    real = multiprocessing.get_context
    monkeypatch.setattr(multiprocessing, "get_context", lambda method: real("fork"))
    monkeypatch.setattr(vllm_draws, "generate", work)
    monkeypatch.setattr(vllm_draws, "POLL", 0.05)
    with pytest.raises(error, match=said):
        vllm_draws.in_a_process(request)


class TestTheRealOne:
    pytestmark = REAL_VLLM

    def test_agrees_with_the_trainer_on_a_tiny_model(self, tmp_path):
        model = build_tiny_model(tmp_path / "wide", width=128)
        wanted = Wanted(model=model, engine="vllm", device="cpu", max_pixels=1 << 18)
        findings = {finding.what: finding for finding in examine(wanted)}
        assert findings["vllm"].ok, findings["vllm"].found
        assert findings["vllm = trainer"].ok, findings["vllm = trainer"].found
