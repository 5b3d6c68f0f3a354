"""MMBench dev v1.1, circular: each question is asked with its options in every rotation, and all must be right.

Rotations of a question share ``index % 1,000,000``; the one whose index is that number is the question itself, and its
categories are the question's. The vanilla score, of unrotated questions alone, is told beside. MMBench-R keeps the
three reasoning abilities.
"""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from mstar.benchmarks.harness import choice_item
from mstar.benchmarks.official import harness_text
from mstar.benchmarks.options import ask_for_choice, choice_is_right, hear_choice, read_choice
from mstar.benchmarks.records import Asked, Benchmark, Item
from mstar.benchmarks.tables import TsvImages, read_tsv, tsv_options
from mstar.core.answers import LETTERS
from mstar.errors import DataError

ROTATION = 1_000_000
COLUMNS = ("index", "question", "A", "B", "answer", "image", "category", "l2-category")
ABILITIES = {
    "coarse_perception": "CP",
    "finegrained_perception (instance-level)": "FP-S",
    "finegrained_perception (cross-instance)": "FP-C",
    "logic_reasoning": "LR",
    "relation_reasoning": "RR",
    "attribute_reasoning": "AR",
}
REASONING = ("LR", "RR", "AR")


def read(file: Path) -> Iterator[Asked]:
    """Questions of ``MMBench_DEV_EN_V11.tsv``, every rotation a question of its own."""
    images = TsvImages(file)
    for row in read_tsv(file, COLUMNS):
        owner = f"{file}, index {row['index']}"
        try:
            group = int(row["index"]) % ROTATION
        except ValueError:
            raise DataError(f"{owner}: the index is no whole number") from None
        ability = row["l2-category"]
        facets = {
            "l2-category": (ABILITIES.get(ability, ability),),
            "category": (row["category"],),
        }
        item = choice_item(row, tsv_options(row, LETTERS), facets, owner)
        yield Asked(item=replace(item, group=str(group)), image=images.of(row))


def is_reasoning(item: Item) -> bool:
    """Whether a question belongs to MMBench-R."""
    return item.facets["l2-category"][0] in REASONING


MMBENCH = Benchmark(
    name="mmbench",
    title="MMBench dev v1.1 (circular)",
    base="mmbench",
    files=("MMBench_DEV_EN_V11.tsv",),
    questions=0,
    sections=("l2-category", "category"),
    read=read,
    extract=read_choice,
    correct=choice_is_right,
    ask=ask_for_choice,
    hear=hear_choice,
    show=harness_text,
    circular=True,
)
MMBENCH_R = replace(
    MMBENCH, name="mmbench-r", title="MMBench-R dev v1.1 (circular)", keep=is_reasoning
)
