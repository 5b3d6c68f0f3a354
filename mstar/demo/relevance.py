"""Which steps of a response are relevant, by the generator of the questions itself.

A stored question is its text, its options and its picture. The text is written by a small grammar and reads back into
its operations; the picture consists of four tiles, each one of 1,797 digits under one of nine shifts, so it reads back
into its digits, whatever seed drew it. With both, every valid rationale of the question is known.
"""

from __future__ import annotations

import functools
import io
import re
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from mstar.core.steps import split_steps
from mstar.demo.digits import CELL_NAMES, SIDE, TILE, Picture, known_tiles
from mstar.demo.questions import Operation, Question
from mstar.demo.rationales import step_wordings

if TYPE_CHECKING:
    from collections.abc import Callable

    from mstar.data.splits import Sample

_CELL = "|".join(CELL_NAMES)
_QUESTION = re.compile(
    rf"(?:Take|Find) (?P<start>{_CELL})"
    rf"(?P<rest>(?:, (?:(?:add|plus|subtract|minus) (?:{_CELL})|double it|then doubled))+)\."
)
_OPERATION = re.compile(
    rf", (?:(?P<verb>add|plus|subtract|minus) (?P<cell>{_CELL})|double it|then doubled)"
)

RELEVANCE, COMPLETENESS, SOUND = "relevant_steps", "operations_shown", "sound"


def generator(sample: Sample) -> Callable[[str], dict[str, float]] | None:
    """What the generator knows of responses to a stored question; None when the question is not one of its own."""
    question = read_question(sample.query.question, sample.query.options, sample.image)
    if question is None or question.answer != sample.query.answer:
        return None
    return functools.partial(rate, step_wordings(question))


def rate(wordings: tuple[frozenset[str], ...], response: str) -> dict[str, float]:
    """How a response compares with the valid rationales, whose ``step_wordings`` are given; all in 0..1.

    ``relevant_steps``: the share of its steps that are one of a valid rationale's: right cell read, right operation,
    right value, the answer at the end included, none twice. ``operations_shown``: the share of the question's
    operations that a relevant step does. ``sound``: 1 when both are whole. An empty response gets 0 for all.
    """
    steps = split_steps(response)
    shown: set[int] = set()
    for step in steps:
        due = (i for i, known in enumerate(wordings) if i not in shown and step in known)
        shown |= set(islice(due, 1))
    operations = range(1, len(wordings) - 1)
    relevant = len(shown) / len(steps) if steps else 0.0
    complete = sum(i in shown for i in operations) / len(operations)
    return {
        RELEVANCE: relevant,
        COMPLETENESS: complete,
        SOUND: float(relevant == 1 and complete == 1),
    }


def read_question(text: str, options: tuple[str, ...], image: bytes) -> Question | None:
    """The question that was written as ``text`` about the picture in ``image``; None when it is none of ours."""
    match = _QUESTION.fullmatch(text)
    picture = read_picture(image) if match else None
    if match is None or picture is None:
        return None
    operations = tuple(
        Operation(operator="double", cell=None)
        if found["verb"] is None
        else Operation(
            operator="add" if found["verb"] in {"add", "plus"} else "subtract",
            cell=CELL_NAMES.index(found["cell"]),
        )
        for found in _OPERATION.finditer(match["rest"])
    )
    start = CELL_NAMES.index(match["start"])
    question = Question(
        picture=picture, start=start, operations=operations, text=text, options=options, answer=""
    )
    answer = str(question.values()[-1])
    return Question(
        picture=picture,
        start=start,
        operations=operations,
        text=text,
        options=options,
        answer=answer,
    )


def read_picture(image: bytes) -> Picture | None:
    """Which digits, shifted how, a stored picture shows; None when it is no such picture."""
    try:
        with Image.open(io.BytesIO(image)) as opened:
            pixels = np.asarray(opened.convert("L"))
    except (OSError, ValueError, Image.DecompressionBombError):
        return None
    if pixels.shape != (SIDE, SIDE):
        return None
    tiles = pixels.reshape(2, TILE, 2, TILE).transpose(0, 2, 1, 3).reshape(4, TILE, TILE)
    places = [_known().get(tile.tobytes()) for tile in tiles]
    found = [place for place in places if place is not None]
    if len(found) < len(CELL_NAMES):
        return None
    return Picture(sources=tuple(s for s, _ in found), shifts=tuple(s for _, s in found))


@functools.cache
def _known() -> dict[bytes, tuple[int, int]]:
    """Source digit and shift by a tile's pixels."""
    return {
        tile.tobytes(): (source, shift)
        for source, shifted in enumerate(known_tiles())
        for shift, tile in enumerate(shifted)
    }
