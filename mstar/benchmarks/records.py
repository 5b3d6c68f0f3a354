"""What a benchmark is, what it asks, and what came out."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

from mstar.core.answers import LETTERS


class Reader(StrEnum):
    """What reads a response's answer: the official rule, the judge, or the fallback where there is no judge."""

    RULE = "rule"
    JUDGE = "judge"
    FALLBACK = "fallback"


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """One question. ``id`` is unique in its file; rotations of one question share ``group``.

    ``prompt`` is the user's turn as the official tool builds it; ``question`` is all of it but options and
    instructions. ``answer`` is what the rule compares with: a letter, or for MathVista the published text. ``facets``
    say where it counts: a name of a sub-score's section, and the values there.
    """

    id: str
    prompt: str
    question: str
    answer: str
    options: tuple[str, ...] = ()
    group: str = ""
    kind: str = ""
    precision: int | None = None
    facets: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def letters(self) -> str:
        """The letters of its options."""
        return LETTERS[: len(self.options)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A question with its encoded image."""

    item: Item
    image: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """``answer`` is what was read of a response, None when nothing was, and ``by`` says what read it."""

    answer: str | None
    correct: bool
    by: Reader = Reader.RULE


@dataclass(frozen=True, slots=True, kw_only=True)
class Count:
    """So many of so many were right."""

    correct: int
    total: int

    @property
    def accuracy(self) -> float:
        return self.correct / self.total if self.total else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Scores:
    """What a model reached. ``sections`` hold sub-scores by section and value, in the official order.

    ``averages`` are other totals that are in use. ``responses`` counts what was judged (each rotation alone),
    ``unread`` those of them in which no answer was found, ``by_judge`` and ``by_fallback`` those that the rule could
    not read but the judge, or the fallback, did.
    """

    benchmark: str
    title: str
    overall: Count
    sections: Mapping[str, Mapping[str, Count]]
    averages: Mapping[str, float]
    responses: int
    unread: int
    by_judge: int
    by_fallback: int

    def as_json(self) -> dict[str, Any]:
        """The same for programs, with accuracies as fractions."""
        return {
            "benchmark": self.benchmark,
            "title": self.title,
            **_counted(self.overall),
            "averages": dict(self.averages),
            "responses": self.responses,
            "unread": self.unread,
            "by_judge": self.by_judge,
            "by_fallback": self.by_fallback,
            "sections": {
                section: {value: _counted(count) for value, count in values.items()}
                for section, values in self.sections.items()
            },
        }


def _counted(count: Count) -> dict[str, Any]:
    return {"accuracy": count.accuracy, "correct": count.correct, "total": count.total}


@dataclass(frozen=True, slots=True, kw_only=True)
class Benchmark:
    """One benchmark. ``files`` are the names it is published under, as patterns below a folder.

    ``questions`` is how many it has as published, 0 where its file decides.

    ``extract`` reads a response's answer by the official rule, or gives None; ``correct`` judges what was read; ``ask``
    writes what a judge is asked where nothing was read, and its reply is read by ``hear``. ``fallback`` reads what is
    left without a judge, where the official tool has no rule but a language model. A part of another benchmark names
    it in ``base`` and shares its answers; ``keep`` says which questions it has. In a circular one a question is right
    when all of its rotations are. ``average_over`` names a section whose mean is another total in use.
    """

    name: str
    title: str
    base: str
    files: tuple[str, ...]
    questions: int
    sections: tuple[str, ...]
    read: Callable[[Path], Iterator[Asked]]
    extract: Callable[[Item, str], str | None]
    correct: Callable[[Item, str], bool]
    ask: Callable[[Item, str], str]
    hear: Callable[[Item, str], str | None]
    show: Callable[[Scores], str]
    fallback: Callable[[Item, str], str | None] = lambda _, __: None
    keep: Callable[[Item], bool] = lambda _: True
    average_over: str | None = None
    circular: bool = False
