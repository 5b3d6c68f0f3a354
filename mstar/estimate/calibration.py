"""What was measured on a user's machine: the record, its file, and when it may not be used."""

import json
import re
from pathlib import Path
from typing import Final, Literal

from pydantic import Field, ValidationError

from mstar.config import RunSpec
from mstar.errors import SpecError, StorageError
from mstar.estimate.hardware import GPUS, Gpu
from mstar.estimate.models import ModelFacts
from mstar.mistakes import mistakes
from mstar.record import Record

FORMAT: Final = "mstar-calibration"


class Device(Record):
    """What was measured on. ``memory`` in bytes: the GPU's, or the machine's where there is none."""

    kind: Literal["cpu", "cuda", "mps"]
    name: str
    memory: float = Field(gt=0)
    count: int = Field(1, ge=1)


class Generating(Record):
    """Seconds to read a prompt with its image, and to draw a token in full batches; over what that was measured."""

    prompt_seconds: float = Field(ge=0)
    token_seconds: float = Field(gt=0)
    rows: int = Field(ge=1)
    responses: int = Field(ge=1)
    response_tokens: float = Field(gt=0)


class Scoring(Record):
    """Seconds to read a prompt, and to score a response's token behind it."""

    prompt_seconds: float = Field(ge=0)
    token_seconds: float = Field(gt=0)
    responses: int = Field(ge=1)


class Training(Record):
    """Seconds that one rank needs for a token, prompt and response alike."""

    token_seconds: float = Field(gt=0)
    examples: int = Field(ge=1)
    ranks: int = Field(1, ge=1)


class Calibration(Record):
    """A measurement. ``random``: the weights were made up, so that the responses' lengths say nothing.

    A part is None where it could not be measured, and ``left_out`` says why.
    """

    format: Literal["mstar-calibration"] = FORMAT
    version: Literal[1] = 1
    device: Device
    model: str
    parameters: float = Field(gt=0)
    engine: str
    dtype: str
    random: bool = False
    start_seconds: float = Field(ge=0)
    load_seconds: float = Field(ge=0)
    prompt_tokens: float = Field(gt=0)
    image_tokens: float = Field(ge=0)
    generate: Generating | None = None
    score: Scoring | None = None
    train: Training | None = None
    left_out: dict[str, str] = Field(default_factory=dict)


def parse_calibration(raw: object, source: str) -> Calibration:
    """A calibration from parsed JSON or YAML; ``SpecError`` says what is wrong with it."""
    try:
        return Calibration.model_validate(raw)
    except ValidationError as error:
        lines = "\n".join(mistakes(error, Calibration, "file"))
        raise SpecError(
            f"{source} is no calibration:\n{lines}\nMeasure it again: --calibrate --save {source}"
        ) from None


def save_calibration(found: Calibration, path: Path) -> None:
    """Write a calibration where ``--assume`` reads it. ``StorageError`` when it cannot be written."""
    text = json.dumps(found.model_dump(mode="json"), indent=1) + "\n"
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise StorageError(f"the calibration cannot be written to {path}: {error}") from None


def check_fits(found: Calibration, spec: RunSpec, model: ModelFacts, source: str) -> None:
    """``SpecError`` when a measurement is of another model or engine than the spec's."""
    differing = []
    if abs(found.parameters - model.parameters) > 0.02 * model.parameters:
        differing.append(
            f"a model of {found.parameters:,.0f} parameters ({found.model}); this one has {model.parameters:,.0f}"
        )
    if found.engine != spec.execution.engine:
        differing.append(f"the engine {found.engine}; the spec asks for {spec.execution.engine}")
    dtype = spec.evolve.optimization.dtype
    if found.train and found.dtype != dtype:
        differing.append(f"training in {found.dtype}; the spec trains in {dtype}")
    if differing:
        raise SpecError(
            f"{source} does not belong to this spec: it was measured with {', and with '.join(differing)}. "
            "Measure this spec with --calibrate, or leave the file out"
        )


def device_of(found: Calibration, gpu: Gpu | None, source: str) -> Gpu:
    """The device that was measured, as a GPU. Its own figures are for what was not measured.

    ``SpecError`` when a person names another GPU beside it.
    """
    like = gpu or _known(found.device)
    if gpu and not _is_called(found.device, gpu):
        raise SpecError(
            f"{source} was measured on {found.device.name}, which contradicts --gpu {gpu.name}: leave one of them out"
        )
    return Gpu(
        name=found.device.name,
        memory=found.device.memory,
        arithmetic=like.arithmetic if like else 0.0,
        bandwidth=like.bandwidth if like else 0.0,
        source=source,
    )


def _known(device: Device) -> Gpu | None:
    """The known GPU of the device's name whose memory is nearest; of two such the one that says more (h100-pcie)."""
    alike = [gpu for gpu in GPUS.values() if _is_called(device, gpu)]
    return min(
        alike,
        key=lambda gpu: (abs(gpu.memory - device.memory), -len(_words(gpu.name))),
        default=None,
    )


def _is_called(device: Device, gpu: Gpu) -> bool:
    """Whether the device's name has every word of the GPU's but its gigabytes: an L40S is no L4.

    What a person describes may be written in one word: rtx3090.
    """
    if set(_words(gpu.name)) - {"40", "80"} <= set(_words(device.name)):
        return True
    return gpu.name not in GPUS and "".join(_words(gpu.name)) in "".join(_words(device.name))


def _words(name: str) -> list[str]:
    return re.findall(r"[a-z0-9]+", name.lower())
