"""What importers talk about: a row as a reader gives it, why a row was left out, what is asked for, what came out."""

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

Tell = Callable[[int, int, str], None]
"""Told how many of how many of what are done."""

SPLITS = ("train", "unlabeled", "test", "validation")


class Reason(StrEnum):
    """Why a row is not in any split."""

    MALFORMED = "not readable as a row"
    NO_IMAGE = "names no image"
    SEVERAL_IMAGES = "has several images"
    MISSING_IMAGE = "its image is not there"
    BROKEN_IMAGE = "its image is broken"
    UNUSABLE_ANSWER = "its answer cannot be checked"
    CONFLICT = "its question has conflicting answers"
    REPEATED = "is there already"
    LEFT_OVER = "its image is in a split that is full"


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One question as a reader found it. ``image`` is the path of a file, or an encoded picture.

    ``name`` is what the image is called in the data set; ``source`` says where the question was taken from, if known.
    """

    id: str
    image: str | bytes
    name: str
    question: str
    answer: str
    options: tuple[str, ...] = ()
    source: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Skipped:
    """A row that is left out, by the name it has in its file."""

    id: str
    reason: Reason
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Shares:
    """How rows are divided: a share for training with answers, two counts to measure on, the rest without answers."""

    labeled: float = 0.5
    test: int = 750
    validation: int = 250


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """One import. ``identity`` says what is read and how: an unfinished import goes on only when it is the same.

    ``workers`` is the number of processes that decode; 1 decodes in this one.
    """

    identity: dict[str, Any]
    shares: Shares = Shares()
    seed: int = 0
    workers: int = 1


@dataclass(slots=True, kw_only=True)
class Tally:
    """What one split holds."""

    rows: int = 0
    images: int = 0
    types: dict[str, int] = field(default_factory=dict)
    sources: dict[str, int] = field(default_factory=dict)


@dataclass(slots=True, kw_only=True)
class Report:
    """What an import did. ``dropped`` counts rows by reason, ``broken`` and ``fixed`` count images."""

    read: int = 0
    splits: dict[str, Tally] = field(default_factory=dict)
    dropped: dict[str, int] = field(default_factory=dict)
    examples: dict[str, list[str]] = field(default_factory=dict)
    images: int = 0
    broken: int = 0
    fixed: dict[str, int] = field(default_factory=dict)
    resumed: int = 0
    """Images that an earlier, unfinished import had looked at already."""
