"""The order of training rows: every row once, from the seed and the epoch alone."""

import random
from collections import Counter
from itertools import chain

from hypothesis import given
from hypothesis import strategies as st

from mstar.stages.backends.order import plan_epoch, rank_share

lengths = st.lists(st.integers(1, 300), min_size=1, max_size=200)


@given(lengths, st.integers(1, 20), st.integers(0, 2**63), st.integers(0, 9))
def test_an_epoch_holds_every_row_once_in_batches_of_the_size_asked(rows, size, seed, epoch):
    planned = plan_epoch(rows, size, seed=seed, epoch=epoch)
    assert sorted(chain.from_iterable(planned)) == list(range(len(rows)))
    sizes = Counter(map(len, planned))
    assert max(sizes) <= size
    assert len(planned) == -(-len(rows) // size)
    assert planned == plan_epoch(rows, size, seed=seed, epoch=epoch)


def test_another_seed_or_epoch_is_another_order():
    plans = [plan_epoch([1] * 50, 4, seed=s, epoch=e) for s in range(2) for e in range(2)]
    assert all(first != second for i, first in enumerate(plans) for second in plans[:i])


def test_rows_of_a_batch_have_similar_lengths():
    rows = [index % 97 for index in range(800)]
    spread = [
        max(rows[i] for i in b) - min(rows[i] for i in b)
        for b in plan_epoch(rows, 10, seed=0, epoch=0)
    ]
    assert sum(spread) / len(spread) < 20


def test_little_of_what_the_ranks_compute_is_padding_or_waiting_for_the_longest():
    """Lengths as images of many sizes and reasoned answers have them; eight ranks, four rows at a time."""
    rng = random.Random(0)
    rows = [
        int(min(2000, rng.lognormvariate(6, 0.6)) + rng.lognormvariate(5.2, 0.5))
        for _ in range(5120)
    ]

    def lost(batches):
        computed = 0
        for batch in batches:
            shares = [rank_share(batch, rank, 8, 4) for rank in range(8)]
            for together in zip(*shares, strict=True):
                computed += 8 * max(len(part) * max(rows[i] for i in part) for part in together)
        return 1 - sum(rows) / computed

    drawn = list(range(len(rows)))
    rng.shuffle(drawn)
    assert lost([drawn[at : at + 128] for at in range(0, len(drawn), 128)]) > 0.4
    assert lost(plan_epoch(rows, 128, seed=0, epoch=0)) < 0.08


@given(st.integers(1, 40), st.integers(1, 5), st.one_of(st.none(), st.integers(1, 8)))
def test_ranks_share_a_batch_in_equally_many_micro_batches(count, world, micro):
    shares = [rank_share(range(count), rank, world, micro) for rank in range(world)]
    assert sorted(chain.from_iterable(chain.from_iterable(shares))) == list(range(count))
    assert len({len(share) for share in shares}) == 1
    if micro is not None:
        assert all(len(part) <= micro for share in shares for part in share)
