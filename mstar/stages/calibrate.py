"""Measure this machine for a plan: a short real step of sampling, scoring and training, by the stages' own backends.

A program of its own, ``python -m mstar.stages.calibrate REQUEST OUT``: what asks for it need not import torch. It reads
a request and writes what it found, or what went wrong, as JSON.
"""

import gc
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

from mstar.core.records import Example, Finish, Response
from mstar.data.splits import Sample, find_split
from mstar.errors import MstarError, OutOfMemory
from mstar.execution import Execution
from mstar.optimization import Optimization
from mstar.record import Record
from mstar.stages.engines import missing, open_sampler, open_scorer
from mstar.stages.inputs import prompted, sample_seeds
from mstar.stages.protocols import Prompted, TrainingRow
from mstar.tasks import Prompt, Sampling

WARM_ROWS = 16
"""Rows of the first, unmeasured call, from whose time the measured one's size follows."""

UPDATES = 4
"""Optimizer steps that training takes at most; the first is not measured."""


class Trial(Record):
    """What to measure, within about ``seconds``. ``split`` is where the queries are taken from, in its own order."""

    model: str
    data: str
    split: str
    prompt: Prompt
    step_separator: str
    sampling: Sampling
    execution: Execution
    optimization: Optimization
    seconds: float = 120.0


class _Enough(Exception):
    """Training has been measured for long enough."""


def measure(trial: Trial, folder: Path, clock: Callable[[], float]) -> dict[str, Any]:
    """Everything that can be measured; what cannot is left out, and why. ``folder`` is scratch space."""
    began = clock()
    try:
        from mstar.stages.backends.trial import describe, prm_folder, ready_model
    except ModuleNotFoundError as error:
        raise missing(error) from None
    model, random = ready_model(Path(trial.model), folder, trial.execution)
    described = describe(model, trial.execution)
    found: dict[str, Any] = described.facts | {
        "model": Path(trial.model).name,
        "engine": trial.execution.engine,
        "dtype": trial.optimization.dtype,
        "random": random,
        "start_seconds": clock() - began,
        "left_out": {},
    }
    prompts = _prompts(trial)
    count, images = described.lengths(prompts)
    found |= {"prompt_tokens": count, "image_tokens": images}

    def attempt(name: str, work: Callable[[], Any]) -> Any:
        try:
            return work()
        except Exception as error:
            short = isinstance(error, OutOfMemory) or (
                isinstance(error, RuntimeError) and "out of memory" in str(error).lower()
            )
            if not short:
                raise
            found["left_out"][name] = "out of memory"
            return None
        finally:
            gc.collect()

    load, generated, responses = _generate(trial, model, prompts, clock)
    shared = _devices(trial.execution, int(found["device"]["count"]))
    generated["prompt_seconds"] *= shared
    generated["token_seconds"] *= shared
    found |= {"load_seconds": load, "generate": generated}
    prm = prm_folder(model, folder)
    found["score"] = attempt("score", lambda: _score(trial, prm, responses, clock))
    found["train"] = attempt(
        "train", lambda: _train(trial, model, responses, described.lengths, folder, clock)
    )
    return found


