"""What a checkpoint's ``trainer`` folder says of itself, and why it may not be continued.

``state.json`` is written last: without it the folder is not a checkpoint.
"""

from __future__ import annotations

import json
from pathlib import Path

import pydantic
import torch
import transformers
from pydantic import Field

from mstar.errors import ModelError
from mstar.tasks import Optimization, Record

STATE_FILE = "state.json"
INHERITED = ("learning_rate", "warmup_steps", "betas", "weight_decay", "dtype", "freeze", "lora")
"""What one optimizer and one schedule are made of; a step that continues them must ask for the same."""


class TrainerState(Record):
    """Where training stands. ``position`` counts the batches done of an unfinished pass, 0 when it is finished.

    ``plan`` identifies the pass that ``position`` is in: its rows, seed, batch size and epochs.
    """

    version: int = 1
    objective: str
    global_step: int = Field(ge=0)
    examples: int = Field(ge=0)
    position: int = Field(0, ge=0)
    plan: str = ""
    world_size: int = Field(1, ge=1)
    zero_stage: int | None = None
    optimization: Optimization
    versions: dict[str, str] = Field(default_factory=dict)


def library_versions() -> dict[str, str]:
    """What wrote the checkpoint."""
    return {"torch": torch.__version__, "transformers": transformers.__version__}


def write_state(folder: Path, state: TrainerState) -> None:
    """Write state.json, after everything else of the folder."""
    (folder / STATE_FILE).write_text(state.model_dump_json(indent=1) + "\n")


def read_state(checkpoint: Path) -> TrainerState:
    """The state of a checkpoint (the folder that holds ``model`` and ``trainer``)."""
    path = checkpoint / "trainer" / STATE_FILE
    if not path.is_file():
        raise ModelError(
            f"{checkpoint} cannot be continued: trainer/{STATE_FILE} is missing. Give a folder that a train step "
            "saved, or start with a fresh optimizer."
        )
    try:
        return TrainerState.model_validate_json(path.read_bytes())
    except pydantic.ValidationError as error:
        raise ModelError(
            f"{path} is not a trainer state that this version reads: {error}"
        ) from error


def check_continues(
    checkpoint: Path, found: TrainerState, wanted: TrainerState, files: tuple[str, ...]
) -> None:
    """Refuse a checkpoint that would silently continue as something else than it was."""
    differing = {
        "objective": (found.objective, wanted.objective),
        "number of processes": (found.world_size, wanted.world_size),
        "ZeRO stage": (found.zero_stage, wanted.zero_stage),
    }
    old, new = found.optimization.model_dump(), wanted.optimization.model_dump()
    differing |= {name: (old.get(name), new.get(name)) for name in INHERITED}
    for name, (was, asked) in differing.items():
        if was != asked:
            raise ModelError(
                f"{checkpoint} cannot be continued: its {name} is {json.dumps(was)}, this step asks for "
                f"{json.dumps(asked)}. Use the same, or start with a fresh optimizer."
            )
    if found.position and found.plan != wanted.plan:
        raise ModelError(
            f"{checkpoint} was saved {found.position} batches into a pass over other rows, or with another seed, batch "
            "size or number of epochs. Give it the same rows, or a checkpoint saved at the end of a pass."
        )
    missing = [name for name in files if not (checkpoint / "trainer" / name).exists()]
    if missing:
        raise ModelError(
            f"{checkpoint} cannot be continued: {', '.join(missing)} is missing from its trainer folder. "
            "Copy the whole folder, or start with a fresh optimizer."
        )
