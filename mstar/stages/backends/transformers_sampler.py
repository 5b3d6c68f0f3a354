"""Samples with transformers alone: the default engine, and the fastest one for a small model on a laptop."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import torch

from mstar.core.records import Response
from mstar.execution import Execution
from mstar.models.family import load_family
from mstar.stages.backends.attention import decode_grouped
from mstar.stages.backends.decoding import Decoder, Row, never_drawn
from mstar.stages.backends.encoding import check_all_fit, encode_distinct
from mstar.stages.backends.recomputing import RecomputingDecoder
from mstar.stages.backends.responses import respond
from mstar.stages.backends.runtime import choose_device, choose_dtype, set_threads
from mstar.stages.backends.shortage import named_shortage, to_load, to_sample
from mstar.stages.protocols import Ask, Progress, Prompted, batches
from mstar.tasks import Sampling

PROMPTS_AT_ONCE = 2048
"""Prompts of a stream in memory at a time: enough for sorted, full batches, few enough for a laptop."""

WINDOW = 8
"""Batches whose prompts are encoded and sorted by length together; holds memory down, and padding too."""


class TransformersSampler:
    """Draws responses from the policy in ``model_dir``."""

    def __init__(self, model_dir: Path, execution: Execution) -> None:
        set_threads(execution)
        self.execution = execution
        self.family = load_family(
            model_dir, max_pixels=execution.max_pixels, remote_code=execution.remote_code
        )
        device = choose_device(execution)
        with named_shortage("loading the policy", to_load(execution)):
            model = self.family.load(dtype=choose_dtype(device), device=device)
        decode_grouped(model)
        decoder = Decoder if self.family.shares_prefix else RecomputingDecoder
        self.decoder = decoder(model, self.family, banned=never_drawn(model, self.family))

    def sample(
        self, prompts: Sequence[Prompted], sampling: Sampling, policy: str, progress: Progress
    ) -> list[list[Response]]:
        """``len(seeds)`` responses a prompt, in the prompts' order, sample ``i`` drawn from ``seeds[i]`` alone."""
        self.family.check(prompts)
        answers = [len(prompt.prefix) + sampling.max_new_tokens for prompt in prompts]
        check_all_fit(self.family, prompts, answers)
        responses: list[list[Response]] = []
        with named_shortage("sampling", to_sample(self.execution)):
            for window in self._windows(prompts):
                responses += self._sample_window(window, sampling, policy, progress)
        return responses

    def sample_each(
        self, asks: Sequence[Ask], policy: str, progress: Progress
    ) -> list[list[list[Response]]]:
        """What ``sample`` says of each of ``asks``, one after another."""
        return [self.sample(prompts, sampling, policy, progress) for prompts, sampling in asks]

    def stream(
        self,
        read: Callable[[], Iterable[Prompted]],
        sampling: Sampling,
        policy: str,
        progress: Progress,
    ) -> Iterator[list[list[Response]]]:
        """The responses to some prompts at a time, in order."""
        for chunk in batches(read(), PROMPTS_AT_ONCE):
            yield self.sample(chunk, sampling, policy, progress)

    def prepare(self, prompts: Iterable[Prompted], max_new_tokens: int) -> None:
        """Read nothing: the model is loaded, and each window of prompts is checked before it costs anything."""

    def close(self) -> None:
        """Let go of the model, and of the device's memory that it held."""
        vars(self).pop("decoder", None)
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def _windows(self, prompts: Sequence[Prompted]) -> list[list[Prompted]]:
        limit = WINDOW * self.execution.sampling_rows
        windows: list[list[Prompted]] = [[]]
        rows = 0
        for prompt in prompts:
            if rows + len(prompt.seeds) > limit and windows[-1]:
                windows.append([])
                rows = 0
            windows[-1].append(prompt)
            rows += len(prompt.seeds)
        return windows

    def _sample_window(
        self, prompts: Sequence[Prompted], sampling: Sampling, policy: str, progress: Progress
    ) -> list[list[Response]]:
        encoded = encode_distinct(self.family, prompts)
        lengths = [len(c.tokens) + len(p.prefix) for p, c in zip(prompts, encoded, strict=True)]
        order = sorted(range(len(prompts)), key=lambda index: lengths[index])
        places = [(index, sample) for index in order for sample in range(len(prompts[index].seeds))]
        missing = [len(prompt.seeds) for prompt in prompts]
        responses: list[list[Response]] = [[] for _ in prompts]
        for batch in batches(places, self.execution.sampling_rows):
            rows = [
                Row(prompt=encoded[i], prefix=prompts[i].prefix, seed=prompts[i].seeds[sample])
                for i, sample in batch
            ]

            def finished(ended: Sequence[int], batch: list[tuple[int, int]] = batch) -> None:
                for row in ended:
                    missing[batch[row][0]] -= 1
                complete = {batch[row][0] for row in ended if missing[batch[row][0]] == 0}
                if complete:
                    progress(len(complete))

            drawn = self.decoder.decode(rows, sampling, finished)
            for (index, sample), tokens in zip(batch, drawn, strict=True):
                response = respond(self.family, prompts[index], sample, tokens, sampling, policy)
                responses[index].append(response)
        return responses