def _devices(execution: Execution, there: int) -> int:
    """Devices that sample together: vLLM's engines take all that are there, or as many as they are told."""
    asked, split = execution.vllm, execution.vllm.tensor_parallel
    if execution.engine != "vllm" or there == 1:
        return 1
    return min(there, split * (asked.processes or max(1, there // split)))


def _prompts(trial: Trial) -> list[Prompted]:
    """As many prompts as a full batch of single rows needs."""
    split = find_split(Path(trial.data), trial.split)
    wanted = min(
        split.rows(), max(trial.execution.sampling_rows, 2 * trial.optimization.batch_size)
    )

    def seeds(sample: Sample) -> tuple[int, ...]:
        return sample_seeds(0, sample.query.id, "calibrate", trial.sampling.n)

    return [prompted(trial.prompt, s, seeds(s)) for s in split.read(range(wanted))]


Answered = list[tuple[Prompted, list[Response]]]


def _generate(
    trial: Trial, model: Path, prompts: Sequence[Prompted], clock: Callable[[], float]
) -> tuple[float, dict[str, Any], Answered]:
    """Seconds of loading; seconds a prompt and a token; and what was drawn.

    Two batches of as many rows, one with all samples of few prompts and one with one sample of many: what the second
    takes longer is what its prompts take.
    """
    start = clock()
    sampler = open_sampler(model, trial.execution)
    load = clock() - start
    n = trial.sampling.n

    def draw(asked: Sequence[Prompted]) -> tuple[float, Answered]:
        began = clock()
        found = sampler.sample(asked, trial.sampling, "calibrate", lambda _: None)
        return clock() - began, list(zip(asked, found, strict=True))

    with closing(sampler):
        few = max(1, WARM_ROWS // n)
        draw(prompts[:few])
        warm, answered = draw(prompts[:few])
        budget = trial.seconds / 4
        affordable = int(few * max(1.0, budget / max(warm, 1e-6)))
        wide = max(1, min(affordable, trial.execution.sampling_rows // n, len(prompts)))
        shared, answered = draw(prompts[:wide])
        rows = wide * n
        alone = [_with_seeds(prompt, prompt.seeds[:1]) for prompt in prompts[:rows]]
        single, lone = draw(alone)
    tokens = _tokens(answered)
    lone_tokens = _tokens(lone)
    # shared = wide * p + tokens * t, single = len(alone) * p + lone_tokens * t
    determinant = wide * lone_tokens - len(alone) * tokens
    prompt = (shared * lone_tokens - single * tokens) / determinant if determinant else 0.0
    prompt = min(max(prompt, 0.0), shared / wide)
    token = max(shared - wide * prompt, 1e-9 * shared) / tokens
    if prompt == 0.0 or len(alone) <= wide:
        prompt, token = 0.0, shared / tokens
    return (
        load,
        {
            "prompt_seconds": prompt,
            "token_seconds": token,
            "rows": rows,
            "responses": rows,
            "response_tokens": tokens / rows,
        },
        answered,
    )


def _with_seeds(prompt: Prompted, seeds: tuple[int, ...]) -> Prompted:
    return Prompted(query_id=prompt.query_id, text=prompt.text, image=prompt.image, seeds=seeds)


def _tokens(answered: Answered) -> int:
    return max(1, sum(r.token_count for _, responses in answered for r in responses))


def _score(
    trial: Trial, prm: Path, answered: Answered, clock: Callable[[], float]
) -> dict[str, Any] | None:
    """Seconds a prompt and a response token. One response a prompt, and all of them: the difference is the tokens'."""
    scorer = open_scorer(prm, trial.execution, trial.step_separator)

    def timed(pairs: Sequence[tuple[Prompted, Response]]) -> tuple[float, int]:
        asked = [prompt for prompt, _ in pairs]
        judged = [response for _, response in pairs]
        began = clock()
        scorer.score(asked, judged, lambda _: None)
        return clock() - began, sum(response.token_count for response in judged)

    everything = [(p, r) for p, responses in answered for r in responses if r.tokens]
    firsts = [
        (p, next(r for r in rs if r.tokens)) for p, rs in answered if any(r.tokens for r in rs)
    ]
    if not everything:
        return None
    timed(firsts[:1])
    whole, tokens = timed(everything)
    single, first_tokens = timed(firsts)
    token = max(whole - single, 0.0) / max(1, tokens - first_tokens)
    token = token or whole / tokens
    prompt = max(0.0, whole - token * tokens) / len(firsts)
    return {"prompt_seconds": prompt, "token_seconds": token, "responses": len(everything)}


def _train(
    trial: Trial,
    model: Path,
    answered: Answered,
    lengths: Callable[[Sequence[Prompted]], tuple[float, float]],
    folder: Path,
    clock: Callable[[], float],
) -> dict[str, Any] | None:
    """Seconds a token and rank, of the updates after the first. Nothing is kept of what is trained."""
    from mstar.stages.backends.launch import train_in_ranks

    size = trial.optimization.batch_size
    pairs = [(p, r) for p, responses in answered for r in responses if r.tokens][: UPDATES * size]
    if not pairs:
        return None
    while len(pairs) < 2 * size:
        pairs += pairs[: 2 * size - len(pairs)]
    rows = [
        TrainingRow(prompt=prompt, example=_example(response, number))
        for number, (prompt, response) in enumerate(pairs)
    ]
    moments: list[tuple[float, int]] = []
    deadline = clock() + trial.seconds / 2

    def progress(count: int) -> None:
        moments.append((clock(), count))
        if len(moments) > 2 and clock() > deadline:
            raise _Enough

    with suppress(_Enough):
        train_in_ranks(
            "policy",
            model,
            trial.execution,
            rows,
            trial.optimization.model_copy(update={"epochs": 1}),
            seed=0,
            resume_from=None,
            save_to=folder / "trained",
            progress=progress,
        )
    measured = moments[1:]  # the first call says that training begins
    began, done = (measured[0][0], measured[1:]) if len(measured) > 1 else (moments[0][0], measured)
    examples = sum(count for _, count in done)
    if not examples:
        return None
    prompt_tokens, _ = lengths([pair[0] for pair in pairs[:64]])
    response_tokens = sum(r.token_count for _, r in pairs) / len(pairs)
    ranks = trial.execution.deepspeed.processes if trial.execution.deepspeed else 1
    seconds = (done[-1][0] - began) * ranks / (examples * (prompt_tokens + response_tokens))
    return {"token_seconds": seconds, "examples": examples, "ranks": ranks}


def _example(response: Response, number: int) -> Example:
    return Example(
        query_id=response.query_id,
        sample=number,
        text=response.text,
        tokens=response.tokens,
        finish=Finish.STOP,
        policy="calibrate",
        seed=0,
    )


def main(arguments: Sequence[str]) -> None:
    """Measure what the file says, and leave what was found beside it."""
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    request, out = map(Path, arguments)
    trial = Trial.model_validate_json(request.read_bytes())
    with tempfile.TemporaryDirectory(prefix="mstar-calibrate-") as name:
        try:
            found = measure(trial, Path(name), time.perf_counter)
        except MstarError as error:
            found = {"error": str(error), "exit_code": error.exit_code}
    out.write_text(json.dumps(found))


if __name__ == "__main__":
    main(sys.argv[1:])
