"""Samples with transformers alone: the default engine, and the fastest one for a small model on a laptop."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mstar.core.records import Response
from mstar.execution import Execution
from mstar.models.family import load_family
from mstar.stages.backends.attention import decode_grouped
from mstar.stages.backends.decoding import Decoder, Row
from mstar.stages.backends.encoding import check_all_fit, encode_distinct
from mstar.stages.backends.responses import respond
from mstar.stages.backends.runtime import choose_device, choose_dtype, set_threads
from mstar.stages.protocols import Progress, Prompted, batches
from mstar.tasks import Sampling

WINDOW = 8
"""Batches whose prompts are encoded and sorted by length together; holds memory down, and padding too."""


class TransformersSampler:
    """Draws responses from the policy in ``model_dir``."""

    def __init__(self, model_dir: Path, execution: Execution) -> None:
        set_threads(execution)
        self.execution = execution
        self.family = load_family(model_dir, max_pixels=execution.max_pixels)
        device = choose_device(execution)
        model = self.family.load(dtype=choose_dtype(device), device=device)
        decode_grouped(model)
        rows = model.get_input_embeddings().num_embeddings
        # An embedding matrix padded beyond the tokenizer has rows that mean nothing.
        unused = range(self.family.vocabulary, rows)
        self.decoder = Decoder(model, self.family, banned=(*self.family.banned, *unused))

    def sample(
        self, prompts: Sequence[Prompted], sampling: Sampling, policy: str, progress: Progress
    ) -> list[list[Response]]:
        """``len(seeds)`` responses a prompt, in the prompts' order, sample ``i`` drawn from ``seeds[i]`` alone."""
        self.family.check(prompts)
        answers = [len(prompt.prefix) + sampling.max_new_tokens for prompt in prompts]
        check_all_fit(self.family, prompts, answers)
        responses: list[list[Response]] = []
        for window in self._windows(prompts):
            responses += self._sample_window(window, sampling, policy, progress)
        return responses

    def close(self) -> None:
        """Nothing to stop: Python frees the model with the sampler."""

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
