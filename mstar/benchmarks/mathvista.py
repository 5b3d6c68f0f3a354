"""MathVista testmini: 1,000 questions, half of them free-form numbers.

The official order for a response: it is a choice; it is an integer; it is a number; ``The answer is "..."`` (their
quick extraction); else a language model extracts. Before that model comes here the marked final answer, of which the
choice's letter, the only number or the list is taken, and for choices VLMEvalKit's rule on the whole response. Without
a judge the fallback takes what a response names last: a lettered choice, else a choice's text, or a number. What is
read is normalised and compared as officially. Where nothing is read the answer counts as wrong (their
``ignore_empty_extractions``), never as the shortest choice.
"""

import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from mstar.benchmarks.finals import LONGEST, final_answer, named_option
from mstar.benchmarks.official import mathvista_text
from mstar.benchmarks.options import NONE, infer
from mstar.benchmarks.records import Asked, Benchmark, Item
from mstar.benchmarks.tables import Row, picture, picture_file, read_json, read_parquet
from mstar.core.answers import LETTERS, extract_answer
from mstar.errors import DataError

COLUMNS = (
    "pid", "question", "choices", "unit", "precision", "answer", "question_type", "answer_type", "metadata",
)  # fmt: skip
SECTIONS = (
    "question_type", "answer_type", "language", "source", "category", "task", "context", "grade", "skills",
)  # fmt: skip
METADATA = SECTIONS[2:]
TYPES = ("text", "integer", "float", "list")

_QUICK = re.compile(r'The answer is "(.*)"\.')
_LETTER = re.compile(r"\(([a-zA-Z])\)")
_NUMBER = re.compile(r"-?(?:\d+(?:,\d{3})*(?:\.\d*)?|\.\d+)")
_LIST = re.compile(r"\[[^\[\]]*\]")


def read(file: Path) -> Iterator[Asked]:
    """Questions of ``testmini-*.parquet`` (images inside) or ``testmini.json`` (beside its ``images`` folder)."""
    if file.suffix == ".parquet":
        for row in read_parquet(file, (*COLUMNS, "decoded_image"), ("query",)):
            owner = f"{file}, pid {row['pid']}"
            yield Asked(item=_item(row, owner), image=picture(row, "decoded_image", owner))
    else:
        for row in read_json(file, (*COLUMNS, "image")):
            owner = f"{file}, pid {row['pid']}"
            yield Asked(item=_item(row, owner), image=picture_file(file, row["image"], owner))


def build_prompt(row: Row) -> str:
    """The published query: a hint at the answer's form, the question with its unit, and the choices."""
    lines = [f"Hint: Please answer the question {_form(row)} at the end."]
    lines.append(f"Question: {_question(row)}")
    if row["choices"]:
        lines.append("Choices:")
        lines += [f"({x}) {text}" for x, text in zip(LETTERS, row["choices"], strict=False)]
    return "\n".join(lines).strip()


def extract(item: Item, response: str) -> str | None:
    """What a response answers, before it is normalised."""
    if not response:
        return None
    if item.options and response in item.options:
        return response
    if item.kind == "integer":
        with suppress(ValueError):
            return str(int(response))
    if item.kind == "float":
        with suppress(ValueError):
            return str(float(response))
    if quick := _QUICK.search(response):
        return quick[1]
    return _without_model(item, response)


def fallback(item: Item, response: str) -> str | None:
    """What a response without a marked answer names last."""
    if item.options:
        lettered = [x.upper() for x in _LETTER.findall(response) if x.upper() in item.letters]
        if lettered:
            return str(lettered[-1])
        lower = response.lower()
        places = [
            (lower.rfind(text.lower()), x)
            for text, x in zip(item.options, item.letters, strict=True)
        ]
        place, letter = max(places)
        return letter if place >= 0 else None
    if item.kind == "list":
        return _last(_LIST.findall(response))
    return _last([number.replace(",", "") for number in _NUMBER.findall(response)])


def correct(item: Item, extraction: str) -> bool:
    """Whether the normalised extraction is the published answer, character by character."""
    return normalise(item, extraction) == item.answer


def normalise(item: Item, extraction: str) -> str | None:
    """The extraction in the published answer's form: a choice's text, an integer, a rounded number, or as it is."""
    if item.options:
        text = extraction.strip()
        if found := _LETTER.findall(text):
            text = found[0].upper()
        if text and text in item.letters:
            return item.options[item.letters.index(text)]
        return nearest(text, item.options)
    try:
        if item.kind == "integer":
            return str(int(float(extraction)))
        if item.kind == "float":
            return str(round(float(extraction), item.precision or 0))
    except (ValueError, OverflowError):
        return None
    return extraction


def nearest(text: str, choices: Sequence[str]) -> str:
    """The first of the choices with the smallest edit distance to the text."""
    return min(choices, key=lambda choice: edit_distance(text, choice))


