"""Columns of a table become a row: which column holds what, and the ways in which tables write images and options."""

import ast
import base64
import binascii
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from mstar.core.answers import LETTERS
from mstar.data.importing.records import Reason, Row, Skipped
from mstar.data.importing.wording import IMAGE_MARK, read_answer, read_question
from mstar.errors import DataError, SpecError
from mstar.mistakes import nearest

PATH_LENGTH = 512
"""A text of at most so many characters names a file; a longer one is a picture in base64."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Columns:
    """The column that holds each part of a row; ``options`` is one that holds a list, or several with a text each.

    ``answer_from``: an answer is the number of an option, counted from this. ``choices_inside``: the question's text
    holds the list of choices, as ``wording.read_question`` reads it.
    """

    id: str | None = None
    image: str = "image"
    question: str = "question"
    answer: str = "answer"
    options: tuple[str, ...] = ()
    source: str | None = None
    answer_from: int | None = None
    choices_inside: bool = False

    def needed(self) -> tuple[str, ...]:
        """Every column that is read."""
        single = (self.id, self.image, self.question, self.answer, self.source)
        return tuple(dict.fromkeys(name for name in (*single, *self.options) if name))


PARTS = tuple(
    field.name for field in fields(Columns) if field.name not in {"answer_from", "choices_inside"}
)


class NotARow(Exception):
    """A row that cannot be used, and why."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail


def parse_columns(
    pairs: Sequence[str],
    found: Collection[str],
    *,
    answer_from: int | None = None,
    choices_inside: bool = False,
) -> Columns:
    """Columns of ``question=problem`` or ``options=A,B,C,D``; what is not named is looked for by its own name.

    ``found`` are the table's columns: ``id``, ``options`` and ``source`` are taken from there when they are there.
    Raises ``SpecError`` for a part that there is not, ``DataError`` for a column that the table lacks.
    """
    chosen: dict[str, Any] = {}
    for pair in pairs:
        part, equals, column = pair.partition("=")
        if not equals or not column:
            raise SpecError(f"--map {pair!r} should be PART=COLUMN, such as question=problem")
        if part not in PARTS:
            raise SpecError(f"--map {pair}: no part {part!r}{nearest(part, PARTS, 'parts are')}")
        chosen[part] = tuple(column.split(",")) if part == "options" else column
    for part in ("id", "options", "source"):
        if part not in chosen and part in found:
            chosen[part] = (part,) if part == "options" else part
    columns = Columns(**chosen, answer_from=answer_from, choices_inside=choices_inside)
    if missing := [name for name in columns.needed() if name not in found]:
        raise DataError(
            f"no column {', '.join(missing)}; there are {', '.join(found) or 'none'}. "
            "Say which holds what: --map question=COLUMN --map answer=COLUMN --map image=COLUMN"
        )
    return columns


def make_row(
    record: Mapping[str, Any], number: int, columns: Columns, root: Path, names: Mapping[str, Any]
) -> Row | Skipped:
    """The ``number``-th row, in ``record``; images' paths begin at ``root``, ``names`` spell out class labels."""
    label = record.get(columns.id) if columns.id else None
    query = str(label) if label not in (None, "") else f"row-{number}"
    try:
        image, name = read_image(record.get(columns.image), root)
        question = _text(record.get(columns.question), columns.question)
        options = _options(record, columns)
        if columns.choices_inside and not options:
            question, options = read_question(question)
        answer = _answer(record.get(columns.answer), columns, options, names.get(columns.answer))
    except NotARow as why:
        return Skipped(id=query, reason=why.reason, detail=why.detail)
    source = record.get(columns.source) if columns.source else None
    return Row(
        id=query,
        image=image,
        name=name or query,
        question=question.replace(IMAGE_MARK, "").strip(),
        options=options,
        answer=answer,
        source="" if source is None else _label(source, names.get(columns.source or "")),
    )


def read_image(value: Any, root: Path) -> tuple[str | bytes, str]:
    """A picture, encoded or as a path, and its name: of ``{bytes, path}``, bytes, base64, a path, or a list of one."""
    if isinstance(value, list | tuple):
        if len(value) > 1:
            raise NotARow(Reason.SEVERAL_IMAGES, f"{len(value)} images")
        value = value[0] if value else None
    name = ""
    if isinstance(value, dict):
        name = str(value.get("path") or "")
        value = value.get("bytes") or value.get("path")
    if value is None or value in ("", b""):
        raise NotARow(Reason.NO_IMAGE, "no image is named")
    if isinstance(value, bytes | bytearray):
        return bytes(value), name
    if not isinstance(value, str):
        raise NotARow(Reason.NO_IMAGE, f"the image is {type(value).__name__}, no picture or path")
    if value.startswith("data:") or len(value) > PATH_LENGTH:
        try:
            return base64.b64decode(value.rpartition(",")[2], validate=True), name
        except binascii.Error:
            raise NotARow(Reason.BROKEN_IMAGE, f"no base64: {value[:20]!r}...") from None
    return str(root / value), name or value


def _options(record: Mapping[str, Any], columns: Columns) -> tuple[str, ...]:
    if len(columns.options) != 1:
        values = [record.get(column) for column in columns.options]
        while values and values[-1] in (None, ""):
            values.pop()
    else:
        value = record.get(columns.options[0])
        if isinstance(value, str) and value.strip():
            value = _parsed(value)
        if isinstance(value, dict):
            value = value.get("text")
        values = list(value) if isinstance(value, list | tuple) else []
    if any(value is None for value in values):
        raise NotARow(Reason.MALFORMED, "an option between others is empty")
    return tuple(str(value) for value in values)


def _parsed(text: str) -> Any:
    """A list that is written out, as JSON or as Python writes it."""
    try:
        return json.loads(text)
    except ValueError:
        try:
            return ast.literal_eval(text)
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            raise NotARow(Reason.MALFORMED, f"options are no list: {text[:40]!r}") from None


def _answer(value: Any, columns: Columns, options: Sequence[str], names: Any) -> str:
    if columns.answer_from is None:
        return read_answer(_text(_label(value, names), columns.answer))
    try:
        index = int(value) - columns.answer_from
    except (TypeError, ValueError):
        raise NotARow(Reason.MALFORMED, f"answer {value!r} is no number of an option") from None
    if not 0 <= index < min(len(options), len(LETTERS)):
        detail = f"answer {value} is the number of no option; there are {len(options)}"
        raise NotARow(Reason.UNUSABLE_ANSWER, detail)
    return LETTERS[index]


def _label(value: Any, names: Any) -> str:
    if isinstance(value, int) and names and 0 <= value < len(names):
        return str(names[value])
    return "" if value is None else str(value)


def _text(value: Any, column: str) -> str:
    text = "" if value is None else str(value)
    if not text.strip():
        raise NotARow(Reason.MALFORMED, f"{column} is empty")
    if (marks := text.count(IMAGE_MARK)) > 1:
        raise NotARow(Reason.SEVERAL_IMAGES, f"{marks} marks {IMAGE_MARK}")
    return text
