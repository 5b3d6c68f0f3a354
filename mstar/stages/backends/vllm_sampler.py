"""Samples with vLLM: the engine for real models, and one that a laptop can try on a CPU.

What prompts need is measured first, by the model's family: a prompt that does not fit is refused before an engine is
started, and an engine is started for the length that is needed. A request is one row: a prompt, perhaps the beginning
of its response, and one seed. The rows of a prompt share its image and the blocks of its keys and values.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mstar.core.records import Response
from mstar.errors import ModelError, SpecError
from mstar.execution import Execution
from mstar.models.family import REMOTE_CODE, load_family, model_type
from mstar.stages.backends.encoding import check_fits
from mstar.stages.backends.responses import respond
from mstar.stages.backends.runtime import set_threads
from mstar.stages.backends.vllm_engine import Engine, EngineOptions, Row
from mstar.stages.backends.vllm_process import choose_platform, import_vllm
from mstar.stages.protocols import Progress, Prompted, batches
from mstar.tasks import Sampling

AHEAD = 2
"""Rows asked for, in full batches: one at work and one waiting, so that few prepared images are held."""

ALONE = 0.9
SHARED = 0.6
"""Of the GPU memory that is free when it starts, what the engine takes: alone, and beside a scorer at work."""

HOTTEST = 2.0
"""The highest temperature that vLLM takes."""

MEASURED_AT_ONCE = 64
SHORTEST_CONTEXT = 256

Key = tuple[str, str]


class VllmSampler:
    """Draws responses from the policy in ``model_dir``. The engine starts when the first prompts are known."""

    def __init__(self, model_dir: Path, execution: Execution, *, alone: bool = True) -> None:
        import_vllm()
        self.platform = choose_platform(execution)
        set_threads(execution)
        self.execution = execution
        if model_type(model_dir) in REMOTE_CODE:
            raise SpecError(
                f"execution.engine vllm does not serve {model_dir}, a model that runs code from its own folder. Set "
                "execution.engine to transformers (docs/legacy-models.md)."
            )
        self.family = load_family(model_dir, max_pixels=execution.max_pixels)
        self.share = ALONE if alone else SHARED
        self.engine: Engine | None = None

    def sample(
        self, prompts: Sequence[Prompted], sampling: Sampling, policy: str, progress: Progress
    ) -> list[list[Response]]:
        """``len(seeds)`` responses a prompt, in the prompts' order, sample ``i`` drawn from ``seeds[i]`` alone."""
        if sampling.temperature > HOTTEST:
            raise SpecError(
                f"vLLM takes temperatures up to {HOTTEST}, and the task asks for {sampling.temperature}. "
                "Lower it, or set execution.engine to transformers."
            )
        self.family.check(prompts)
        lengths = self._measure(prompts)
        needed = 0
        for prompt in prompts:
            length = lengths[_key(prompt)]
            answer = len(prompt.prefix) + sampling.max_new_tokens
            check_fits(self.family, prompt.query_id, length, answer)
            needed = max(needed, length + answer)
        if bare := sum(not prompt.seeds for prompt in prompts):
            progress(bare)
        if bare == len(prompts):
            return [[] for _ in prompts]
        try:
            engine = self._engine_for(needed)
            drawn = self._draw(engine, prompts, lengths, sampling, progress)
        except BaseException:
            self.close()
            raise
        return [
            [
                respond(self.family, prompt, sample, drawn[place, sample], sampling, policy)
                for sample in range(len(prompt.seeds))
            ]
            for place, prompt in enumerate(prompts)
        ]

    def close(self) -> None:
        """Stop the engine and free its memory; further prompts would start another."""
        engine, self.engine = self.engine, None
        if engine is not None:
            engine.close()

    def _measure(self, prompts: Sequence[Prompted]) -> dict[Key, int]:
        """The tokens of each prompt as the model reads it, without a prefix."""
        distinct = {_key(prompt): prompt for prompt in prompts}
        lengths: dict[Key, int] = {}
        for chunk in batches(distinct.values(), MEASURED_AT_ONCE):
            for prompt, code in zip(chunk, self.family.encode(chunk), strict=True):
                lengths[_key(prompt)] = len(code.tokens)
        return lengths

    def _engine_for(self, needed: int) -> Engine:
        """The engine in work, or, when rows are longer than it takes, another."""
        if self.engine is None or self.engine.context < needed:
            self.close()
            # Doubling, so that prompts of growing lengths start few engines.
            context = max(SHORTEST_CONTEXT, 1 << (needed - 1).bit_length())
            options = EngineOptions(
                platform=self.platform,
                context=min(context, self.family.context),
                rows=self.execution.sampling_rows,
                share=self.share,
            )
            self.engine = Engine(self.family, options)
        return self.engine

    def _draw(
        self,
        engine: Engine,
        prompts: Sequence[Prompted],
        lengths: Mapping[Key, int],
        sampling: Sampling,
        progress: Progress,
    ) -> dict[Row, tuple[int, ...]]:
        waiting = deque(place for place, prompt in enumerate(prompts) if prompt.seeds)
        missing = [len(prompt.seeds) for prompt in prompts]
        drawn: dict[Row, tuple[int, ...]] = {}
        rendered: dict[str, Any] = {}
        key: Key | None = None
        while waiting or engine.unfinished:
            while waiting and engine.unfinished < AHEAD * self.execution.sampling_rows:
                place = waiting.popleft()
                prompt = prompts[place]
                if _key(prompt) != key:  # the prefixes of a query come one after another
                    key = _key(prompt)
                    rendered = self._rendered(engine, prompt, lengths[key])
                engine.add(place, rendered, prompt, sampling)
            complete = 0
            for (place, sample), tokens in engine.step():
                drawn[place, sample] = tokens
                missing[place] -= 1
                complete += missing[place] == 0
            if complete:
                progress(complete)
        return drawn

    def _rendered(self, engine: Engine, prompt: Prompted, length: int) -> dict[str, Any]:
        """A prompt as vLLM reads it, which must be as the trained model does."""
        rendered = engine.render(prompt)
        found = len(rendered["prompt_token_ids"])
        if found != length:
            raise ModelError(
                f"query {prompt.query_id}: vLLM reads the prompt as {found} tokens and transformers, which trains the "
                f"model in {self.family.path}, as {length}. Set execution.engine to transformers for this model."
            )
        return rendered


def _key(prompt: Prompted) -> Key:
    return prompt.query_id, prompt.text
