"""Do engine and trainer compute the same? The tokens an engine drew, and what each of the two says of them.

An engine reads prompts padded on the left and goes on from a cache, a token at a time; the trainer reads whole rows
padded on the right. A fault in positions, masks or images shows as a gap that rounding does not explain.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from transformers import PreTrainedModel

from mstar.models.family import Family
from mstar.stages.backends.attention import decode_grouped
from mstar.stages.backends.decoding import Decoder, Row, never_drawn
from mstar.stages.backends.modelcheck.finding import Fault, NotTried, free_memory
from mstar.stages.backends.modelcheck.patient import (
    DRAWN_TOKENS,
    ROUNDING,
    Drawn,
    Dtype,
    Gap,
    Patient,
    chosen,
    require,
)
from mstar.stages.backends.recomputing import RecomputingDecoder
from mstar.tasks import Sampling

SEEDS = (11, 12)
GREEDY = Sampling(n=1, temperature=0.0, max_new_tokens=DRAWN_TOKENS)
SAMPLED = Sampling(n=len(SEEDS), temperature=1.0, max_new_tokens=DRAWN_TOKENS)

DRIFT = (0.1, 2.0)
"""How far bfloat16 may take a token's log-probability from float32, on average and at most."""

ADVICE = (
    "The sampler (left padding, a cache, a token at a time) and the trainer (whole rows, padded on the right) read "
    "prompts differently: look at positions, masks and next_position in the family's encode and collate."
)


class Recorder(Decoder):
    """A decoder that keeps what the model said of each token drawn; with ``script`` it draws that and nothing else."""

    def __init__(
        self,
        model: Any,
        family: Family,
        *,
        rows: int,
        script: Sequence[Sequence[int]] | None = None,
    ) -> None:
        super().__init__(model, family, banned=never_drawn(model, family))
        self.kept: list[list[float]] = [[] for _ in range(rows)]
        self.script = script

    def _draw(self, state: Any, numbers: torch.Tensor, sampling: Sampling) -> torch.Tensor:
        places = state.index.tolist()
        token = super()._draw(state, numbers, sampling)
        if self.script is not None:
            token = self._integers([self._next(place) for place in places])
        values = state.logits.float().log_softmax(dim=-1).gather(-1, token[:, None])[:, 0]
        for place, value in zip(places, values.tolist(), strict=True):
            self.kept[place].append(value)
        return token

    def _next(self, place: int) -> int:
        assert self.script is not None
        done, tokens = len(self.kept[place]), self.script[place]
        return tokens[done] if done < len(tokens) else self.family.eos[0]


class RecomputingRecorder(Recorder, RecomputingDecoder):
    """The same for a model that the sampler reads anew at each token."""


def recorder(
    patient: Patient, rows: int, script: Sequence[Sequence[int]] | None = None
) -> Recorder:
    """What decodes as the sampler does with this model."""
    kind = Recorder if patient.family.shares_prefix else RecomputingRecorder
    return kind(patient.model, patient.family, rows=rows, script=script)


def sampler(patient: Patient) -> str:
    """The trainer's forward gives the tokens that the transformers sampler drew the sampler's log-probabilities."""
    patient.drawn = draw(patient)
    return compare(patient, patient.drawn, ADVICE)


def draw(patient: Patient) -> Drawn:
    """Greedy responses to all pictures, and sampled ones to all but the last, each kind in one batch."""
    codes = list(patient.encoded.values())
    greedy = [Row(prompt=code, prefix=(), seed=0) for code in codes]
    sampled = [Row(prompt=code, prefix=(), seed=seed) for code in codes[:-1] for seed in SEEDS]
    tokens: list[tuple[int, ...]] = []
    logprobs: list[tuple[float, ...]] = []
    with _decoding(patient.model):
        for rows, sampling in ((greedy, GREEDY), (sampled, SAMPLED)):
            decoder = recorder(patient, len(rows))
            for row, kept in zip(decoder.decode(rows, sampling, _quiet), decoder.kept, strict=True):
                tokens.append(row)
                logprobs.append(tuple(kept[: len(row)]))
    return Drawn(
        codes=tuple(row.prompt for row in (*greedy, *sampled)),
        tokens=tuple(tokens),
        logprobs=tuple(logprobs),
        greedy=(True,) * len(greedy) + (False,) * len(sampled),
    )


