"""No picture is in two splits, and the counts are those asked for."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mstar.data.importing.dividing import divide
from mstar.data.importing.records import Shares
from mstar.errors import DataError


def groups(sizes):
    start = 0
    found = {}
    for number, size in enumerate(sizes):
        found[f"digest-{number}"] = list(range(start, start + size))
        start += size
    return found


@given(
    st.lists(st.integers(1, 12), min_size=30, max_size=80),
    st.integers(0, 9),
    st.integers(0, 9),
    st.floats(0.1, 1.0),
    st.integers(0, 5),
)
def test_every_row_is_somewhere_once_no_image_is_in_two_splits_and_counts_are_exact(
    sizes, test, validation, labeled, seed
):
    given_ = groups(sizes)
    splits, spare = divide(given_, Shares(labeled=labeled, test=test, validation=validation), seed)
    rows = [row for split in splits.values() for row in split] + spare
    assert sorted(rows) == list(range(sum(sizes)))
    image = {row: digest for digest, found in given_.items() for row in found}
    owners = [{image[row] for row in split} for split in splits.values()]
    assert sum(map(len, owners)) == len(set().union(*owners))
    assert len(splits.get("test", [])) == test
    assert len(splits.get("validation", [])) == validation
    wanted = min(round(sum(sizes) * labeled), sum(sizes) - test - validation)
    assert wanted - 12 - len(spare) <= len(splits["train"])
    if labeled < 1 and "unlabeled" in splits:
        assert len(splits["train"]) <= wanted + 12


def test_the_order_of_images_makes_no_difference_and_the_seed_does():
    given_ = groups([3] * 40)
    mixed = list(given_.items())
    random.Random(1).shuffle(mixed)
    shares = Shares(test=9, validation=6)
    assert divide(given_, shares, 0) == divide(dict(mixed), shares, 0)
    assert divide(given_, shares, 0) != divide(given_, shares, 1)


def test_an_image_is_cut_only_where_nothing_smaller_is_left_and_its_other_rows_are_left_over():
    splits, spare = divide(groups([4] * 10), Shares(test=6, validation=0), 0)
    assert len(splits["test"]) == 6
    assert len(spare) == 2


def test_all_labeled_makes_no_unlabeled_split():
    splits, _ = divide(groups([1] * 30), Shares(labeled=1.0, test=3, validation=3), 0)
    assert {name: len(rows) for name, rows in splits.items()} == {
        "test": 3,
        "validation": 3,
        "train": 24,
    }


@pytest.mark.parametrize("sizes", [[1] * 10, [12], [6, 6]])
def test_too_few_rows_are_refused(sizes):
    with pytest.raises(DataError, match=r"--test|train on"):
        divide(groups(sizes), Shares(test=7, validation=3), 0)
