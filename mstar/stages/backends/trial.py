"""What a calibration needs of torch: the device's own facts, a model of made-up weights, a PRM that nobody trained."""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForImageTextToText

from mstar.errors import ModelError
from mstar.execution import Execution
from mstar.models.family import REMOTE_CODE, Family, load_family, model_type
from mstar.models.prm import save_head
from mstar.models.weights import load_config
from mstar.stages.backends.encoding import encode_distinct
from mstar.stages.backends.runtime import choose_device, set_threads
from mstar.stages.protocols import Prompted


@dataclass(frozen=True, slots=True, kw_only=True)
class Described:
    """The device and the model, and how long prompts are in its tokens."""

    facts: dict[str, Any]
    family: Family
    image: int | None

    def lengths(self, prompts: Sequence[Prompted]) -> tuple[float, float]:
        """Mean tokens of a prompt, and of its image (all of them where the model does not name its image token)."""
        encoded = encode_distinct(self.family, prompts)
        whole = sum(len(code.tokens) for code in encoded)
        seen = sum(code.tokens.count(self.image) for code in encoded) if self.image else whole
        return whole / len(encoded), seen / len(encoded)


def ready_model(model: Path, scratch: Path, execution: Execution) -> tuple[Path, bool]:
    """The model's folder; one of random weights in its shape where it has a config and a processor alone.

    ``ModelError`` for a model that runs code of its own folder: its size is asked of transformers alone.
    """
    if model_type(model) in REMOTE_CODE:
        raise ModelError(
            f"{model} runs code from its own folder, and such a model is not measured; plan without --calibrate, and "
            "name the GPU with --gpu"
        )
    set_threads(execution)
    if any(model.glob("*.safetensors")):
        return model, False
    config = load_config(model)
    made = scratch / "random"
    shutil.copytree(model, made)
    torch.manual_seed(0)
    drawn = AutoModelForImageTextToText.from_config(config)
    drawn.save_pretrained(made)
    return made, True


def describe(model: Path, execution: Execution) -> Described:
    """The device that ``execution`` chooses, and the model's size."""
    config = load_config(model)
    with torch.device("meta"):
        shape = AutoModelForImageTextToText.from_config(config)
    image = getattr(config, "image_token_id", None)
    return Described(
        facts={
            "device": _device(choose_device(execution)),
            "parameters": float(sum(p.numel() for p in shape.parameters())),
        },
        family=load_family(model, max_pixels=execution.max_pixels),
        image=image if isinstance(image, int) else None,
    )


def prm_folder(model: Path, scratch: Path) -> Path:
    """A PRM that says the same of every step: the model, and a head of zeros."""
    made = scratch / "prm"
    made.mkdir()
    for file in model.iterdir():
        (made / file.name).symlink_to(file.resolve())
    hidden = load_config(model).get_text_config().hidden_size
    save_head({"weight": torch.zeros(1, hidden), "bias": torch.zeros(1)}, made)
    return made


def _device(device: torch.device) -> dict[str, Any]:
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        return {
            "kind": "cuda",
            "name": properties.name,
            "memory": float(properties.total_memory),
            "count": torch.cuda.device_count(),
        }
    try:
        memory = float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    except (OSError, ValueError) as error:
        raise ModelError(f"this machine does not say how much memory it has: {error}") from None
    name = f"{platform.machine() or 'unknown'} CPU, {torch.get_num_threads()} threads"
    return {"kind": device.type, "name": name, "memory": memory, "count": 1}
