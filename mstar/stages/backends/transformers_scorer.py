"""Scores steps with a PRM: a prompt and its image are read once, then all its responses go on from there.

Memory is bounded by ``scoring_rows``: so many responses at once, and no more prompts than that, each as long as the
longest beside it.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from mstar.core.records import Response
from mstar.core.steps import step_ends_from_pieces
from mstar.errors import ModelError
from mstar.execution import Execution
from mstar.models.family import Encoded, load_family
from mstar.models.prm import load_reward_model
from mstar.stages.backends.encoding import check_all_fit, encode_distinct
from mstar.stages.backends.order import pack, together
from mstar.stages.backends.runtime import choose_device, choose_dtype, set_threads
from mstar.stages.backends.shared import can_read_together, on_device, share, shared_values
from mstar.stages.backends.shortage import named_shortage, to_load, to_score
from mstar.stages.protocols import Judged, Progress, Prompted

WINDOW = 8
"""Batches whose prompts are encoded and sorted by length together."""


class TransformersScorer:
    """Scores with the PRM in ``prm_dir``; a step ends at ``step_separator``, and its score is its last token's.

    A model whose keys and values cannot be kept (``shared.can_share``) reads each response with a prompt of its own.
    With ``retokenize`` it reads the responses' texts in tokens of its own, and finds the steps in those.
    """

    def __init__(
        self,
        prm_dir: Path,
        execution: Execution,
        step_separator: str = "\n",
        *,
        retokenize: bool = False,
    ) -> None:
        set_threads(execution)
        self.execution = execution
        self.separator = step_separator
        self.retokenize = retokenize
        self.family = load_family(
            prm_dir, max_pixels=execution.max_pixels, remote_code=execution.remote_code
        )
        self.device = choose_device(execution)
        dtype = choose_dtype(self.device)
        with named_shortage("loading the PRM", to_load(execution)):
            self.model = load_reward_model(self.family, dtype=dtype, device=self.device)
        self.shares = can_read_together(self.family, self.model.backbone)

    def score(
        self, prompts: Sequence[Prompted], responses: Sequence[Response], progress: Progress
    ) -> list[Judged]:
        """One ``Judged`` a response, in order; ``prompts[i]`` is the prompt of ``responses[i]``."""
        self.family.check(prompts)
        pairs = list(zip(prompts, map(self._read, responses), strict=True))
        check_all_fit(self.family, prompts, [len(response.tokens) for _, response in pairs])
        judged: list[Judged] = []
        with named_shortage("scoring", to_score(self.execution)):
            for window in self._windows(pairs):
                judged += self._score_window(window, progress)
        return judged

    def _read(self, response: Response) -> Response:
        if not self.retokenize:
            return response
        return replace(response, tokens=self.family.retokenize(response.text))

    def _windows(
        self, pairs: Sequence[tuple[Prompted, Response]]
    ) -> list[list[tuple[Prompted, Response]]]:
        """Pairs to be sorted together; responses of one query that come one after the other stay together."""
        runs = itertools.groupby(pairs, key=lambda pair: (pair[0].query_id, pair[0].text))
        return pack((list(run) for _, run in runs), WINDOW * self.execution.scoring_rows)

    def _score_window(
        self, pairs: Sequence[tuple[Prompted, Response]], progress: Progress
    ) -> list[Judged]:
        encoded = encode_distinct(self.family, [prompt for prompt, _ in pairs])
        for _, response in pairs:
            _check_from_start(response)
        lengths = [(len(c.tokens), len(r.tokens)) for c, (_, r) in zip(encoded, pairs, strict=True)]
        order = sorted(
            range(len(pairs)), key=lambda i: (lengths[i][0], pairs[i][0].query_id, lengths[i])
        )
        # Responses of one prompt stay together, so that it is read once.
        groups = [
            [order[at] for at in group] for group in together([id(encoded[i]) for i in order])
        ]
        judged: dict[int, Judged] = {}
        for batch in pack(groups, self.execution.scoring_rows):
            tokens = [pairs[index][1].tokens for index in batch]
            values = self._values([encoded[index] for index in batch], tokens)
            for index, row, answer in zip(batch, values, tokens, strict=True):
                ends = step_ends_from_pieces(self.family.pieces(answer), self.separator)
                judged[index] = Judged(step_ends=ends, scores=tuple(row[end - 1] for end in ends))
            progress(len(batch))
        return [judged[index] for index in range(len(pairs))]

    @torch.inference_mode()
    def _values(
        self, prompts: Sequence[Encoded], answers: Sequence[tuple[int, ...]]
    ) -> list[list[float]]:
        """The PRM's value of each answer token (with padding after a shorter answer's end)."""
        if not any(answers):
            return [[] for _ in answers]
        if self.shares:
            inputs = on_device(share(self.family, prompts, answers), self.device)
            together_read: list[list[float]] = shared_values(self.model, inputs).tolist()
            return together_read
        batch = on_device(self.family.collate(prompts, answers, pad="right"), self.device)
        alone: list[list[float]] = self.model(**batch, use_cache=False).tolist()
        return [row[len(prompt.tokens) :] for row, prompt in zip(alone, prompts, strict=True)]


def _check_from_start(response: Response) -> None:
    if response.prefix:
        raise ModelError(
            f"query {response.query_id}, sample {response.sample}: a completion of prefix {response.prefix} cannot be "
            "scored, because it holds no tokens of the steps before it. Score whole responses."
        )
