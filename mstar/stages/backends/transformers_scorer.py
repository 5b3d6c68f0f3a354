"""Scores steps with a PRM: a prompt and its image are read once, then all its responses go on from there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from transformers import DynamicCache

from mstar.core.records import Response
from mstar.core.steps import step_ends_from_pieces
from mstar.errors import ModelError
from mstar.execution import Execution
from mstar.models.family import Encoded, load_family
from mstar.models.prm import load_reward_model
from mstar.stages.backends.cache import repeat_rows
from mstar.stages.backends.encoding import check_all_fit, encode_distinct
from mstar.stages.backends.runtime import choose_device, choose_dtype, set_threads
from mstar.stages.protocols import Judged, Progress, Prompted, batches

WINDOW = 8
"""Batches whose prompts are encoded and sorted by length together."""


class TransformersScorer:
    """Scores with the PRM in ``prm_dir``; a step ends at ``step_separator``, and its score is its last token's.

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
        self.family = load_family(prm_dir, max_pixels=execution.max_pixels)
        self.device = choose_device(execution)
        dtype = choose_dtype(self.device)
        self.model = load_reward_model(self.family, dtype=dtype, device=self.device)

    def score(
        self, prompts: Sequence[Prompted], responses: Sequence[Response], progress: Progress
    ) -> list[Judged]:
        """One ``Judged`` a response, in order; ``prompts[i]`` is the prompt of ``responses[i]``."""
        self.family.check(prompts)
        pairs = list(zip(prompts, map(self._read, responses), strict=True))
        check_all_fit(self.family, prompts, [len(response.tokens) for _, response in pairs])
        judged: list[Judged] = []
        for window in batches(pairs, WINDOW * self.execution.scoring_rows):
            judged += self._score_window(window, progress)
        return judged

    def _read(self, response: Response) -> Response:
        if not self.retokenize:
            return response
        return replace(response, tokens=self.family.retokenize(response.text))

    def _score_window(
        self, pairs: Sequence[tuple[Prompted, Response]], progress: Progress
    ) -> list[Judged]:
        encoded = encode_distinct(self.family, [prompt for prompt, _ in pairs])
        for _, response in pairs:
            _check_from_start(response)
        lengths = [(len(c.tokens), len(r.tokens)) for c, (_, r) in zip(encoded, pairs, strict=True)]
        # Responses of one prompt stay together, so that it is read once.
        order = sorted(
            range(len(pairs)), key=lambda i: (lengths[i][0], pairs[i][0].query_id, lengths[i])
        )
        judged: dict[int, Judged] = {}
        for batch in batches(order, self.execution.scoring_rows):
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
        longest = max(len(answer) for answer in answers)
        if longest == 0:
            return [[] for _ in answers]
        distinct = list({id(prompt): prompt for prompt in prompts}.values())
        place = {id(prompt): index for index, prompt in enumerate(distinct)}
        cache = DynamicCache(config=self.model.backbone.config.get_text_config())
        batch = self.family.collate(distinct, [()] * len(distinct), pad="left")
        batch = {name: tensor.to(self.device) for name, tensor in batch.items()}
        self.model(**batch, past_key_values=cache, use_cache=True)
        rows = torch.tensor([place[id(prompt)] for prompt in prompts], device=self.device)
        repeat_rows(cache, rows)
        ids = torch.full((len(answers), longest), self.family.pad, dtype=torch.long)
        mask = torch.zeros((len(answers), longest), dtype=torch.long)
        for row, answer in enumerate(answers):
            ids[row, : len(answer)] = torch.tensor(answer, dtype=torch.long)
            mask[row, : len(answer)] = 1
        following = torch.tensor([prompt.next_position for prompt in prompts])
        positions = following[:, None] + torch.arange(longest)
        prompt_mask = batch["attention_mask"].index_select(0, rows)
        values: list[list[float]] = self.model(
            input_ids=ids.to(self.device),
            attention_mask=torch.cat([prompt_mask, mask.to(self.device)], dim=1),
            position_ids=positions.to(self.device),
            past_key_values=cache,
            use_cache=True,
        ).tolist()
        return values


def _check_from_start(response: Response) -> None:
    if response.prefix:
        raise ModelError(
            f"query {response.query_id}, sample {response.sample}: a completion of prefix {response.prefix} cannot be "
            "scored, because it holds no tokens of the steps before it. Score whole responses."
        )
