"""Responses to one prompt, read together: the prompt and its image once, then every response from there on.

Keys and values of the prompt are kept and repeated for its responses, so a response costs its own tokens alone.
Gradients flow back through what was kept: they are those of reading each response with a prompt of its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from transformers import PreTrainedModel

from mstar.models.family import Encoded, Family
from mstar.models.prm import RewardModel
from mstar.stages.backends.cache import new_cache

PROMPTS, OWNER = "prompts", "owner"
"""Names of the two inputs that only a shared batch has: the prompts' own inputs, and which of them each row goes on."""

Inputs = dict[str, Any]
"""Tensors by name; under ``PROMPTS`` a dictionary of them, not a record: DeepSpeed casts what it finds in those."""


def can_share(backbone: torch.nn.Module) -> bool:
    """Whether a model's keys and values can be kept from one forward to the next, also while it is trained.

    Only transformers' own architectures are trusted with it, and of these not the ones with layers that fold what
    they have read into one state. Gradient checkpointing forgets what a forward has computed, so it cannot keep it.
    """
    if not isinstance(backbone, PreTrainedModel):
        return False
    own = type(backbone).__module__.partition(".")[0] == "transformers"
    if not own or backbone.is_gradient_checkpointing:
        return False
    layers = getattr(new_cache(backbone), "layers", None)  # none before transformers 5
    if not layers:
        return False
    from transformers.cache_utils import DynamicLayer

    return all(isinstance(layer, DynamicLayer) for layer in layers)


def can_read_together(family: Family, backbone: torch.nn.Module) -> bool:
    """Whether they can be kept where nothing is trained: also by a model of its own code that brings a cache."""
    return family.shares_prefix and (hasattr(backbone, "new_cache") or can_share(backbone))


def share(family: Family, prompts: Sequence[Encoded], answers: Sequence[Sequence[int]]) -> Inputs:
    """The inputs of a shared batch: row ``i`` is ``answers[i]`` after ``prompts[i]``; equal prompts are one object.

    Answers begin at column 0 and are padded on the right to the longest, of which there must be one token or more.
    """
    distinct = list({id(prompt): prompt for prompt in prompts}.values())
    place = {id(prompt): index for index, prompt in enumerate(distinct)}
    shape = (len(answers), max(map(len, answers)))
    ids = torch.full(shape, family.pad, dtype=torch.long)
    mask = torch.zeros(shape, dtype=torch.long)
    for row, answer in enumerate(answers):
        ids[row, : len(answer)] = torch.tensor(answer, dtype=torch.long)
        mask[row, : len(answer)] = 1
    following = torch.tensor([prompt.next_position for prompt in prompts])
    return {
        PROMPTS: family.collate(distinct, [()] * len(distinct), pad="left"),
        OWNER: torch.tensor([place[id(prompt)] for prompt in prompts]),
        "input_ids": ids,
        "attention_mask": mask,
        "position_ids": following[:, None] + torch.arange(shape[1]),
    }


def shared_values(model: RewardModel, inputs: Inputs) -> torch.Tensor:
    """The value of each answer token, (rows, longest answer), with padding after a shorter answer's end."""
    cache = new_cache(model.backbone)
    model(**inputs[PROMPTS], past_key_values=cache, use_cache=True)
    owner = inputs[OWNER]
    cache.batch_select_indices(owner)
    read = inputs[PROMPTS]["attention_mask"].index_select(0, owner)
    values: torch.Tensor = model(
        input_ids=inputs["input_ids"],
        attention_mask=torch.cat([read, inputs["attention_mask"]], dim=1),
        position_ids=inputs["position_ids"],
        past_key_values=cache,
        use_cache=True,
    )
    return values


def on_device(inputs: Mapping[str, Any], device: torch.device) -> Inputs:
    """The same inputs on a device."""
    return {
        name: on_device(value, device) if isinstance(value, Mapping) else value.to(device)
        for name, value in inputs.items()
    }
