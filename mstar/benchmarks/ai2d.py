"""AI2D test, with the labels in the diagrams masked and without: two sets that are never mixed.

Published as ``AI2D_TEST.tsv`` and ``AI2D_TEST_NO_MASK.tsv``, and as Parquet with the answer's place among the options.
"""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from mstar.benchmarks.harness import choice_item
from mstar.benchmarks.official import harness_text
from mstar.benchmarks.options import ask_for_choice, choice_is_right, hear_choice, read_choice
from mstar.benchmarks.records import Asked, Benchmark
from mstar.benchmarks.tables import TsvImages, picture, read_parquet, read_tsv, tsv_options
from mstar.core.answers import LETTERS
from mstar.errors import DataError

COLUMNS = ("index", "question", "A", "B", "answer", "image")
PARQUET_COLUMNS = ("question", "options", "answer", "image")


def read(file: Path) -> Iterator[Asked]:
    """Questions of the TSV file, or of ``test-*.parquet``, whose rows are numbered from 0."""
    if file.suffix == ".parquet":
        for index, row in enumerate(read_parquet(file, PARQUET_COLUMNS)):
            owner = f"{file}, row {index}"
            options = tuple(map(str, row["options"] or ()))
            place = str(row["answer"])
            if not place.isdecimal() or int(place) >= len(options):
                raise DataError(
                    f"{owner}: answer {place!r} is no place among {len(options)} options, counted from 0"
                )
            lettered = row | {"index": index, "answer": LETTERS[int(place)]}
            item = choice_item(lettered, options, {}, owner)
            yield Asked(item=item, image=picture(row, "image", owner))
        return
    images = TsvImages(file)
    for row in read_tsv(file, COLUMNS):
        owner = f"{file}, index {row['index']}"
        facets = {"category": (row["category"],)} if "category" in row else {}
        item = choice_item(row, tsv_options(row, LETTERS), facets, owner)
        yield Asked(item=item, image=images.of(row))


AI2D = Benchmark(
    name="ai2d",
    title="AI2D test (masked)",
    base="ai2d",
    files=("AI2D_TEST.tsv", "test-*.parquet", "test.parquet"),
    questions=3088,
    sections=("category",),
    read=read,
    extract=read_choice,
    correct=choice_is_right,
    ask=ask_for_choice,
    hear=hear_choice,
    show=harness_text,
)
AI2D_NO_MASK = replace(
    AI2D,
    name="ai2d-no-mask",
    title="AI2D test (no mask)",
    base="ai2d-no-mask",
    files=("AI2D_TEST_NO_MASK.tsv", "test-*.parquet", "test.parquet"),
)
