"""M3CoT test: 2,318 multi-step questions over science, common sense and mathematics.

Officially, of what follows ``[Answer]`` (else of the whole response): the last ``(X)``; else the last option whose text
occurs; else the last option whose bare capital letter occurs as a word; else the same in lower case. "Last" is, but for
``(X)``, in the options' order. A marked final answer is read before all that.
"""

import re
from collections.abc import Iterator
from pathlib import Path

from mstar.benchmarks.finals import final_answer, named_option
from mstar.benchmarks.official import m3cot_text
from mstar.benchmarks.options import ask_for_choice, choice_is_right, hear_choice
from mstar.benchmarks.records import Asked, Benchmark, Item
from mstar.benchmarks.tables import Row, picture, picture_file, read_json, read_parquet
from mstar.core.answers import LETTERS
from mstar.errors import DataError

COLUMNS = ("id", "question", "choices", "context", "answer", "image", "domain", "topic")
STEP_BY_STEP = "\n\nLet's think step-by-step!"

_LETTER = re.compile(r"\(([A-Za-z])\)")
_NEXT = re.compile(r"\[Rationale\]|\[Context\]")
_MARKS = re.compile(r"[\n.,!?]")


def read(file: Path) -> Iterator[Asked]:
    """Questions of ``test-*.parquet`` (images inside) or ``test.jsonl`` (beside its ``images`` folder)."""
    if file.suffix == ".parquet":
        for row in read_parquet(file, COLUMNS):
            owner = f"{file}, id {row['id']}"
            yield Asked(item=_item(row, owner), image=picture(row, "image", owner))
    else:
        for row in read_json(file, COLUMNS):
            owner = f"{file}, id {row['id']}"
            yield Asked(item=_item(row, owner), image=picture_file(file, row["image"], owner))


def build_prompt(row: Row) -> str:
    """The authors' chain-of-thought prompt: context, question, lettered choices, and to think step by step."""
    context = f"[Context]\n{row['context']}\n\n" if row["context"] else ""
    choices = "\n".join(f"({x}) {text}" for x, text in zip(LETTERS, row["choices"], strict=False))
    return f"{context}[Question]\n{row['question']}\n[Choices]\n{choices}{STEP_BY_STEP}"


def extract(item: Item, response: str) -> str | None:
    """The letter that a response chooses."""
    final = final_answer(response) if "[Answer]" not in response else None
    letter = named_option(final, item.options) if final is not None else None
    return letter or official(item, response)


def official(item: Item, text: str) -> str | None:
    """The authors' rule, on a text of any length."""
    if "[Answer]" in text:
        text = _NEXT.split(text.rpartition("[Answer]")[2], maxsplit=1)[0]
    if found := _LETTER.findall(text):
        return str(found[-1]).upper()
    lower = text.lower()
    named = [x for x, option in zip(LETTERS, item.options, strict=False) if option.lower() in lower]
    words = _MARKS.sub(" ", text).split(" ")
    named = named or [x for x in item.letters if x in words]
    named = named or [x for x in item.letters if x.lower() in words]
    return named[-1] if named else None


def _item(row: Row, owner: str) -> Item:
    options = tuple(map(str, row["choices"] or ()))
    answer = str(row["answer"])
    if not answer or answer not in LETTERS[: len(options)]:
        raise DataError(
            f"{owner}: answer {answer!r} is the letter of none of {len(options)} choices"
        )
    return Item(
        id=str(row["id"]),
        prompt=build_prompt(row),
        question=f"{row['context']}\n{row['question']}" if row["context"] else row["question"],
        answer=answer,
        options=options,
        facets={"domain": (row["domain"],), "topic": (f"{row['domain']}/{row['topic']}",)},
    )


M3COT = Benchmark(
    name="m3cot",
    title="M3CoT test",
    base="m3cot",
    files=("test-*.parquet", "test.parquet", "test.jsonl"),
    questions=2318,
    sections=("domain", "topic"),
    read=read,
    extract=extract,
    correct=choice_is_right,
    ask=ask_for_choice,
    hear=hear_choice,
    show=m3cot_text,
)
