"""All checks of a policy and of a PRM, in order, each told as soon as it is made."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from mstar.execution import Execution
from mstar.models.family import MAX_PIXELS, Family, load_family
from mstar.stages.backends.meter import peak_host_bytes
from mstar.stages.backends.modelcheck import (
    agreeing,
    learning,
    reading,
    rewarding,
    saving,
    vllm_draws,
)
from mstar.stages.backends.modelcheck.finding import Check, Finding, free_memory, make
from mstar.stages.backends.modelcheck.patient import Dtype, Patient
from mstar.stages.backends.modelcheck.rewarding import RewardPatient
from mstar.stages.backends.runtime import choose_device

FOLDER, END, TEXT, PICTURES = "folder", "end of response", "response text", "pictures"
BANNED, LARGEST = "banned tokens", "largest picture"
VLLM, WEIGHTS, SEEN, LOSS = "vllm", "weights", "picture seen", "loss mask"
BATCH, LEFT, GROUPS, GRADIENTS = "batch = single", "left padding", "freezing", "gradients"
SAMPLER, VLLM_AGREES = "sampler = trainer", "vllm = trainer"
ROUNDED, SAVED, MEMORY = "rounding", "save and load", "memory"
HEAD, SCORES, FORWARD, JUDGED = "prm", "prm scores", "prm trainer", "prm picture"

SEES = (PICTURES, WEIGHTS)

POLICY: tuple[Check[Patient], ...] = (
    Check(what=FOLDER, look=reading.folder),
    Check(what=END, look=reading.end_of_response, needs=(FOLDER,)),
    Check(what=TEXT, look=reading.response_text, needs=(FOLDER,)),
    Check(what=PICTURES, look=reading.pictures, needs=(FOLDER,)),
    Check(what=BANNED, look=reading.banned_tokens, needs=(PICTURES,)),
    Check(what=LARGEST, look=reading.largest_picture, needs=(PICTURES,)),
    # Before the weights are loaded: it wants the memory for itself.
    Check(what=VLLM, look=vllm_draws.draws, needs=(PICTURES,)),
    Check(what=WEIGHTS, look=learning.weights, needs=(FOLDER,)),
    Check(what=SEEN, look=learning.picture_seen, needs=SEES),
    Check(what=LOSS, look=learning.loss_mask, needs=SEES),
    Check(what=BATCH, look=learning.batch_and_single, needs=SEES),
    Check(what=LEFT, look=learning.left_padding, needs=SEES),
    Check(what=GROUPS, look=learning.freezing, needs=(WEIGHTS,)),
    Check(what=GRADIENTS, look=learning.gradients, needs=SEES),
    Check(what=SAMPLER, look=agreeing.sampler, needs=SEES),
    Check(what=VLLM_AGREES, look=vllm_draws.agreement, needs=(VLLM, WEIGHTS)),
    Check(what=ROUNDED, look=agreeing.rounding, needs=(SAMPLER,)),
    # It frees the model and reads it again, so it comes last.
    Check(what=SAVED, look=saving.save_and_load, needs=SEES),
)

REWARD: tuple[Check[RewardPatient], ...] = (
    Check(what=HEAD, look=rewarding.head),
    Check(what=SCORES, look=rewarding.scores, needs=(HEAD,)),
    Check(what=FORWARD, look=rewarding.trained_forward, needs=(SCORES,)),
    Check(what=JUDGED, look=rewarding.picture_judged, needs=(SCORES,)),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What to examine, and how a run would use it: ``dtype`` is the trainer's, ``max_pixels`` the execution's."""

    model: Path | None = None
    prm: Path | None = None
    engine: Literal["transformers", "vllm"] = "transformers"
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    dtype: Dtype = "float32"
    max_pixels: int = MAX_PIXELS
    remote_code: bool = False


def examine(wanted: Wanted, open_family: Callable[..., Family] = load_family) -> Iterator[Finding]:
    """One finding a check, as each is made; the last says how much memory was used.

    Raises ``ModelError`` when the device is not there, and else nothing that a model could cause.
    """
    execution = Execution(
        engine=wanted.engine,
        device=wanted.device,
        max_pixels=wanted.max_pixels,
        remote_code=wanted.remote_code,
    )
    device = choose_device(execution)
    if wanted.model is not None:
        patient = Patient(
            path=wanted.model, execution=execution, dtype=wanted.dtype, open_family=open_family
        )
        yield from examine_with(POLICY, patient)
        del patient
        free_memory()
    if wanted.prm is not None:
        yield from examine_with(REWARD, RewardPatient(path=wanted.prm, execution=execution))
    yield Finding(what=MEMORY, ok=True, found=_memory(device))


def examine_with(checks: Sequence[Check[Any]], subject: Any) -> Iterator[Finding]:
    """The findings of some checks about one patient, in order."""
    well: set[str] = set()
    for check in checks:
        finding = make(check, subject, well)
        if finding.ok:
            well.add(check.what)
        yield finding


def _memory(device: torch.device) -> str:
    said = f"at most {peak_host_bytes() / 2**30:.1f} GiB of this process's memory"
    if device.type == "cuda":
        said += f", and {torch.cuda.max_memory_allocated() / 2**30:.1f} GiB of the GPU's"
    return said
