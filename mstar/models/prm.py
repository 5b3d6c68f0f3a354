"""The process reward model: the completer with a scalar head on its last hidden state (paper, section 3.3).

A PRM folder is the completer's model folder, which still opens in transformers alone, with ``prm_head.safetensors``
(``weight`` of shape (1, hidden) and ``bias``) and ``prm.json`` beside it.
"""

from __future__ import annotations

import json
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from mstar.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from transformers import PreTrainedModel

    from mstar.models.family import Family

HEAD_FILE = "prm_head.safetensors"
MARKER_FILE = "prm.json"
MARKER = {"format": "mstar-prm", "version": 1, "head": HEAD_FILE}

FIRST_VALUE = 0.5
"""The head's first bias. The paper gives only the weights' start; labels lie in [0, 1], and from their middle the first
steps teach the head to tell steps apart instead of where zero is."""


class RewardModel(torch.nn.Module):
    """A value for every token of a sequence."""

    def __init__(self, backbone: PreTrainedModel) -> None:
        super().__init__()
        self.backbone = backbone
        mean = mean_embedding(backbone)
        self.head = torch.nn.Linear(len(mean), 1).to(mean.device, torch.float32)
        with torch.no_grad():
            self.head.weight.copy_(mean)
            self.head.bias.fill_(FIRST_VALUE)

    def forward(self, **inputs: Any) -> torch.Tensor:
        """Values of shape (rows, tokens), from what the model's forward takes."""
        hidden = self.backbone.base_model(**inputs).last_hidden_state
        values: torch.Tensor = self.head(hidden.to(self.head.weight.dtype)).squeeze(-1)
        return values


def mean_embedding(backbone: PreTrainedModel) -> torch.Tensor:
    """The mean of the token embeddings, in float32."""
    weight: torch.Tensor = backbone.get_input_embeddings().weight
    gathered: AbstractContextManager[None] = nullcontext()
    if hasattr(weight, "ds_id"):
        # ZeRO stage 3 leaves each rank a part of every weight.
        import deepspeed

        gathered = deepspeed.zero.GatheredParameters([weight])
    with gathered, torch.no_grad():
        return weight.float().mean(dim=0)


def is_reward_model(path: Path) -> bool:
    """Whether a model folder is a PRM's."""
    return (path / MARKER_FILE).is_file()


def load_reward_model(
    family: Family, *, dtype: torch.dtype, device: torch.device, fresh_head: bool = False
) -> RewardModel:
    """The PRM in the family's folder; with ``fresh_head``, a new PRM from a completer."""
    path = family.path
    if not is_reward_model(path) and not fresh_head:
        raise ModelError(
            f"{path} is not a PRM: it has no {MARKER_FILE}. Train one with a train step of objective prm."
        )
    model = RewardModel(family.load(dtype=dtype, device=device))
    if is_reward_model(path):
        _load_head(model.head, path)
    return model.eval()


def save_head(state: Mapping[str, torch.Tensor], folder: Path) -> None:
    """Write the head (``weight``, ``bias``) beside the backbone, and last the marker that makes it a PRM."""
    save_file(
        {name: tensor.float().cpu().contiguous() for name, tensor in state.items()},
        folder / HEAD_FILE,
    )
    (folder / MARKER_FILE).write_text(json.dumps(MARKER, indent=1) + "\n")


def _load_head(head: torch.nn.Linear, path: Path) -> None:
    marker = (path / MARKER_FILE).read_bytes().decode("utf-8", errors="replace")
    try:
        known = json.loads(marker) == MARKER
    except ValueError:
        known = False
    if not known:
        raise ModelError(
            f"{path / MARKER_FILE} holds {marker.strip()[:200]}; this version of mstar reads {json.dumps(MARKER)}"
        )
    try:
        head.load_state_dict(load_file(path / HEAD_FILE))
    except (OSError, SafetensorError, RuntimeError) as error:
        raise ModelError(f"the PRM head in {path / HEAD_FILE} cannot be loaded: {error}") from error
