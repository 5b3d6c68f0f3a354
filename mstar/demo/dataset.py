"""The demo's data set: Parquet files in the Hugging Face image convention.

`datasets.load_dataset("parquet", data_files=...)` opens them and shows pictures. Columns: id,
image (PNG bytes and a name), question, options (empty when free-form), answer, kind, level.
"""

from __future__ import annotations

import io
import json
import random
from typing import TYPE_CHECKING, Literal

import pyarrow as pa
import pyarrow.parquet as pq

from mstar.demo.digits import PoolName, digit_pools, render_image
from mstar.demo.questions import Question, draw_question

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

SplitName = Literal["train", "validation", "test", "unlabeled"]

SPLIT_SIZES: dict[SplitName, int] = {"train": 4800, "validation": 250, "test": 1000}

ALL_SIZES: dict[SplitName, int] = SPLIT_SIZES | {"unlabeled": 4800}
"""The same, and as many queries again for runs that mix in unlabeled ones."""

_POOLS: dict[SplitName, PoolName] = {
    "train": "train",
    "validation": "validation",
    "test": "test",
    "unlabeled": "train",
}

_TEXT = {"dtype": "string", "_type": "Value"}
_FEATURES = {
    "id": _TEXT,
    "image": {"_type": "Image"},
    "question": _TEXT,
    "options": {"feature": _TEXT, "_type": "List"},
    "answer": _TEXT,
    "kind": _TEXT,
    "level": {"dtype": "int32", "_type": "Value"},
}

SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("image", pa.struct([("bytes", pa.binary()), ("path", pa.string())])),
        ("question", pa.string()),
        ("options", pa.list_(pa.string())),
        ("answer", pa.string()),
        ("kind", pa.string()),
        ("level", pa.int32()),
    ],
    metadata={"huggingface": json.dumps({"info": {"features": _FEATURES}})},
)
"""The columns; its metadata tells the `datasets` library that `image` is to be decoded."""


def draw_split(name: SplitName, size: int, *, seed: int) -> list[Question]:
    """Draw a split's questions from its pool of digits; unlabeled ones show the digits of the training pool.

    A split depends on its name and the seed alone, and a smaller one is a prefix of a larger.
    """
    rng = random.Random(f"{seed}/{name}")
    pool = digit_pools()[_POOLS[name]]
    return [draw_question(rng, pool) for _ in range(size)]


def write_split(path: Path, name: SplitName, questions: Sequence[Question]) -> None:
    """Write one Parquet file; the same questions give the same bytes."""
    rows = [_row(f"{name}-{index:05d}", question) for index, question in enumerate(questions)]
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows, schema=SCHEMA), path, row_group_size=256)


def write_dataset(
    folder: Path, *, seed: int = 0, sizes: Mapping[SplitName, int] = SPLIT_SIZES
) -> dict[SplitName, Path]:
    """Write a Parquet file for each split in ``sizes``; return their paths by split."""
    paths: dict[SplitName, Path] = {}
    for name, size in sizes.items():
        paths[name] = folder / f"{name}.parquet"
        write_split(paths[name], name, draw_split(name, size, seed=seed))
    return paths


def _row(identifier: str, question: Question) -> dict[str, object]:
    buffer = io.BytesIO()
    render_image(question.picture).save(buffer, format="PNG", optimize=True)
    return {
        "id": identifier,
        "image": {"bytes": buffer.getvalue(), "path": f"{identifier}.png"},
        "question": question.text,
        "options": list(question.options),
        "answer": question.answer,
        "kind": question.kind,
        "level": question.level,
    }
