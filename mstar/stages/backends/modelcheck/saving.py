"""Save and load: what a training step leaves is the model that it trained, and opens again."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

import torch

from mstar.models.family import Encoded
from mstar.stages.backends.modelcheck.finding import Fault, NotTried, free_memory
from mstar.stages.backends.modelcheck.patient import RESPONSE, Patient, in_words

SPARE = 256 << 20
"""Bytes that a disk must have left beyond the weights."""


def save_and_load(patient: Patient) -> str:
    """The model is written, freed, and read again: equal in every tensor, in what it predicts and how it reads.

    Only one copy is in memory at a time. ``NotTried`` when the scratch disk lacks room.
    """
    size = sum(tensor.nbytes for tensor in patient.model.parameters())
    free = shutil.disk_usage(patient.scratch).free
    if free < size + SPARE:
        raise NotTried(
            f"the weights take {in_words(size)} and {patient.scratch} has {in_words(free)} free (set TMPDIR)"
        )
    with tempfile.TemporaryDirectory(prefix="mstar-doctor-", dir=patient.scratch) as name:
        return _round_trip(patient, Path(name))


def _round_trip(patient: Patient, folder: Path) -> str:
    code, answer = patient.encoded["tall"], patient.family.tokenize(RESPONSE)
    before, marks = patient.predictions([code], [answer])[0].cpu(), _marks(patient.model)
    dtype = next(patient.model.parameters()).dtype
    # As the trainer does: with the weights named one by one.
    patient.model.save_pretrained(folder, state_dict=patient.model.state_dict())
    patient.family.save_processor(folder)
    size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    patient.model = None
    free_memory()
    again = patient.open(folder)
    patient.model = again.load(dtype=dtype, device=patient.device)
    found = _marks(patient.model)
    changed = sorted(
        name for name in marks.keys() | found.keys() if marks.get(name) != found.get(name)
    )
    if changed:
        raise Fault(
            f"{len(changed)} of {len(marks)} tensors are others after saving and loading, the first is {changed[0]}",
            "save_pretrained and load do not fit together for this model: a trained checkpoint would not be what was "
            "trained.",
        )
    (read,) = again.encode([patient.prompts["tall"]])
    if not _same(read, code):
        raise Fault(
            "the saved processor encodes a prompt differently",
            "The family's save_processor must write all that encode needs: tokenizer, image processor, chat template.",
        )
    after = patient.predictions([code], [answer])[0].cpu()
    apart = float((after - before).abs().max())
    if not apart <= 1e-5:
        raise Fault(
            f"the loaded model's log-probabilities are up to {apart:.1e} from those of the saved one",
            "Something that predictions depend on is not saved: a buffer, or a setting of the configuration.",
        )
    return (
        f"{in_words(size)} written and read; {len(marks)} tensors, the prompt's tensors and the predictions are "
        f"equal (log-probabilities within {apart:.1e})"
    )


def _marks(model: Any) -> dict[str, tuple[int, ...]]:
    """For each tensor its shape and the sum of its bits: equal tensors have equal ones."""
    return {
        name: (*tensor.shape, int(_bits(tensor.detach()).sum(dtype=torch.int64)))
        for name, tensor in model.named_parameters()
    }


def _bits(tensor: torch.Tensor) -> torch.Tensor:
    sizes = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
    return tensor.contiguous().view(sizes[tensor.element_size()])


def _same(one: Encoded, other: Encoded) -> bool:
    return (
        one.tokens == other.tokens
        and one.images.keys() == other.images.keys()
        and all(torch.equal(one.images[name], other.images[name]) for name in one.images)
    )
