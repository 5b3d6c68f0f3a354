"""What vLLM draws from the same weights, with its own log-probabilities; the trainer's are compared afterwards.

vLLM takes most of a GPU's memory and changes its process, so it draws in one of its own, which ends before the
trainer's model is loaded.
"""

from __future__ import annotations

import multiprocessing
import os
import threading
import time
from dataclasses import dataclass
from importlib.util import find_spec
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from PIL.Image import Image

from mstar.errors import ModelError, MstarError, WorkerLost, by_code
from mstar.execution import Execution
from mstar.stages.backends.modelcheck.agreeing import SEEDS, compare
from mstar.stages.backends.modelcheck.finding import Fault, NotTried, short
from mstar.stages.backends.modelcheck.patient import DRAWN_TOKENS, Drawn, Patient
from mstar.stages.backends.vllm_engine import (
    BATCHED_TOKENS,
    CPU_CACHE_BYTES,
    context_for,
)
from mstar.stages.backends.vllm_process import (
    ENVIRONMENT,
    NOT_COMPILED,
    choose_platform,
    import_vllm,
)

DEADLINE = 600.0
"""Seconds that vLLM may take to start and to draw."""

POLL = 1.0
GRACE = 10.0
"""Seconds that its process has to put away what it holds, once it has answered."""

