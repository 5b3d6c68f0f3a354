"""Models and data as they lie on the disk: only what is cheap to read, without torch."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mstar.config import RunSpec
from mstar.data.images import opened
from mstar.data.splits import Split, find_split
from mstar.errors import DataError, ModelError, SpecError
from mstar.estimate.models import (
    ModelFacts,
    from_config,
    from_parameters,
    known_model,
    with_weights,
)
from mstar.estimate.ranges import Range
from mstar.storage.tensors import read_header, read_object

LOOKED_AT = 64
"""Queries whose texts and images are looked at."""

DIFFERENT = 0.02
"""A share by which a number of parameters may be rounded."""

PROCESSORS = ("processor_config.json", "preprocessor_config.json")


@dataclass(frozen=True, slots=True, kw_only=True)
class DataFacts:
    """A data set. ``questions`` are the lengths of the first questions with their options, ``images`` their sizes.

    ``bytes`` is None where the files are not there, and then nothing was looked at.
    """

    queries: Mapping[str, int]
    source: str
    bytes: float | None = None
    questions: tuple[int, ...] = ()
    images: tuple[tuple[int, int], ...] = ()


def read_model(path: str, key: str, parameters: float | None = None) -> ModelFacts:
    """Facts of the model at ``path``, which the spec's ``key`` names.

    From its config and the headers of its weights, else from its config alone, else from the table of known models,
    else from the number of ``parameters`` that a person gave. ``ModelError`` when there is none of these,
    ``SpecError`` when a person's number contradicts the weights.
    """
    folder = Path(path)
    name = folder.name
    option = "--parameters" if key == "model" else "--teacher-parameters"
    if not (folder / "config.json").is_file():
        if parameters:
            known = known_model(path)
            if known and _differ(known.parameters, parameters):
                raise SpecError(
                    f"{option} says {parameters:,.0f}, but {name} has {known.parameters:,.0f} parameters"
                )
            return known or from_parameters(name, parameters)
        if known := known_model(path):
            return known
        raise ModelError(
            f"{key}: nothing is known of {path}: there is no config.json, and no model of that name is known. Put the "
            f"model there, or say how large it is: {option} 8.5e9"
        )
    config = read_object(folder / "config.json")
    shapes, size = _weights(folder)
    if not shapes and parameters:
        facts = _shape(name, config, parameters)
        return replace(facts, parameters=parameters, source=f"config.json, and {option}")
    facts = from_config(name, config)
    if not shapes:
        return facts
    facts = with_weights(facts, shapes, size)
    if parameters and _differ(facts.parameters, parameters):
        raise SpecError(
            f"{option} says {parameters:,.0f}, but the weights in {path} have {facts.parameters:,.0f}; leave it out"
        )
    return facts


def _shape(name: str, config: Mapping[str, Any], parameters: float) -> ModelFacts:
    try:
        return from_config(name, config)
    except ModelError:
        return from_parameters(name, parameters)


def _differ(found: float, said: float) -> bool:
    return abs(found - said) > DIFFERENT * found


def _weights(folder: Path) -> tuple[dict[str, tuple[int, ...]], float]:
    """Every tensor's shape by name, and the bytes of the whole folder."""
    shapes: dict[str, tuple[int, ...]] = {}
    for file in sorted(folder.glob("*.safetensors")):
        shapes |= read_header(file).shapes
    size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    return shapes, float(size)


def read_data(spec: RunSpec, given: Mapping[str, int]) -> DataFacts:
    """How many queries each split has, from the files' footers, and how long and large the first ones are.

    ``given`` are counts that a person says; they stand in for files that are not there. ``DataError`` when neither
    knows a split, ``SpecError`` for a count that contradicts the files or a split that the spec does not name.
    """
    data, unlabeled = spec.data, spec.evolve.unlabeled
    names = [data.train, data.validation, *([data.test] if data.test else [])]
    names += [unlabeled.split] if unlabeled else []
    names = list(dict.fromkeys(names))
    if unknown := sorted(set(given) - set(names)):
        raise SpecError(f"--queries {unknown[0]}: the spec names the splits {', '.join(names)}")
    folder = Path(data.path)
    if not folder.is_dir():
        if missing := [name for name in names if name not in given]:
            wanted = " ".join(f"--queries {name}=N" for name in missing)
            raise DataError(
                f"no data folder at {folder}; import the data first, or say how many queries it will have: {wanted}"
            )
        return DataFacts(queries=dict(given), source="--queries")
    splits = {name: find_split(folder, name) for name in names}
    counts = {name: split.rows() for name, split in splits.items()}
    for name, count in given.items():
        if counts[name] != count:
            raise SpecError(
                f"--queries {name}={count}, but {folder} has {counts[name]} queries there; leave it out"
            )
    size = sum(file.stat().st_size for split in splits.values() for file in split.files)
    questions, images = _look(splits[data.train])
    return DataFacts(
        queries=counts,
        source=f"the footers of the files in {folder}",
        bytes=float(size),
        questions=questions,
        images=images,
    )


def _look(split: Split) -> tuple[tuple[int, ...], tuple[tuple[int, int], ...]]:
    questions, images = [], []
    for sample in split.read(range(min(LOOKED_AT, split.rows()))):
        query = sample.query
        questions.append(len(query.question) + sum(len(option) + 5 for option in query.options))
        try:
            with opened(sample.image, query.id) as picture:
                images.append(picture.size)
        except DataError:
            continue  # the run's own check names it
    return tuple(questions), tuple(images)


def image_tokens(path: str, sizes: Sequence[tuple[int, int]], max_pixels: int) -> Range | None:
    """Mean tokens of images of such sizes, where the model cuts them into patches that it merges (as the Qwens do)."""
    folder = Path(path)
    file = next((folder / name for name in PROCESSORS if (folder / name).is_file()), None)
    if file is None or not sizes:
        return None
    config = read_object(file)
    inner = config.get("image_processor", config)
    try:
        side = int(inner["patch_size"]) * int(inner["merge_size"])
        bounds = inner.get("size") or {}
        least = int(inner.get("min_pixels") or bounds["shortest_edge"])
        most = int(inner.get("max_pixels") or bounds["longest_edge"])
    except (KeyError, TypeError, ValueError, AttributeError):
        return None
    counts = []
    for width, height in sizes:
        pixels = max(least, min(width * height, most, max_pixels))
        scale = math.sqrt(pixels / (width * height))
        counts.append(max(1, round(width * scale / side)) * max(1, round(height * scale / side)))
    mean = sum(counts) / len(counts)
    return Range.of(mean)
