"""A plan says which pods would be evicted for what they write."""

import pytest

from mstar.estimate.scratch import quantity_bytes
from tests.estimate.making import planned


def warned(**changes):
    return [line for line in planned(**changes).warnings if "scratch" in line]


@pytest.mark.parametrize(
    ("quantity", "size"),
    [
        ("20Gi", 20 * 2**30),
        ("1.5T", 1.5e12),
        ("256Mi", 2**28),
        ("1e9", 1e9),
        ("500k", 5e5),
        ("7", 7),
    ],
)
def test_a_quantity_is_read_as_kubernetes_reads_it(quantity, size):
    assert quantity_bytes(quantity) == size


def test_training_needs_room_for_the_checkpoint_it_goes_on_from_and_the_one_it_writes():
    # 1e9 parameters: 2 GB in bfloat16, and 8 GB of AdamW's moments in float32; both twice.
    (line,) = warned(spec={"cluster": {"stages": {"train": {"scratch": "19G"}}}})
    assert line.startswith("pods of train write up to 20 GB")
    assert "cluster.stages.train.scratch is 19G" in line
    assert not warned(spec={"cluster": {"stages": {"train": {"scratch": "21G"}}}})


def test_a_model_that_is_only_read_is_fetched_once():
    (line,) = warned(spec={"cluster": {"stages": {"generate": {"scratch": "1G"}}}})
    assert line.startswith("pods of generate write up to 2 GB")


def test_one_machine_has_no_scratch_of_its_own():
    assert not warned(spec={"cluster": {"stages": {"train": {"scratch": "1G"}}}}, local=True)
