from hypothesis import given
from hypothesis import strategies as st

from mstar.core.seeds import derive_seed, unit

PARTS = st.lists(st.text() | st.integers(), max_size=4)


@given(PARTS)
def test_a_seed_is_the_same_every_time_and_in_range(parts):
    assert derive_seed(*parts) == derive_seed(*parts)
    assert 0 <= derive_seed(*parts) < 2**63
    assert 0 <= unit(*parts) < 1


@given(PARTS, PARTS)
def test_different_parts_give_different_seeds(left, right):
    assert (derive_seed(*left) == derive_seed(*right)) == (left == right)


def test_seeds_never_change_between_versions():
    assert derive_seed() == 8238016292129134938
    assert derive_seed(0, "warm-up/generate", "train-17", 3) == 6513717615625969563
    assert unit(1, "limit") == 0.32158563504836546


def test_parts_are_told_apart_by_length_and_type():
    seeds = {
        derive_seed("ab", "c"),
        derive_seed("a", "bc"),
        derive_seed("abc"),
        derive_seed(1),
        derive_seed("1"),
        derive_seed(1, ""),
        derive_seed("", 1),
    }
    assert len(seeds) == 7


def test_an_enormous_integer_and_broken_text_have_seeds():
    assert derive_seed(10**5000, "\ud800") != derive_seed(-(10**5000), "\ud800")


def test_units_are_spread_evenly():
    values = [unit("spread", index) for index in range(4000)]
    for tenth in range(10):
        assert 320 < sum(tenth / 10 <= value < (tenth + 1) / 10 for value in values) < 480
