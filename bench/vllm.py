"""The vLLM sampler against bare ``LLM.generate`` on the same prompts: ``python -m bench.vllm`` (needs vLLM).

Both engines are started once, with the same arguments; then they are asked the same new prompts in turns, ``n`` samples
each, so that no round finds what another left in a cache. ``ratio`` is the sampler's throughput over that of
``LLM.generate`` with seeds, the median over rounds. Two more ways drive the bare engine by hand, over prompts that are
rendered once: a request a sample, as the sampler does, and a request a query, whose samples have consecutive seeds.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

from bench.sampling import BASE, make_prompts, quiet
from mstar.core.records import Finish
from mstar.execution import Execution, Vllm
from mstar.models.family import load_family
from mstar.stages.backends.vllm_engine import EngineOptions, engine_arguments
from mstar.stages.backends.vllm_process import ENVIRONMENT, choose_platform, import_vllm
from mstar.stages.backends.vllm_sampler import VllmSampler
from mstar.stages.protocols import Prompted
from mstar.tasks import Sampling

SHARE = 0.42
"""Of a GPU's memory for each of the two engines."""

Way = Callable[[list[Prompted]], int]
"""Draws the samples of prompts, and counts their tokens."""


def ours(sampler: VllmSampler, sampling: Sampling) -> Way:
    """The stage's sampler, from prompts to responses."""

    def run(prompts: list[Prompted]) -> int:
        groups = sampler.sample(prompts, sampling, "policy", quiet)
        return sum(r.token_count + (r.finish is Finish.STOP) for group in groups for r in group)

    return run


class Bare:
    """vLLM as its documentation shows it, with the engine arguments of the sampler."""

    def __init__(self, model: Path, options: EngineOptions, sampling: Sampling) -> None:
        vllm = import_vllm()
        self.family = load_family(model)
        arguments = engine_arguments(self.family, options)
        for ours_alone in ("logits_processors", "additional_config"):
            del arguments[ours_alone]
        self.llm = vllm.LLM(**arguments)
        self._parameters = vllm.SamplingParams
        self._final = vllm.sampling_params.RequestOutputKind.FINAL_ONLY
        self._sampling = sampling

    def generate(self, prompts: list[Prompted], *, seeded: bool) -> int:
        """One call for all prompts."""
        asked = [self._parameters(**self._how(prompt, seeded=seeded)) for prompt in prompts]
        outputs = self.llm.generate(list(map(self._prompt, prompts)), asked, use_tqdm=False)
        return sum(len(row.token_ids) for output in outputs for row in output.outputs)

    def drive(self, prompts: list[Prompted], *, together: bool) -> int:
        """The engine by hand: a request a query (``together``), or one a sample."""
        engine = self.llm.llm_engine
        fixed = {"output_kind": self._final, "detokenize": False}
        fixed["stop_token_ids"] = list(self.family.eos)
        for index, prompt in enumerate(prompts):
            (rendered,) = engine.renderer.render_cmpl([self._prompt(prompt)])
            how = self._how(prompt, seeded=True) | fixed
            if together:
                engine.add_request(f"{index}", dict(rendered), self._parameters(**how))
                continue
            for seed in prompt.seeds:
                one = self._parameters(**how | {"n": 1, "seed": seed})
                engine.add_request(f"{index}/{seed}", dict(rendered), one)
        tokens = 0
        while engine.has_unfinished_requests():
            for output in engine.step():
                tokens += sum(len(row.token_ids) for row in output.outputs)
        return tokens

    def forget(self) -> None:
        """Empty the caches: the next way is asked the same prompts."""
        self.llm.reset_prefix_cache()
        self.llm.llm_engine.reset_mm_cache()

    def _prompt(self, prompt: Prompted) -> dict[str, Any]:
        text = self.family.render(prompt.text)
        return {"prompt": text, "multi_modal_data": {"image": prompt.image}}

    def _how(self, prompt: Prompted, *, seeded: bool) -> dict[str, Any]:
        return {
            "n": len(prompt.seeds),
            "temperature": self._sampling.temperature,
            "max_tokens": self._sampling.max_new_tokens,
            "seed": prompt.seeds[0] if seeded else None,
        }


def measure(
    *,
    model: Path,
    prompts: int,
    rounds: int,
    samples: int,
    threads: int,
    device: str,
    side: int | None,
) -> dict[str, Any]:
    """Tokens a second of each way, round by round, and the ratios."""
    os.environ |= ENVIRONMENT | {"OMP_NUM_THREADS": str(threads)}
    os.environ["VLLM_CPU_OMP_THREADS_BIND"] = "nobind"
    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "1"  # vLLM's own choice
    execution = Execution(
        engine="vllm",
        threads=threads,
        sampling_rows=256,
        vllm=Vllm(processes=1, gpu_share=SHARE),
        device=device,
    )
    sampling = Sampling(n=samples, temperature=1.0, max_new_tokens=72)
    asked = make_prompts(prompts * (rounds + 1), samples, side)
    speeds: dict[str, list[float]] = {}
    with closing(VllmSampler(model, execution)) as sampler:
        sampler.prepare(asked, sampling.max_new_tokens)
        options = EngineOptions(
            model=model,
            max_pixels=execution.max_pixels,
            platform=choose_platform(execution),
            context=sampler.family.context,
            rows=execution.sampling_rows,
            share=execution.vllm.gpu_share,
        )
        bare = Bare(model, options, sampling)
        ways: dict[str, Way] = {
            "sampler": ours(sampler, sampling),
            "LLM.generate": lambda these: bare.generate(these, seeded=True),
            "LLM.generate without seeds": lambda these: bare.generate(these, seeded=False),
            "a request a sample": lambda these: bare.drive(these, together=False),
            "a request a query": lambda these: bare.drive(these, together=True),
        }
        for turn in range(rounds + 1):
            these = asked[turn * prompts : (turn + 1) * prompts]
            for name, way in ways.items():
                bare.forget()
                start = time.perf_counter()
                tokens = way(these)
                if turn:  # the first warms up
                    speeds.setdefault(name, []).append(tokens / (time.perf_counter() - start))
    return {
        "benchmark": "vllm",
        "unit": "tokens/s",
        "threads": threads,
        "measured": {name: round(statistics.median(found)) for name, found in speeds.items()},
        "ratio": _ratio(speeds, "sampler", "LLM.generate"),
        "ratio without seeds": _ratio(speeds, "sampler", "LLM.generate without seeds"),
        "a request a query over one a sample": _ratio(
            speeds, "a request a query", "a request a sample"
        ),
        "wanted": 0.95,
    }


def _ratio(speeds: dict[str, list[float]], one: str, other: str) -> float:
    """The median over rounds of how much faster one way is than another."""
    pairs = zip(speeds[one], speeds[other], strict=True)
    return round(statistics.median(ours / theirs for ours, theirs in pairs), 2)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, default=BASE)
    parser.add_argument("--prompts", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--samples", type=int, default=16)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto")
    parser.add_argument("--side", type=int, default=None)
    print(json.dumps(measure(**vars(parser.parse_args()))))
