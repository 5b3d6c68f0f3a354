"""What a checkpoint's ``trainer`` folder says of itself, whether it may be continued, and whether only converted.

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
from mstar.optimization import Optimization
from mstar.record import Record

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


def layout(state: TrainerState) -> str:
    """How many processes train, and under what, in words."""
    if state.zero_stage is None:
        return "by one process without DeepSpeed"
    plural = "es" if state.world_size > 1 else ""
    return f"by {state.world_size} process{plural} under ZeRO stage {state.zero_stage}"


def same_layout(found: TrainerState, wanted: TrainerState) -> bool:
    """Whether a checkpoint's files are read as they are, not converted."""
    return (found.world_size, found.zero_stage) == (wanted.world_size, wanted.zero_stage)


def check_convertible(checkpoint: Path, found: TrainerState, wanted: TrainerState) -> None:
    """Refuse a checkpoint of another layout that cannot be converted to the one wanted (``ModelError``)."""
    if same_layout(found, wanted):
        return
    lora = found.optimization.lora
    if 0 not in (found.zero_stage, wanted.zero_stage) and lora is None:
        return
    why = "adapters (lora) are not converted" if lora else "ZeRO stage 0 is not converted"
    raise ModelError(
        f"{checkpoint} cannot be continued: it was trained {layout(found)}, and this step would train "
        f"{layout(wanted)}; {why}. {_setting(found)}, or start with a fresh optimizer."
    )


def check_continues(
    checkpoint: Path, found: TrainerState, wanted: TrainerState, files: tuple[str, ...]
) -> None:
    """Refuse a checkpoint that would silently continue as something else than it was.

    One of another number of processes or another ZeRO stage goes on where it can be converted; ``files`` are what a
    checkpoint of the wanted layout has.
    """
    differing: dict[str, tuple[object, object]] = {"objective": (found.objective, wanted.objective)}
    old, new = found.optimization.model_dump(), wanted.optimization.model_dump()
    differing |= {name: (old.get(name), new.get(name)) for name in INHERITED}
    for name, (was, asked) in differing.items():
        if was != asked:
            raise ModelError(
                f"{checkpoint} cannot be continued: its {name} is {json.dumps(was)}, this step asks for "
                f"{json.dumps(asked)}. Use the same, or start with a fresh optimizer."
            )
    check_convertible(checkpoint, found, wanted)
    if found.position and found.plan != wanted.plan:
        raise ModelError(
            f"{checkpoint} was saved {found.position} batches into a pass over other rows, or with another seed, batch "
            "size or number of epochs. Give it the same rows, or a checkpoint saved at the end of a pass."
        )
    if not same_layout(found, wanted):
        files = ("scheduler.bin", "optimizer.bin" if found.zero_stage is None else "pytorch_model")
    missing = [name for name in files if not (checkpoint / "trainer" / name).exists()]
    if missing:
        raise ModelError(
            f"{checkpoint} cannot be continued: {', '.join(missing)} is missing from its trainer folder. "
            "Copy the whole folder, or start with a fresh optimizer."
        )


def _setting(state: TrainerState) -> str:
    """What to set to train as the checkpoint was trained."""
    if state.zero_stage is None:
        return "Leave execution.deepspeed out"
    return (
        f"Set execution.deepspeed.zero_stage to {state.zero_stage} and its processes to {state.world_size} in all "
        "(on each machine, times machines)"
    )
