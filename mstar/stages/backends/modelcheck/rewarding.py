"""A PRM: its head, and the scores of steps, which must not depend on what they are computed with."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from PIL import ImageOps

from mstar.core.records import Finish, Response
from mstar.execution import Execution
from mstar.stages.backends.modelcheck.finding import Fault
from mstar.stages.backends.modelcheck.patient import (
    RESPONSE,
    SHORTER,
    SHORTEST,
    ask_about_pictures,
    with_picture,
)
from mstar.stages.backends.objectives import Item, assemble
from mstar.stages.backends.transformers_scorer import TransformersScorer
from mstar.stages.protocols import Judged, Prompted

TEXTS = (RESPONSE, SHORTER, SHORTEST)

NEAR = {torch.float32: 1e-4, torch.bfloat16: 0.05}
"""By how much a step's score may depend on the batch it was computed in."""

MOVED = 1e-5
"""What another picture changes in some step's score, at least."""


@dataclass(slots=True, kw_only=True)
class RewardPatient:
    """A PRM's folder, and what the checks have found in it so far."""

    path: Path
    execution: Execution = field(default_factory=Execution)
    open_scorer: Callable[[Path, Execution], TransformersScorer] = TransformersScorer
    scorer: TransformersScorer = field(init=False)
    prompts: list[Prompted] = field(init=False)
    responses: list[Response] = field(init=False)

    @property
    def near(self) -> float:
        """Rounding, in the scorer's number format."""
        return NEAR[next(self.scorer.model.backbone.parameters()).dtype]

    def score(self, prompts: Sequence[Prompted], responses: Sequence[Response]) -> list[Judged]:
        """What the scorer says."""
        return self.scorer.score(prompts, responses, lambda _: None)


def head(patient: RewardPatient) -> str:
    """The folder is a PRM's, and its weights and head are read and finite."""
    if not patient.path.is_dir():
        raise Fault(f"there is no folder {patient.path}", "Give the folder of a PRM's weights.")
    patient.scorer = patient.open_scorer(patient.path, patient.execution)
    model = patient.scorer.model
    broken = [
        n for n, tensor in model.named_parameters() if not torch.isfinite(tensor.detach().sum())
    ]
    if broken:
        raise Fault(
            f"{len(broken)} tensors hold NaN or infinity, the first is {broken[0]}",
            "The PRM is damaged or its training diverged: train it again, with a lower learning rate.",
        )
    weight, bias = model.head.weight.detach(), model.head.bias.detach()
    return (
        f"{type(patient.scorer.family).__name__}; a head of {weight.numel()} weights (norm {float(weight.norm()):.3f}) "
        f"and bias {float(bias):.3f}; all weights are finite"
    )


def scores(patient: RewardPatient) -> str:
    """Steps have in a batch the scores that they have alone."""
    family = patient.scorer.family
    room = len(family.tokenize(RESPONSE))
    prompts, _, _ = ask_about_pictures(family, patient.execution.max_pixels, room)
    patient.prompts = list(prompts.values())
    patient.responses = [
        _response(prompt.query_id, text, family.tokenize(text))
        for prompt, text in zip(patient.prompts, TEXTS, strict=True)
    ]
    together = patient.score(patient.prompts, patient.responses)
    alone = [
        patient.score([prompt], [response])[0]
        for prompt, response in zip(patient.prompts, patient.responses, strict=True)
    ]
    flat = [score for judged in together for score in judged.scores]
    apart = _apart(together, alone)
    said = (
        f"{len(flat)} steps of {len(together)} responses score {min(flat):.3f} to {max(flat):.3f}; together and alone "
        f"they differ by {apart:.1e} at most"
    )
    if not apart <= patient.near:
        raise Fault(
            said,
            "A response's scores depend on its batch: look at positions and masks in the family's collate. NaN means "
            "unusable weights.",
        )
    return said


def trained_forward(patient: RewardPatient) -> str:
    """The scorer, which goes on from a cache, and the forward that the PRM is trained with give the same values."""
    family, model = patient.scorer.family, patient.scorer.model
    judged = patient.score(patient.prompts, patient.responses)
    codes = family.encode(patient.prompts)
    items = [
        Item(row=row, name=f"row {row}", prompt_length=len(code.tokens), answer=response.tokens)
        for row, (code, response) in enumerate(zip(codes, patient.responses, strict=True))
    ]
    inputs, answered, _ = assemble(family, codes, items)
    with torch.inference_mode():
        moved = {name: tensor.to(patient.scorer.device) for name, tensor in inputs.items()}
        values: Any = model(**moved, use_cache=False).float().cpu()
    apart = 0.0
    for row, (one, marked) in enumerate(zip(judged, answered, strict=True)):
        mine = values[row][marked][[end - 1 for end in one.step_ends]]
        gap = (mine - torch.tensor(one.scores)).abs().max()
        apart = max(apart, float(gap)) if gap.isfinite() else float("inf")
    said = f"scorer and trainer differ by {apart:.1e} at most over {sum(len(j.scores) for j in judged)} steps"
    if not apart <= patient.near:
        raise Fault(
            said,
            "The PRM is asked for other values than it learned: look at positions and masks in the family's encode and "
            "collate.",
        )
    return said


def picture_judged(patient: RewardPatient) -> str:
    """Another picture changes the scores of the same steps."""
    before = patient.score(patient.prompts, patient.responses)
    others = [with_picture(prompt, ImageOps.invert(prompt.image)) for prompt in patient.prompts]
    apart = _apart(before, patient.score(others, patient.responses))
    said = f"inverted pictures change scores by up to {apart:.1e}"
    if not apart > MOVED:
        raise Fault(
            said,
            "The PRM does not see the image: mend the tensors that the family's encode and collate give, or train it "
            "again.",
        )
    return said


def _response(query: str, text: str, tokens: tuple[int, ...]) -> Response:
    return Response(
        query_id=query,
        sample=0,
        text=text,
        tokens=tokens,
        finish=Finish.STOP,
        temperature=1.0,
        policy="",
        seed=0,
    )


def _apart(one: Sequence[Judged], other: Sequence[Judged]) -> float:
    """The largest difference of two scores of one step; infinite where a score is none."""
    pairs = [
        (a, b)
        for mine, theirs in zip(one, other, strict=True)
        for a, b in zip(mine.scores, theirs.scores, strict=True)
    ]
    gaps = torch.tensor([abs(a - b) for a, b in pairs])
    return float(gaps.max()) if gaps.isfinite().all() else float("inf")
