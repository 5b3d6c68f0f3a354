"""What vLLM draws from the same weights, with its own log-probabilities; the trainer's are compared afterwards.

vLLM takes most of a GPU's memory while it runs, so it draws before the trainer's model is loaded.
"""

from __future__ import annotations

import warnings
from importlib.util import find_spec
from typing import Any

from mstar.errors import ModelError
from mstar.stages.backends.modelcheck.agreeing import SEEDS, compare
from mstar.stages.backends.modelcheck.finding import Fault, NotTried, free_memory
from mstar.stages.backends.modelcheck.patient import DRAWN_TOKENS, Drawn, Patient
from mstar.stages.backends.vllm_engine import EngineOptions, engine_arguments, one_line
from mstar.stages.backends.vllm_process import choose_platform, contained, import_vllm
from mstar.stages.backends.vllm_sampler import ALONE

SHORTEST_CONTEXT = 256

ADVICE = (
    "vLLM computes something else of this model than transformers, which trains it: sample with execution.engine "
    "transformers, or try another version of vLLM."
)


def draws(patient: Patient) -> str:
    """VLLM loads the model, reads the prompts as the trainer does, and draws responses."""
    if patient.execution.engine != "vllm":
        there = find_spec("vllm") is not None
        raise NotTried("--engine vllm asks for it" if there else "vllm is not installed here")
    vllm = import_vllm()
    platform = choose_platform(patient.execution)
    try:
        with contained(), warnings.catch_warnings(action="ignore"):
            patient.foreign = _draw(patient, vllm, platform)
    except Exception as error:
        if isinstance(error, Fault):
            raise
        raise ModelError(
            f"vLLM {vllm.__version__} does not run this model: {one_line(error)}. Sample with execution.engine "
            "transformers, or install a vLLM that supports the model."
        ) from error
    finally:
        free_memory()
    rows = patient.foreign.tokens
    return f"vLLM {vllm.__version__} drew {sum(map(len, rows))} tokens in {len(rows)} rows"


def agreement(patient: Patient) -> str:
    """The trainer's forward gives the tokens that vLLM drew vLLM's log-probabilities."""
    return compare(patient, patient.foreign, ADVICE, patient.sampling_dtype)


def _draw(patient: Patient, vllm: Any, platform: str) -> Drawn:
    family = patient.family
    names = [*patient.prompts, *(name for name in list(patient.prompts)[:-1] for _ in SEEDS)]
    seeds = [None] * len(patient.prompts) + [*SEEDS] * (len(patient.prompts) - 1)
    longest = max(len(code.tokens) for code in patient.encoded.values()) + DRAWN_TOKENS
    context = min(family.context, max(SHORTEST_CONTEXT, 1 << (longest - 1).bit_length()))
    options = EngineOptions(platform=platform, context=context, rows=len(names), share=ALONE)
    engine = vllm.LLM(**engine_arguments(family, options))
    try:
        requests = [
            {
                "prompt": family.render(patient.prompts[name].text),
                "multi_modal_data": {"image": patient.prompts[name].image},
            }
            for name in names
        ]
        parameters = [
            vllm.SamplingParams(
                temperature=0.0 if seed is None else 1.0,
                seed=seed,
                max_tokens=DRAWN_TOKENS,
                stop_token_ids=list(family.eos),
                logprobs=0,
                detokenize=False,
            )
            for seed in seeds
        ]
        outputs = engine.generate(requests, parameters, use_tqdm=False)
    finally:
        engine.llm_engine.engine_core.shutdown()
        engine.llm_engine.renderer.shutdown()
    codes = tuple(patient.encoded[name] for name in names)
    for name, code, output in zip(names, codes, outputs, strict=True):
        if len(output.prompt_token_ids) != len(code.tokens):
            raise Fault(
                f"{name}: vLLM reads the prompt as {len(output.prompt_token_ids)} tokens and transformers as "
                f"{len(code.tokens)}",
                ADVICE,
            )
    answers = [output.outputs[0] for output in outputs]
    tokens = tuple(tuple(answer.token_ids) for answer in answers)
    logprobs = tuple(
        tuple(float(step[token].logprob) for token, step in zip(row, answer.logprobs, strict=True))
        for row, answer in zip(tokens, answers, strict=True)
    )
    return Drawn(
        codes=codes, tokens=tokens, logprobs=logprobs, greedy=tuple(seed is None for seed in seeds)
    )
