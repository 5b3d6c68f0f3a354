import pytest
from hypothesis import given
from hypothesis import strategies as st

from mstar.core.prm_data import balance, candidate_pairs, held_out, step_labels
from mstar.core.records import Kind
from tests.core.making import groups, scored

CANDIDATES = st.lists(st.tuples(st.sampled_from(list(Kind)), st.booleans()), max_size=40).map(
    lambda drawn: [
        (scored(0, query=f"q{index}", correct=correct), kind)
        for index, (kind, correct) in enumerate(drawn)
    ]
)


@given(groups(), st.integers(1, 6), st.integers(0, 3))
def test_candidates_are_few_unlike_and_as_balanced_as_can_be(group, per_query, seed):
    chosen = candidate_pairs(group, per_query=per_query, seed=seed)
    unique = {item.response.text: item for item in sorted(group, key=lambda s: -s.response.sample)}
    right = sum(item.grade.correct for item in unique.values())
    wrong = len(unique) - right
    assert (
        len({item.response.text for item in chosen}) == len(chosen) == min(per_query, len(unique))
    )
    kept = sum(item.grade.correct for item in chosen)
    others = len(chosen) - kept
    assert abs(kept - others) <= 1 or others == wrong or kept == right
    shuffled = group[::-1]
    assert candidate_pairs(shuffled, per_query=per_query, seed=seed) == chosen


def test_an_odd_place_goes_to_either_half():
    groups = [
        [scored(0, query=f"q{n}", correct=True), scored(1, query=f"q{n}")] for n in range(200)
    ]
    right = sum(candidate_pairs(g, per_query=1, seed=0)[0].grade.correct for g in groups)
    assert 70 < right < 130


@given(CANDIDATES, st.integers(4, 24), st.integers(0, 3))
def test_balanced_data_has_the_same_number_of_each_kind(candidates, limit, seed):
    chosen = balance(candidates, limit=limit, seed=seed)
    kinds = {item.response.query_id: kind for item, kind in candidates}
    present = set(kinds.values())
    pool = [(kind, item.grade.correct) for item, kind in candidates]
    sizes = [pool.count((kind, correct)) for kind in present for correct in (True, False)]
    found = [(kinds[item.response.query_id], item.grade.correct) for item in chosen]
    expected = min([*sizes, limit // len(sizes)]) if sizes else 0
    for kind in present:
        assert found.count((kind, True)) == found.count((kind, False)) == expected
    assert len(chosen) == expected * len(sizes) <= limit


@given(CANDIDATES, st.integers(4, 24), st.randoms(use_true_random=False))
def test_the_balanced_choice_does_not_depend_on_order(candidates, limit, shuffler):
    shuffled = list(candidates)
    shuffler.shuffle(shuffled)
    one, other = (balance(order, limit=limit, seed=1) for order in (candidates, shuffled))
    assert {item.response.query_id for item in one} == {item.response.query_id for item in other}
    positions = [next(i for i, (c, _) in enumerate(candidates) if c is item) for item in one]
    assert positions == sorted(positions)


def test_a_limit_below_one_of_each_kind_is_refused():
    with pytest.raises(ValueError, match="at least 4"):
        balance([], limit=3, seed=0)


def test_a_steps_label_is_the_share_of_its_completions_that_are_right():
    assert step_labels([(8, 8), (4, 8), (0, 8)], final_correct=False) == (1.0, 0.5, 0.0, 0.0)
    assert step_labels([], final_correct=True) == (1.0,)


@pytest.mark.parametrize("counts", [(0, 0), (9, 8), (-1, 8)])
def test_a_step_without_usable_completions_is_refused(counts):
    with pytest.raises(ValueError, match="no label"):
        step_labels([counts], final_correct=True)


def test_about_the_asked_share_of_questions_is_held_out():
    ids = [f"q{number}" for number in range(2000)]
    out = {query for query in ids if held_out(query, seed=1, share=0.1)}
    assert 150 < len(out) < 250
    assert out <= {query for query in ids if held_out(query, seed=1, share=0.2)}
    assert not any(held_out(query, seed=1, share=0) for query in ids)
