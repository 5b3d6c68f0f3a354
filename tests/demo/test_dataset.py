"""The data set on disk: deterministic bytes that the `datasets` library shows as pictures."""

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from datasets import load_dataset

from mstar.demo.dataset import (
    ALL_SIZES,
    SPLIT_SIZES,
    SplitName,
    draw_split,
    write_dataset,
)
from mstar.demo.digits import digit_pools, render_pixels

SMALL: dict[SplitName, int] = {"train": 12, "validation": 6, "test": 8}


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> dict[SplitName, Path]:
    return write_dataset(tmp_path_factory.mktemp("data"), seed=3, sizes=SMALL)


def test_datasets_opens_it_and_decodes_the_pictures(
    paths: dict[SplitName, Path], tmp_path: Path
) -> None:
    files = {name: str(path) for name, path in paths.items()}
    data = load_dataset("parquet", data_files=files, cache_dir=str(tmp_path))
    assert {name: len(split) for name, split in data.items()} == SMALL
    for row, question in zip(data["test"], draw_split("test", 8, seed=3), strict=True):
        assert np.array_equal(np.asarray(row["image"])[..., 0], render_pixels(question.picture))
        assert row["question"] == question.text
        assert row["options"] == list(question.options)
        assert row["answer"] == question.answer
        assert row["kind"] == question.kind
        assert row["level"] == question.level


def test_the_same_seed_gives_the_same_bytes(paths: dict[SplitName, Path], tmp_path: Path) -> None:
    again = write_dataset(tmp_path, seed=3, sizes=SMALL)
    assert all(paths[name].read_bytes() == again[name].read_bytes() for name in SMALL)


def test_unlabeled_questions_come_only_when_asked_for_and_change_no_other_split(
    paths: dict[SplitName, Path], tmp_path: Path
) -> None:
    assert "unlabeled" not in SPLIT_SIZES
    more = write_dataset(tmp_path, seed=3, sizes=SMALL | {"unlabeled": 12})
    assert all(paths[name].read_bytes() == more[name].read_bytes() for name in SMALL)
    rows = pq.read_table(more["unlabeled"]).to_pylist()
    assert [row["id"] for row in rows] == [f"unlabeled-{index:05d}" for index in range(12)]


def test_unlabeled_questions_are_others_than_the_labeled_ones() -> None:
    labeled, unlabeled = (
        {(q.text, q.picture) for q in draw_split(name, 500, seed=0)}
        for name in ("train", "unlabeled")
    )
    assert not labeled & unlabeled


def test_another_seed_gives_other_questions() -> None:
    assert draw_split("test", 8, seed=3) != draw_split("test", 8, seed=4)


def test_a_small_split_is_the_beginning_of_a_large_one() -> None:
    assert draw_split("train", 5, seed=0) == draw_split("train", 9, seed=0)[:5]


def test_ids_are_unique_and_images_carry_their_names(paths: dict[SplitName, Path]) -> None:
    rows = pq.read_table(paths["train"]).to_pylist()
    assert len({row["id"] for row in rows}) == SMALL["train"]
    assert all(row["image"]["path"] == f"{row['id']}.png" for row in rows)


def test_splits_share_no_handwritten_digit() -> None:
    pools = digit_pools()
    for name in ALL_SIZES:
        used = {source for q in draw_split(name, 50, seed=0) for source in q.picture.sources}
        assert used <= set(pools["train" if name == "unlabeled" else name])