def compare(
    patient: Patient, drawn: Drawn, advice: str, drawn_in: torch.dtype = torch.float32
) -> str:
    """What trainer and engine say of the tokens that the engine drew; ``Fault`` beyond rounding.

    ``drawn_in`` is what the engine computed in.
    """
    coarse = drawn_in != torch.float32
    dtype: Dtype = "bfloat16" if coarse else patient.dtype
    held = {*patient.family.banned} & {token for row in drawn.tokens for token in row}
    if held:
        raise Fault(
            f"banned tokens were drawn: {sorted(held)}", "Mend what bans tokens in the engine."
        )
    predicted = patient.predictions(drawn.codes, drawn.tokens)
    theirs = [torch.tensor(row) for row in drawn.logprobs]
    gap = Gap.between(chosen(predicted, drawn.tokens), theirs)
    equal, ties, count = _greedy(patient, drawn, predicted, tie=2 * ROUNDING[dtype][1])
    greedy = f"greedy tokens {equal} of {count}" + (f" ({ties} of them near ties)" if ties else "")
    said = require(gap, dtype, f"trainer and engine: {greedy}; log-probabilities", advice)
    if equal < count:
        raise Fault(said, advice)
    return said


def rounding(patient: Patient) -> str:
    """Weights rounded to the sampler's number format keep what the trainer says of the same tokens."""
    if patient.sampling_dtype == torch.float32:
        raise NotTried(f"on {patient.device.type} sampling computes in float32, too")
    exact = chosen(
        patient.predictions(patient.drawn.codes, patient.drawn.tokens), patient.drawn.tokens
    )
    # In place, a tensor at a time: there is no second copy of the model. Nothing after this needs float32.
    patient.model.to(patient.sampling_dtype)
    free_memory()
    rows = [Row(prompt=code, prefix=(), seed=0) for code in patient.drawn.codes]
    decoder = recorder(patient, len(rows), script=patient.drawn.tokens)
    with _decoding(patient.model):
        decoder.decode(rows, GREEDY, _quiet)
    pairs = zip(decoder.kept, patient.drawn.tokens, strict=True)
    rounded = [torch.tensor(kept[: len(row)]) for kept, row in pairs]
    gap = Gap.between(rounded, exact)
    name = str(patient.sampling_dtype).removeprefix("torch.")
    said = f"log-probabilities of the sampler in {name} and the trainer in {patient.dtype}: {gap}"
    if not (gap.mean <= DRIFT[0] and gap.largest <= DRIFT[1]):
        raise Fault(
            said,
            f"The weights do not survive {name}: responses would come from another policy than the one trained. Look "
            "for numbers that are too large for it.",
        )
    return said


def _greedy(
    patient: Patient, drawn: Drawn, predicted: Sequence[torch.Tensor], *, tie: float
) -> tuple[int, int, int]:
    """Greedy tokens that are the trainer's too, those among them that nearly tie with its first, and all."""
    never = torch.tensor(never_drawn(patient.model, patient.family), device=patient.device)
    equal = ties = count = 0
    for values, row, greedy in zip(predicted, drawn.tokens, drawn.greedy, strict=True):
        if not greedy:
            continue
        allowed = values.index_fill(1, never, -torch.inf)
        best = allowed.max(dim=-1).values
        behind = best - allowed.gather(-1, torch.tensor(row, device=values.device)[:, None])[:, 0]
        equal += int((behind <= tie).sum())
        ties += int(((behind > 0) & (behind <= tie)).sum())
        count += len(row)
    return equal, ties, count


@contextmanager
def _decoding(model: Any) -> Iterator[None]:
    """The model attends as in the sampler, and afterwards as before."""
    # Models that are not transformers' own keep the attention that their code has.
    decoder = model.get_decoder() if isinstance(model, PreTrainedModel) else None
    before = _attention(decoder)
    decode_grouped(model)
    try:
        yield
    finally:
        if decoder is not None and _attention(decoder) != before:
            decoder.set_attn_implementation(before)


def _attention(decoder: Any) -> str | None:
    return None if decoder is None else decoder.config._attn_implementation  # noqa: SLF001 (no public way to ask)


def _quiet(rows: Sequence[int]) -> None:
    """Nobody waits for single rows."""
    del rows
