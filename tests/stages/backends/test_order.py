"""The order of training rows: every row once, from the seed and the epoch alone."""

import random
from collections import Counter
from itertools import accumulate, chain, pairwise

from hypothesis import given
from hypothesis import strategies as st

from mstar.stages.backends.order import (
    pack,
    plan_epoch,
    rank_shares,
    together,
    worth_sharing,
)

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


@given(lengths, st.integers(1, 20), st.integers(0, 99), st.integers(1, 9))
def test_by_query_rows_of_one_prompt_lie_side_by_side(rows, size, seed, queries):
    prompts = [index % queries for index in range(len(rows))]
    planned = plan_epoch(rows, size, seed=seed, epoch=0, prompts=prompts)
    assert sorted(chain.from_iterable(planned)) == list(range(len(rows)))
    assert max(map(len, planned)) <= size
    for prompt in range(queries):
        asked = prompts.count(prompt)
        batches = sum(any(prompts[row] == prompt for row in batch) for batch in planned)
        # Cut where a stretch that is sorted together ends, and then at the ends of batches.
        stretches = asked // (8 * size) + 2
        assert batches <= asked // size + 2 * stretches


def test_prompts_that_are_all_different_change_no_order():
    rows = [index * 7 % 13 for index in range(60)]
    plain = plan_epoch(rows, 4, seed=1, epoch=2)
    assert plain == plan_epoch(rows, 4, seed=1, epoch=2, prompts=list(range(60)))


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
            shares = rank_shares([[row] for row in batch], 8, 4)
            for side_by_side in zip(*shares, strict=True):
                computed += 8 * max(len(part) * max(rows[i] for i in part) for part in side_by_side)
        return 1 - sum(rows) / computed

    drawn = list(range(len(rows)))
    rng.shuffle(drawn)
    assert lost([drawn[at : at + 128] for at in range(0, len(drawn), 128)]) > 0.4
    assert lost(plan_epoch(rows, 128, seed=0, epoch=0)) < 0.08


@given(
    st.lists(st.integers(1, 6), min_size=1, max_size=30),
    st.integers(1, 5),
    st.one_of(st.none(), st.integers(1, 8)),
)
def test_ranks_share_a_batch_in_equally_many_micro_batches(sizes, world, micro):
    ends = list(accumulate(sizes, initial=0))
    groups = [list(range(start, end)) for start, end in pairwise(ends)]
    shares = rank_shares(groups, world, micro)
    assert len(shares) == world
    assert sorted(chain.from_iterable(chain.from_iterable(shares))) == list(range(sum(sizes)))
    assert len({len(share) for share in shares}) == 1
    if micro is not None:
        assert all(len(part) <= micro for share in shares for part in share)


def test_rows_of_different_prompts_are_dealt_to_the_ranks_in_turn():
    """As they always were: what is trained without a shared prompt keeps its bytes."""
    assert rank_shares([[row] for row in range(7)], 2, 2) == [[[0, 2], [4, 6]], [[1, 3], [5]]]
    assert rank_shares([[0]], 2, None) == [[[0]], [[]]]


def test_places_of_one_prompt_come_together_in_the_order_of_the_first():
    assert together(["b", "a", "b", "c", "a"]) == [[0, 2], [1, 4], [3]]


@given(st.lists(st.lists(st.integers(), min_size=1, max_size=9), max_size=20), st.integers(1, 6))
def test_a_group_is_cut_only_where_no_batch_could_hold_it(groups, size):
    packed = pack(groups, size)
    assert list(chain.from_iterable(packed)) == list(chain.from_iterable(groups))
    assert all(0 < len(batch) <= size for batch in packed)
    named = [[(number, item) for item in group] for number, group in enumerate(groups)]
    holding = Counter(
        number for batch in pack(named, size) for number in {number for number, _ in batch}
    )
    assert all(count == -(-len(groups[number]) // size) for number, count in holding.items())


def test_sharing_is_worth_it_when_prompts_are_long_and_repeat_within_a_micro_batch():
    prompts, lengths, answers = ["a"] * 4 + ["b"] * 4, [300] * 8, [100] * 8
    assert worth_sharing([range(8)], prompts, lengths, answers)
    assert worth_sharing([range(4), range(4, 8)], prompts, lengths, answers)
    assert not worth_sharing([[row] for row in range(8)], prompts, lengths, answers)
    assert not worth_sharing([range(8)], list(range(8)), lengths, answers)
    assert not worth_sharing([range(8)], prompts, [20] * 8, answers)