ADVICE = (
    "vLLM computes something else of this model than transformers, which trains it: sample with execution.engine "
    "transformers, or try another version of vLLM."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What vLLM is asked: rendered prompts with their images, a seed for each (None is greedy)."""

    model: Path
    execution: Execution
    dtype: str
    context: int
    prompts: tuple[tuple[str, Image], ...]
    seeds: tuple[int | None, ...]
    ends: tuple[int, ...]
    banned: tuple[int, ...]
    vocabulary: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What it drew for one prompt, which it read as ``prompt_tokens`` tokens."""

    prompt_tokens: int
    tokens: tuple[int, ...]
    logprobs: tuple[float, ...]


def draws(patient: Patient) -> str:
    """The prompts are to vLLM what they are to the trainer, and it draws responses."""
    if patient.execution.engine != "vllm":
        there = find_spec("vllm") is not None
        raise NotTried("--engine vllm asks for it" if there else "vllm is not installed here")
    names = [*patient.prompts, *(name for name in list(patient.prompts)[:-1] for _ in SEEDS)]
    request = _request(patient, names)
    answers = (patient.ask_vllm or in_a_process)(request)
    for name, answer in zip(names, answers, strict=True):
        read = len(patient.encoded[name].tokens)
        if answer.prompt_tokens != read:
            raise Fault(
                f"{name}: vLLM reads the prompt as {answer.prompt_tokens} tokens and transformers as {read}",
                ADVICE,
            )
    patient.foreign = Drawn(
        codes=tuple(patient.encoded[name] for name in names),
        tokens=tuple(answer.tokens for answer in answers),
        logprobs=tuple(answer.logprobs for answer in answers),
        greedy=tuple(seed is None for seed in request.seeds),
    )
    count = sum(len(answer.tokens) for answer in answers)
    return f"vLLM reads the prompts as the trainer does, and drew {count} tokens in {len(answers)} rows"


def agreement(patient: Patient) -> str:
    """The trainer's forward gives the tokens that vLLM drew vLLM's log-probabilities."""
    return compare(patient, patient.foreign, ADVICE, patient.sampling_dtype)


def in_a_process(request: Request, deadline: float = DEADLINE) -> list[Answer]:
    """``generate`` in a process of its own, which has ended when this returns or raises."""
    context = multiprocessing.get_context("spawn")
    mine, its = context.Pipe(duplex=False)
    process = context.Process(target=_serve, args=(its, request), daemon=True)
    process.start()
    its.close()
    end = time.monotonic() + deadline
    try:
        while not mine.poll(POLL):
            if time.monotonic() > end:
                raise ModelError(f"vLLM gave no answer within {deadline:g} seconds")
        answers: list[Answer] | tuple[int, str] = mine.recv()
        process.join(GRACE)
    except EOFError:
        process.join(POLL)
        raise WorkerLost(
            f"vLLM's process ended with code {process.exitcode} and without a word: killed, or out of memory"
        ) from None
    finally:
        process.kill()
        process.join()
        mine.close()
    if isinstance(answers, tuple):
        raise by_code(*answers)
    return answers


def _serve(connection: Connection, request: Request) -> None:
    """In the process of its own: the answers, or an exit code and a message."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    # What a library prints belongs into no table and no JSON.
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):
        os.dup2(nowhere, stream)
    os.environ.update(ENVIRONMENT | NOT_COMPILED)
    try:
        connection.send(generate(request))
    except MstarError as error:
        connection.send((error.exit_code, str(error)))
    except Exception as error:  # noqa: BLE001 (whatever vLLM raises becomes a message: not all of it can be sent)
        said = f"vLLM does not run this model: {short(error)}. {ADVICE}"
        connection.send((ModelError.exit_code, said))


def _end_with_parent() -> None:
    """Nobody reads what an orphan finds, and it would hold the GPU."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def generate(request: Request) -> list[Answer]:
    """Start vLLM, draw, and say what was drawn. The process that did it is to end afterwards."""
    vllm = import_vllm()
    engine = vllm.LLM(**engine_options(request, choose_platform(request.execution)))
    prompts = [
        {"prompt": text, "multi_modal_data": {"image": image}} for text, image in request.prompts
    ]
    parameters = [
        vllm.SamplingParams(
            temperature=0.0 if seed is None else 1.0,
            seed=seed,
            max_tokens=DRAWN_TOKENS,
            stop_token_ids=list(request.ends),
            logprobs=0,
            detokenize=False,
        )
        for seed in request.seeds
    ]
    answers = []
    for output in engine.generate(prompts, parameters, use_tqdm=False):
        (drawn,) = output.outputs
        tokens = tuple(drawn.token_ids)
        steps = zip(tokens, drawn.logprobs, strict=True)
        logprobs = tuple(float(step[token].logprob) for token, step in steps)
        answers.append(
            Answer(prompt_tokens=len(output.prompt_token_ids), tokens=tokens, logprobs=logprobs)
        )
    return answers


def engine_options(request: Request, platform: str) -> dict[str, Any]:
    """What the engine is started with: for few rows once, so nothing is compiled. Needs vLLM's package at hand."""
    from mstar.stages.backends import vllm_bans

    options: dict[str, Any] = {
        "model": str(request.model),
        "dtype": request.dtype,
        "max_model_len": request.context,
        "max_num_seqs": len(request.prompts),
        "max_num_batched_tokens": max(request.context, BATCHED_TOKENS),
        "limit_mm_per_prompt": {"image": 1, "video": 0},
        "generation_config": "vllm",
        "logits_processors": [vllm_bans.NAME],
        "additional_config": vllm_bans.asked(request.banned, request.vocabulary),
        "enforce_eager": True,
        "disable_log_stats": True,
        "seed": 0,
    }
    if platform == "cpu":
        # With chunks, a seed ends the engine ("CPU Generator does not use offset").
        options |= {"enable_chunked_prefill": False, "kv_cache_memory_bytes": CPU_CACHE_BYTES}
    return options


def _request(patient: Patient, names: list[str]) -> Request:
    family = patient.family
    longest = max(len(code.tokens) for code in patient.encoded.values()) + DRAWN_TOKENS
    sampled = len(names) - len(patient.prompts)
    return Request(
        model=patient.path,
        execution=patient.execution,
        dtype=str(patient.sampling_dtype).removeprefix("torch."),
        context=context_for(longest, family.context),
        prompts=tuple(
            (family.render(patient.prompts[name].text), patient.prompts[name].image)
            for name in names
        ),
        seeds=(None,) * len(patient.prompts) + tuple(SEEDS) * (sampled // len(SEEDS)),
        ends=family.eos,
        banned=family.banned,
        vocabulary=family.vocabulary,
    )
