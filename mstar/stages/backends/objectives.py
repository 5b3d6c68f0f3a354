"""What training minimises, as modules over a batch: a *sum* over target tokens.

Sums, so that a batch's loss is divided once by the number of its targets on all ranks together. However a batch is cut
into micro-batches and ranks, its gradient is the one that it would have in one piece.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from transformers import PreTrainedModel

from mstar.core.records import Example, Finish
from mstar.errors import DataError
from mstar.models.family import Encoded, Family
from mstar.models.prm import RewardModel
from mstar.stages.backends.shared import PROMPTS, Inputs, share, shared_values


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """One training row ready to be batched: which one, what follows its prompt, and a target for each such token.

    ``name`` is for people: the query and the sample.
    """

    row: int
    name: str
    prompt_length: int
    answer: tuple[int, ...]
    targets: tuple[float, ...] = ()

    @property
    def length(self) -> int:
        """Tokens, prompt and answer together."""
        return self.prompt_length + len(self.answer)


class PolicyLoss(torch.nn.Module):
    """Cross-entropy of each answer token given what comes before it, summed."""

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        self.model = model

    def forward(
        self, inputs: dict[str, torch.Tensor], answered: torch.Tensor, targets: torch.Tensor
    ) -> torch.Tensor:
        """The sum over the batch; ``answered`` marks answer tokens, ``targets`` is unused."""
        del targets
        columns = answer_columns(answered)
        logits = self.model(**inputs, use_cache=False, logits_to_keep=columns + 1).logits
        # A model that knows no ``logits_to_keep`` returns them all.
        predicted = logits[:, -columns - 1 : -1]
        marked = answered[:, -columns:]
        return torch.nn.functional.cross_entropy(
            predicted[marked].float(), inputs["input_ids"][:, -columns:][marked], reduction="sum"
        )


class StepValueLoss(torch.nn.Module):
    """Squared error between the PRM's value of each answer token and its target, summed."""

    def __init__(self, model: RewardModel) -> None:
        super().__init__()
        self.model = model

    def forward(
        self, inputs: Inputs, answered: torch.Tensor, targets: torch.Tensor
    ) -> torch.Tensor:
        """The sum over the batch; ``targets`` has a value at each answer token."""
        shared = PROMPTS in inputs
        values = (
            shared_values(self.model, inputs) if shared else self.model(**inputs, use_cache=False)
        )
        error = values[answered].float() - targets[answered]
        return error.square().sum()


def policy_item(family: Family, example: Example, row: int, prompt_length: int) -> Item:
    """The response is the target, and its end too when the model itself ended it."""
    ending = (family.eos[0],) if example.finish is Finish.STOP else ()
    answer = (*example.tokens, *ending)
    return Item(row=row, name=_name(example), prompt_length=prompt_length, answer=answer)


def value_item(family: Family, example: Example, row: int, prompt_length: int) -> Item:
    """Every token of a step has the step's label as its target."""
    del family
    ends = example.step_ends
    if len(ends) != len(example.labels) or not ends or ends[-1] != len(example.tokens):
        raise DataError(
            f"query {example.query_id}, sample {example.sample}: {len(ends)} step ends, "
            f"{len(example.labels)} labels and {len(example.tokens)} tokens do not fit together; each step needs one "
            "label, and the last step must end with the response."
        )
    starts = (0, *ends[:-1])
    steps = zip(starts, ends, example.labels, strict=True)
    targets = tuple(label for start, end, label in steps for _ in range(start, end))
    return Item(
        row=row,
        name=_name(example),
        prompt_length=prompt_length,
        answer=example.tokens,
        targets=targets,
    )


def assemble(
    family: Family, prompts: Sequence[Encoded], items: Sequence[Item], *, shared: bool = False
) -> tuple[Inputs, torch.Tensor, torch.Tensor]:
    """Inputs, the mask of answer tokens, and their targets, padded on the right.

    ``shared``: rows whose ``prompts`` are one object have it read once, and columns begin where the answers do.
    """
    answers = [item.answer for item in items]
    if shared:
        inputs = share(family, prompts, answers)
        shape, starts = inputs["attention_mask"].shape, [0] * len(items)
    else:
        inputs = family.collate(prompts, answers, pad="right")
        # Attention is causal, so nothing looks at padding that comes after it; without a mask it is faster.
        shape = inputs.pop("attention_mask").shape
        starts = [item.prompt_length for item in items]
    answered = torch.zeros(shape, dtype=torch.bool)
    targets = torch.zeros(shape)
    for row, (item, start) in enumerate(zip(items, starts, strict=True)):
        end = start + len(item.answer)
        answered[row, start:end] = True
        if item.targets:
            targets[row, start:end] = torch.tensor(item.targets)
    return inputs, answered, targets


def _name(example: Example) -> str:
    return f"{example.query_id}/{example.sample}"


def answer_columns(answered: torch.Tensor) -> int:
    """How many columns, from the last, hold the answers of all rows."""
    return answered.shape[1] - int(answered.any(dim=0).int().argmax())
