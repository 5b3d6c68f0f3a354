"""MMStar: 1,500 questions that need their image. MMStar-R leaves out the two perception categories.

The authors' rule looks at how a response begins: the letter, ``(`` and the letter, ``option `` and the letter, or
``the answer is `` and the letter, in any case; so "a dog" begins with an A. A marked final answer that is an option's
letter or text is read before that. Authors and VLMEvalKit average over questions, lmms-eval over the 18 subcategories:
both are told.
"""

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from mstar.benchmarks.finals import final_answer, named_option
from mstar.benchmarks.harness import choice_item
from mstar.benchmarks.official import mmstar_text
from mstar.benchmarks.options import ask_for_choice, choice_is_right, hear_choice
from mstar.benchmarks.records import Asked, Benchmark, Item
from mstar.benchmarks.tables import Row, TsvImages, picture, read_parquet, read_tsv, tsv_options
from mstar.core.answers import LETTERS
from mstar.errors import DataError

COLUMNS = ("index", "question", "image", "answer", "category", "l2_category")
PERCEPTION = ("coarse perception", "fine-grained perception")
BEGINNINGS = ("option ", "the answer is ")
FOUR = "ABCD"

_OPTIONS = re.compile(r"^(.*?)\s*\bOptions:\s*(A: .*)$", re.DOTALL)
_OPTION = re.compile(r"(?:^|,\s*|\n\s*)([A-H]): ")


def read(file: Path) -> Iterator[Asked]:
    """Questions of ``mmstar.parquet`` (options in the question's text) or ``MMStar.tsv`` (options in columns)."""
    if file.suffix == ".parquet":
        for row in read_parquet(file, COLUMNS):
            owner = f"{file}, index {row['index']}"
            yield Asked(item=_item(row, owner), image=picture(row, "image", owner))
        return
    images = TsvImages(file)
    for row in read_tsv(file, COLUMNS):
        yield Asked(item=_item(row, f"{file}, index {row['index']}"), image=images.of(row))


def split_options(question: str) -> tuple[str, tuple[str, ...]]:
    """A question and the options at its end (``Options: A: ..., B: ...``), or the whole and no options."""
    found = _OPTIONS.match(question)
    pieces = _OPTION.split(found[2])[1:] if found else []
    letters, texts = "".join(pieces[::2]), [text.strip() for text in pieces[1::2]]
    if found is None or not letters or not LETTERS.startswith(letters):
        return question, ()
    return found[1], tuple(text.rstrip(",") for text in texts)


def extract(item: Item, response: str) -> str | None:
    """The letter that a response chooses."""
    final = final_answer(response)
    letter = named_option(final, item.options) if final is not None else None
    return letter or official(response)


def official(response: str) -> str | None:
    """The authors' rule: the letter that a response begins with, in one of four ways."""
    text = response.lower().strip().replace("\n", " ")
    for beginning in BEGINNINGS:
        if text.startswith(beginning):
            text = text.removeprefix(beginning)
            break
    else:
        text = text.removeprefix("(")
    letter = text[:1].upper()
    return letter if letter and letter in FOUR else None


def is_reasoning(item: Item) -> bool:
    """Whether a question belongs to MMStar-R."""
    return item.facets["category"][0] not in PERCEPTION


def _item(row: Row, owner: str) -> Item:
    options = tsv_options(row, LETTERS)
    question = str(row["question"])
    if not options:
        question, options = split_options(question)
    if not options:
        raise DataError(
            f"{owner}: no options, neither in columns A, B, ... nor at the question's end as "
            "'Options: A: ..., B: ...'"
        )
    category, finer = str(row["category"]), str(row["l2_category"])
    facets = {"category": (category,), "l2_category": (f"{category}({finer})",)}
    return choice_item(row | {"question": question}, options, facets, owner)


MMSTAR = Benchmark(
    name="mmstar",
    title="MMStar val",
    base="mmstar",
    files=("mmstar.parquet", "MMStar.tsv", "val-*.parquet"),
    questions=1500,
    sections=("category", "l2_category"),
    read=read,
    extract=extract,
    correct=choice_is_right,
    ask=ask_for_choice,
    hear=hear_choice,
    show=mmstar_text,
    average_over="l2_category",
)
MMSTAR_R = replace(MMSTAR, name="mmstar-r", title="MMStar-R val", questions=1000, keep=is_reasoning)