def edit_distance(one: str, other: str) -> int:
    """Levenshtein's: insertions, deletions and replacements that turn one text into the other."""
    row = list(range(len(other) + 1))
    for i, a in enumerate(one, 1):
        before, row[0] = row[0], i
        for j, b in enumerate(other, 1):
            before, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, before + (a != b))
    return row[-1]


def ask(item: Item, response: str) -> str:
    """What a judge is asked where no rule finds an answer."""
    return (
        "Below are a question and somebody's response to it. Reply with the response's final answer alone, in the form "
        "that the hint asks for (of a multiple-choice question the option's letter). Do not solve the question. Reply "
        f"with None if the response gives no answer.\n\n{item.prompt}\n\nResponse:\n{response}\n\nFinal answer:"
    )


def hear(_: Item, reply: str) -> str | None:
    """The answer that a judge replied, or None."""
    text = reply.strip()
    return None if not text or len(text) > LONGEST or text.rstrip(".").lower() == "none" else text


def _without_model(item: Item, response: str) -> str | None:
    final = final_answer(response)
    if item.options:
        if final is not None:
            # In a box stands nothing but the answer, so what is no option goes to the nearest, as officially.
            whole = final if extract_answer(response) is not None else None
            letter = named_option(final, item.options) or infer(final, item)
            if letter or whole:
                return letter or whole
        letter = infer(response, item)
        return None if letter == NONE else letter
    if item.kind == "list":
        return _last(_LIST.findall(final)) if final is not None else None
    numbers = _NUMBER.findall(final) if final is not None else []
    return numbers[0].replace(",", "") if len(numbers) == 1 else None


def _last(found: Sequence[str]) -> str | None:
    return found[-1] if found else None


def _item(row: Row, owner: str) -> Item:
    choices = tuple(map(str, row["choices"] or ()))
    kind, precision = row["answer_type"], row["precision"]
    if (row["question_type"] == "multi_choice") != bool(choices) or kind not in TYPES:
        raise DataError(
            f"{owner}: question_type {row['question_type']!r} and answer_type {kind!r} with {len(choices)} choices; "
            f"expected multi_choice with choices, or free_form with one of {', '.join(TYPES[1:])}"
        )
    answer = str(row["answer"])
    if wrong := _unusable(answer, kind, choices):
        raise DataError(
            f"{owner}: answer {answer!r} is {wrong}; is it a test file whose answers are kept secret?"
        )
    metadata = row["metadata"] or {}
    lacking = [name for name in METADATA if name not in metadata]
    if lacking:
        raise DataError(f"{owner}: metadata lacks {', '.join(lacking)}")
    facets = {"question_type": (row["question_type"],), "answer_type": (kind,)}
    for name in METADATA:
        value = metadata[name]
        facets[name] = tuple(value) if isinstance(value, list) else (str(value),)
    return Item(
        id=str(row["pid"]),
        prompt=row.get("query") or build_prompt(row),
        question=_question(row),
        answer=answer,
        options=choices,
        kind=kind,
        precision=None if precision is None else int(precision),
        facets=facets,
    )


def _unusable(answer: str, kind: str, choices: Sequence[str]) -> str | None:
    """Why no response could be right; all 1,000 published answers are fine."""
    if choices:
        return None if answer in choices else f"none of the {len(choices)} choices"
    try:
        if kind == "integer":
            int(answer)
        elif kind == "float":
            float(answer)
    except ValueError:
        return f"no {kind}"
    return None


def _question(row: Row) -> str:
    return f"{row['question']} (Unit: {row['unit']})" if row["unit"] else str(row["question"])


def _form(row: Row) -> str:
    if row["question_type"] == "multi_choice":
        return "and provide the correct option letter, e.g., A, B, C, D,"
    if row["answer_type"] == "integer":
        return "requiring an integer answer and provide the final value, e.g., 1, 2, 3,"
    if row["answer_type"] == "list":
        example = "[1, 2, 3], [1.2, 1.3, 1.4]"
        return f"requiring a Python list as an answer and provide the final list, e.g., {example},"
    places, example = ("one decimal place", "1.2, 1.3, 1.4")
    if row["precision"] == 2:
        places, example = ("two decimal places", "1.23, 1.34, 1.45")
    return f"requiring a floating-point number with {places} and provide the final value, e.g., {example},"


MATHVISTA = Benchmark(
    name="mathvista",
    title="MathVista testmini",
    base="mathvista",
    files=("testmini-*.parquet", "testmini.parquet", "testmini.json"),
    questions=1000,
    sections=SECTIONS,
    read=read,
    extract=extract,
    correct=correct,
    ask=ask,
    hear=hear,
    show=mathvista_text,
    fallback=fallback,
)
