"""vLLM against the trainer, with a fake of the package, and with the real one where it is installed."""

import sys
from types import SimpleNamespace

import pytest

from mstar.errors import MissingDependency, ModelError
from mstar.stages.backends.modelcheck import agreeing, vllm_draws
from mstar.stages.backends.modelcheck.examination import Wanted, examine
from mstar.stages.backends.modelcheck.finding import Fault, NotTried
from mstar.stages.backends.modelcheck.patient import DRAWN_TOKENS
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


class FakeLLM:
    """Answers with what the transformers sampler drew; ``wrong`` is added to each log-probability."""

    def __init__(self, patient, *, wrong=0.0, extra=0):
        self.drawn = agreeing.draw(patient)
        self.wrong, self.extra = wrong, extra
        self.arguments = {}
        self.stopped = 0
        stop = SimpleNamespace(shutdown=self._stop)
        self.llm_engine = SimpleNamespace(engine_core=stop, renderer=stop)

    def __call__(self, **arguments):
        self.arguments = arguments
        return self

    def _stop(self):
        self.stopped += 1

    def generate(self, requests, parameters, *, use_tqdm):
        assert [asked.seed is None for asked in parameters] == list(self.drawn.greedy)
        assert all(asked.max_tokens == DRAWN_TOKENS for asked in parameters)
        assert all(request["multi_modal_data"]["image"].mode == "RGB" for request in requests)
        rows = zip(self.drawn.codes, self.drawn.tokens, self.drawn.logprobs, strict=True)
        return [self._answer(*row) for row in rows]

    def _answer(self, code, tokens, logprobs):
        steps = [
            {token: SimpleNamespace(logprob=value + self.wrong)}
            for token, value in zip(tokens, logprobs, strict=True)
        ]
        prompt = [*code.tokens, *[0] * self.extra]
        answer = SimpleNamespace(token_ids=tokens, logprobs=steps)
        return SimpleNamespace(prompt_token_ids=prompt, outputs=[answer])


@pytest.fixture
def answering(monkeypatch):
    with installed(World()):
        yield lambda llm: monkeypatch.setattr(sys.modules["vllm"], "LLM", llm, raising=False)


def test_an_engine_that_agrees_is_well_and_is_stopped(patient, answering):
    llm = FakeLLM(patient)
    answering(llm)
    assert "drew 168 tokens in 7 rows" in vllm_draws.draws(patient)
    assert llm.stopped == 2
    assert llm.arguments["max_model_len"] == 256
    assert "greedy tokens 72 of 72" in vllm_draws.agreement(patient)


def test_an_engine_that_computes_something_else_is_a_fault(patient, answering):
    answering(FakeLLM(patient, wrong=0.01))
    vllm_draws.draws(patient)
    with pytest.raises(Fault, match=r"largest difference 1\.0e-02") as caught:
        vllm_draws.agreement(patient)
    assert "execution.engine transformers" in caught.value.advice


def test_an_engine_that_reads_another_prompt_is_a_fault(patient, answering):
    answering(FakeLLM(patient, extra=2))
    with pytest.raises(Fault, match="vLLM reads the prompt as"):
        vllm_draws.draws(patient)


def test_an_engine_that_does_not_start_gives_its_reason(patient, answering):
    def refuse(**arguments):
        raise ValueError("no kernel for this head size")

    answering(refuse)
    with pytest.raises(ModelError, match="does not run this model: no kernel for this head size"):
        vllm_draws.draws(patient)


def test_an_engine_that_is_not_installed_is_named(patient, monkeypatch):
    monkeypatch.setitem(sys.modules, "vllm", None)
    with pytest.raises(MissingDependency, match="vllm"):
        vllm_draws.draws(patient)


def test_an_engine_that_nobody_asked_for_is_not_started(patient, monkeypatch):
    patient.execution = ON_CPU
    for there, said in ((None, "not installed"), (object(), "--engine vllm")):
        monkeypatch.setattr(vllm_draws, "find_spec", lambda name, there=there: there)
        with pytest.raises(NotTried, match=said):
            vllm_draws.draws(patient)


class TestTheRealOne:
    pytestmark = REAL_VLLM

    def test_agrees_with_the_trainer_on_a_tiny_model(self, tmp_path):
        model = build_tiny_model(tmp_path / "wide", width=128)
        wanted = Wanted(model=model, engine="vllm", device="cpu", max_pixels=1 << 18)
        findings = {finding.what: finding for finding in examine(wanted)}
        assert findings["vllm"].ok, findings["vllm"].found
        assert findings["vllm = trainer"].ok, findings["vllm = trainer"].found
